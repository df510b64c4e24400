"""What topics remember, as the client's user sees it: beginning with the past, and going on after a break."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire import (
    Broker,
    Client,
    ConnectionLost,
    LocalProtocolError,
    LostMessages,
    Message,
    RequestFailed,
    SlowConsumer,
    Subscription,
)
from fanwire.broker import Config, TopicRule
from fanwire.client.subscribing.position import MOST_TOPICS
from fanwire.testing import broker_in_memory, client_of
from tests.peers.proxy import Proxy

HISTORY = TopicRule(pattern="h.>", history=1000)
SHORT = TopicRule(pattern="short.>", history=3)
RETAIN = TopicRule(pattern="r.>", retain=True)
CONFIG = Config(rules=(HISTORY, SHORT, RETAIN))


@attrs.frozen
class Scene:
    """A broker, a client whose connection goes through a proxy, and one whose connection does not."""

    broker: Broker
    proxy: Proxy
    client: Client
    other: Client

    async def cut(self) -> None:
        """The connection breaks off, and stays away until `reconnect`."""
        await wait_all_tasks_blocked()
        self.proxy.down = True
        self.proxy.cut()
        await wait_all_tasks_blocked()
        assert self.client.state != "connected"

    async def reconnect(self) -> None:
        """The connection can be made again, and is."""
        self.proxy.down = False
        async for state in self.client.states():
            if state == "connected":
                break
        await wait_all_tasks_blocked()


@asynccontextmanager
async def scene(config: Config = CONFIG, **options: Any) -> AsyncIterator[Scene]:
    async with broker_in_memory(config) as broker, trio.open_nursery() as nursery:
        proxy = Proxy(nursery, broker.open_stream)
        async with client_of(broker, open_stream=proxy.open_stream, **options) as client, client_of(broker) as other:
            yield Scene(broker, proxy, client, other)
        nursery.cancel_scope.cancel()


async def taken(subscription: Subscription, count: int) -> list[Any]:
    """Data, or the loss as (count, reason, topic), of so many."""
    got: list[Any] = []
    with trio.fail_after(60):
        while len(got) < count:
            one: Message | LostMessages = await anext(subscription)
            got.append((one.count, one.reason, one.topic) if isinstance(one, LostMessages) else one.data)
    return got


async def waiting(subscription: Subscription) -> list[Any]:
    """The same of all that has come."""
    await wait_all_tasks_blocked()
    got: list[Any] = []
    while subscription.waiting:
        got += await taken(subscription, 1)
    return got


# ------------------------------------------------------------------ beginning


async def test_a_snapshot_then_live(autojump_clock: MockClock) -> None:
    """The last values first, told apart from what is published later."""
    async with scene() as on:
        await on.other.publish("r.a", 1)
        await on.other.publish("r.b", 2)
        async with on.client.subscribe("r.*", snapshot=True) as subscription:
            await subscription.complete()
            await on.other.publish("r.a", 3)
            got = [await anext(subscription) for _ in range(3)]

        assert [(one.topic, one.data, one.replayed, one.retained) for one in got] == [
            ("r.a", 1, True, True), ("r.b", 2, True, True), ("r.a", 3, False, False),
        ]  # fmt: skip
        assert subscription.recovered is None


async def test_a_deleted_value_is_not_in_the_snapshot(autojump_clock: MockClock) -> None:
    """Nor can it be asked for."""
    async with scene() as on:
        await on.other.publish("x", 1, retain=True)
        before = await on.client.last("x")
        await on.other.publish("x", b"", raw=True, retain=True)
        async with on.client.subscribe("x", snapshot=True) as subscription:
            await subscription.complete()

            assert subscription.waiting == 0
        assert before is not None
        assert before.data == 1
        assert await on.client.last("x") is None
        assert await on.client.last("never.heard.of") is None


async def test_replay_in_three_ways(autojump_clock: MockClock) -> None:
    """By number, by time, and after an offset."""
    async with scene() as on:
        times = []
        for number in range(1, 6):
            await on.other.publish("h.a", number)
            last = await on.other.last("h.a")
            assert last is not None
            times.append(last.time)
        async with on.client.subscribe("h.a", replay={"last": 2}) as subscription:
            await subscription.complete()
            assert await waiting(subscription) == [4, 5]
            epoch = subscription.epoch
        async with on.client.subscribe("h.a", replay={"since": times[2]}) as subscription:
            await subscription.complete()
            assert (await waiting(subscription))[-3:] == [3, 4, 5]
        async with on.client.subscribe("h.a", replay={"offset": 4, "epoch": epoch}) as subscription:
            await subscription.complete()
            assert await waiting(subscription) == [5]
            assert subscription.recovered is True


async def test_a_wrong_replay(autojump_clock: MockClock) -> None:
    """Found before anything is sent."""
    async with scene() as on:
        with pytest.raises(LocalProtocolError, match="one of last, since"):
            on.client.subscribe("h.a", replay={})
        with pytest.raises(LocalProtocolError, match="offsets"):
            on.client.subscribe("h.*", replay={"offset": 1, "epoch": "e"})
        with pytest.raises(RequestFailed, match="keeps no history"):
            async with on.client.subscribe("none", replay={"last": 1}):
                pass


async def test_only_the_first_of_a_pattern_can_have_the_past(autojump_clock: MockClock) -> None:
    """The broker sends a pattern once to each client; the error says what else can be done."""
    async with scene() as on, on.client.subscribe("h.a"):
        with pytest.raises(LocalProtocolError, match=r"client\.history"):
            async with on.client.subscribe("h.a", replay={"last": 1}):
                pass


async def test_a_replay_that_does_not_fit_waits_for_the_handler(autojump_clock: MockClock) -> None:
    """More than the buffer may hold, to a handler that takes its time."""
    async with scene(Config(rules=(TopicRule(pattern=">", history=5000),))) as on:
        for number in range(5000):
            on.broker.publish("a", number.to_bytes(2, "big"))
        got: list[int] = []
        async with on.client.subscribe("a", replay={"last": 5000}, buffer=50) as subscription:
            async for message in subscription:
                if len(got) % 100 == 0:
                    await trio.sleep(0.01)
                got.append(int.from_bytes(message.payload, "big"))
                if len(got) == 5000:
                    break
        assert got == list(range(5000))
        assert on.proxy.opened == 1


async def test_a_handler_that_takes_nothing_of_a_replay(autojump_clock: MockClock) -> None:
    """It is waited for, then it is too slow; nobody else is harmed."""
    async with scene(Config(rules=(TopicRule(pattern=">", history=20_000),))) as on:
        for _ in range(20_000):
            on.broker.publish("a", b"x" * 50)
        async with on.client.subscribe("b") as other:
            async with on.client.subscribe("a", replay={"last": 20_000}, buffer=50) as subscription:
                await trio.sleep(60)
                with pytest.raises(SlowConsumer, match="buffer=50"):
                    await anext(subscription)
            await on.other.publish("b", 1)
            assert await taken(other, 1) == [1]
            assert other.gaps == 0


# -------------------------------------------------------------- after a break


async def test_what_was_published_during_a_break_comes_after_it(autojump_clock: MockClock) -> None:
    """Nothing twice, nothing missing, and the subscription says so."""
    async with scene() as on, on.client.subscribe("h.a", report_loss=True) as subscription:
        await on.other.publish("h.a", 1)
        await on.cut()
        await on.other.publish("h.a", 2)
        await on.other.publish("h.a", 3)
        await on.reconnect()
        await on.other.publish("h.a", 4)
        got = [await anext(subscription) for _ in range(4)]

        assert [(one.data, one.offset, one.replayed) for one in got] == [
            (1, 1, False), (2, 2, True), (3, 3, True), (4, 4, False),
        ]  # fmt: skip
        assert (subscription.recovered, subscription.gaps, subscription.lost) == (True, 0, 0)


async def test_a_break_before_the_first_message(autojump_clock: MockClock) -> None:
    """The subscription goes on from where it began, not from the beginning of all time."""
    async with scene() as on:
        await on.other.publish("h.a", "before")
        async with on.client.subscribe("h.a") as subscription:
            await on.cut()
            await on.other.publish("h.a", "meanwhile")
            await on.reconnect()

            assert await waiting(subscription) == ["meanwhile"]
            assert subscription.recovered is True


async def test_many_topics_after_a_break(autojump_clock: MockClock) -> None:
    """Those heard of, those that are new, and old ones that had been silent."""
    async with scene() as on:
        for topic in ("h.old", "h.silent"):
            for number in range(3):
                on.broker.publish(topic, b"before %d" % number)
        async with on.client.subscribe("h.*") as subscription:
            await on.other.publish("h.a", 1)
            await on.cut()
            for number in (2, 3):
                await on.other.publish("h.a", number)
            await on.other.publish("h.new", 1)
            await on.other.publish("h.silent", "speaks")
            await on.reconnect()
            await wait_all_tasks_blocked()
            got: dict[str, list[int]] = {}
            while subscription.waiting:
                message = await anext(subscription)
                got.setdefault(message.topic, []).append(message.offset)

        assert got == {"h.a": [1, 2, 3], "h.new": [1], "h.silent": [4]}
        assert (subscription.recovered, subscription.gaps) == (True, 0)


async def test_what_is_no_longer_kept_is_told(autojump_clock: MockClock) -> None:
    """How many, in their place; it has not recovered."""
    async with scene() as on, on.client.subscribe("short.a", report_loss=True) as subscription:
        await on.other.publish("short.a", 1)
        await on.cut()
        for number in range(2, 10):
            await on.other.publish("short.a", number)
        await on.reconnect()

        assert await taken(subscription, 5) == [1, (5, "evicted", "short.a"), 7, 8, 9]
        assert (subscription.recovered, subscription.lost, subscription.gaps) == (False, 5, 0)


async def test_topics_without_history_have_a_gap(autojump_clock: MockClock) -> None:
    """As before: nobody knows what was missed. A pattern that has some of them cannot be sure either."""
    async with scene() as on, on.client.subscribe("x") as plain, on.client.subscribe(">") as all_of_them:
        await on.other.publish("h.a", 1)
        await on.cut()
        await on.other.publish("h.a", 2)
        await on.other.publish("x", 1)
        await on.reconnect()

        assert await waiting(all_of_them) == [1, 2]
        assert [(one.recovered, one.gaps) for one in (plain, all_of_them)] == [(False, 1), (False, 1)]


async def test_another_life_of_the_broker(autojump_clock: MockClock) -> None:
    """Its offsets mean nothing here: what is kept comes, and the gap is told."""
    async with broker_in_memory(CONFIG) as first, broker_in_memory(CONFIG) as second:
        brokers = [first]

        async def open_stream() -> trio.abc.Stream:
            stream: trio.abc.Stream = await brokers[-1].open_stream()
            return stream

        async with (
            client_of(first, open_stream=open_stream) as client,
            client.subscribe("h.a", report_loss=True) as one,
            client.subscribe("h.*", report_loss=True) as many,
        ):
            await client.publish("h.a", 1)
            second.publish("h.a", b"\x02", encoding=1)
            brokers.append(second)
            await first.drain()
            await trio.sleep(60)
            await wait_all_tasks_blocked()

            assert await taken(one, 3) == [1, (None, "restart", "h.a"), 2]
            assert one.recovered is False
            got = await waiting(many)
            assert (got[0], got[-1]) == (1, 2)
            assert (None, "restart", "h.a") in got
            assert many.gaps > 0
            await client.publish("h.a", 3)
            assert await taken(one, 1) == await taken(many, 1) == [3]


async def test_who_wants_only_what_is_new(autojump_clock: MockClock) -> None:
    """`recover=False`: the present, and an honest gap."""
    async with scene() as on, on.client.subscribe("h.a", recover=False) as subscription:
        await on.cut()
        await on.other.publish("h.a", 1)
        await on.reconnect()
        await on.other.publish("h.a", 2)

        assert await taken(subscription, 1) == [2]
        assert (subscription.recovered, subscription.gaps) == (False, 1)


async def test_who_conflates_gets_the_newest_of_each(autojump_clock: MockClock) -> None:
    """Not all that was missed; and nothing that had come before."""
    async with scene() as on, on.client.subscribe("h.*", on_slow="conflate") as subscription:
        await on.other.publish("h.a", 1)
        await on.other.publish("h.b", 1)
        await on.cut()
        for number in range(2, 100):
            await on.other.publish("h.a", number)
        await on.reconnect()

        assert await waiting(subscription) == [1, 1, 99]
        assert (subscription.recovered, subscription.gaps) == (True, 0)


async def test_more_topics_than_can_be_remembered(autojump_clock: MockClock) -> None:
    """There is a bound, and beyond it the gap is told."""
    config = Config(rules=(TopicRule(pattern=">", history=2),))
    async with scene(config) as on, on.client.subscribe("t.*") as subscription:
        for number in range(MOST_TOPICS + 1):
            on.broker.publish(f"t.{number}", b"x")
        await wait_all_tasks_blocked()
        assert subscription.waiting == MOST_TOPICS + 1
        await on.cut()
        await on.reconnect()
        assert (subscription.recovered, subscription.gaps) == (False, 1)
        await on.other.publish("t.1", 1)
        await on.cut()
        await on.other.publish("t.2", 1)
        await on.reconnect()

        assert subscription.waiting == MOST_TOPICS + 3
        assert len(await waiting(subscription)) == MOST_TOPICS + 3
        assert (subscription.recovered, subscription.gaps) == (True, 1)


async def test_a_slow_consumer_comes_back_and_has_lost_nothing(autojump_clock: MockClock) -> None:
    """`on_slow_reconnect="resume"`: the history bears what the queue could not."""
    config = Config(rules=(HISTORY,), queue=50, queue_grace_s=None)
    async with scene(config) as on, on.client.subscribe("h.a", on_slow_reconnect="resume") as subscription:
        await wait_all_tasks_blocked()
        on.proxy.delay = lambda: 1.0
        for number in range(900):
            on.broker.publish("h.a", number.to_bytes(2, "big") + b"x" * 2000)
            if number % 100 == 0:
                await trio.sleep(0.1)
        on.proxy.delay = None
        got: list[int] = []
        with trio.fail_after(600):
            while len(got) < 900:
                got.append(int.from_bytes((await anext(subscription)).payload[:2], "big"))
            await subscription.complete()  # the last message may come before it is said that it was the last

        assert got == list(range(900))
        assert on.proxy.opened > 1, "the broker has dropped it"
        assert (subscription.recovered, subscription.gaps, subscription.lost) == (True, 0, 0)


# --------------------------------------------------------------- the past alone


async def test_history_in_pages(autojump_clock: MockClock) -> None:
    """As many as there are, in order; or the newest, or from somewhere on."""
    async with scene(Config(rules=(TopicRule(pattern=">", history=5000),))) as on:
        for number in range(5000):
            on.broker.publish("a", number.to_bytes(2, "big"))

        async def fetched(**how: Any) -> list[int]:
            return [int.from_bytes(one.payload, "big") async for one in on.client.history("a", **how)]

        assert await fetched() == list(range(5000))
        assert await fetched(last=3) == [4997, 4998, 4999]
        assert await fetched(last=2000) == list(range(3000, 5000))
        assert await fetched(offset=4990) == list(range(4990, 5000))
        assert await fetched(since=0) == list(range(5000))
        with pytest.raises(RequestFailed, match="keeps no history"):
            await anext(on.client.history("$sys.x"))


async def test_history_that_has_gone(autojump_clock: MockClock) -> None:
    """Told when asked for."""
    async with scene() as on:
        for number in range(1, 10):
            await on.other.publish("short.a", number)
        got = [one async for one in on.client.history("short.a", offset=2, report_loss=True)]
        lost: object = got[0]

        assert isinstance(lost, LostMessages)
        assert (lost.count, lost.first, lost.last) == (4, 3, 6)
        assert [one.data for one in got[1:]] == [7, 8, 9]


# ------------------------------------------------------------------ publishing


async def test_compare_and_publish(autojump_clock: MockClock) -> None:
    """Of two who have seen the same, one is told that the other was quicker, and what the head is now."""
    async with scene() as on:
        first = await on.client.publish("h.a", 1, expect=0)
        assert first.offset == 1
        with pytest.raises(RequestFailed) as caught:
            await on.other.publish("h.a", 2, expect=0)

        assert caught.value.code == "conflict"
        assert caught.value.detail == {"offset": 1}


async def test_a_publish_is_repeated_and_counts_once(autojump_clock: MockClock) -> None:
    """The answer was lost with the connection; the one that comes says that it had been taken in."""
    async with scene() as on, on.other.subscribe("h.a") as subscription:
        on.proxy.delay = lambda: 1.0
        results = []

        async def publish() -> None:
            results.append(await on.client.publish("h.a", "once", msg_id="id-1"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            assert await taken(subscription, 1) == ["once"]
            on.proxy.cut()
            on.proxy.delay = None

        assert [(one.offset, one.repeated) for one in results] == [(1, True)]
        assert await waiting(subscription) == []


async def test_a_publish_without_a_name_is_not_repeated(autojump_clock: MockClock) -> None:
    """Nobody knows whether it was taken in."""
    async with scene() as on:
        on.proxy.delay = lambda: 1.0

        async def publish() -> None:
            with pytest.raises(ConnectionLost):
                await on.client.publish("h.a", 1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            await trio.sleep(0.5)
            on.proxy.cut()


# --------------------------------------------------------------- any schedule

STEPS = st.lists(
    st.tuples(st.sampled_from(["publish", "cut", "reconnect", "take", "delay"]), st.integers(0, 3), st.integers(1, 30)),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 2**32), replay=st.booleans())
def test_any_schedule_of_breaks(steps: list[tuple[str, int, int]], seed: int, replay: bool) -> None:
    """Each topic's offsets are 1, 2, 3 …, or the missing ones are told; wherever the connection breaks."""
    trio.run(_schedule, steps, random.Random(seed), replay, clock=MockClock(autojump_threshold=0))


