"""A subscriber that does not keep up: each of the four measures, what it is told, and what others see of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker
from fanwire.protocol import Message, Ok, Ping, Publish, Subscribe, SubscribeOptions, Unsubscribe
from fanwire.protocol.frames import Opcode
from tests.integration.raw import CAPACITY, RawClient, connected, serving, subscribed

PART = b"x" * 1000


async def _fill(broker: Broker, publisher: RawClient, bytes_: int) -> int:
    """Publish one message at a time until that many bytes went out to each subscriber; the number of messages."""
    count = bytes_ // len(PART) + 1
    for _ in range(count):
        await publisher.publish("a", PART)
        await wait_all_tasks_blocked()
    return count


class Scene:
    """A subscriber that never reads, one that does, and a publisher."""

    def __init__(self, broker: Broker, slow: RawClient, healthy: RawClient, publisher: RawClient) -> None:
        self.broker = broker
        self.slow = slow
        self.healthy = healthy
        self.publisher = publisher
        self.healthy_has = 0

    async def read_all(self) -> None:
        """The healthy subscriber reads, for ever."""
        while True:
            await self.healthy.expect(Message)
            self.healthy_has += 1


@asynccontextmanager
async def _scene(queue: int = 10_000, **settings: Any) -> AsyncIterator[Scene]:
    async with serving(**settings) as broker, trio.open_nursery() as nursery:
        slow = await subscribed(broker, "a", queue=queue)
        scene = Scene(broker, slow, await subscribed(broker, "a"), await connected(broker))
        nursery.start_soon(scene.read_all)
        yield scene
        nursery.cancel_scope.cancel()


async def _told(scene: Scene, measure: str, **detail: object) -> int:
    """Have the slow one read on at last. It must see whole frames of what it was sent before, then why, then close.

    Returns:
        How many messages it got.
    """
    ended = await scene.slow.ended()
    messages, goodbye = ended.envelopes[:-1], ended.goodbye
    assert all(isinstance(message, Message) and message.payload == PART for message in messages)
    assert (ended.code, goodbye.code) == (4008, "slow_consumer")
    assert goodbye.retry_after_ms <= 1000
    limit = {"limit"} if measure == "queue" else set()
    assert set(goodbye.detail) == {"measure", "route", "queued", "queued_bytes", "oldest_ms", *limit}
    assert {"measure": measure, **detail}.items() <= goodbye.detail.items()
    await wait_all_tasks_blocked()
    statistics = scene.broker.statistics()
    assert (statistics.slow_consumers, statistics.closed_by_broker) == (1, {4008: 1})
    assert (statistics.connections, statistics.subscriptions) == (2, 1)
    return len(messages)


async def test_dropped_by_queue(autojump_clock: MockClock) -> None:
    """One message more than the subscription's queue, and it goes: told route and number; the other has them all."""
    async with _scene(queue=10) as scene:
        published = await _fill(scene.broker, scene.publisher, CAPACITY + 11 * (len(PART) + 30))

        written = await _told(scene, "queue", queued=10)
        assert written <= CAPACITY // len(PART) + 1
        assert scene.healthy_has == published


async def test_dropped_by_max_pending(autojump_clock: MockClock) -> None:
    """More bytes than a connection may have waiting: no subscription is named, and the bound was kept."""
    async with _scene(max_pending_bytes=50_000) as scene:
        published = await _fill(scene.broker, scene.publisher, CAPACITY + 60_000)

        await _told(scene, "max_pending", route=None)
        assert scene.healthy_has == published


async def test_waiting_bytes_stay_under_max_pending(autojump_clock: MockClock) -> None:
    """At no moment does the outbox hold more than its bound, and it holds nothing once it was dropped."""
    async with _scene(max_pending_bytes=50_000) as scene:
        session = next(iter(scene.broker._hub.sessions))  # the slow one came first
        most = 0
        while not session.ending:
            await scene.publisher.publish("a", PART)
            await wait_all_tasks_blocked()
            most = max(most, session.outbox.behind_bytes)
        assert 45_000 < most <= 50_000
        assert session.outbox.behind_bytes == len(session.stream.left)
        await scene.slow.ended()


async def test_dropped_by_stall_timeout(autojump_clock: MockClock) -> None:
    """A socket that takes nothing for ten seconds while something waits: dropped then, by the clock."""
    async with _scene(stall_timeout_s=10.0, max_age_s=30.0) as scene:
        published = await _fill(scene.broker, scene.publisher, CAPACITY + 5000)
        stalled_at = trio.current_time()
        await trio.sleep(9.9)
        assert scene.broker.statistics().slow_consumers == 0
        await trio.sleep(0.2)

        await _told(scene, "stall_timeout", oldest_ms=10_000)
        assert trio.current_time() - stalled_at < 10.2
        assert scene.healthy_has == published


