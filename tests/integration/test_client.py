"""The client and the real broker, in memory: no port, no waiting."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire import Broker, Client, Closed, Config, ConnectionLost, SlowConsumer
from fanwire.testing import broker_in_memory, client_of


async def test_fixtures(autojump_clock: MockClock, fanwire_broker: Broker, fanwire_client: Client) -> None:
    """`fanwire.testing` brings a broker and a client of it."""
    async with fanwire_client.subscribe("prices.>") as prices:
        fanwire_broker.publish("prices.ABC", b"12", encoding=0)

        assert (await anext(prices)).payload == b"12"


@pytest.mark.parametrize("data", [None, 1, 2.5, "text", b"bytes", [1, [2]], {"a": {"b": True}}])
async def test_any_data_arrives_as_it_was(autojump_clock: MockClock, fanwire_client: Client, data: object) -> None:
    """What is published is what subscribers get."""
    async with fanwire_client.subscribe("t") as subscription:
        await fanwire_client.publish("t", data)

        assert (await anext(subscription)).data == data


@pytest.mark.parametrize("data", ["text é", b"bytes"])
async def test_raw_data_arrives_as_it_was(autojump_clock: MockClock, fanwire_client: Client, data: object) -> None:
    """Raw text is text, raw bytes are bytes."""
    async with fanwire_client.subscribe("t") as subscription:
        await fanwire_client.publish("t", data, raw=True)

        assert (await anext(subscription)).data == data


async def test_who_gets_what(autojump_clock: MockClock) -> None:
    """Several clients in one program; patterns decide, and the publisher hears how many there were."""
    async with (
        broker_in_memory() as broker,
        client_of(broker) as one,
        client_of(broker) as two,
        one.subscribe("a.*") as stars,
        two.subscribe("a.>") as all_below,
        two.subscribe("b") as exact,
    ):
        assert (await one.publish("a.x", 1)).subscribers == 2
        assert (await one.publish("a.x.y", 2)).subscribers == 1
        assert (await one.publish("b", 3)).subscribers == 1

        assert [(await anext(all_below)).topic for _ in range(2)] == ["a.x", "a.x.y"]
        assert (await anext(stars)).topic == "a.x"
        assert ((await anext(exact)).topic, stars.waiting) == ("b", 0)


async def test_all_ways_of_publishing_keep_the_order(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """Acknowledged, pipelined or not: one client's messages arrive as they were published."""
    client = fanwire_client
    async with client.subscribe("t", buffer=10_000) as subscription:
        numbers = iter(range(3000))
        for _ in range(1000):
            client.publish_nowait("t", next(numbers))
        await client.publish("t", next(numbers))
        async with client.pipeline() as pipeline:
            for number in numbers:
                await pipeline.publish("t", number)

        assert [(await anext(subscription)).data for _ in range(3000)] == list(range(3000))
        assert pipeline.acknowledged == 1999


