"""One connection's way out when its stream is slow: lanes, bounds, measures."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker.delivery.outbox import PORTION, THROWN, THROWN_AT_ONCE, Outbox, SlowConsumer
from fanwire.broker.delivery.queue import ENTRY_BYTES, PASSED, size_of_key
from fanwire.broker.delivery.routes import Route
from fanwire.broker.delivery.subscription import Subscription
from fanwire.broker.timing import turn
from fanwire.broker.topics.chunks import Chunk, KeyedChunk, LossChunk
from fanwire.protocol import MAX_BATCH, Ok, encode
from fanwire.protocol.codec import decode_from_broker
from fanwire.protocol.envelopes import Lagging as LaggingEnvelope
from fanwire.protocol.envelopes import Message
from tests.unit.broker.subscriber import Subscriber


class Lagging:
    """A subscriber whose stream has taken the first byte of a frame and no more."""

    def __init__(self, capacity: int = 1, **settings: Any) -> None:
        self.subscriber = Subscriber(capacity, **settings)
        self.outbox: Outbox = self.subscriber.outbox
        self.subscriber.stream.write_nowait(b"\x82\x7e\xff\xff" + bytes(65535) if capacity > 1 else b"\x82\x01\xc0")
        assert not self.subscriber.stream.clear
        self.half = len(self.subscriber.stream.left)

    def subscribe(self, queue: int, number: int = 1, on_slow: str = "disconnect") -> Subscription:
        """Without a registry."""
        subscription = Subscription(Route(number, "a", wildcard=False), queue, on_slow)
        self.outbox.subscriptions[number] = subscription
        return subscription

    async def frames(self) -> list[bytes]:
        """What comes out while the writer runs, after the half-written frame."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_out_and_close)
            await self.subscriber.reader.frame()
            frames: list[bytes] = []
            while (frame := await self.subscriber.reader.frame()) is not None:
                frames.append(frame.payload)
        return frames

    async def _write_out_and_close(self) -> None:
        assert await self.outbox.write_out() is None
        await self.subscriber.stream.aclose()


def _chunk(subscription: Subscription, count: int = 1, size: int = 10, born: float = 0.0) -> Chunk:
    one = encode(Message(subscription.route.number, None, 0, 1, b"x" * size))
    return Chunk(subscription.route, "a", one * count, count, born)


async def test_the_arithmetic_of_what_waits(autojump_clock: MockClock) -> None:
    """Messages are counted for each subscription, bytes for the connection, until they go out."""
    lagging = Lagging()
    one, two = lagging.subscribe(100), lagging.subscribe(100, 2)
    chunks: list[Chunk | bytes] = [_chunk(one, 3), b"\xc0" * 7, _chunk(two, 5), _chunk(one, 1)]
    assert lagging.outbox.queue_pending(chunks) == []
    total = sum(len(each if isinstance(each, bytes) else each.data) for each in chunks)

    assert (one.waiting, two.waiting, lagging.outbox.waiting_bytes, lagging.outbox.answer_bytes) == (4, 5, total, 7)
    await lagging.frames()
    assert (one.waiting, two.waiting, lagging.outbox.waiting_bytes, lagging.outbox.answer_bytes) == (0, 0, 0, 0)


def _warned(lagging: Lagging) -> int:
    """Bytes of the LAGGING that waits, if one does: the rest of the answers are one-byte ones or 80 bytes long."""
    return sum(len(answer) for answer in lagging.outbox._answers if answer[:2] == b"\x95\x17")


