"""Silence in the SDK: what the broker tells of it, and what the client's own clock does when the connection is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.client import Client, Message, Stale, StaleTopic, Subscription
from fanwire.client.subscribing.marks import KINDS_A_PLACE
from fanwire.protocol import LocalProtocolError, Lost, Quiet, Subscribe
from tests.unit.client.scripted_peer import PeerConnection, ScriptedPeer, connected, message


def _shown(entry: object) -> object:
    """A message as its number, silence as its topic and seconds, with a mark where the client found it itself."""
    if isinstance(entry, Stale):
        return (entry.topic, round(entry.silent_s, 3), entry.offset) if entry.connected else ("?", entry.topic)
    return entry.data if isinstance(entry, Message) else entry


async def _waiting(subscription: Subscription) -> list[object]:
    """All that waits."""
    await wait_all_tasks_blocked()
    return [_shown(entry) for entry in await anext(subscription.batches())] if subscription._buffer else []


async def _speak(end: PeerConnection) -> None:
    while True:
        await end.websocket.ping()
        await trio.sleep(1)


@asynccontextmanager
async def speaking(end: PeerConnection) -> AsyncIterator[None]:
    """The peer shows that it lives, while the body runs."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_speak, end)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("on_full", ["disconnect", "drop_oldest", "drop_newest", "conflate"])
async def test_silence_stands_in_its_place(peer: ScriptedPeer, autojump_clock: MockClock, on_full: str) -> None:
    """Among messages and losses; adjoining ones of a topic are one, the latest."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a.*", heartbeat_s=5, report_loss=True, on_full=on_full) as subscription:  # type: ignore[arg-type]
            await end.send(message(1, 1, "a.x"), Quiet(1, "a.y", 5000, 3), Quiet(1, "a.x", 5000, 0))
            await end.send(Quiet(1, "a.y", 10_000, 3), Lost(1, 2, "queue", "a.z"), message(1, 2, "a.z"))
            await end.send(Quiet(1, "a.y", 15_000, 3))
            got = await _waiting(subscription)

            assert [each for each in got if not repr(each).startswith("Lost")] == [
                1, ("a.y", 10.0, 3), ("a.x", 5.0, 0), 2, ("a.y", 15.0, 3),
            ]  # fmt: skip
            assert len(got) == 6


async def test_it_is_asked_for(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """As an option of the SUBSCRIBE; what the broker grants is known."""
    asked: list[Subscribe] = []
    async with connected(peer) as (client, end):

        async def grant() -> None:
            asked.append(await end.grant(1, heartbeat=0.1))

        peer.nursery.start_soon(grant)
        async with client.subscribe("a", heartbeat_s=0.01) as subscription:
            assert asked[0].options.heartbeat == 0.01
            assert subscription.granted is not None
            assert subscription.granted.heartbeat_s == 0.1


async def test_the_clock_is_not_driven_mad(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """By a tiny heartbeat that a broker lets pass."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", heartbeat_s=1e-300) as subscription:
            await trio.sleep(1)

            assert len(await _waiting(subscription)) == 1


async def test_wrong_wishes(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Are refused at once."""
    async with connected(peer) as (client, _):
        with pytest.raises(LocalProtocolError, match="heartbeat"):
            client.subscribe("a", heartbeat_s=0)
        with pytest.raises(ValueError, match="on_stale is 'ring'"):
            client.subscribe("a", heartbeat_s=1, on_stale="ring")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="on_stale='raise' needs heartbeat_s"):
            client.subscribe("a", on_stale="raise")


async def test_a_handler_that_waits_is_told_at_once(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """The next message may never come."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", heartbeat_s=5) as subscription:
            peer.nursery.start_soon(end.send, Quiet(1, "a", 5000, 0))

            with trio.fail_after(1):
                assert _shown(await anext(subscription)) == ("a", 5.0, 0)
            assert (subscription.waiting, subscription.lost, subscription.gaps) == (0, 0, 0)


async def test_raise_ends_the_subscription_behind_what_waits(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """What came before can be taken; the others of the client live on."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", heartbeat_s=5, on_stale="raise") as subscription:
            peer.nursery.start_soon(end.grant, 2)
            async with client.subscribe("b") as other:
                await end.send(message(1, 1), Quiet(1, "a", 5000, 7), message(1, 2), message(2, 3))
                await wait_all_tasks_blocked()

                assert _shown(await anext(subscription)) == 1
                with pytest.raises(StaleTopic, match=r"nothing was published on 'a' for 5\.000 s") as caught:
                    await anext(subscription)
                assert _shown(caught.value.stale) == ("a", 5.0, 7)
                assert _shown(await anext(other)) == 3


async def test_a_newer_message_stands_behind_the_silence_when_conflating(
    peer: ScriptedPeer, autojump_clock: MockClock
) -> None:
    """Else a row that is alive would look silent."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a.*", heartbeat_s=5, on_full="conflate") as subscription:
            await end.send(message(1, 1, "a.x"), message(1, 2, "a.y"), Quiet(1, "a.x", 5000, 0), message(1, 3, "a.x"))
            assert await _waiting(subscription) == [2, ("a.x", 5.0, 0), 3]
            await end.send(message(1, 4, "a.x"), message(1, 5, "a.y"), message(1, 6, "a.x"))

            assert await _waiting(subscription) == [6, 5]


