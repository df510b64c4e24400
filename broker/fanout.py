"""The sweep: what was published goes to who subscribed, without waiting for anybody.

Publishing is two steps. `Fanout.publish` only appends chunks to lists, synchronously, for a whole batch: nobody's
messages can get between it. One task of the broker's own, `Fanout.run`, then writes: once to each subscriber for all
that came in the meantime, from however many publishers. So batches grow by themselves under load (the kernel's
buffers fill during a sweep) and at rest one message goes out at the next turn of the loop. No timer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import trio

from fanwire.protocol import MAX_BATCH
from fanwire.protocol.frames import frame_header

from .outbox import Outbox
from .routes import Chunk, Route, Topic
from .statistics import Counters

# Subscribers written to before other tasks get their turn: 256 × 5 µs is about a millisecond.
SWEEP = 256

# Bytes gathered (each chunk counted once, however many subscribers share it) beyond which publishers are not read from
# until a sweep has ended: 4 MiB, sixteen full reads.
MAX_GATHERED = 4 * 1024 * 1024


# Subscribers that are written to at once, without waking the task that sweeps, when one read has brought something for
# no more than these. So a single message takes 20 µs less to get through; a request and its reply take that way twice.
FEW = 2

# But not again within this time, in seconds: under load it is better to gather.
PAUSE_S = 100e-6


# What one frame has at most, with its header, unless it is a single larger envelope.
ONE_FRAME = MAX_BATCH + len(frame_header(MAX_BATCH))


class Fanout:
    """Gathers chunks and flushes them. One for each broker."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._dirty: set[Outbox] = set()
        # What is gathered, by the identity of its bytes; those of the sweep under way, which may yield, apart.
        self._chunks: dict[int, Chunk] = {}
        self._sweeping: dict[int, Chunk] = {}
        self._sweeps = 0
        self._gathered = 0
        self._sleeper: trio.lowlevel.Task | None = None
        self._hurried = 0.0
        self._swept = trio.lowlevel.ParkingLot()
        self._caught_up = trio.lowlevel.ParkingLot()
        self.source: Outbox | None = None
        """Whose publishes are being given out: of a connection, while it does so. For those who want no echo."""

    # ------------------------------------------------------------- gathering

    def publish(
        self,
        topic: Topic,
        elements: int,
        tails: list[bytes],
        stamp: bytes,
        now: float,
        key: str | None = None,
        retain: bool | None = None,
    ) -> int:
        """Give one run of publishes to all who subscribed. Never blocks, never fails.

        Args:
            topic: From `Registry.topic`, fresh.
            elements: Of a MESSAGE; see `Route.chunks`.
            tails: See `Route.chunks`.
            stamp: From `time_stamp`.
            now: The time on trio's clock.
            key: See `Route.chunks`.
            retain: See `Kept.take`.

        Returns:
            The number of subscriptions reached.
        """
        reached, kept = 0, topic.kept
        first = 0 if kept is None else kept.take(elements, tails, stamp, retain)
        for route in topic.routes:
            appends = route.appends()
            reached += len(appends)
            chunks = route.chunks(topic, elements, tails, stamp, now, key, first)
            for chunk in chunks:
                data = chunk.data
                for append in appends:
                    append(data)
                self._chunks[id(data)] = chunk
                self._gathered += len(data)
            if route.takers:
                reached += self._offer(route, chunks, now)
            if route.gathered_in != self._sweeps:
                route.gathered_in = self._sweeps
                self._dirty.update(route.direct)
        counters, count = self._counters, len(tails)
        counters.published += count
        if reached:
            counters.delivered += count * reached
            if self._sleeper is not None:
                self._wake()
        return reached

    def _offer(self, route: Route, chunks: list[Chunk], now: float) -> int:
        """The same to those who do not just get what comes, and to the pulse; how many more it reaches."""
        takers, reached = route.takers, 0
        if not route.direct:  # nobody has gathered them, so no sweep would forget them
            for chunk in chunks:
                del self._chunks[id(chunk.data)]
                self._gathered -= len(chunk.data)
        for taker in takers:
            for chunk in chunks:
                each = taker.offer(chunk, now, self)
            reached += each
        self._wake()  # perhaps nobody has got it after all: what was noted of it goes with the next sweep
        return reached

    def give(self, outbox: Outbox, chunk: Chunk) -> None:
        """Give one outbox alone a message, or a loss: what its `Limiter` lets through."""
        data = chunk.data
        outbox.pending.append(data)
        self._chunks[id(data)] = chunk
        self._gathered += len(data)
        self._dirty.add(outbox)
        self._wake()

    def answer(self, outbox: Outbox, envelopes: bytes) -> None:
        """Send answers, which may overtake messages."""
        outbox.pending.append(envelopes)
        self._dirty.add(outbox)
        self._wake()

    @property
    def sweeps(self) -> int:
        """Sweeps begun so far: what was gathered before the last one is no longer gathered."""
        return self._sweeps

    @property
    def full(self) -> bool:
        """Whether whoever publishes has to wait for `swept` before publishing more."""
        return self._gathered > MAX_GATHERED

    async def swept(self) -> None:
        """Wait until what was gathered has been written or queued."""
        while self.full:
            await self._swept.park()

    async def caught_up(self) -> None:
        """Wait until some subscription that lagged does no longer, or is gone."""
        await self._caught_up.park()

    def note_caught_up(self) -> None:
        """One has."""
        self._caught_up.unpark_all()

    def _wake(self) -> None:
        if self._sleeper is not None:
            trio.lowlevel.reschedule(self._sleeper)
            self._sleeper = None

    # ------------------------------------------------------------ in one read

    def hold(self) -> trio.lowlevel.Task | None:
        """What is gathered from now on wakes nobody, until `let_go` is called with what this returns."""
        sleeper, self._sleeper = self._sleeper, None
        return sleeper

    def let_go(self, sleeper: trio.lowlevel.Task | None) -> None:
        """Write what was gathered now, if it is for a few only, or wake the task that does."""
        if sleeper is None:
            return  # it is awake: its sweep is under way, or comes next
        self._sleeper = sleeper
        if not self._dirty:
            return
        now = trio.current_time()
        if len(self._dirty) > FEW or now - self._hurried < PAUSE_S:
            self._wake()
        else:
            self._hurried = now
            batch, gathered = self._begin()
            self._sweep(batch)
            self._end(gathered)

    # --------------------------------------------------------------- sweeping

    async def run(self) -> None:
        """Flush whenever there is something to flush. Runs until cancelled; belongs to the broker."""
        while True:
            if not self._dirty:
                await self._sleep()
            batch, gathered = self._begin()
            for start in range(0, len(batch), SWEEP):
                if start:
                    await trio.lowlevel.checkpoint()
                self._sweep(batch[start : start + SWEEP])
            batch.clear()  # else whoever has gone would be held here until the next sweep
            self._end(gathered)

    def _begin(self) -> tuple[list[Outbox], int]:
        """Whom to sweep, and how many bytes were gathered for them."""
        batch = list(self._dirty)
        self._dirty.clear()
        self._sweeps += 1
        self._sweeping, self._chunks = self._chunks, {}
        return batch, self._gathered

    def _end(self, gathered: int) -> None:
        self._sweeping = {}
        self._gathered -= gathered  # what came while this sweep gave way waits for the next one
        if self._swept:
            self._swept.unpark_all()

    async def _sleep(self) -> None:
        self._sleeper = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._sleeper = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def flush(self, *outboxes: Outbox) -> None:
        """Write what was gathered for some outboxes now: before their connection says goodbye."""
        self._sweep(outboxes)

    def _sweep(self, outboxes: Sequence[Outbox]) -> None:
        """Write what each has gathered, or queue it. Synchronous: no other task sees anything half done."""
        last: list[bytes] = []
        frame, size = b"", 0
        for outbox in outboxes:
            pending = outbox.pending
            if not pending:
                continue
            stream = outbox.stream
            if not stream.clear:
                self._write_or_queue(outbox)
                continue
            if pending != last:  # who has gathered the same gets the very same bytes
                frame, last = _frames(pending), pending[:]
                size = len(frame)
            if size > ONE_FRAME and outbox.conflating:
                self._write_or_queue(outbox)
                continue
            pending.clear()
            try:
                # For sockets `write_nowait` is spelled out: that is four calls less for each subscriber.
                if stream.send is None:
                    stream.write_nowait(frame)
                elif (taken := stream.send(frame)) != size:
                    stream.keep(frame, taken)
            except BlockingIOError:
                stream.keep(frame, 0)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                outbox.owner.gone()
                continue
            if not stream.clear:
                outbox.owner.need_writer()

    def _write_or_queue(self, outbox: Outbox) -> None:
        """A frame at a time, and the rest in line as soon as one was not taken: there it can still be conflated."""
        pending = outbox.pending[:]
        outbox.pending.clear()
        stream = outbox.stream
        at = 0
        try:
            while stream.clear and at < len(pending):
                end = _frame_end(pending, at)
                stream.write_nowait(_frames(pending[at:end]))
                at = end
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            outbox.owner.gone()
            return
        if at < len(pending):
            for verdict in outbox.queue_pending([self._chunk(data) for data in pending[at:]]):
                outbox.owner.too_slow(verdict)
        if not stream.clear:
            outbox.owner.need_writer()

    def _chunk(self, data: bytes) -> Chunk | bytes:
        """What is known of gathered bytes; answers are just bytes."""
        return self._sweeping.get(id(data)) or self._chunks.get(id(data)) or data