@pytest.mark.parametrize("what", ["messages", "answers"])
async def test_bytes_never_pass_max_pending(what: str, autojump_clock: MockClock) -> None:
    """What waits and what is half written stay within `max_pending_bytes`; one byte more is a verdict."""
    lagging = Lagging(max_pending_bytes=10_000)
    subscription = lagging.subscribe(100_000)
    item = _chunk(subscription, size=70)
    piece: Chunk | bytes = item if what == "messages" else item.data
    each = len(item.data) + (ENTRY_BYTES if what == "messages" else 0)
    taken = 0
    while not (verdicts := lagging.outbox.queue_pending([piece])):
        taken += 1
        assert lagging.outbox.waiting_bytes == taken * len(item.data) + _warned(lagging)
        assert lagging.outbox.behind_bytes == taken * each + _warned(lagging) + lagging.half <= 10_000

    assert taken == (10_000 - lagging.half - _warned(lagging)) // each
    waiting = taken if what == "messages" else 0
    waiting_bytes = taken * each + _warned(lagging) + lagging.half
    assert verdicts == [SlowConsumer("max_pending", None, waiting, waiting_bytes, 0.0)]


async def test_messages_never_pass_the_queue() -> None:
    """A subscription holds as many as its queue; one more is a verdict that names it and says how many wait."""
    lagging = Lagging()
    subscription, other = lagging.subscribe(10, 5), lagging.subscribe(3, 6)
    assert lagging.outbox.queue_pending([_chunk(subscription, 6), _chunk(other, 3), _chunk(subscription, 4)]) == []
    [verdict] = lagging.outbox.queue_pending([_chunk(subscription)])

    assert (verdict.measure, verdict.route, verdict.messages) == ("queue", 5, 10)
    assert (verdict.detail()["queued"], verdict.detail()["limit"]) == (10, 10)


async def test_discard_keeps_only_what_is_half_written(autojump_clock: MockClock) -> None:
    """All that waits goes, and nothing is counted any more; the rest of the frame under way stays."""
    lagging = Lagging()
    subscription = lagging.subscribe(10)
    lagging.outbox.queue_pending([_chunk(subscription), b"\xc0"])
    lagging.outbox.pending.append(b"\xc0")
    lagging.outbox.discard()

    assert (subscription.waiting, lagging.outbox.waiting_bytes, lagging.outbox.answer_bytes) == (0, 0, 0)
    assert not lagging.outbox.pending
    assert len(lagging.subscriber.stream.left) == lagging.half
    assert await lagging.frames() == []


@pytest.mark.parametrize("what", ["messages", "answers"])
async def test_frames_of_what_waited_hold_64_kib(what: str, autojump_clock: MockClock) -> None:
    """Whatever the sizes of the pieces: no frame over 64 KiB unless one envelope is; nothing lost, in order."""
    lagging = Lagging(4096)
    subscription = lagging.subscribe(1000)
    sizes = [40_000, 40_000, 10, 20_000, 70_000, 5, 65_000, 65_000] * 2
    pieces = [encode(Message(1, None, 0, number, b"x" * size)) for number, size in enumerate(sizes)]
    for piece in pieces:
        chunk = Chunk(subscription.route, "a", piece, 1, 0.0)
        assert lagging.outbox.queue_pending([chunk if what == "messages" else piece]) == []
    frames = await lagging.frames()

    assert b"".join(frames) == b"".join(pieces)
    assert all(len(frame) <= MAX_BATCH or len(list(decode_from_broker(frame))) == 1 for frame in frames)
    assert len(frames) < len(pieces)


async def test_answers_overtake_messages(autojump_clock: MockClock) -> None:
    """An OK goes out with the next frame, before messages that waited already."""
    lagging = Lagging()
    subscription = lagging.subscribe(100)
    chunk, answer = _chunk(subscription, 2), encode(Ok(1))
    lagging.outbox.queue_pending([chunk, answer])

    assert await lagging.frames() == [answer, chunk.data]


async def test_what_was_unsubscribed_is_skipped(autojump_clock: MockClock) -> None:
    """Chunks of a subscription that is over stay behind; those of a new one on the same route go out."""
    lagging = Lagging()
    old, other = lagging.subscribe(100), lagging.subscribe(100, 2)
    lagging.outbox.queue_pending([_chunk(old, 1), _chunk(other, 2), _chunk(old, 3)])
    lagging.outbox.forget(old)
    new = lagging.subscribe(100)
    lagging.outbox.queue_pending([_chunk(new, 4, size=1)])

    assert await lagging.frames() == [_chunk(other, 2).data + _chunk(new, 4, size=1).data]
    assert lagging.outbox.waiting_bytes == 0


