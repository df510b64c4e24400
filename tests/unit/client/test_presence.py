"""Presence in the SDK, against a broker that says what the test wants, in the order that the test wants."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.client import Member, PresenceWatch, RequestFailed
from fanwire.protocol import Lost, Ok, Presence, PresenceEvent
from tests.unit.client.scripted_peer import PeerConnection, ScriptedPeer, connected


def _row(name: str) -> list[str]:
    return ["rooms.a", f"session of {name}", name, f"client {name}"]


def _event(change: str, name: str, route: int = 1) -> PresenceEvent:
    return PresenceEvent(route, "rooms.a", change, f"session of {name}", name, f"client {name}")


async def _page(end: PeerConnection, *names: str, more: int | None = None, after: int | None = None) -> Ok:
    """The answer to the request that must come next."""
    asked = await end.expect(Presence)
    assert (asked.pattern, asked.after) == ("rooms.*", after)
    return Ok(asked.id, {"members": [_row(name) for name in names], "next": more, "grace": 5.0})


async def _given(watch: PresenceWatch) -> list[tuple[str | None, bool]]:
    """All that comes without waiting."""
    await wait_all_tasks_blocked()
    given: list[tuple[str | None, bool]] = []
    with trio.move_on_after(0.1):
        async for member, present in watch:
            given.append((member.name, present))
    return given


async def test_pages_and_events_are_folded_in_the_order_in_which_they_come(
    peer: ScriptedPeer, autojump_clock: MockClock
) -> None:
    """Also those that come in one read: who leaves behind a page that has them is gone."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.watch_presence("rooms.*") as watch:
            first = await _page(end, "stays", "goes", more=7)
            await end.send(_event("join", "early"), first, _event("leave", "goes"), _event("join", "late"))
            await end.send(await _page(end, "other", "late", after=7))

            assert await _given(watch) == [("early", True), ("stays", True), ("late", True), ("other", True)]


async def test_a_loss_makes_it_list_anew(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """What an older list still brings counts for nothing; who is missing has the grace to come back."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.watch_presence("rooms.*") as watch:
            await end.send(await _page(end, "stays", "goes", "back"))
            assert len(await _given(watch)) == 3
            await end.send(Lost(1, None, "presence", None))
            old = await _page(end, "wrong")
            await end.send(Lost(1, None, "presence", None), old)
            await end.send(await _page(end, "stays", "new"))
            assert await _given(watch) == [("new", True)]
            await trio.sleep(4)
            await end.send(_event("join", "back"))
            assert await _given(watch) == []
            await trio.sleep(2)
            assert await _given(watch) == [("goes", False)]


async def test_who_changes_back_is_not_mentioned(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """While the handler is busy; and what was said already is not said again."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.watch_presence("rooms.*") as watch:
            await end.send(await _page(end, "a"), _event("join", "a"), _event("join", "b"), _event("leave", "b"))
            assert await _given(watch) == [("a", True)]
            await end.send(_event("leave", "a"), _event("join", "a"), _event("leave", "b"))
            assert await _given(watch) == []


async def test_a_member_is_equal_to_itself_with_another_session(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """So it can be taken out of a set; without the last element its session is what it is known by."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.watch_presence("rooms.*") as watch:
            await end.send(await _page(end, "a"), PresenceEvent(1, "rooms.b", "join", "s2", None))
            there = {(await anext(watch))[0], (await anext(watch))[0]}
            await end.send(PresenceEvent(1, "rooms.a", "leave", "another", None, "client a"))
            member, present = await anext(watch)

            assert not present
            assert there - {member} == {Member("rooms.b", "s2", None, "s2")}


async def test_a_list_that_is_none_ends_the_connection(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Like all that is not in the protocol."""
    for wrong in (
        {},
        {"members": [["rooms.a", "s"]]},
        {"members": [[1, "s", None, "c"]]},
        {"members": [], "next": "x"},
    ):
        async with connected(peer) as (client, end):
            peer.nursery.start_soon(end.grant, 1)
            async with client.watch_presence("rooms.*"):
                asked = await end.expect(Presence)
                await end.send(Ok(asked.id, wrong))
                assert await end.close_code() == 1002


async def test_more_members_than_a_watch_remembers_end_it(
    peer: ScriptedPeer, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory has a bound, whatever a broker says."""
    monkeypatch.setattr("fanwire.client.following.presence.MAX_MEMBERS", 2)
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        peer.nursery.start_soon(_answer_unsubscribe, end)
        async with client.watch_presence("rooms.*") as watch:
            with pytest.raises(RequestFailed, match="more than 2 members") as caught:
                async for _ in watch:
                    pass
    assert caught.value.code == "too_many"


async def _answer_unsubscribe(end: PeerConnection) -> None:
    await trio.sleep(0.1)
    await end.send(_event("join", "a"), _event("join", "b"), _event("join", "c"), _event("join", "d"))


async def test_without_a_connection_nobody_is_said_to_have_gone(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Though somebody was missing in the last list: the next one says more."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.watch_presence("rooms.*") as watch:
            await end.send(await _page(end, "a"))
            assert await _given(watch) == [("a", True)]
            await end.send(Lost(1, None, "presence", None))
            await end.send(await _page(end))
            await wait_all_tasks_blocked()
            peer.unreachable = True
            await end.cut()
            await trio.sleep(20)
            assert await _given(watch) == []
            peer.unreachable = False
            again = await peer.accept()
            await again.grant(1)
            await again.send(await _page(again, "a"))
            assert await _given(watch) == []