async def test_dropped_by_max_age(autojump_clock: MockClock) -> None:
    """A reader of one byte a second never stalls; its oldest message becomes too old."""
    async with _scene(stall_timeout_s=10.0, max_age_s=30.0) as scene:
        published = await _fill(scene.broker, scene.publisher, CAPACITY + 20_000)
        with trio.move_on_after(29.5):
            while True:
                await scene.slow.read(1)
                await trio.sleep(1)
        assert scene.broker.statistics().slow_consumers == 0
        await trio.sleep(1)

        await _told(scene, "max_age", route=None)
        assert scene.healthy_has == published


async def test_a_dropped_reader_sees_the_half_written_frame_and_then_why(autojump_clock: MockClock) -> None:
    """Whole frames up to the one under way, then GOODBYE, then close: of what waited behind it nothing."""
    async with serving(queue=100, queue_grace_s=None) as broker:
        slow, publisher = await subscribed(broker, "a"), await connected(broker)
        big = b"x" * (CAPACITY - 100)
        for payload in (big, b"y" * 1000, *[b"z"] * 101):
            await publisher.publish("a", payload)
            await wait_all_tasks_blocked()
        assert broker.statistics().slow_consumers == 1
        ended = await slow.ended()

        payloads = [each.payload for each in ended.envelopes if isinstance(each, Message)]
        assert payloads == [big, b"y" * 1000]
        assert (len(ended.envelopes), ended.code) == (3, 4008)
        assert ended.goodbye.detail["queued"] == 100


async def test_several_half_written_frames_are_cut_behind_the_first(autojump_clock: MockClock) -> None:
    """One write may hold several frames: those of which no byte has gone are discarded too."""
    async with serving(stall_timeout_s=10.0) as broker:
        slow = await subscribed(broker, "a")
        for number in range(12):  # gathered for one sweep
            broker.publish("a", b"%05d" % number + b"x" * 20_000)
        await trio.sleep(10)
        ended = await slow.ended()

        payloads = [each.payload for each in ended.envelopes if isinstance(each, Message)]
        assert [int(payload[:5]) for payload in payloads] == list(range(6))  # two frames of three messages each
        assert ended.goodbye.detail["measure"] == "stall_timeout"


async def test_a_pong_that_waits_behind_them_does_not_break_the_frames(autojump_clock: MockClock) -> None:
    """A client that pings, never reads and is dropped still finds whole frames when it reads on."""
    async with serving(stall_timeout_s=10.0) as broker:
        slow, publisher = await subscribed(broker, "a"), await connected(broker)
        await publisher.publish("a", *[b"%05d" % n + b"x" * 20_000 for n in range(12)])
        await wait_all_tasks_blocked()
        await slow.send_frame(b"?", Opcode.PING)
        await trio.sleep(10)
        ended = await slow.ended()

        payloads = [each.payload for each in ended.envelopes if isinstance(each, Message)]
        assert [int(payload[:5]) for payload in payloads] == list(range(len(payloads)))
        assert (ended.code, ended.goodbye.code) == (4008, "slow_consumer")


async def test_one_that_never_reads_again_is_cut_off_after_the_linger_time(autojump_clock: MockClock) -> None:
    """Told why or not: after the linger time the stream ends, and nothing of it is left."""
    async with _scene(stall_timeout_s=10.0, linger_s=1.0) as scene:
        await _fill(scene.broker, scene.publisher, CAPACITY + 5000)
        await trio.sleep(12.5)

        assert scene.broker.statistics().connections == 2
        assert not scene.broker._hub.fanout._dirty
        with pytest.raises(trio.BrokenResourceError):
            await scene.slow.stream.send_all(b"x")


async def test_answers_overtake_messages(autojump_clock: MockClock) -> None:
    """A client behind in reading gets the OK to its PING before messages that waited already."""
    async with serving() as broker:
        client, publisher = await subscribed(broker, "a"), await connected(broker)
        published = await _fill(broker, publisher, CAPACITY + 20_000)
        await client.send(Ping(77))
        await wait_all_tasks_blocked()
        seen = await client.take(published + 1)

        at = [index for index, each in enumerate(seen) if isinstance(each, Ok)]
        assert [seen[index] for index in at] == [Ok(77)]
        assert at[0] < published - 10
        assert sum(isinstance(each, Message) for each in seen) == published