async def test_unsubscribing(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """Once the block was left the broker has nobody for the topic."""
    async with fanwire_client.subscribe("t"):
        assert (await fanwire_client.publish("t", 1)).subscribers == 1

    assert (await fanwire_client.publish("t", 1)).subscribers == 0


async def test_publishing_without_awaiting(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """Half a million bytes in one go, and all of it arrives."""
    async with fanwire_client.subscribe("t") as subscription:
        for number in range(5000):
            fanwire_client.publish_nowait("t", b"%0100d" % number, raw=True)

        got = [int((await anext(subscription)).payload) for _ in range(5000)]

    assert got == list(range(5000))


async def test_large_messages(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """Larger than a batch, and as large as the broker takes."""
    async with fanwire_client.subscribe("t") as subscription:
        for size in (60_000, 70_000, 1_000_000):
            fanwire_client.publish_nowait("t", b"x" * size, raw=True)
            assert len((await anext(subscription)).payload) == size


async def test_a_slow_handler(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """It loses its own subscription, and nobody else loses anything."""
    client = fanwire_client
    async with client.subscribe("t", buffer=100) as slow, client.subscribe("t.>") as other:
        for number in range(101):
            await client.publish("t", number)
            await client.publish("t.x", number)

        assert [(await anext(other)).data for _ in range(101)] == list(range(101))
        with pytest.raises(SlowConsumer):
            await anext(slow)
        assert await client.ping() == 0


async def test_the_brokers_farewell(autojump_clock: MockClock) -> None:
    """A draining broker's clients wait for its successor, and find everything as it was."""
    async with trio.open_nursery() as nursery:
        brokers = [await nursery.start(_serve)]

        async def open_stream() -> trio.abc.Stream:
            stream: trio.abc.Stream = await brokers[-1].open_stream()
            return stream

        async with client_of(brokers[0], open_stream=open_stream) as client, client.subscribe("t") as subscription:
            brokers.append(await nursery.start(_serve))
            await brokers[0].drain()
            await wait_all_tasks_blocked()
            await trio.sleep(60)
            assert client.state == "connected"
            await client.publish("t", 1)

            assert (await anext(subscription)).data == 1
            assert subscription.gaps == 1
        nursery.cancel_scope.cancel()


async def _serve(*, task_status: trio.TaskStatus[Broker]) -> None:
    async with broker_in_memory() as broker:
        task_status.started(broker)
        await trio.sleep_forever()


async def test_without_reconnect(autojump_clock: MockClock) -> None:
    """The end of the broker is the end of the client, and its program hears of it."""
    async with (
        broker_in_memory() as broker,
        client_of(broker, reconnect=False) as client,
        client.subscribe("t") as subscription,
    ):
        await broker.drain()

        with pytest.raises(ConnectionLost, match="shutting_down"):
            await anext(subscription)


async def test_a_client_outlived_by_a_task(autojump_clock: MockClock, fanwire_broker: Broker) -> None:
    """A task that iterates after the client was closed hears `Closed`."""
    async with client_of(fanwire_broker) as client:
        subscription = client.subscribe("t")
        await subscription.__aenter__()

    with pytest.raises(Closed):
        await anext(subscription)
    await subscription.__aexit__(None, None, None)


async def test_hours_of_silence(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """Both sides' pings keep a quiet connection alive."""
    states = fanwire_client.states()
    assert await anext(states) == "connected"
    with trio.move_on_after(24 * 3600) as day:
        await anext(states)

    assert day.cancelled_caught


async def test_statistics_forget_a_client(autojump_clock: MockClock) -> None:
    """A client that was cancelled leaves nothing behind at the broker: there is room for another one."""
    async with broker_in_memory(Config(max_connections=1)) as broker:
        with trio.CancelScope() as scope:
            async with client_of(broker) as client, client.subscribe("t"):
                scope.cancel()
                await trio.sleep_forever()
        await wait_all_tasks_blocked()

        assert broker.publish("t", b"", encoding=0) == 0
        async with client_of(broker) as another:
            assert another.state == "connected"


async def test_keys_reach_whoever_subscribed(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """By every way of publishing; a message without one has None."""
    async with fanwire_client.subscribe("a") as messages, fanwire_client.pipeline() as pipeline:
        await fanwire_client.publish("a", 1, key="x")
        fanwire_client.publish_nowait("a", 2, key="y")
        await pipeline.publish("a", 3, key="z")
        await fanwire_client.publish("a", 4)
        got = [await anext(messages) for _ in range(4)]

        assert [(each.data, each.key) for each in got] == [(1, "x"), (2, "y"), (3, "z"), (4, None)]


async def test_a_rate_and_a_policy_are_asked_for_and_granted(autojump_clock: MockClock) -> None:
    """What the broker grants is told, and it keeps to it; a change counts at once."""
    async with (
        broker_in_memory(Config(listen=False)) as broker,
        client_of(broker) as client,
        client.subscribe("a", max_rate=2, queue=7) as messages,
    ):
        assert messages.granted is not None
        assert (messages.granted.queue, messages.granted.max_rate, messages.granted.on_slow) == (7, 2, "conflate")
        began = trio.current_time()
        for number in range(4):
            broker.publish("a", b"%d" % number)
        first, held = await anext(messages), await anext(messages)
        assert (first.payload, held.payload) == (b"0", b"3")
        assert trio.current_time() - began == pytest.approx(0.5, abs=0.01)
        await messages.change(max_rate=None)
        broker.publish("a", b"4")
        broker.publish("a", b"5")

        assert [(await anext(messages)).payload for _ in range(2)] == [b"4", b"5"]
        assert messages.granted.max_rate is None
