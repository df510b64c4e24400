"""Presence: who is subscribed, told to whoever asks or watches; nobody flaps, and nobody stays as a ghost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire import Broker, Client, LocalProtocolError, Member, PresenceWatch, RequestFailed
from fanwire.broker import Auth, Config, Role, TopicRule
from fanwire.broker.delivery.outbox import Outbox
from fanwire.broker.presence.members import LOOKS, PAGE_BYTES
from fanwire.broker.presence.presence import MAX_UNREAD, PORTION
from fanwire.protocol import Error, Hello, Lost, Message, Ok, Ping, Presence, PresenceEvent, Subscribe, SubscribeOptions
from fanwire.testing import broker_in_memory, client_of
from tests.integration.raw import RawClient, code_of, connected, serving
from tests.keys import bearer, known

ROOMS = TopicRule(pattern="rooms.>", presence=True)
GRACE = 5.0


async def _named(broker: Broker, name: str, *patterns: str, client: str | None = None) -> RawClient:
    """A raw client that is subscribed."""
    raw = await connected(broker)
    await raw.send(Hello(0, name=name, client=client))
    for pattern in patterns:
        await raw.subscribe(pattern)
    return raw


async def _page(client: RawClient, pattern: str, after: int | None = None) -> Ok:
    answer = await client.ask(Presence(client.number(), pattern, after))
    assert isinstance(answer, Ok), answer
    return answer


async def _names(client: RawClient, pattern: str = "rooms.>") -> list[tuple[str, str]]:
    """Patterns and names of all members, page by page."""
    found: list[tuple[str, str]] = []
    after: int | None = None
    while True:
        result = (await _page(client, pattern, after)).result
        found += [(member[0], member[2]) for member in result["members"]]
        after = result["next"]
        if after is None:
            return found


async def _told(client: RawClient) -> list[tuple[str, str, str | None]]:
    """What has been told until now: topic, change, name."""
    await wait_all_tasks_blocked()
    await client.send(Ping(client.number()))
    told: list[tuple[str, str, str | None]] = []
    while not isinstance(event := await client.next(), Ok):
        assert isinstance(event, PresenceEvent), event
        told.append((event.topic, event.change, event.name))
    return told


# ------------------------------------------------------------------- the list


async def test_the_list_has_whose_pattern_overlaps(autojump_clock: MockClock) -> None:
    """Each with its own pattern, session and name; not those where presence is off; who asks is none by asking."""
    async with serving(rules=[ROOMS]) as broker:
        await _named(broker, "a", "rooms.kitchen", "other")
        await _named(broker, "b", "rooms.*", "rooms.cellar")
        await _named(broker, "c", ">")
        asking = await connected(broker)

        assert await _names(asking, "rooms.kitchen") == [("rooms.kitchen", "a"), ("rooms.*", "b"), (">", "c")]
        assert await _names(asking) == [("rooms.kitchen", "a"), ("rooms.*", "b"), ("rooms.cellar", "b"), (">", "c")]
        sessions = {member[1] for member in (await _page(asking, "rooms.>")).result["members"]}
        assert sessions == {each.session for each in broker.connections() if each.name}


async def test_who_has_no_name_is_listed_without(autojump_clock: MockClock) -> None:
    """nil, not an empty text; and without a `client` it is known by its session."""
    async with serving(rules=[ROOMS]) as broker:
        client = await connected(broker)
        await client.subscribe("rooms.a")
        [[pattern, session, name, known_as]] = (await _page(client, "rooms.a")).result["members"]

        assert (pattern, name, known_as) == ("rooms.a", None, session)


async def test_what_a_client_calls_itself_by_is_told_to_nobody(autojump_clock: MockClock) -> None:
    """`client` is what makes it the same: who knew it could pass for it."""
    async with serving(rules=[ROOMS]) as broker:
        client = await _named(broker, "a", "rooms.a", client="secret")
        watcher = await connected(broker)
        await watcher.subscribe("$presence.rooms.>")
        await _named(broker, "b", "rooms.b", client="secret-too")
        await wait_all_tasks_blocked()
        await _page(client, "rooms.a")
        await watcher.expect(PresenceEvent)

        assert not any(b"secret" in message for message in [*client.messages, *watcher.messages])


@pytest.mark.parametrize("rules", [[], [TopicRule(pattern="rooms.a", presence=False), ROOMS]], ids=["none", "no"])
async def test_presence_is_off_unless_a_rule_turns_it_on(rules: list[TopicRule], autojump_clock: MockClock) -> None:
    """`forbidden`, and the text says how to turn it on; for the list, the option and the pattern that watches."""
    async with serving(rules=rules) as broker:
        client = await _named(broker, "a", "rooms.a")
        for request in (
            Presence(1, "rooms.a"),
            Subscribe(1, "rooms.a", SubscribeOptions(presence=True)),
            Subscribe(1, "$presence.rooms.a"),
            Subscribe(1, "$presence.$sys.stats"),
        ):
            answer = await client.ask(request)
            assert code_of(answer) == (1, "forbidden")
            assert isinstance(answer, Error)
            assert "presence=yes" in answer.message
        assert broker.statistics().subscriptions == 1


async def test_the_first_rule_that_says_so_counts(autojump_clock: MockClock) -> None:
    """Also for a member's own pattern: one that could get what is private is not told of."""
    rules = [TopicRule(pattern="rooms.secret", presence=False), TopicRule(pattern="rooms.a", max_rate=5), ROOMS]
    async with serving(rules=rules) as broker:
        client = await _named(broker, "a", "rooms.a", "rooms.secret", "rooms.*")

        assert await _names(client, "rooms.a") == [("rooms.a", "a")]
        assert code_of(await client.ask(Presence(9, "rooms.>"))) == (9, "forbidden")