async def test_nothing_of_a_route_follows_the_ok_to_unsubscribe(autojump_clock: MockClock) -> None:
    """Not even what was queued before; another subscription's messages do, and a new one gets new messages only."""
    async with serving() as broker:
        client, publisher = await subscribed(broker, "a"), await connected(broker)
        other = await client.subscribe("b")
        route = other - 1
        keeper = await subscribed(broker, "a")  # so that the route lives on and keeps its number
        await _fill(broker, publisher, CAPACITY + 20_000)
        await publisher.publish("b", b"kept")
        await client.send(Unsubscribe(50, route))
        await wait_all_tasks_blocked()
        await client.send(Subscribe(51, "a"))
        await wait_all_tasks_blocked()
        await publisher.publish("a", b"new")
        seen = [await client.next()]
        while not (isinstance(seen[-1], Message) and seen[-1].payload == b"new"):
            seen.append(await client.next())

        answered = next(index for index, each in enumerate(seen) if isinstance(each, Ok) and each.id == 50)
        after = [(each.route, each.payload) for each in seen[answered:] if isinstance(each, Message)]
        assert after == [(other, b"kept"), (route, b"new")]
        await keeper.stream.aclose()


async def test_what_was_gathered_before_unsubscribing_is_not_given_to_the_next_subscription(
    autojump_clock: MockClock,
) -> None:
    """PUBLISH, UNSUBSCRIBE and SUBSCRIBE in one message, while the client lags: nothing old follows the OK."""
    async with serving() as broker:
        client = await subscribed(broker, "a")
        route = next(iter(broker._hub.registry.routes))
        keeper = await subscribed(broker, "a")  # so that the route keeps its number
        await _fill(broker, await connected(broker), CAPACITY + 20_000)
        await client.send(Publish(0, "a", b"old"), Unsubscribe(50, route), Subscribe(51, "a"))
        await wait_all_tasks_blocked()
        broker.publish("a", b"new")
        seen = [await client.next()]
        while not (isinstance(seen[-1], Message) and seen[-1].payload == b"new"):
            seen.append(await client.next())

        answered = next(index for index, each in enumerate(seen) if isinstance(each, Ok) and each.id == 50)
        assert [each.payload for each in seen[answered:] if isinstance(each, Message)] == [b"new"]
        await keeper.stream.aclose()


async def test_unsubscribe_between_publish_and_sweep(autojump_clock: MockClock) -> None:
    """Messages gathered but not yet written come before the OK, never after it."""
    async with serving() as broker:
        client = await connected(broker)
        route = await client.subscribe("a")
        broker.publish("a", b"1")
        await client.send(Unsubscribe(9, route))
        broker.publish("a", b"2")
        messages = await client.payloads(2)

        assert (messages, await client.next()) == ([b"1", b"2"], Ok(9))
        assert broker.publish("a", b"3") == 0


async def test_who_has_left_is_no_slow_consumer(autojump_clock: MockClock) -> None:
    """Messages still gathered for a client that has closed are not held against it."""
    for _ in range(20):  # the order of tasks is random: most of these meet the sweep
        async with serving() as broker:
            client = await subscribed(broker, "a", queue=1)
            assert isinstance(client.stream, trio.abc.HalfCloseableStream)
            await client.stream.send_eof()
            while broker.publish("a", b"x") and broker.publish("a", b"x") and broker.publish("a", b"x"):
                await trio.lowlevel.checkpoint()
            await wait_all_tasks_blocked()

            statistics = broker.statistics()
            assert (statistics.slow_consumers, statistics.closed_by_broker) == (0, {})


async def test_the_bytes_of_a_goodbye(autojump_clock: MockClock) -> None:
    """A dropped reader whose socket has room gets GOODBYE as one frame and the close frame right behind it."""
    async with serving(queue=1, queue_grace_s=None) as broker:
        slow, publisher = await subscribed(broker, "a"), await connected(broker)
        await publisher.publish("a", b"x" * (CAPACITY + 10))
        await wait_all_tasks_blocked()
        await publisher.publish("a", b"y", b"z")
        await wait_all_tasks_blocked()
        while await slow.read(CAPACITY) and len(slow.received) < CAPACITY + 100:
            await wait_all_tasks_blocked()
        first = slow._cut()
        second = slow._cut()
        third = slow._cut()

        assert first is not None
        assert second is not None
        assert third is not None
        assert (first.opcode, second.opcode, third.opcode) == (Opcode.BINARY, Opcode.BINARY, Opcode.CLOSE)
        assert second.payload[:3] == b"\x95\x16\xad"  # [22, "slow_consumer", …
        assert third.payload[:2] == (4008).to_bytes(2)


async def test_one_that_is_told_of_its_own_slowness(autojump_clock: MockClock) -> None:
    """What is published about a slow subscriber may itself be too much for it: it is judged once."""
    async with serving(max_pending_bytes=500, report_interval_s=None) as broker:
        client = await connected(broker)
        for number, pattern in enumerate(("$sys.slow", "a"), 1):
            await client.send(Subscribe(number, pattern, SubscribeOptions(max_rate=0.001)))
            await client.expect(Ok)
        broker._hub.episodes._tell("lagging", {})  # what comes next on that topic is held
        for _ in range(2):
            broker.publish("a", bytes(1_000))
        await wait_all_tasks_blocked()

        assert broker.statistics().slow_consumers == 1
        assert broker.statistics().closed_by_broker == {4008: 1}
