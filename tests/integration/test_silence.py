"""Silence from one end to the other: broker, client, command line."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from fanwire import Broker, Client, Message, Stale, StaleTopic
from fanwire.testing import broker_in_memory, client_of


async def test_a_handler_hears_of_silence(
    autojump_clock: MockClock, fanwire_broker: Broker, fanwire_client: Client
) -> None:
    """Each heartbeat, with the topic; a message ends it."""
    got: list[Message | Stale]
    async with fanwire_client.subscribe("t.*", heartbeat_s=2) as subscription:
        fanwire_broker.publish("t.a", b"1")
        got = [await anext(subscription) for _ in range(3)]
        fanwire_broker.publish("t.a", b"2")
        got += [await anext(subscription) for _ in range(2)]

    assert [(each.topic, round(each.silent_s)) if isinstance(each, Stale) else each.data for each in got] == [
        b"1", ("t.a", 2), ("t.a", 4), b"2", ("t.a", 2),
    ]  # fmt: skip
    assert all(each.connected for each in got if isinstance(each, Stale))


async def test_a_silent_topic_ends_a_subscription_that_wants_that(
    autojump_clock: MockClock, fanwire_client: Client
) -> None:
    """By an exception out of the loop."""
    async with fanwire_client.subscribe("a", heartbeat_s=2, on_stale="raise") as subscription:
        with pytest.raises(StaleTopic, match=r"'a' for 2\.000 s"):
            await anext(subscription)
        with pytest.raises(StaleTopic):
            await anext(subscription.batches())


async def test_a_quiet_connection_is_no_silent_one(autojump_clock: MockClock) -> None:
    """Long without a message: the broker says so in each heartbeat, the client's own clock never."""
    async with (
        broker_in_memory() as broker,
        client_of(broker) as client,
        client.subscribe("a", heartbeat_s=30) as exact,
        client.subscribe("b.*", heartbeat_s=0.1) as wild,
    ):
        broker.publish("b.c", b"x")
        await trio.sleep(61)
        told: list[Message | Stale] = [*await anext(exact.batches()), *(await anext(wild.batches()))[1:]]

        assert [(each.topic, isinstance(each, Stale) and each.connected) for each in told] == [
            ("a", True), ("b.c", True),
        ]  # fmt: skip
        assert [isinstance(each, Stale) and round(each.silent_s) for each in told] == [60, 61]


async def test_the_broker_goes_and_comes_back(autojump_clock: MockClock) -> None:
    """Meanwhile the client's own clock tells; afterwards the broker does."""
    async with broker_in_memory() as second, broker_in_memory() as first:
        brokers = [first]

        async def open_stream() -> trio.abc.Stream:
            if not brokers:
                raise OSError("nobody listens")
            return await brokers[0].open_stream()

        async with (
            client_of(first, open_stream=open_stream) as client,
            client.subscribe("a", heartbeat_s=5) as subscription,
        ):
            brokers.clear()
            await first.drain()
            told: list[Message | Stale] = [await anext(subscription)]
            brokers.append(second)
            while not (isinstance(told[-1], Stale) and told[-1].connected):
                told.append(await anext(subscription))

    assert all(isinstance(each, Stale) for each in told)
    assert [each.connected for each in told if isinstance(each, Stale)] == [*[False] * (len(told) - 1), True]
    assert [round(each.silent_s) for each in told if isinstance(each, Stale)][:1] == [5]
    assert [round(each.silent_s) for each in told if isinstance(each, Stale)][-1:] == [5]