async def _schedule(steps: list[tuple[str, int, int]], draw: random.Random, replay: bool) -> None:
    config = Config(rules=(TopicRule(pattern="a.>", history=40, history_bytes=20_000),))
    async with scene(config) as on:
        heads: dict[str, int] = {}
        past = {"last": 100} if replay else None
        async with (
            on.client.subscribe("a.*", report_loss=True, replay=past) as many,
            on.client.subscribe("a.1", report_loss=True, replay=past) as one,
        ):
            seen: dict[Subscription, list[Any]] = {many: [], one: []}

            async def collect(subscription: Subscription) -> None:
                while subscription.waiting:
                    seen[subscription].append(await anext(subscription))

            for step, which, count in steps:
                match step:
                    case "publish":
                        topic = f"a.{which}"
                        for _ in range(count):
                            heads[topic] = heads.get(topic, 0) + 1
                            on.broker.publish(topic, b"x" * draw.randrange(1, 600))
                    case "cut":
                        await trio.sleep(draw.random() * 0.01)
                        on.proxy.cut()
                    case "delay":
                        wait = draw.random() * 0.01
                        on.proxy.delay = (lambda wait=wait: wait) if which else None
                    case "take":
                        await collect(many)
                        await collect(one)
                    case _:
                        await trio.sleep(count)
            on.proxy.delay = None
            await trio.sleep(120)
            for subscription in (many, one):
                await on.reconnect()
                await collect(subscription)
        _check(seen[many], heads)
        _check(seen[one], {topic: head for topic, head in heads.items() if topic == "a.1"})


def _check(stream: list[Any], heads: dict[str, int]) -> None:
    had: dict[str, int] = {}
    for one in stream:
        if isinstance(one, LostMessages):
            assert one.topic is not None, "all topics have history, and the broker lives"
            assert one.count is None or one.first == had.get(one.topic, 0) + 1
            had[one.topic] = one.last if one.last is not None else -1
        else:
            before = had.get(one.topic, 0)
            assert one.offset == before + 1 or before == -1, (one.topic, before, one.offset)
            had[one.topic] = one.offset
    assert {topic: had.get(topic) for topic in heads} == heads
