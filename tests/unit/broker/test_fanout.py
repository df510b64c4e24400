"""Gathering and sweeping: everything taken in is written once, in order, in frames of a bounded size."""

from __future__ import annotations

import random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker.delivery import fanout as fanout_module
from fanwire.broker.delivery.fanout import FEW, FEW_CHUNKS, SWEEP
from fanwire.protocol import MAX_BATCH, Message, Ok, Publish, encode
from fanwire.protocol.codec import decode_from_broker
from tests.unit.broker.subscriber import Engine, Subscriber


class Recorder:
    """In place of a stream: keeps the very objects that are written."""

    send = None
    clear = True

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write_nowait(self, data: bytes) -> None:
        """Take all."""
        self.written.append(data)


def _recording() -> tuple[Subscriber, Recorder]:
    subscriber, recorder = Subscriber(), Recorder()
    subscriber.outbox.stream = recorder  # type: ignore[assignment]
    return subscriber, recorder


@pytest.fixture
def engine(nursery: trio.Nursery) -> Engine:
    """A registry and a fanout that is running."""
    engine = Engine()
    nursery.start_soon(engine.fanout.run)
    return engine


async def test_everybody_gets_the_same_object(engine: Engine) -> None:
    """A message is encoded and framed once: each subscriber is written the identical bytes object."""
    recorded = [_recording() for _ in range(5)]
    for subscriber, _ in recorded:
        engine.subscribe(subscriber, "a.>")
    engine.publish("a.b", b"x", b"y")
    await wait_all_tasks_blocked()

    ((frame,), *others) = [recorder.written for _, recorder in recorded]
    assert len(list(decode_from_broker(frame[2:]))) == 2
    assert all(other[0] is frame for other in others)


async def test_nothing_is_written_twice_and_nothing_empty(engine: Engine) -> None:
    """One write for each sweep that has something for a subscriber."""
    (one, first), (other, second) = _recording(), _recording()
    engine.subscribe(one, "a")
    engine.subscribe(other, "b")
    for topic in ("a", "b", "a"):
        engine.publish(topic, b"x")
    await wait_all_tasks_blocked()
    engine.publish("a", b"y")
    await wait_all_tasks_blocked()

    assert [len(first.written), len(second.written)] == [2, 1]


async def test_who_joins_between_two_publishes_of_a_sweep_gets_the_second(
    engine: Engine, autojump_clock: MockClock
) -> None:
    """The route was noted for this sweep already; the newcomer is noted too."""
    first, second = Subscriber(), Subscriber()
    engine.subscribe(first, "a")
    engine.publish("a", b"1")
    engine.subscribe(second, "a")
    engine.publish("a", b"2")
    await wait_all_tasks_blocked()

    assert await first.reader.payloads(2) == [b"1", b"2"]
    with trio.fail_after(1):
        assert await second.reader.payloads(1) == [b"2"]


async def test_two_subscriptions_that_match_bring_two_messages(engine: Engine) -> None:
    """A connection on two matching patterns gets the message by each of its routes."""
    subscriber = Subscriber()
    routes = [engine.subscribe(subscriber, pattern).route.number for pattern in ("a", "*")]

    assert engine.publish("a", b"x") == 2
    messages = [await subscriber.reader.expect(Message) for _ in routes]
    assert sorted(message.route for message in messages) == routes


sizes = st.integers(0, 300) | st.integers(20_000, 70_000)


@given(st.lists(st.tuples(st.sampled_from("abc"), sizes), min_size=1, max_size=15))
def test_frames_hold_64_kib_or_one_envelope(published: list[tuple[str, int]]) -> None:
    """However much is gathered: frames within the limit, everything there, in order."""
    data = [bytes([number]) * size for number, (_, size) in enumerate(published)]
    envelopes = [encode(Message(1, topic, 0, 1, each)) for (topic, _), each in zip(published, data, strict=True)]
    reader = Subscriber().reader
    reader.received += fanout_module._frames(envelopes)

    found = []
    while frame := reader._cut():
        inside = list(decode_from_broker(frame.payload))
        assert len(frame.payload) <= MAX_BATCH or len(inside) == 1
        found += inside
    assert [encode(each) for each in found] == envelopes


