"""A market opens: more messages at once than the default queue holds, and readers that are a moment behind."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker, Config
from fanwire.client import Client
from fanwire.protocol import ON_SLOW, Error, Message
from fanwire.testing import broker_in_memory, client_of

from .raw import RawClient, connected, serving, subscribed
from .sse_client import streaming

BURST = Config().queue + 4000
TOPICS = 50


async def _publish(broker: Broker, count: int = BURST) -> None:
    """On many topics in turns, as the reads of a connection bring them."""
    for number in range(count):
        broker.publish(f"t.{number % TOPICS}", b"%d" % number)
        if number % 1000 == 0:
            await wait_all_tasks_blocked()
    await wait_all_tasks_blocked()


def _whole(numbers: list[int], count: int = BURST) -> bool:
    """Whether all came, each topic in its order."""
    by_topic = [[number for number in numbers if number % TOPICS == topic] for topic in range(TOPICS)]
    return len(numbers) == count and all(each == sorted(each) for each in by_topic)


@pytest.mark.parametrize("on_slow", [policy for policy in ON_SLOW if policy != "conflate"])
async def test_a_reader_that_has_not_read_yet_gets_all_of_it(on_slow: str, autojump_clock: MockClock) -> None:
    """Whatever its policy: it is not slow but a moment behind; nothing is lost, and nobody is said to lag."""
    async with serving(stall_timeout_s=10.0, max_age_s=30.0) as broker:
        readers = [await subscribed(broker, "t.*", on_slow=on_slow) for _ in range(3)]
        await _publish(broker)
        assert [each.queued > Config().queue for each in broker.connections()] == [True] * 3
        assert broker.statistics().lagging == 0

        for reader in readers:
            assert _whole([int(payload) for payload in await reader.payloads(BURST)])
        statistics = broker.statistics()
        assert (statistics.slow_consumers, statistics.slow_unsubscribed, statistics.lost) == (0, 0, {})


async def test_a_conflating_reader_keeps_more_keys_than_the_default_queue(autojump_clock: MockClock) -> None:
    """Each once: none of them is lost to a count."""
    async with serving() as broker:
        reader = await subscribed(broker, "t.*", on_slow="conflate")
        for number in range(BURST):
            broker.publish(f"t.{number}", b"%d" % number)
            if number % 1000 == 0:
                await wait_all_tasks_blocked()

        numbers = [int(payload) for payload in await reader.payloads(BURST)]
        assert numbers == list(range(BURST))


async def test_a_reader_of_events_gets_all_of_it(autojump_clock: MockClock) -> None:
    """Over HTTP as over a WebSocket."""
    async with serving(stall_timeout_s=10.0) as broker:
        client = await streaming(broker, "/v1/topics/t.*/stream")
        begun = await client.expect("subscribed")
        assert (begun.data["queue"], begun.data["queue_grace"]) == (Config().queue, Config().queue_grace_s)
        await _publish(broker)

        assert _whole([int(b64decode(each["$bin"])) for each in await client.payloads(BURST)])


async def test_who_does_not_keep_up_goes_and_nobody_else(autojump_clock: MockClock) -> None:
    """More than the default queue waits, and the oldest of it longer than the grace: one is warned, then dropped."""
    async with serving() as broker, trio.open_nursery() as nursery:
        slow, healthy = await subscribed(broker, "t.*"), await subscribed(broker, "t.*")
        got: list[int] = []
        nursery.start_soon(_read_all, healthy, got)
        await _publish(broker)
        for seconds in range(6):
            assert broker.statistics().slow_consumers == 0
            assert broker.statistics().lagging == (seconds > 3)
            await trio.sleep(1)
            broker.publish("t.0", b"%d" % (BURST + seconds))
            await wait_all_tasks_blocked()
        ended = await slow.ended()

        assert broker.statistics().slow_by_measure == {"queue": 1}
        assert ended.goodbye.detail["measure"] == "queue"
        assert ended.goodbye.message == "more than 10000 messages waited, the oldest of them for more than 5 s"
        assert ended.goodbye.detail["oldest_ms"] >= 5000
        assert len(got) == BURST + 6
        nursery.cancel_scope.cancel()


async def test_who_is_unsubscribed_for_bytes_is_told_so(autojump_clock: MockClock) -> None:
    """Young as it is: before the connection would have to be closed."""
    async with serving(max_pending_bytes=2_900_000) as broker:
        slow = await subscribed(broker, "t.*", on_slow="unsubscribe")
        await _publish(broker)
        while not isinstance(told := await slow.next(), Error):
            pass

        assert told.message.startswith("more than 10000 messages waited, and the connection had nearly as many bytes")
        assert broker.statistics().slow_unsubscribed == 1
        assert broker.statistics().slow_consumers == 0


async def _read_all(reader: RawClient, got: list[int]) -> None:
    while True:
        got += [int(payload) for payload in await reader.payloads(1)]


async def test_a_queue_that_was_asked_for_is_exact(autojump_clock: MockClock) -> None:
    """As many as that, and not one more."""
    async with serving() as broker:
        reader = await subscribed(broker, "t.*", queue=100)
        broker.publish("t.0", b"x" * 300_000)
        await wait_all_tasks_blocked()
        await _publish(broker, 101)

        assert (await reader.ended()).goodbye.detail["limit"] == 100


@asynccontextmanager
async def _client() -> AsyncIterator[tuple[Broker, Client]]:
    async with broker_in_memory() as broker, client_of(broker) as client:
        yield broker, client


async def test_a_handler_that_waits_for_something_else_meanwhile_gets_all_of_it() -> None:
    """The client reads on, and its own buffer holds the burst with the default settings."""
    count = 70_000
    async with _client() as (broker, client), client.subscribe("t.*") as subscription:
        await _publish(broker, count)
        assert subscription.waiting > 65_536

        numbers = [int((await anext(subscription)).payload) for _ in range(count)]
        assert _whole(numbers, count)


async def test_a_stall_is_told_to_everybody_though_nothing_is_published(autojump_clock: MockClock) -> None:
    """At three quarters of the way to being closed: operators, publishers and statistics; and how far it is."""
    async with serving(stall_timeout_s=10.0) as broker:
        await subscribed(broker, "t.*")
        operator, publisher = await subscribed(broker, "$sys.slow"), await connected(broker)
        broker.publish("t.0", b"x" * 300_000)
        await wait_all_tasks_blocked()
        broker.publish("t.0", b"x")
        await trio.sleep(7.4)
        assert broker.statistics().lagging == 0
        await trio.sleep(0.2)

        assert broker.statistics().lagging == 1
        connection = next(each for each in broker.connections() if each.lagging)
        assert (connection.measure, connection.percent) == ("stall_timeout", 76)
        event = (await operator.expect(Message)).payload
        assert b"stall_timeout" in event
        assert b"lagging" in event
        await publisher.publish("t.0", b"y")
        assert broker.publish("t.0", b"z") == 1