def _frame_end(pending: list[bytes], at: int) -> int:
    """Up to which of ``pending`` one frame goes that begins with the one at ``at``."""
    size = len(pending[at])
    at += 1
    while at < len(pending) and size + len(pending[at]) <= MAX_BATCH:
        size += len(pending[at])
        at += 1
    return at


def _frames(pending: list[bytes]) -> bytes:
    """Envelopes as one frame, or as several when together they are over 64 KiB."""
    body = pending[0] if len(pending) == 1 else b"".join(pending)
    if len(body) <= MAX_BATCH:
        return frame_header(len(body)) + body
    frames: list[bytes] = []
    part: list[bytes] = []
    room = MAX_BATCH
    for data in pending:
        size = len(data)
        if part and size > room:
            frames += (frame_header(MAX_BATCH - room), *part)
            part, room = [], MAX_BATCH
        part.append(data)
        room -= size
    frames += (frame_header(MAX_BATCH - room), *part)
    return b"".join(frames)


def time_stamp() -> bytes:
    """Now, as MESSAGE has it, in eight bytes."""
    return wall_clock_us().to_bytes(8, "big")


_last_us = 0


def wall_clock_us() -> int:
    """Microseconds since 1970. The one place that reads the wall clock.

    Every call gives a greater number, even when the system's clock steps back: what is replayed `since` the time that
    OK to a SUBSCRIBE gave is then exactly what was published after it.
    """
    global _last_us
    now = time.time_ns() // 1000
    _last_us = now if now > _last_us else _last_us + 1
    return _last_us