async def test_a_long_list_comes_in_pages(autojump_clock: MockClock) -> None:
    """None too large, none looking at too many, together all of them, in the order in which they came."""
    patterns = [f"rooms.{number:04}." + "x" * 200 for number in range(LOOKS + 100)]
    rules = [ROOMS, TopicRule(pattern="halls.>", presence=True)]
    async with serving(rules=rules, max_subscriptions=None) as broker:
        client = await _named(broker, "a", *patterns, *[f"halls.{number}" for number in range(LOOKS + 1)])
        page = (await _page(client, "rooms.>")).result
        assert sum(len(member[0]) for member in page["members"]) <= PAGE_BYTES + 255
        assert page["next"] is not None

        assert await _names(client) == [(pattern, "a") for pattern in patterns]
        assert len(await _names(client, "halls.>")) == LOOKS + 1


async def test_a_page_that_begins_behind_everybody_is_empty(autojump_clock: MockClock) -> None:
    """And the table of numbers stays short, however many come and go."""
    async with serving(rules=[ROOMS]) as broker:
        client = await _named(broker, "a", "rooms.a")
        for _ in range(600):
            route = await client.subscribe("rooms.b")
            await client.unsubscribe(route)
            await trio.sleep(GRACE + 1)

        assert dict((await _page(client, "rooms.>", 2**63)).result) == {"members": [], "next": None, "grace": GRACE}
        assert await _names(client) == [("rooms.a", "a")]
        assert len(broker._hub.presence._members._order) < 300


# ------------------------------------------------------------------- watching


async def test_watchers_are_told_who_comes_and_goes(autojump_clock: MockClock) -> None:
    """With the member's own pattern; by the pattern that only watches, and by the option beside messages."""
    async with serving(rules=[ROOMS]) as broker:
        watcher, listener = await connected(broker), await _named(broker, "l")
        await watcher.subscribe("$presence.rooms.a")
        await listener.subscribe("rooms.a", presence=True)
        assert await _told(watcher) == await _told(listener) == [("rooms.a", "join", "l")]
        member = await _named(broker, "m", "rooms.*", "rooms.b")
        assert await _told(watcher) == await _told(listener) == [("rooms.*", "join", "m")]
        await member.close()
        assert await _told(watcher) == []
        await trio.sleep(GRACE + 0.1)
        assert await _told(watcher) == await _told(listener) == [("rooms.*", "leave", "m")]
        broker.publish("rooms.a", b"x")
        assert (await listener.expect(Message)).payload == b"x"
        assert await _told(watcher) == []