async def test_a_wildcard_subscriber_sees_one_publishers_order_across_topics(engine: Engine) -> None:
    """Topics that reach somebody through one wildcard keep the order in which one publisher published on them."""
    subscriber = Subscriber()
    engine.subscribe(subscriber, "t.*")
    order = [random.choice("abc") for _ in range(200)]
    engine.take(b"".join(encode(Publish(0, f"t.{name}", b"%d" % n)) for n, name in enumerate(order)))
    messages = [await subscriber.reader.expect(Message) for _ in order]

    assert [(m.topic, int(m.payload)) for m in messages] == [(f"t.{name}", n) for n, name in enumerate(order)]


async def test_sweeps_that_yield_neither_mix_nor_lose(engine: Engine) -> None:
    """Two publishers go on while a sweep over many gives way: everybody gets all of both, each in its order."""
    subscribers = [Subscriber(1 << 20) for _ in range(2 * SWEEP + 10)]
    for subscriber in subscribers:
        engine.subscribe(subscriber, "a")
        engine.subscribe(subscriber, "*.b")

    async def publish(name: bytes, topic: str) -> None:
        for number in range(20):
            engine.publish(topic, *(b"%b %d" % (name, 3 * number + i) for i in range(3)))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish, b"one", "a")
        nursery.start_soon(publish, b"two", "x.b")

    for subscriber in subscribers:
        got = await subscriber.reader.payloads(120)
        for name in (b"one", b"two"):
            assert [p for p in got if p.startswith(name)] == [b"%b %d" % (name, n) for n in range(60)]
        assert not subscriber.reader.received


async def test_a_cancelled_publisher_loses_nothing_that_was_taken_in(engine: Engine) -> None:
    """What `publish` has returned for is delivered, even if its task is cancelled at once."""
    subscribers = [Subscriber() for _ in range(2 * SWEEP)]
    for subscriber in subscribers:
        engine.subscribe(subscriber, "a")
    with trio.CancelScope() as scope:
        engine.publish("a", b"x")
        scope.cancel()
        await trio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    assert [await subscriber.reader.payloads(1) for subscriber in subscribers] == [[b"x"]] * len(subscribers)


async def test_slow_and_quick_subscribers_of_one_sweep(engine: Engine) -> None:
    """One whose stream is full gets what waits for it later, in order, and counted as it was published."""
    quick, slow = Subscriber(1 << 20), Subscriber(100)
    counts = [engine.subscribe(each, "a") for each in (quick, slow)]
    for number in range(10):
        engine.publish("a", *(b"%d" % (10 * number + i) for i in range(10)))
        await wait_all_tasks_blocked()
    expected = [b"%d" % number for number in range(100)]

    assert await quick.reader.payloads(100) == expected
    assert [each.waiting for each in counts] == [0, 90]  # the first ten are half written
    assert await slow.payloads_read(100) == expected
    assert [each.waiting for each in counts] == [0, 0]
    assert slow.outbox.waiting_bytes == 0


async def test_a_broken_stream_is_reported_and_the_others_get_theirs(engine: Engine) -> None:
    """A peer that is gone in the middle of a sweep concerns nobody else."""
    subscribers = [Subscriber() for _ in range(3)]
    for subscriber in subscribers:
        engine.subscribe(subscriber, "a")
    await subscribers[1].reader.stream.aclose()
    engine.publish("a", b"x")
    await wait_all_tasks_blocked()

    assert [subscriber.lost for subscriber in subscribers] == [0, 1, 0]
    assert [await subscribers[n].reader.payloads(1) for n in (0, 2)] == [[b"x"], [b"x"]]


