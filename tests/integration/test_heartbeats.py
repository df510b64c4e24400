"""`heartbeat`: QUIET when nothing is published, against a broker in memory, envelope by envelope."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker, TopicRule
from fanwire.broker.options import heartbeats
from fanwire.broker.options.heartbeats import LOOKS, PAUSE_S
from fanwire.protocol import (
    BrokerEnvelope,
    Error,
    Lagging,
    Lost,
    Message,
    Ok,
    Quiet,
    SnapshotEnd,
    Subscribe,
    SubscribeOptions,
)

from .raw import RawClient, connected, serving, subscribed

RULES = (TopicRule(pattern="h.>", history=3), TopicRule(pattern="r.>", retain=True))


@asynccontextmanager
async def reading(client: RawClient) -> AsyncIterator[list[tuple[float, BrokerEnvelope]]]:
    """All that comes while the body runs, each with the seconds since its beginning."""
    got: list[tuple[float, BrokerEnvelope]] = []
    began = trio.current_time()

    async def read() -> None:
        while True:
            envelope = await client.next()
            got.append((round(trio.current_time() - began, 3), envelope))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        yield got
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


def quiets(got: list[tuple[float, BrokerEnvelope]]) -> list[tuple[float, str, int, int]]:
    return [(at, each.topic, each.silent_ms, each.offset) for at, each in got if isinstance(each, Quiet)]


async def test_silence_is_told_again_and_again_until_something_is_published(autojump_clock: MockClock) -> None:
    """Also when nothing was ever published; a publish begins anew."""
    async with serving() as broker:
        client = await subscribed(broker, "a", heartbeat=2)
        async with reading(client) as got:
            await trio.sleep(5)
            broker.publish("a", b"x")
            await trio.sleep(2.5)

        assert quiets(got) == [(2, "a", 2000, 0), (4, "a", 4000, 0), (7, "a", 2000, 0)]
        assert [type(each) for _, each in got] == [Quiet, Quiet, Message, Quiet]


async def test_who_does_not_ask_is_not_told(autojump_clock: MockClock) -> None:
    """Nor does it count as a subscriber that somebody else asks."""
    async with serving() as broker:
        client, other = await subscribed(broker, "a", heartbeat=1), await subscribed(broker, "a")
        async with reading(other) as got:
            await trio.sleep(5)
            assert broker.publish("a", b"x") == 2
        await client.close()

        assert [type(each) for _, each in got] == [Message]


async def test_the_head_of_the_history_is_told(autojump_clock: MockClock) -> None:
    """So a client knows whether it has everything."""
    async with serving(rules=RULES) as broker:
        broker.publish("h.a", b"x")
        client = await subscribed(broker, "h.a", heartbeat=1)
        broker.publish("h.a", b"y")
        await client.expect(Message)

        assert (await client.expect(Quiet)).offset == 2


async def test_a_wildcard_tells_of_topics_that_were_seen(autojump_clock: MockClock) -> None:
    """Each for itself, none before it was published on."""
    async with serving() as broker:
        client = await subscribed(broker, "t.*", heartbeat=4)
        async with reading(client) as got:
            await trio.sleep(10)
            broker.publish("t.a", b"x")
            broker.publish("other", b"x")
            await trio.sleep(2)
            broker.publish("t.b", b"x")
            await trio.sleep(6.5)

        assert quiets(got) == [(14, "t.a", 4000, 0), (16, "t.b", 4000, 0), (18, "t.a", 8000, 0)]


async def test_a_wildcard_tells_of_topics_that_the_broker_remembers(autojump_clock: MockClock) -> None:
    """As if they had been published on when the subscription began; deleted values are not remembered."""
    async with serving(rules=RULES) as broker:
        for topic, payload in (("r.a", b"x"), ("h.b", b"x"), ("r.gone", b"x"), ("r.gone", b""), ("none", b"x")):
            broker.publish(topic, payload)
        await trio.sleep(100)
        client = await subscribed(broker, ">", heartbeat=2)
        async with reading(client) as got:
            await trio.sleep(2.5)

        assert quiets(got) == [(2, "r.a", 2000, 0), (2, "h.b", 2000, 1)]


async def test_each_subscription_has_a_heartbeat_of_its_own(autojump_clock: MockClock) -> None:
    """On one route; who comes later is told what was silent since then."""
    async with serving() as broker:
        slow = await subscribed(broker, "t.*", heartbeat=3)
        broker.publish("t.a", b"x")
        await trio.sleep(1)
        quick = await subscribed(broker, "t.*", heartbeat=1)
        async with reading(slow) as told_slowly, reading(quick) as told_quickly:
            await trio.sleep(2.5)

        assert quiets(told_slowly) == [(2, "t.a", 3000, 0)]
        assert quiets(told_quickly) == [(1, "t.a", 1000, 0), (2, "t.a", 2000, 0)]


async def test_it_is_granted_and_can_be_changed(autojump_clock: MockClock) -> None:
    """Very short ones are made longer. The same again goes on, another begins anew, none ends it."""
    async with serving() as broker:
        client = await connected(broker)

        async def ask(heartbeat: float | None) -> object:
            answer = await client.ask(Subscribe(1, "a", SubscribeOptions(heartbeat=heartbeat)))
            assert isinstance(answer, Ok)
            return answer.result["heartbeat"]

        assert (await ask(0.001), await ask(4)) == (0.1, 4)
        await trio.sleep(3)
        assert await ask(4) == 4
        async with reading(client) as got:
            await trio.sleep(1.5)
        assert quiets(got) == [(1, "a", 4000, 0)]
        assert await ask(1) == 1
        async with reading(client) as got:
            await trio.sleep(1.5)
        assert quiets(got) == [(1, "a", 1000, 0)]
        assert await ask(None) is None
        async with reading(client) as got:
            await trio.sleep(10)
        assert got == []


async def test_nothing_is_left_of_it(autojump_clock: MockClock) -> None:
    """After an UNSUBSCRIBE, and after a connection is gone; nothing is watched any more, and there is room again."""
    async with serving() as broker:
        beats = broker._hub.heartbeats
        room = beats._room.left
        client, other = await connected(broker), await subscribed(broker, "t.*", heartbeat=1)
        route = await client.subscribe("t.*", heartbeat=1)
        broker.publish("t.a", b"x")
        assert beats._room.left == room - 1
        assert (await client.expect(Message)).route == route
        await client.unsubscribe(route)
        async with reading(client) as got:
            await trio.sleep(3)
        assert got == []
        await trio.aclose_forcefully(other.stream)
        await trio.sleep(3)

        assert beats._room.left == room
        assert (beats._heap, beats._watch) == ([], None)
        assert broker._hub.registry.routes == {}


async def test_subscriptions_that_come_and_go_leave_no_heap(autojump_clock: MockClock) -> None:
    """Though none of them was ever due."""
    async with serving() as broker:
        client = await connected(broker)
        for _ in range(1000):
            await client.unsubscribe(await client.subscribe("a", heartbeat=1e6))

        assert len(broker._hub.heartbeats._heap) <= 257


async def test_who_is_gone_is_not_held_in_memory(autojump_clock: MockClock) -> None:
    """Until it would have been due: that may be in a year."""
    async with serving() as broker:
        client = await subscribed(broker, "a", heartbeat=1e6)
        await client.close()
        await wait_all_tasks_blocked()

        assert [hasattr(heartbeat, "_outbox") for _, _, heartbeat in broker._hub.heartbeats._heap] == [False]


# ------------------------------------------------------------------- in its place


async def _stuck(broker: Broker, pattern: str, **options: Any) -> RawClient:
    """A subscriber whose socket is full."""
    client = await subscribed(broker, pattern, **options)
    broker.publish("t.big", bytes(200_000))
    await wait_all_tasks_blocked()
    return client


async def test_it_never_overtakes_a_message_of_its_topic(autojump_clock: MockClock) -> None:
    """While one waits none is sent; of topics of which nothing waits, it is. Later messages come behind."""
    async with serving() as broker:
        client = await subscribed(broker, "t.*", heartbeat=1)
        broker.publish("t.silent", b"0")
        await client.expect(Message)
        broker.publish("t.big", bytes(200_000))
        await wait_all_tasks_blocked()
        broker.publish("t.waits", b"1")
        await trio.sleep(1.5)
        broker.publish("t.silent", b"2")
        async with reading(client) as got:
            await trio.sleep(0.9)

        first = [
            each.topic if isinstance(each, Quiet) else each.payload
            for _, each in got
            if isinstance(each, Message | Quiet) and each.topic != "t.big"
        ]
        assert first == ["t.silent", b"1", b"2", "t.waits"]


async def test_it_does_not_overtake_what_a_rate_holds_back(autojump_clock: MockClock) -> None:
    """A message that is still to come is no silence."""
    async with serving() as broker:
        client = await subscribed(broker, "a", heartbeat=1, max_rate=0.2)
        broker.publish("a", b"1")
        broker.publish("a", b"2")
        async with reading(client) as got:
            await trio.sleep(5.5)

        assert [type(each) for _, each in got] == [Message, Message]


async def test_it_does_not_overtake_a_loss_of_its_topic(autojump_clock: MockClock) -> None:
    """What is lost was no silence either."""
    async with serving() as broker:
        client = await _stuck(broker, "t.*", heartbeat=1, on_slow="drop_newest", queue=1)
        broker.publish("t.a", b"1")
        broker.publish("t.b", b"2")
        await trio.sleep(1.5)
        async with reading(client) as got:
            await trio.sleep(1)

        told = [each for _, each in got if not isinstance(each, Quiet) or each.topic == "t.b"]
        assert [type(each) for each in told] == [Message, Lagging, Message, Lost, Quiet]


async def test_nothing_is_told_before_the_end_of_a_snapshot(autojump_clock: MockClock) -> None:
    """The client does not know the topic yet."""
    async with serving(rules=RULES) as broker:
        for number in range(5):
            broker.publish(f"r.{number}", bytes(60_000))
        client = await connected(broker)
        await client.send(Subscribe(1, "r.*", SubscribeOptions(snapshot=True, heartbeat=1)))
        await trio.sleep(5)
        async with reading(client) as got:
            await trio.sleep(1.5)

        kinds = [type(each) for _, each in got]
        assert kinds[:7] == [Ok, *[Message] * 5, SnapshotEnd]
        assert set(kinds[7:]) == {Quiet}


async def test_who_does_not_read_is_not_dropped_for_it(autojump_clock: MockClock) -> None:
    """Some wait for it, no more; when it reads again it is told how long the silence is by then."""
    topics = {f"t.{number:04}" + "x" * 200 for number in range(2000)}
    async with serving(max_pending_bytes=400_000) as broker:
        client = await subscribed(broker, "t.*", heartbeat=1)
        for topic in sorted(topics):
            broker.publish(topic, b"")
        async with reading(client) as before:
            pass
        assert len(before) == len(topics)
        await trio.sleep(1000)
        [session] = broker._hub.sessions
        assert session.outbox.waiting_bytes < 300_000
        async with reading(client) as got:
            await trio.sleep(3)

        assert {topic for _, topic, silent_ms, _ in quiets(got) if silent_ms > 1_000_000} == topics
        assert broker.statistics().slow_consumers == 0


# --------------------------------------------------------------------- bounds


async def test_topics_beyond_the_limit_are_not_watched_and_that_is_said(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once; the others go on, and so do patterns without wildcard."""
    async with serving() as broker:
        broker._hub.heartbeats._room.left = 2
        client = await subscribed(broker, "t.*", heartbeat=1)
        exact = await subscribed(broker, "t.c", heartbeat=1)
        for topic in ("t.a", "t.b", "t.c", "t.d"):
            broker.publish(topic, b"x")
        async with reading(client) as got:
            await trio.sleep(2.5)
        errors = [each for _, each in got if isinstance(each, Error)]
        await exact.expect(Message)

        assert {topic for _, topic, _, _ in quiets(got)} == {"t.a", "t.b"}
        assert [(each.id, each.code, each.detail) for each in errors] == [
            (0, "too_many", {"about": "SUBSCRIBE", "option": "heartbeat", "pattern": "t.*"})
        ]
        assert (await exact.expect(Quiet)).topic == "t.c"