async def test_who_subscribes_again_without_the_option_is_told_no_more(autojump_clock: MockClock) -> None:
    """And with it again it is; it stays a member all the time."""
    async with serving(rules=[ROOMS]) as broker:
        client = await _named(broker, "a")
        await client.subscribe("rooms.a", presence=True)
        assert await _told(client) == [("rooms.a", "join", "a")]
        await client.subscribe("rooms.a")
        await _named(broker, "b", "rooms.a")
        assert await _told(client) == []
        await client.subscribe("rooms.a", presence=True)
        await _named(broker, "c", "rooms.a")
        assert await _told(client) == [("rooms.a", "join", "c")]


async def test_who_comes_back_within_the_grace_was_never_away(autojump_clock: MockClock) -> None:
    """Neither leave nor join, whether the old connection ended first or is still there; the list has the newest."""
    async with serving(rules=[ROOMS]) as broker:
        watcher = await connected(broker)
        await watcher.subscribe("$presence.rooms.>")
        first = await _named(broker, "a", "rooms.a", client="me")
        assert await _told(watcher) == [("rooms.a", "join", "a")]
        await trio.aclose_forcefully(first.stream)
        await trio.sleep(GRACE - 0.1)
        second = await _named(broker, "a2", "rooms.a", client="me")
        await _named(broker, "a3", "rooms.a", client="me")
        await trio.sleep(2 * GRACE)
        assert await _names(watcher) == [("rooms.a", "a3")]
        await trio.aclose_forcefully(second.stream)
        await trio.sleep(2 * GRACE)

        assert await _told(watcher) == []
        assert await _names(watcher) == [("rooms.a", "a3")]


async def test_a_leave_names_the_last_session_and_the_same_client(autojump_clock: MockClock) -> None:
    """So whoever folds the events by client and pattern has the list."""
    async with serving(rules=[ROOMS]) as broker:
        watcher = await connected(broker)
        await watcher.subscribe("$presence.rooms.>")
        first = await _named(broker, "a", "rooms.a", client="me")
        await wait_all_tasks_blocked()
        joined = await watcher.expect(PresenceEvent)
        await trio.aclose_forcefully(first.stream)
        second = await _named(broker, "b", "rooms.a", client="me")
        [member] = (await _page(watcher, "rooms.a")).result["members"]
        await trio.aclose_forcefully(second.stream)
        left = await watcher.expect(PresenceEvent)

        assert (joined.change, joined.name, left.change, left.name) == ("join", "a", "leave", "b")
        assert joined.session != left.session == member[1]
        assert joined.client == left.client == member[3] != "me"


async def test_a_client_in_queue_groups_of_a_pattern_is_one_member(autojump_clock: MockClock) -> None:
    """On one connection, too; it has left when it has left all of them."""
    async with serving(rules=[ROOMS]) as broker:
        watcher, client = await connected(broker), await _named(broker, "a", "rooms.a")
        await watcher.subscribe("$presence.rooms.>")
        first = await client.subscribe("rooms.a", group="g")
        second = await client.subscribe("rooms.a", group="h", echo=False)
        await client.unsubscribe(first)
        await client.subscribe("rooms.a", group="g")
        await client.unsubscribe(second)
        await trio.sleep(2 * GRACE)
        assert await _names(watcher) == [("rooms.a", "a")]
        await client.close()
        await trio.sleep(GRACE + 0.1)
        assert await _told(watcher) == [("rooms.a", "leave", "a")]
        assert await _names(watcher) == []