async def test_what_is_gathered_is_bounded(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Publishers wait for a sweep once the bound is passed, and go on after it."""
    monkeypatch.setattr(fanout_module, "MAX_GATHERED", 1000)
    engine, subscriber = Engine(), Subscriber(1 << 20)
    engine.subscribe(subscriber, "a")
    released = trio.Event()

    async def publish() -> None:
        while not engine.fanout.full:
            engine.publish("a", b"x" * 100)
        await engine.fanout.swept()
        released.set()

    nursery.start_soon(publish)
    await wait_all_tasks_blocked()
    assert sum(map(len, subscriber.outbox.pending)) in range(1000, 1200)
    assert not released.is_set()

    nursery.start_soon(engine.fanout.run)
    await released.wait()
    assert not engine.fanout.full


async def test_what_is_gathered_during_a_sweep_counts_towards_the_bound(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep that gives way ends without forgetting what came meanwhile: the bound holds in every turn."""
    monkeypatch.setattr(fanout_module, "MAX_GATHERED", 1000)
    monkeypatch.setattr(fanout_module, "SWEEP", 1)
    engine = Engine()
    subscribers = [Subscriber(1 << 20) for _ in range(3)]
    for subscriber in subscribers:
        engine.subscribe(subscriber, "a")
    most = 0

    async def publish() -> None:
        nonlocal most
        for _ in range(50):
            engine.publish("a", b"x" * 300)
            most = max(most, *(sum(map(len, each.outbox.pending)) for each in subscribers))
            await engine.fanout.swept()
            await trio.lowlevel.checkpoint()

    nursery.start_soon(engine.fanout.run)
    async with trio.open_nursery() as publishers:
        for _ in range(3):
            publishers.start_soon(publish)

    assert 1000 < most <= 1000 + 3 * 330
    assert len(await subscribers[0].reader.payloads(150)) == 150


async def test_what_one_read_brings_for_a_few_is_written_at_once(engine: Engine, autojump_clock: MockClock) -> None:
    """Without waiting for the sweep; what was held wakes nobody before."""
    (one, first), (other, second) = _recording(), _recording()
    engine.subscribe(one, "a")
    engine.subscribe(other, "a")
    await trio.sleep(1)
    sleeper = engine.fanout.hold()
    engine.publish("a", b"x")
    assert first.written == []
    engine.fanout.let_go(sleeper)

    assert sleeper is not None
    assert len(first.written) == len(second.written) == 1
    assert not engine.fanout.full
    await wait_all_tasks_blocked()
    assert len(first.written) == 1
    engine.publish("a", b"y")
    await wait_all_tasks_blocked()
    assert len(first.written) == 2


async def test_what_comes_soon_after_that_is_gathered(engine: Engine, autojump_clock: MockClock) -> None:
    """One write for the many that come at the same time; and what is for many waits for the sweep anyway."""
    recorded = [_recording() for _ in range(FEW + 1)]
    engine.subscribe(recorded[0][0], "a")
    for subscriber, _ in recorded:
        engine.subscribe(subscriber, "all")
    await trio.sleep(1)
    for _ in range(3):
        sleeper = engine.fanout.hold()
        engine.publish("a", b"x")
        engine.fanout.let_go(sleeper)
    written = recorded[0][1].written
    assert len(written) == 1
    await wait_all_tasks_blocked()
    assert len(written) == 2

    await trio.sleep(1)
    sleeper = engine.fanout.hold()
    engine.publish("all", b"x")
    engine.fanout.let_go(sleeper)
    assert recorded[1][1].written == []
    await wait_all_tasks_blocked()
    assert len(recorded[1][1].written) == 1


@pytest.mark.parametrize("more", [0, 1])
async def test_much_that_one_read_brings_waits_for_the_sweep(
    more: int, engine: Engine, autojump_clock: MockClock
) -> None:
    """To gather it has taken a turn: to write it, too, takes another step."""
    subscriber, recorder = _recording()
    engine.subscribe(subscriber, "t.*")
    await trio.sleep(1)
    sleeper = engine.fanout.hold()
    for number in range(FEW_CHUNKS + more):
        engine.publish(f"t.{number}", b"x")
    engine.fanout.let_go(sleeper)
    assert len(recorder.written) == 1 - more
    await wait_all_tasks_blocked()
    assert len(recorder.written) == 1


async def test_a_sweep_under_way_is_left_alone(autojump_clock: MockClock) -> None:
    """While the task is awake there is nothing to hold."""
    engine = Engine()
    subscriber, recorder = _recording()
    engine.subscribe(subscriber, "a")
    sleeper = engine.fanout.hold()
    engine.publish("a", b"x")
    engine.fanout.let_go(sleeper)

    assert (sleeper, recorder.written) == (None, [])


async def test_who_publishes_is_answered_behind_those_it_is_for(autojump_clock: MockClock) -> None:
    """An answer to PUBLISH says that it was given out: it leaves with the last of them, not before the first."""
    engine, publisher = Engine(), Subscriber()
    readers = [Subscriber() for _ in range(20)]
    for reader in readers:
        engine.subscribe(reader, "a")

    engine.publish("a", b"x", source=publisher.outbox)
    engine.fanout.answer(publisher.outbox, encode(Ok(1)))

    batch, _ = engine.fanout._begin()
    assert batch == [*(reader.outbox for reader in readers), publisher.outbox]