async def test_very_many_silent_topics_are_told_together(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """A handler that does not take them must not fill the memory."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a.*", heartbeat_s=5) as subscription:
            await end.send(*[Quiet(1, f"a.{number}", 5000, 1) for number in range(KINDS_A_PLACE + 50)])
            got = await _waiting(subscription)

            assert len(got) == KINDS_A_PLACE + 1
            assert got[-1] == (None, 5.0, 0)


# --------------------------------------------------------- the connection is silent


async def test_the_clients_own_clock_goes_on_when_the_connection_is_away(
    peer: ScriptedPeer, autojump_clock: MockClock
) -> None:
    """From the moment at which it went, again and again, until the next one stands."""
    async with connected(peer, ping_interval_s=1000) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", heartbeat_s=5) as exact:
            peer.nursery.start_soon(end.grant, 2)
            async with client.subscribe("b.*", heartbeat_s=7) as wild:
                async with speaking(end):
                    await trio.sleep(23)
                peer.unreachable = True
                lost_at = trio.current_time()
                await end.cut()
                for number in (1, 2):
                    stale = await anext(exact)
                    assert isinstance(stale, Stale)
                    assert (stale.topic, stale.pattern, stale.connected) == ("a", "a", False)
                    assert stale.silent_s == pytest.approx(5 * number, abs=0.01)
                    assert trio.current_time() == pytest.approx(lost_at + 5 * number, abs=0.01)
                stale = await anext(wild)
                assert isinstance(stale, Stale)
                assert (stale.topic, stale.pattern, stale.connected) == (None, "b.*", False)
                assert stale.silent_s == pytest.approx(7, abs=0.01)
                peer.unreachable = False
                end = await peer.accept()
                await end.grant(3)
                await end.grant(4)
                await _waiting(exact)
                async with speaking(end):
                    await trio.sleep(30)

                assert await _waiting(exact) == []


async def test_a_connection_that_hangs_is_noticed(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Though it stands: a broker would have said QUIET. Told on when it is given up."""
    async with connected(peer, ping_interval_s=40, ping_timeout_s=10) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", heartbeat_s=5) as subscription:
            began = trio.current_time()
            end.freeze()
            times, states = list[int](), list[str]()
            for _ in range(24):
                stale = await anext(subscription)
                assert isinstance(stale, Stale)
                assert not stale.connected
                assert stale.silent_s == pytest.approx(trio.current_time() - began, abs=0.01)
                times.append(round(trio.current_time() - began))
                states.append(client.state)
                peer.unreachable = True

            assert times == [*range(10, 130, 5)]
            assert states[0] == "connected"
            assert states[-1] in ("waiting", "connecting")


async def test_a_message_held_back_for_its_rate_is_no_hanging_connection(
    peer: ScriptedPeer, autojump_clock: MockClock
) -> None:
    """Meanwhile the broker sends no QUIET."""
    async with connected(peer, ping_interval_s=1000) as (client, end):

        async def grant() -> None:
            await end.grant(1, max_rate=0.01)

        peer.nursery.start_soon(grant)
        async with client.subscribe("a", heartbeat_s=5, max_rate=0.01) as subscription:
            await trio.sleep(104)
            assert await _waiting(subscription) == []
            await trio.sleep(7)

            assert await _waiting(subscription) == [("?", "a")]


async def test_a_wildcard_of_which_no_topic_is_known_may_be_silent(
    peer: ScriptedPeer, autojump_clock: MockClock
) -> None:
    """On a connection that stands; once something has come the broker has to go on."""
    async with connected(peer, ping_interval_s=1000) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a.*", heartbeat_s=5) as subscription:
            await trio.sleep(100)
            assert await _waiting(subscription) == []
            await end.send(message(1, 1, "a.x"))
            await trio.sleep(16)

            assert await _waiting(subscription) == [1, ("?", None)]


async def test_a_program_that_slept_does_not_blame_the_connection(peer: ScriptedPeer, mock_clock: MockClock) -> None:
    """What came meanwhile is still to be read."""
    async with connected(peer, ping_interval_s=1000) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", heartbeat_s=5) as subscription:
            await wait_all_tasks_blocked()
            mock_clock.jump(60)
            assert await _waiting(subscription) == []
            mock_clock.jump(6)
            assert await _waiting(subscription) == []
            mock_clock.jump(5)

            assert await _waiting(subscription) == [("?", "a")]
            mock_clock.autojump_threshold = 0  # the peer says no goodbye


async def test_the_clock_knows_nobody_who_has_left(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """And its task ends with the client."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", heartbeat_s=5):
            assert len(client._clock._watched) == 1
            peer.nursery.start_soon(_answer_all, end)
        assert client._clock._watched == {}


async def _answer_all(end: PeerConnection) -> None:
    await end.receive()


async def test_a_client_that_closed_for_good_is_not_told_of_silence(
    peer: ScriptedPeer, autojump_clock: MockClock
) -> None:
    """Its subscriptions have ended."""
    async with connected(peer, reconnect=False) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", heartbeat_s=5) as subscription:
            await end.cut()
            await trio.sleep(20)

            assert not subscription._buffer
            assert _client_is_closed(client)


def _client_is_closed(client: Client) -> bool:
    return client.state == "closed"