async def test_a_grace_of_ones_own_length(autojump_clock: MockClock) -> None:
    """`presence_grace_s`; it begins anew with each break."""
    async with serving(rules=[ROOMS], presence_grace_s=60) as broker:
        watcher = await connected(broker)
        for _ in range(3):
            client = await _named(broker, "a", "rooms.a", client="me")
            await client.close()
            await trio.sleep(59)
        assert await _names(watcher) == [("rooms.a", "a")]
        await trio.sleep(2)
        assert await _names(watcher) == []


async def test_two_users_are_two_clients_whatever_they_call_themselves(autojump_clock: MockClock) -> None:
    """The client's own name for itself counts within its user only: nobody can pass for somebody else's."""
    role = Role(name="r", subscribe=(">",))
    tokens = [known("fw_one", "one", "r"), known("fw_two", "two", "r")]
    async with serving(rules=[ROOMS], auth=Auth(roles=[role], tokens=tokens)) as broker:
        for token, name in (("fw_one", "a"), ("fw_two", "b"), ("fw_one", "c")):
            client = await connected(broker, request=bearer(token))
            await client.send(Hello(0, name=name, client="x"))
            await client.subscribe("rooms.a")

        assert await _names(client) == [("rooms.a", "c"), ("rooms.a", "b")]


async def test_who_may_not_subscribe_may_not_see_who_does(autojump_clock: MockClock) -> None:
    """Neither ask nor watch, however; and a watch ends when a new token does not allow it any more."""
    role, less = Role(name="r", subscribe=("rooms.a.>",)), Role(name="l", subscribe=("rooms.a.b",))
    tokens = [known("fw_me", "me", "r"), known("fw_less", "me", "l")]
    async with serving(rules=[ROOMS], auth=Auth(roles=[role, less], tokens=tokens)) as broker:
        client = await connected(broker, request=bearer("fw_me"))
        for pattern in ("rooms.>", "rooms.a", "rooms.*.b"):
            for request in (Presence(1, pattern), Subscribe(1, f"$presence.{pattern}")):
                assert code_of(await client.ask(request)) == (1, "forbidden")
        assert broker.statistics().forbidden == {"presence": 6}
        assert await _names(client, "rooms.a.>") == []
        route = await client.subscribe("$presence.rooms.a.>")
        stays = await client.subscribe("$presence.rooms.a.b")
        await client.send(Hello(2, token="fw_less"))
        ended, _ok = await client.take(2)

        assert isinstance(ended, Error)
        assert (code_of(ended), dict(ended.detail)) == ((0, "forbidden"), {"route": route})
        assert [each for session in broker._hub.sessions for each in session.outbox.subscriptions] == [stays]


async def test_a_client_is_named_once_and_first(autojump_clock: MockClock) -> None:
    """Else it would be two members at once; the same again is no harm."""
    async with serving(rules=[ROOMS]) as broker:
        client = await connected(broker)
        assert await client.ask(Hello(1, client="x")) == await client.ask(Hello(1, client="x")) == Ok(1)
        assert code_of(await client.ask(Hello(2, client="y"))) == (2, "bad_option")
        late = await _named(broker, "late", "rooms.a")
        assert code_of(await late.ask(Hello(3, client="z"))) == (3, "bad_option")
        assert await _names(late) == [("rooms.a", "late")]


async def test_a_drain_is_no_storm(autojump_clock: MockClock) -> None:
    """Those who are sent away are not told that the others are, too."""
    async with serving(rules=[ROOMS], drain_timeout_s=3 * GRACE, presence_grace_s=0.01) as broker:
        clients = [await _named(broker, f"{number}", "rooms.a") for number in range(20)]
        watcher = await connected(broker)
        await watcher.subscribe("$presence.rooms.>")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.drain)
            await trio.sleep(0.1)
            ended = await watcher.ended()
            for client in clients:
                await client.ended()

        assert not any(isinstance(envelope, PresenceEvent) for envelope in ended.envelopes)


