"""The client and the real broker when the network to the client stands still: what each side makes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire import Broker, Client, Config, Granted, LostMessages, SlowConsumer, Subscription
from fanwire.broker import TopicRule
from fanwire.testing import broker_in_memory, client_of

# More than the stream between broker and client holds; what is published after it waits at the broker.
PLUG = b"p" * 500_000


class Network(trio.abc.Stream):
    """A stream to the broker through which nothing comes while it is stalled."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._flows = trio.Event()
        self._flows.set()

    def stall(self) -> None:
        self._flows = trio.Event()

    def flow(self) -> None:
        self._flows.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        await self._flows.wait()
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self._flows.set()
        await self._stream.aclose()


class Scene:
    """A broker, and a client whose network can be stalled."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.networks: list[Network] = []

    async def open_stream(self) -> trio.abc.Stream:
        self.networks.append(Network(await self.broker.open_stream()))
        return self.networks[-1]

    async def stall(self) -> None:
        """Nothing comes any more, and what stands between has been filled."""
        self.networks[-1].stall()
        await wait_all_tasks_blocked()
        await self.publish("plug", PLUG, PLUG, PLUG)

    def flow(self) -> None:
        self.networks[-1].flow()

    async def publish(self, topic: str, *payloads: bytes) -> None:
        """One at a time, each sent before the next."""
        for payload in payloads:
            self.broker.publish(topic, payload, encoding=0)
            await wait_all_tasks_blocked()


@asynccontextmanager
async def _scene(**settings: Any) -> AsyncIterator[tuple[Scene, Client]]:
    async with broker_in_memory(Config(**settings)) as broker:
        scene = Scene(broker)
        async with client_of(broker, name="slow", open_stream=scene.open_stream) as client, client.subscribe("plug"):
            yield scene, client


async def _shown(subscription: Subscription, count: int) -> list[object]:
    """Payloads of messages; count, reason and topic of losses."""
    shown: list[object] = []
    for _ in range(count):
        with trio.fail_after(5):
            entry: object = await anext(subscription)
        lost = isinstance(entry, LostMessages)
        shown.append((entry.count, entry.reason, entry.topic) if lost else entry.payload)  # type: ignore[attr-defined]
    return shown


@pytest.mark.parametrize(
    ("on_slow", "shown", "lost"),
    [
        ("drop_oldest", [(3, "queue", "a"), b"4", b"5", b"6"], 3),
        ("drop_newest", [b"1", b"2", b"3", (3, "queue", "a")], 3),
        ("conflate", [b"6"], 0),
    ],
)
async def test_what_comes_when_the_network_moves_again(
    autojump_clock: MockClock, on_slow: Any, shown: list[object], lost: int
) -> None:
    """Of six messages with room for three; the connection lives, the publisher never waited, and loss is counted."""
    async with (
        _scene() as (scene, client),
        client.subscribe("a", on_slow=on_slow, queue=3, report_loss=True) as subscription,
    ):
        await scene.stall()
        await scene.publish("a", b"1", b"2", b"3", b"4", b"5", b"6")
        assert subscription.waiting == 0
        scene.flow()

        assert await _shown(subscription, len(shown)) == shown
        assert (subscription.lost, subscription.gaps, len(scene.networks)) == (lost, 0, 1)
        assert (subscription.lagging is None) is (on_slow == "conflate")


@pytest.mark.parametrize("on_slow", ["disconnect", "unsubscribe"])
async def test_the_end_with_the_facts(autojump_clock: MockClock, on_slow: Any) -> None:
    """The fourth message of three: `SlowConsumer`, from the broker's own GOODBYE or ERROR."""
    async with _scene() as (scene, client), client.subscribe("a", on_slow=on_slow, queue=3) as subscription:
        await scene.stall()
        await scene.publish("a", b"1", b"2", b"3", b"4")
        scene.flow()

        with trio.fail_after(5), pytest.raises(SlowConsumer) as caught:
            await _shown(subscription, 4)

    slow = caught.value
    assert (slow.measure, slow.limit, slow.at_broker, slow.queued) == ("queue", 3, True, 3)


@pytest.mark.parametrize("on_slow", ["disconnect", "unsubscribe"])
async def test_back_again_conflated(autojump_clock: MockClock, on_slow: Any) -> None:
    """With ``on_slow_reconnect="conflate"`` the program goes on with the newest, and knows that it missed something."""
    async with (
        _scene() as (scene, client),
        client.subscribe("a", on_slow=on_slow, queue=3, on_slow_reconnect="conflate", report_loss=True) as subscription,
    ):
        await scene.stall()
        await scene.publish("a", b"1", b"2", b"3", b"4")
        scene.flow()
        with trio.fail_after(5):
            mark: object = await anext(subscription)
            while not isinstance(mark, LostMessages):
                mark = await anext(subscription)
        assert (mark.count, mark.reason) == (None, "slow_consumer")
        assert subscription.granted == Granted(3, None, "conflate")
        await scene.stall()
        await scene.publish("a", b"5", b"6", b"7", b"8", b"9")
        scene.flow()

        assert await _shown(subscription, 1) == [b"9"]
        assert len(scene.networks) == (2 if on_slow == "disconnect" else 1)


async def test_at_most_so_many_a_second(autojump_clock: MockClock) -> None:
    """The first at once, then the newest when it is due; a change takes effect at once."""
    async with _scene() as (scene, client), client.subscribe("a", max_rate=1) as subscription:
        assert subscription.granted is not None
        assert (subscription.granted.max_rate, subscription.granted.on_slow) == (1, "conflate")
        began = trio.current_time()
        await scene.publish("a", b"1", b"2", b"3")
        assert await _shown(subscription, 2) == [b"1", b"3"]
        assert trio.current_time() - began == pytest.approx(1.0, abs=0.05)

        await subscription.change(max_rate=None)
        assert subscription.granted.max_rate is None
        await scene.publish("a", b"4", b"5", b"6")
        assert await _shown(subscription, 3) == [b"4", b"5", b"6"]
        assert (subscription.lost, subscription.gaps) == (0, 0)


async def test_what_the_operator_forces_is_what_is_granted(autojump_clock: MockClock) -> None:
    """By topic and by user; a program that is not touched gets it, and can see it."""
    rule = TopicRule(pattern="a.>", user="slow", on_slow="conflate", max_queue=50)
    async with _scene(rules=(rule,)) as (_, client), client.subscribe("a.b", queue=100) as subscription:
        assert subscription.granted == Granted(50, None, "conflate")
        await subscription.change(queue=20, on_slow="drop_oldest")

        assert subscription.granted == Granted(20, None, "conflate")


async def test_a_publisher_hears_who_lags(autojump_clock: MockClock) -> None:
    """`lagging` counts those past 75 %, in the result of a publish and in a pipeline's newest answer."""
    async with (
        _scene() as (scene, client),
        client.subscribe("a", on_slow="drop_oldest", queue=10) as subscription,
        client_of(scene.broker) as publisher,
    ):
        assert (await publisher.publish("a", 0)).lagging == 0
        await scene.stall()
        await scene.publish("a", *(b"%d" % n for n in range(9)))

        assert (await publisher.publish("a", 1)).lagging == 1
        async with publisher.pipeline() as pipeline:
            await pipeline.publish("a", 2)
        assert pipeline.newest is not None
        assert pipeline.newest.lagging == 1
        scene.flow()
        await wait_all_tasks_blocked()
        assert subscription.lagging is not None
        assert subscription.lagging.limit == 10