async def test_much_silence_is_told_in_turns(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is due at once: none is forgotten, none twice, nobody waits for ever."""
    monkeypatch.setattr(heartbeats, "TURN", 50)
    async with serving(rules=RULES) as broker:
        for number in range(100):
            broker.publish(f"r.{number}", b"x")
        clients = [await subscribed(broker, "r.*", heartbeat=10) for _ in range(3)]
        exact = [await subscribed(broker, "r.7", heartbeat=10) for _ in range(3)]
        await trio.sleep(10 + 1000 * PAUSE_S)
        for client in clients:
            async with reading(client) as got:
                pass
            assert sorted(topic for _, topic, _, _ in quiets(got)) == sorted(f"r.{number}" for number in range(100))
        for client in exact:
            async with reading(client) as got:
                pass
            assert [topic for _, topic, _, _ in quiets(got)] == ["r.7"]


STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, tenths=st.sampled_from([1, 5, 7, 20]))
def test_silence_is_told_when_it_is_due_for_any_schedule(steps: list[tuple[str, int]], tenths: int) -> None:
    """Each heartbeat of silence once, not early, and late by a part of a heartbeat at most."""
    interval = tenths / 10

    async def check() -> None:
        async with serving() as broker:
            client, exact = await subscribed(broker, "t.*", heartbeat=interval), await connected(broker)
            published: dict[str, list[float]] = {"t.a": [], "t.b": [], "t.c": []}
            async with reading(client) as got, reading(exact) as got_exactly:
                await exact.send(Subscribe(1, "t.a", SubscribeOptions(heartbeat=interval)))
                await wait_all_tasks_blocked()
                began = trio.current_time()
                for token, pause in steps:
                    broker.publish(f"t.{token}", b"x")
                    published[f"t.{token}"].append(trio.current_time() - began)
                    await trio.sleep(pause / 10 + 0.003)
                end = trio.current_time() - began

            def due(silences: list[float]) -> list[float]:
                return [
                    since + count * interval
                    for since, until in pairwise([*silences, end])
                    for count in range(1, int((until - since) / interval + 1e-6) + 1)
                ]

            told = [at for at, each in got_exactly if isinstance(each, Quiet)]
            assert told == pytest.approx(due([0.0, *published["t.a"]]), abs=0.002)
            for topic, times in published.items():
                told = [at for at, each in got if isinstance(each, Quiet) and each.topic == topic]
                for first in due(times):
                    last = first + interval / LOOKS
                    if last + 0.002 < end and not any(first - 0.002 <= at <= last + 0.002 for at in times):
                        assert any(first - 0.002 <= at <= last + 0.002 for at in told)
                assert len(told) <= len(due(times))

    trio.run(check, clock=MockClock(autojump_threshold=0))