async def test_a_watcher_that_does_not_read_is_told_so_and_asks_for_the_list(autojump_clock: MockClock) -> None:
    """Little waits for it, it lives on, and LOST stands where something is missing; then events go on."""
    patterns = [f"rooms.{number:05}." + "x" * 200 for number in range(1500)]
    async with serving(rules=[ROOMS], max_subscriptions=None) as broker:
        watcher = await connected(broker)
        route = await watcher.subscribe("$presence.rooms.>")
        member = await _named(broker, "m")
        for pattern in patterns:
            await member.subscribe(pattern)
        await wait_all_tasks_blocked()
        [session] = [each for each in broker._hub.sessions if each.outbox.answer_bytes]
        assert MAX_UNREAD < session.outbox.answer_bytes < MAX_UNREAD + 300 * PORTION
        known = set()
        with trio.fail_after(60):
            while isinstance(event := await watcher.next(), PresenceEvent):
                known.add(event.topic)
        assert event == Lost(route, None, "presence", None)
        assert known < set(patterns)
        assert [pattern for pattern, _ in await _names(watcher)] == patterns
        await member.subscribe("rooms.late")
        assert await _told(watcher) == [("rooms.late", "join", "m")]


async def test_changes_are_told_in_portions(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have their turn in between: whether there are many changes, or many watchers of one."""
    monkeypatch.setattr("fanwire.broker.presence.presence.PORTION", 5)
    async with serving(rules=[ROOMS]) as broker, trio.open_nursery() as nursery:
        watchers = [await connected(broker) for _ in range(20)]
        for watcher in watchers:
            await watcher.subscribe("$presence.rooms.a")
        await watchers[0].subscribe("$presence.rooms.*")
        hub, turns, told = broker._hub, 0, list[int]()
        answer = hub.fanout.answer

        def note(outbox: Outbox, envelopes: bytes) -> None:
            told.append(turns)
            answer(outbox, envelopes)

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        monkeypatch.setattr(hub.fanout, "answer", note)
        nursery.start_soon(count_turns)
        for patterns in (["rooms.a"], [f"rooms.{number}" for number in range(20)]):
            told.clear()
            for pattern in patterns:
                hub.presence._note(hub.presence._members.add(pattern, "somebody"))
            while len(told) < 20:
                await trio.lowlevel.checkpoint()
            assert max(told.count(turn) for turn in told) <= 2 * 5  # who counts may have its turn before or after
        nursery.cancel_scope.cancel()


async def test_nothing_is_kept_of_who_is_gone(autojump_clock: MockClock) -> None:
    """Neither of members nor of watchers."""
    async with serving(rules=[ROOMS]) as broker:
        watcher = await connected(broker)
        await watcher.subscribe("$presence.rooms.*")
        await watcher.subscribe("$presence.rooms.a")
        member = await _named(broker, "m", "rooms.a", "rooms.*")
        await member.close()
        await watcher.close()
        await trio.sleep(GRACE + 1)
        presence = broker._hub.presence

        assert (len(presence._members), len(presence._away), len(presence._changed)) == (0, 0, 0)
        assert (presence._watches, presence._behind, presence._watch) == ({}, {}, None)
        assert presence._wildcards.match("rooms.a") == []


async def test_when_very_many_may_come_back_the_first_is_given_up(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leave comes early; that is all."""
    monkeypatch.setattr("fanwire.broker.presence.presence.MAX_AWAY", 2)
    async with serving(rules=[ROOMS]) as broker:
        watcher = await connected(broker)
        await watcher.subscribe("$presence.rooms.>")
        for name in "abc":
            await (await _named(broker, name, "rooms.a")).close()
            await wait_all_tasks_blocked()
        told = await _told(watcher)

        assert [(change, name) for _, change, name in told] == [
            ("join", "a"),
            ("join", "b"),
            ("join", "c"),
            ("leave", "a"),
        ]


# ------------------------------------------------------------------ the client


@asynccontextmanager
async def _broker(**settings: Any) -> AsyncIterator[Broker]:
    async with broker_in_memory(Config(rules=(ROOMS,), **settings)) as broker:
        yield broker


async def _next(watch: PresenceWatch) -> tuple[str, str | None, bool]:
    with trio.fail_after(60):
        member, present = await anext(watch)
    return member.pattern, member.name, present


async def _nothing(watch: PresenceWatch, seconds: float) -> None:
    """Nothing comes for so long."""
    with trio.move_on_after(seconds) as scope:
        raise AssertionError(await anext(watch))
    assert scope.cancelled_caught


async def test_the_client_lists_members(autojump_clock: MockClock) -> None:
    """As objects that are equal to themselves over reconnects, and over more than one page."""
    async with _broker(max_subscriptions=None) as broker, client_of(broker, name="a") as client:
        async with client.subscribe("rooms.a"), client.subscribe("other"):
            [member] = await client.presence("rooms.>")
            assert (member.pattern, member.name, member.session) == ("rooms.a", "a", client.welcome["session"])
            assert member == Member("rooms.a", "another", None, member.client)
        raw = await _named(broker, "r", *[f"rooms.{number}" for number in range(LOOKS + 10)])
        await trio.sleep(GRACE + 1)
        assert [each.pattern for each in await client.presence("rooms.>")] == [
            f"rooms.{number}" for number in range(LOOKS + 10)
        ]
        await raw.close()


async def test_the_client_watches(autojump_clock: MockClock) -> None:
    """Those there already first, then changes; watching makes nobody a member, and brings no messages."""
    async with (
        _broker() as broker,
        client_of(broker, name="a") as one,
        client_of(broker, name="w") as client,
        one.subscribe("rooms.a"),
        client.watch_presence("rooms.*") as watch,
    ):
        assert await _next(watch) == ("rooms.a", "a", True)
        async with one.subscribe("rooms.b"), client.watch_presence("rooms.*") as again:
            assert await _next(watch) == ("rooms.b", "a", True)
            assert {await _next(again), await _next(again)} == {("rooms.a", "a", True), ("rooms.b", "a", True)}
            await one.publish("rooms.b", 1)
        assert await _next(watch) == ("rooms.b", "a", False)
        await _nothing(watch, 3 * GRACE)


async def test_watching_where_presence_is_off(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """Said at once; so is a pattern that is none."""
    with pytest.raises(RequestFailed, match="presence is off") as caught:
        async with fanwire_client.watch_presence("rooms.a"):
            pass
    assert caught.value.code == "forbidden"
    with pytest.raises(RequestFailed, match="presence is off"):
        await fanwire_client.presence("rooms.a")
    for wrong in (fanwire_client.watch_presence, fanwire_client.presence):
        with pytest.raises(LocalProtocolError):
            await wrong("a..b")  # type: ignore[misc]


class _Cut:
    """Streams to a broker that can be cut."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.away = trio.Event()
        self.away.set()
        self._streams: list[trio.abc.Stream] = []

    async def open_stream(self) -> trio.abc.Stream:
        await self.away.wait()
        self._streams.append(await self.broker.open_stream())
        return self._streams[-1]

    async def cut(self) -> None:
        """The connection breaks; there is another one when `away` is set."""
        self.away = trio.Event()
        await trio.aclose_forcefully(self._streams[-1])
        await wait_all_tasks_blocked()


async def test_a_member_that_reconnects_neither_leaves_nor_joins(autojump_clock: MockClock) -> None:
    """By itself, for the SDK says which client it is; the list has its new session."""
    async with _broker() as broker, client_of(broker) as watching:
        cut = _Cut(broker)
        async with client_of(broker, open_stream=cut.open_stream, name="a") as client, client.subscribe("rooms.a"):
            before = client.welcome["session"]
            async with watching.watch_presence("rooms.a") as watch:
                assert await _next(watch) == ("rooms.a", "a", True)
                await cut.cut()
                cut.away.set()
                await _nothing(watch, 3 * GRACE)
                [member] = await watching.presence("rooms.a")
                assert member.session == client.welcome["session"] != before
                await cut.cut()
                assert await _next(watch) == ("rooms.a", "a", False)
                cut.away.set()
                assert await _next(watch) == ("rooms.a", "a", True)


async def test_a_watcher_that_reconnects_is_given_differences(autojump_clock: MockClock) -> None:
    """Who came meanwhile, who went (a grace later, for all may have been away), not who stayed."""
    async with _broker() as broker, client_of(broker, name="o") as other:
        cut = _Cut(broker)
        stays, goes, comes = (other.subscribe(f"rooms.{name}") for name in ("stays", "goes", "comes"))
        connecting = client_of(broker, open_stream=cut.open_stream)
        async with connecting as client, stays, client.watch_presence("rooms.>") as watch:
            async with goes:
                there = {await _next(watch), await _next(watch)}
                assert there == {("rooms.stays", "o", True), ("rooms.goes", "o", True)}
                await cut.cut()
            async with comes:
                await trio.sleep(2 * GRACE)
                cut.away.set()
                assert await _next(watch) == ("rooms.comes", "o", True)
                assert await _next(watch) == ("rooms.goes", "o", False)
                await _nothing(watch, 3 * GRACE)


async def test_another_broker_is_no_storm_either(autojump_clock: MockClock) -> None:
    """The watcher is back before all others: they are not gone until they had their grace."""
    async with _broker() as old, _broker() as new:
        cut, late = _Cut(old), _Cut(old)
        async with (
            client_of(old, open_stream=cut.open_stream) as client,
            client_of(old, open_stream=late.open_stream, name="o", draw=lambda: 0.0) as other,
            other.subscribe("rooms.a"),
            client.watch_presence("rooms.>") as watch,
        ):
            assert await _next(watch) == ("rooms.a", "o", True)
            cut.broker = late.broker = new
            await cut.cut()
            await late.cut()
            cut.away.set()
            await _nothing(watch, GRACE - 2)
            late.away.set()
            await _nothing(watch, 3 * GRACE)


async def test_a_lost_event_makes_the_client_list_anew(autojump_clock: MockClock) -> None:
    """LOST on a watch: who is missing in the list is gone after the grace, who is new has come."""
    async with _broker() as broker, client_of(broker) as client, client.watch_presence("rooms.>") as watch:
        first = await _named(broker, "a", "rooms.a")
        assert await _next(watch) == ("rooms.a", "a", True)
        presence = broker._hub.presence
        [watches] = presence._watches.values()
        [broker_watch] = watches
        broker_watch.behind = True
        await first.close()
        await _named(broker, "b", "rooms.b")
        await trio.sleep(2 * GRACE)
        presence._behind[broker_watch] = None
        presence._wake(trio.current_time())

        assert await _next(watch) == ("rooms.b", "b", True)
        assert await _next(watch) == ("rooms.a", "a", False)


# -------------------------------------------------------------- other rules


async def test_other_rules_hide_and_show_who_is_there(autojump_clock: MockClock) -> None:
    """At once, for who asks and who watches, and also those who may yet come back."""
    async with serving(rules=[ROOMS]) as broker:
        await _named(broker, "ann", "rooms.a")
        await _named(broker, "bob", "rooms.b")
        away = await _named(broker, "eve", "rooms.a")
        watcher = await connected(broker)
        await watcher.subscribe("$presence.rooms.>")
        await away.close()
        await _told(watcher)

        hidden = TopicRule(pattern="rooms.a", presence=False)
        await broker.reload(attrs.evolve(broker.config, rules=(hidden, ROOMS)))

        assert sorted(await _told(watcher)) == [("rooms.a", "leave", "ann"), ("rooms.a", "leave", "eve")]
        assert code_of(await watcher.ask(Presence(90, "rooms.a", None))) == (90, "forbidden")
        await broker.reload(attrs.evolve(broker.config, rules=(ROOMS,)))
        assert await _told(watcher) == [("rooms.a", "join", "ann")]
        assert sorted(await _names(watcher)) == [("rooms.a", "ann"), ("rooms.b", "bob")]
        await broker.reload(attrs.evolve(broker.config, rules=()))
        assert len(await _told(watcher)) == 2