async def _fed(stream: trio.abc.ReceiveStream, most: int, every_s: float) -> None:
    """A reader that takes a little at a time."""
    while True:
        await stream.receive_some(most)
        await trio.sleep(every_s)


async def test_a_stream_that_takes_nothing_is_a_stall(autojump_clock: MockClock) -> None:
    """The verdict comes after `stall_timeout_s` without a byte, not earlier."""
    lagging = Lagging(stall_timeout_s=10.0, max_age_s=30.0)
    began = trio.current_time()
    verdict = await lagging.outbox.write_out()

    assert verdict == SlowConsumer("stall_timeout", None, 0, lagging.half, 10.0)
    assert trio.current_time() - began == 10.0


async def test_a_reader_of_one_byte_a_second_is_too_old(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """It never stalls, but the oldest message grows older than `max_age_s`."""
    lagging = Lagging(stall_timeout_s=10.0, max_age_s=30.0)
    subscription = lagging.subscribe(100)
    lagging.outbox.queue_pending([_chunk(subscription, 50, born=trio.current_time())])
    nursery.start_soon(_fed, lagging.subscriber.reader.stream, 1, 1.0)
    began = trio.current_time()
    verdict = await lagging.outbox.write_out()

    assert verdict is not None
    assert (verdict.measure, verdict.oldest_s) == ("max_age", 30.0)
    assert trio.current_time() - began == 30.0
    nursery.cancel_scope.cancel()


async def test_answers_that_overtake_do_not_make_messages_younger(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A client that reads slowly and keeps asking gets its answers first; its messages grow too old all the same."""
    lagging = Lagging(stall_timeout_s=10.0, max_age_s=30.0)
    subscription = lagging.subscribe(100)
    lagging.outbox.queue_pending([_chunk(subscription, 50, born=trio.current_time())])

    async def ask() -> None:
        while True:
            lagging.outbox.queue_pending([encode(Ok(1))])
            await trio.sleep(1)

    nursery.start_soon(_fed, lagging.subscriber.reader.stream, 1, 1.0)
    nursery.start_soon(ask)
    began = trio.current_time()
    verdict = await lagging.outbox.write_out()

    assert verdict is not None
    assert (verdict.measure, trio.current_time() - began) == ("max_age", 30.0)
    nursery.cancel_scope.cancel()


async def test_a_slow_reader_that_keeps_up_is_left_alone(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Ten bytes a second for two minutes: never stalled, nothing ever old, no verdict."""
    lagging = Lagging(stall_timeout_s=10.0, max_age_s=30.0)
    subscription = lagging.subscribe(100)
    lagging.outbox.queue_pending([_chunk(subscription, 1, born=trio.current_time())])
    nursery.start_soon(_fed, lagging.subscriber.reader.stream, 1, 0.1)
    verdicts: list[SlowConsumer | None] = []

    async def write_out() -> None:
        verdicts.append(await lagging.outbox.write_out())

    nursery.start_soon(write_out)
    for _ in range(20):
        await trio.sleep(6)
        lagging.outbox.queue_pending([_chunk(subscription, 1, born=trio.current_time())])
        if verdicts:
            assert verdicts == [None]
            verdicts.clear()
            nursery.start_soon(write_out)
    await wait_all_tasks_blocked()

    assert set(verdicts) <= {None}
    nursery.cancel_scope.cancel()


async def test_nothing_but_the_kernel_holds_what_went_out(autojump_clock: MockClock) -> None:
    """After everything went out the stream is clear: the next message is written through again."""
    lagging = Lagging()
    subscription = lagging.subscribe(100)
    lagging.outbox.queue_pending([_chunk(subscription)])
    stream = lagging.subscriber.stream
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lagging.outbox.write_out)
        assert await lagging.subscriber.reader.frame() == (2, b"\xc0")
        await lagging.subscriber.reader.frame()

    assert (stream.clear, stream.queued, stream.left) == (True, False, b"")


# ------------------------------------------------------------------ told before it is too late


async def _news_at(lagging: Lagging, seconds: float) -> list[str]:
    await trio.sleep(seconds - trio.current_time())
    return lagging.subscriber.news


async def test_a_stall_is_told_before_it_ends(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """At 75 % of `stall_timeout`, though nothing is published any more; and of who has something waiting only."""
    lagging = Lagging(stall_timeout_s=10.0)
    one, other = lagging.subscribe(100), lagging.subscribe(100, 2)
    nursery.start_soon(lagging.outbox.write_out)
    await wait_all_tasks_blocked()
    lagging.outbox.queue_pending([_chunk(one)])

    assert await _news_at(lagging, 7.4) == []
    assert await _news_at(lagging, 7.6) == ["a lags"]
    assert (one.lagging, other.lagging) == (True, False)
    assert lagging.outbox.nearest(trio.current_time(), (one,)) == (0.76, "stall_timeout")
    lagging.outbox.queue_pending([_chunk(other, born=trio.current_time())])
    assert other.lagging


async def test_age_is_told_before_it_ends(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A reader of one byte a second is told of at 75 % of `max_age`."""
    lagging = Lagging(capacity=2, stall_timeout_s=10.0, max_age_s=20.0)
    subscription = lagging.subscribe(100)
    lagging.outbox.queue_pending([_chunk(subscription)])
    nursery.start_soon(lagging.outbox.write_out)
    while not subscription.lagging:
        await lagging.subscriber.reader.read(1)
        await trio.sleep(1)

    assert 15.0 <= trio.current_time() <= 16.0
    assert lagging.outbox.nearest(trio.current_time(), (subscription,))[1] == "max_age"


async def test_a_default_queue_is_told_when_it_is_going_to_count(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """More than 75 % of it wait, and the oldest for more than 75 % of the grace: only then."""
    lagging = Lagging(queue_grace_s=4.0)
    subscription = lagging.subscribe(10)
    subscription.grace_s = 4.0
    nursery.start_soon(lagging.outbox.write_out)
    await wait_all_tasks_blocked()
    lagging.outbox.queue_pending([_chunk(subscription, 8)])

    assert await _news_at(lagging, 2.9) == []
    assert await _news_at(lagging, 3.1) == ["a lags"]
    assert lagging.outbox.nearest(trio.current_time(), (subscription,)) == (3.1 / 4, "queue")


async def test_the_age_of_each_subscription_counts(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """One that has many waiting is told of by its own oldest message, however long others have waited before."""
    lagging = Lagging(queue_grace_s=4.0, queue=10)
    first, second = lagging.subscribe(10), lagging.subscribe(10, 2)
    first.grace_s = second.grace_s = 4.0
    nursery.start_soon(lagging.outbox.write_out)
    await wait_all_tasks_blocked()
    lagging.outbox.queue_pending([_chunk(first)])
    await trio.sleep(3.5)
    lagging.outbox.queue_pending([_chunk(second, 9, born=3.5)])

    assert await _news_at(lagging, 6.4) == []
    assert await _news_at(lagging, 7.4) == ["a lags"]
    assert (first.lagging, second.lagging) == (False, True)


async def test_who_is_below_half_of_all_measures_lags_no_more(autojump_clock: MockClock) -> None:
    """Having stalled, it reads on: as soon as nothing of it waits, or what waits is young and little."""
    lagging = Lagging(stall_timeout_s=10.0)
    subscription = lagging.subscribe(100)
    lagging.outbox.queue_pending([_chunk(subscription)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lagging.outbox.write_out)
        await trio.sleep(8)
        assert subscription.lagging
        while not lagging.subscriber.stream.clear:
            await lagging.subscriber.reader.read(100)
            await wait_all_tasks_blocked()

    assert lagging.subscriber.news == ["a lags", "a caught up"]
    assert lagging.subscriber.counters.lagging == 0


async def test_many_subscriptions_of_a_connection_are_told_of_some_at_a_time(autojump_clock: MockClock) -> None:
    """All at 75 % of the same stall: so many that others get their turn in between."""
    lagging = Lagging(stall_timeout_s=10.0)
    subscriptions = [lagging.subscribe(100, number) for number in range(1, 251)]
    lagging.outbox.queue_pending([_chunk(each) for each in subscriptions])
    looks: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lagging.outbox.write_out)
        await trio.sleep(7.4)
        while len(lagging.subscriber.news) < len(subscriptions):
            await trio.lowlevel.checkpoint() if looks else await trio.sleep(0.1)
            looks.append(len(lagging.subscriber.news))
        nursery.cancel_scope.cancel()

    assert trio.current_time() < 7.6
    assert all(after - before <= PORTION for before, after in pairwise([0, *looks]))


async def test_what_is_thrown_away_goes_some_at_a_time(autojump_clock: MockClock) -> None:
    """Others get their turn; what is counted is right all the time, and in the end nothing is left."""
    lagging = Lagging()
    one, other = lagging.subscribe(10_000), lagging.subscribe(10_000, 2, "conflate")
    for number in range(2 * THROWN):
        lagging.outbox.queue_pending([_chunk(one, 2), _chunk(other)] if number < 3 else [_chunk(one, 2)])
    left: list[int] = []

    async def look() -> None:
        while lagging.outbox._line.length:
            left.append(one.waiting)
            assert lagging.outbox.waiting_bytes - lagging.outbox.answer_bytes == sum(
                entry.size for each in (one, other) for entry in each.entries
            )
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        nursery.start_soon(lagging.outbox.throw_away)

    assert len(left) >= 2
    assert (one.waiting, other.waiting, lagging.outbox.waiting_bytes) == (0, 0, lagging.outbox.answer_bytes)
    lagging.outbox.discard()
    assert lagging.outbox.behind_bytes == len(lagging.subscriber.stream.left)


def _counted(outbox: Outbox, *subscriptions: Subscription) -> None:
    """What the outbox counts is what its entries are."""
    entries = [entry for each in (*subscriptions, *outbox._gone) for entry in each.entries]
    assert outbox.waiting_bytes - outbox.answer_bytes == sum(entry.size for entry in entries)
    assert outbox.loss_bytes == sum(entry.lost.size for entry in entries if entry.lost is not None)


async def test_very_many_are_forgotten_some_at_a_time(autojump_clock: MockClock) -> None:
    """No step throws away more than some; what is counted is right all the time; others keep what waits of them."""
    lagging = Lagging()
    one, other = lagging.subscribe(100_000), lagging.subscribe(10, 2)
    lagging.outbox.queue_pending([_chunk(other)])
    lagging.outbox.queue_pending([_chunk(one) for _ in range(20 * THROWN)])
    lagging.outbox.queue_pending([_chunk(other, size=11)])
    lagging.outbox.forget(one)
    left = [len(one.entries)]
    assert left == [20 * THROWN - THROWN_AT_ONCE]
    assert lagging.subscriber.wanted_clearing == 1
    assert one.waiting == 0

    async def look() -> None:
        while lagging.outbox._gone or lagging.outbox._line.length > 100:
            _counted(lagging.outbox, other)
            left.append(len(one.entries))
            await trio.lowlevel.checkpoint()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turn, "clock", lambda: 0.002 * -len(one.entries) / THROWN)  # a thousand take 2 ms
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            nursery.start_soon(lagging.outbox.clear)

    assert all(before - after <= 2 * 4 * THROWN for before, after in pairwise(left)), "at most two turns between looks"
    assert len(set(left)) > 3
    _counted(lagging.outbox, other)
    assert lagging.outbox._line.length <= 66
    assert b"".join(await lagging.frames()).endswith(_chunk(other).data + _chunk(other, size=11).data)


@pytest.mark.parametrize("policy", ["drop_newest", "conflate"])
async def test_nothing_of_those_that_are_gone_is_sent(policy: str, autojump_clock: MockClock) -> None:
    """Also when the socket takes everything before they are thrown away: neither messages nor what was lost."""
    lagging = Lagging()
    gone, other = lagging.subscribe(3 * THROWN, 1, policy), lagging.subscribe(10, 2)
    chunks = [KeyedChunk(gone.route, "a", _chunk(gone).data, 0.0, f"{n}") for n in range(4 * THROWN)]
    lagging.outbox.queue_pending([*chunks, _chunk(other)])
    lagging.outbox.forget(gone)
    assert len(gone.entries) == 3 * THROWN - THROWN_AT_ONCE
    lagging.outbox.subscriptions[1] = again = Subscription(gone.route, 10)
    lagging.outbox.queue_pending([_chunk(again, size=12)])
    envelopes = [each for frame in await lagging.frames() for each in decode_from_broker(frame)]
    messages = [each for each in envelopes if not isinstance(each, LaggingEnvelope)]

    assert messages == [*decode_from_broker(_chunk(other).data), *decode_from_broker(_chunk(again, size=12).data)]
    assert (lagging.outbox.waiting_bytes, lagging.outbox.loss_bytes, lagging.outbox._line.length) == (0, 0, 0)
    assert not lagging.outbox._gone
    assert not gone.newest


async def test_who_stops_forgetting_in_the_middle_leaves_all_counted(autojump_clock: MockClock) -> None:
    """The session ends: what is left is thrown away with the rest."""
    lagging = Lagging()
    one, other = lagging.subscribe(100_000), lagging.subscribe(100_000, 2)
    lagging.outbox.queue_pending([_chunk(each) for each in (one, other) for _ in range(5 * THROWN)])
    lagging.outbox.forget(one)
    with pytest.MonkeyPatch.context() as patch, trio.CancelScope() as scope:
        patch.setattr(turn, "clock", lambda: float(-len(one.entries)))
        scope.cancel()
        await lagging.outbox.clear()
    assert one.entries
    _counted(lagging.outbox, other)
    await lagging.outbox.throw_away()
    assert (len(one.entries), len(other.entries), other.waiting) == (0, 0, 0)
    lagging.outbox.discard()

    assert lagging.outbox.behind_bytes == len(lagging.subscriber.stream.left)


async def test_those_that_are_gone_make_room(autojump_clock: MockClock) -> None:
    """Nobody is disconnected for bytes of a subscription that is no more."""
    lagging = Lagging(max_pending_bytes=400_000)
    gone, other = lagging.subscribe(100_000), lagging.subscribe(100_000, 2)
    lagging.outbox.queue_pending([_chunk(gone, size=60) for _ in range(2 * THROWN - 200)])
    lagging.outbox.forget(gone)
    assert gone.entries

    assert lagging.outbox.queue_pending([_chunk(other, size=1000) for _ in range(200)]) == []


def _keyed(subscription: Subscription, key: str) -> KeyedChunk:
    return KeyedChunk(subscription.route, "a", _chunk(subscription).data, 0.0, key)


def _key_bytes(*subscriptions: Subscription) -> int:
    return sum(size_of_key(key) for each in subscriptions for key in each.newest)


async def test_keys_count_with_what_they_take(autojump_clock: MockClock) -> None:
    """Each from when it waits until it goes out, is dropped, or something newer may not go in its place any more."""
    lagging = Lagging()
    outbox = lagging.outbox
    one, two = lagging.subscribe(5, 1, "conflate"), lagging.subscribe(100, 2, "conflate")
    assert size_of_key("a") < size_of_key(("a", "")) == size_of_key(("a", "k" * 10)) - 10
    outbox.queue_pending([*(_keyed(one, f"{number}") for number in range(8)), _chunk(one), _chunk(two)])
    assert (one.waiting, len(one.newest), one.lost) == (5, 5, 4)
    assert outbox.key_bytes == _key_bytes(one, two) > 0
    before = outbox.behind_bytes
    outbox.queue_pending([_keyed(two, "k" * 200)])
    size = len(_keyed(two, "").data)
    assert outbox.behind_bytes == before + size + ENTRY_BYTES + size_of_key(("a", "k" * 200))
    outbox.queue_pending([LossChunk(two.route, "a", b"", 1, "keys", 0.0, frozenset([("a", "k" * 200), ("a", "none")]))])
    assert outbox.key_bytes == _key_bytes(one, two)
    outbox.forget_keys(one)
    assert outbox.key_bytes == _key_bytes(two) > 0
    assert len(await lagging.frames()) > 0

    assert (outbox.key_bytes, outbox.waiting_bytes) == (0, 0)


async def test_very_many_keys_are_freed_some_at_a_time(autojump_clock: MockClock) -> None:
    """Of a subscription that conflates no more: what waits stays, and the keys count until they are freed."""
    lagging = Lagging()
    one = lagging.subscribe(100_000, 1, "conflate")
    lagging.outbox.queue_pending([_keyed(one, f"{number:05}") for number in range(10 * THROWN)])
    each = size_of_key(("a", "00000"))
    lagging.outbox.forget_keys(one)
    assert not one.newest
    assert lagging.outbox.key_bytes == 9 * THROWN * each
    assert lagging.subscriber.wanted_clearing == 1
    await lagging.outbox.clear()

    assert (lagging.outbox.key_bytes, one.waiting) == (0, 10 * THROWN)


async def test_what_is_gone_crowds_nobody_out(autojump_clock: MockClock) -> None:
    """Of two that would be unsubscribed before the connection is over its bytes one is enough."""
    lagging = Lagging(max_pending_bytes=1_000_000)
    one, two = lagging.subscribe(100, 1, "unsubscribe"), lagging.subscribe(100, 2, "unsubscribe")
    one.grace_s = two.grace_s = math.inf
    verdicts = lagging.outbox.queue_pending([_chunk(two, size=1000) for _ in range(101)])
    for _ in range(10_000):
        verdicts += lagging.outbox.queue_pending([_chunk(one)])
        if verdicts:
            break
    assert [verdict.subscription for verdict in verdicts] == [one]
    assert one.entries, "it is yet to be thrown away"

    assert lagging.outbox.queue_pending([_chunk(two, size=50) for _ in range(20)]) == []


async def test_many_that_are_forgotten_at_the_same_time(autojump_clock: MockClock) -> None:
    """Each of them has few entries, but together they have very many: of each some are thrown away at once."""
    lagging = Lagging()
    many = [lagging.subscribe(10 * THROWN_AT_ONCE, number, "unsubscribe") for number in range(1, 101)]
    for _ in range(10 * THROWN_AT_ONCE):
        lagging.outbox.queue_pending([_chunk(each) for each in many])
    assert len(lagging.outbox.queue_pending([_chunk(each) for each in many])) == len(many)
    assert [len(each.entries) for each in many] == [9 * THROWN_AT_ONCE] * len(many)
    await lagging.outbox.clear()

    assert not any(each.entries for each in many)
    assert lagging.outbox.waiting_bytes == lagging.outbox.answer_bytes


async def test_no_frame_passes_over_very_many(autojump_clock: MockClock) -> None:
    """Few of one that lives lie between many of one that is gone: then a frame ends early, and the next goes on."""
    lagging = Lagging()
    gone, other = lagging.subscribe(10**6), lagging.subscribe(10**6, 2)
    for _ in range(10):
        lagging.outbox.queue_pending([_chunk(other), *(_chunk(gone) for _ in range(PASSED - 1))])
    lagging.outbox.queue_pending([_chunk(other) for _ in range(20 * PASSED)])
    lagging.outbox.forget(gone)
    left = lagging.outbox._line.length
    assert lagging.outbox._next_messages(10**9) == _chunk(other).data * 2
    assert left - lagging.outbox._line.length <= PASSED + 3
