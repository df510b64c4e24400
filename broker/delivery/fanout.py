"""The sweep: what was published goes to who subscribed, without waiting for anybody.

Publishing is two steps. `Fanout.publish` only appends chunks to lists, synchronously, for a whole batch: nobody's
messages can get between it. One task of the broker's own, `Fanout.run`, then writes: once to each subscriber for all
that came in the meantime, from however many publishers. So batches grow by themselves under load (the kernel's
buffers fill during a sweep) and at rest one message goes out at the next turn of the loop. No timer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import trio

from fanwire.protocol import MAX_BATCH
from fanwire.protocol.frames import frame_header

from ..telemetry.statistics import Counters
from ..timing import turn
from ..timing.clock import time_stamp
from ..topics.chunks import Chunk
from ..topics.takers import Taker
from .outbox import Outbox
from .routes import Route, Topic

# Subscribers written to between two looks at the clock: 32 × 5 µs. Few of them when much is gathered: each may need a
# frame of its own, which is a copy of all that it gets.
SWEEP = 32
SWEEP_OF_MUCH = 2
MUCH = 256 * 1024

# Bytes gathered (each chunk counted once, however many subscribers share it) beyond which publishers are not read from
# until a sweep has ended: 4 MiB, sixteen full reads.
MAX_GATHERED = 4 * 1024 * 1024

# Routes of a topic that a publish is given to in one go, whatever it takes: each makes a copy of it. Where there are
# more, the rest goes on in another turn as soon as this one is over, or too much is gathered (`Spread`).
MANY = 16

# The same for those on one route who do not just get what comes (`Route.takers`); so many of them are served between
# two looks at the clock.
MANY_TAKERS = 256
TAKERS = 32

# How long a publish on many routes takes before the rest is left to the task that sweeps, in seconds: there may be
# several in one read.
AT_ONCE_S = 0.002


# Subscribers that are written to at once, without waking the task that sweeps, when one read has brought something for
# no more than these. So a single message takes 20 µs less to get through; a request and its reply take that way twice.
FEW = 2

# But not again within this time, in seconds: under load it is better to gather.
PAUSE_S = 100e-6

# And not when it has brought more chunks than these: where they have to wait in line each takes some microseconds, and
# what took a turn to be gathered would then take a second one in the same step.
FEW_CHUNKS = 200


# What one frame has at most, with its header, unless it is a single larger envelope.
ONE_FRAME = MAX_BATCH + len(frame_header(MAX_BATCH))


class Spread:
    """One run of publishes on its way to very many routes; the fields are as `Fanout.publish` has them."""

    __slots__ = (
        "at",
        "chunks",
        "elements",
        "first",
        "key",
        "now",
        "reached",
        "routes",
        "source",
        "stamp",
        "tails",
        "takers",
        "topic",
    )

    def __init__(
        self,
        topic: Topic,
        elements: int,
        tails: list[bytes],
        stamp: bytes,
        now: float,
        key: str | None,
        first: int,
        source: Outbox | None,
    ) -> None:
        self.topic = topic
        self.elements = elements
        self.tails = tails
        self.stamp = stamp
        self.now = now
        self.key = key
        self.first = first
        self.source = source
        self.routes = topic.routes
        """As they were: who subscribes later gets only what is published later."""
        self.at = 0
        """How many of them have got it."""
        self.chunks: list[Chunk] = []
        self.takers: list[Taker] = []
        """Of the last one of these: who has yet to be offered the chunks, in reverse order."""
        self.reached = 0
        """Subscriptions, so far."""

    @property
    def finished(self) -> bool:
        """Whether everybody has got it."""
        return not self.takers and self.at == len(self.routes)

    def audience(self) -> int:
        """How many subscriptions it reaches, when all goes as it stands now."""
        rest = sum([route.audience(self.source) for route in self.routes[self.at :]])
        return self.reached + len(self.takers) + rest


class Fanout:
    """Gathers chunks and flushes them. One for each broker."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        # In the order in which they got something: who is answered comes behind those for whom it was published.
        self._dirty: dict[Outbox, object] = {}
        # What is gathered, by the identity of its bytes; those of the sweep under way, which may yield, apart.
        self._chunks: dict[int, Chunk] = {}
        self._sweeping: dict[int, Chunk] = {}
        self._sweeps = 0
        self._gathered = 0
        self._spreads: deque[Spread] = deque()  # one after the other, so that all get everything in one order
        self._many = MANY  # less than none while there are spreads: what is published meanwhile comes behind them
        self._made: tuple[list[bytes], bytes] = [], b""  # what the last one swept had gathered, and the frame of it
        self._sleeper: trio.lowlevel.Task | None = None
        self._hurried = 0.0
        self._swept = trio.lowlevel.ParkingLot()
        self._caught_up = trio.lowlevel.ParkingLot()

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
        source: Outbox | None = None,
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
            source: Of the connection that publishes, if one does: for those who want no echo.

        Returns:
            The number of subscriptions reached.
        """
        reached, kept = 0, topic.kept
        first = 0 if kept is None else kept.take(elements, tails, stamp, retain)
        routes = topic.routes
        if len(routes) > self._many:
            return self._spread(Spread(topic, elements, tails, stamp, now, key, first, source))
        for route in routes:
            appends = route.appends()
            reached += len(appends)
            chunks = route.chunks(topic, elements, tails, stamp, now, key, first)
            for chunk in chunks:
                data = chunk.data
                for append in appends:
                    append(data)
                self._chunks[id(data)] = chunk
                self._gathered += len(data)
            if route.gathered_in != self._sweeps:
                route.gathered_in = self._sweeps
                self._dirty.update(route.direct)
            if route.takers:
                if len(route.takers) > MANY_TAKERS:
                    spread = Spread(topic, elements, tails, stamp, now, key, first, source)
                    return self._spread_to_takers(spread, route, chunks, reached)
                reached += self._offer(route, chunks, now, source)
        counters, count = self._counters, len(tails)
        counters.published += count
        if reached:
            counters.delivered += count * reached
            if self._sleeper is not None:
                self._wake()
        return reached

    def publish_own(self, topic: Topic, tails: list[bytes]) -> None:
        """Publish what the broker says itself, on a topic of its own: that is no traffic, and is not counted.

        Args:
            topic: From `Registry.topic_named`, fresh.
            tails: See `Route.chunks`.
        """
        reached = self.publish(topic, 7, tails, time_stamp(), trio.current_time())
        self._counters.published -= len(tails)
        self._counters.delivered -= len(tails) * reached

    def _offer(self, route: Route, chunks: list[Chunk], now: float, source: Outbox | None) -> int:
        """The same to those who do not just get what comes, and to the pulse; how many more it reaches."""
        takers, reached = route.takers, 0
        if not route.direct:
            self._forget_chunks(chunks)
        for taker in takers:
            for chunk in chunks:
                each = taker.offer(chunk, now, source)
            reached += each
        self._wake()  # perhaps nobody has got it after all: what was noted of it goes with the next sweep
        return reached

    def _forget_chunks(self, chunks: list[Chunk]) -> None:
        """Nobody has gathered them, so no sweep would."""
        for chunk in chunks:
            del self._chunks[id(chunk.data)]
            self._gathered -= len(chunk.data)

    def give(self, outbox: Outbox, chunk: Chunk) -> None:
        """Give one outbox alone a message, or a loss: what its `Limiter` lets through."""
        data = chunk.data
        outbox.pending.append(data)
        self._chunks[id(data)] = chunk
        self._gathered += len(data)
        self._dirty[outbox] = None
        self._wake()

    def answer(self, outbox: Outbox, envelopes: bytes) -> None:
        """Send answers, which may overtake messages."""
        outbox.pending.append(envelopes)
        self._dirty[outbox] = None
        self._wake()

    # ------------------------------------------------------ to very many routes

    @property
    def spreading(self) -> bool:
        """Whether something that was published has yet to be given to some of its routes."""
        return bool(self._spreads)

    def _spread(self, spread: Spread) -> int:
        """Give it to as many as there is time for, and to the others later. Returns what `publish` returns."""
        self._counters.published += len(spread.tails)
        if not self._spreads and self._advance(spread, turn.clock() + AT_ONCE_S):
            return spread.reached
        reached = spread.audience()
        self._spreads.append(spread)
        self._many = -1
        self._wake()
        return reached

    def _spread_to_takers(self, spread: Spread, route: Route, chunks: list[Chunk], reached: int) -> int:
        """A publish has come to a route with very many takers: those who get it as it comes have got it."""
        spread.at = spread.routes.index(route) + 1
        spread.reached = reached
        self._note_taken(spread, route, chunks)
        self._counters.delivered += spread.reached * len(spread.tails)
        return self._spread(spread)

    def _advance(self, spread: Spread, ends: float) -> bool:
        """Give a publish to more of its routes, until a time or until enough is gathered; whether it is finished."""
        before = spread.reached
        try:
            while not spread.finished:
                if not spread.takers:
                    self._give_to_next_route(spread)
                self._offer_some(spread)
                if self._gathered > MAX_GATHERED or turn.clock() >= ends:
                    break
        finally:
            self._counters.delivered += (spread.reached - before) * len(spread.tails)
            if self._dirty:
                self._wake()
        return spread.finished

    def _give_to_next_route(self, spread: Spread) -> None:
        route = spread.routes[spread.at]
        spread.at += 1
        appends = route.appends()
        if not appends and not route.takers:
            return  # nobody is left on it
        chunks = route.chunks(
            spread.topic, spread.elements, spread.tails, spread.stamp, spread.now, spread.key, spread.first
        )
        spread.reached += len(appends)
        for chunk in chunks:
            data = chunk.data
            for append in appends:
                append(data)
            self._chunks[id(data)] = chunk
            self._gathered += len(data)
        self._note_taken(spread, route, chunks)

    def _note_taken(self, spread: Spread, route: Route, chunks: list[Chunk]) -> None:
        """Those who get it as it comes have got it; the takers come next, `Echoes` before all others at once."""
        if not route.direct:
            self._forget_chunks(chunks)
        elif route.gathered_in != self._sweeps:
            route.gathered_in = self._sweeps
            self._dirty.update(route.direct)
        spread.chunks, spread.takers = chunks, route.takers[::-1]
        self._offer_some(spread)

    def _offer_some(self, spread: Spread) -> None:
        takers = spread.takers
        for _ in range(min(TAKERS, len(takers))):
            taker, each = takers.pop(), 0
            for chunk in spread.chunks:
                each = taker.offer(chunk, spread.now, spread.source)
            spread.reached += each
        if not takers:
            spread.chunks = []

    def _go_on_spreading(self) -> None:
        """One turn of it."""
        ends = turn.end_of_turn()
        while self._spreads and self._advance(self._spreads[0], ends):
            self._spreads.popleft()
        if not self._spreads:
            self._many = MANY

    @property
    def sweeps(self) -> int:
        """Sweeps begun so far: what was gathered before the last one is no longer gathered."""
        return self._sweeps

    @property
    def full(self) -> bool:
        """Whether whoever publishes has to wait for `swept` before publishing more."""
        return self._gathered > MAX_GATHERED or self._many < 0

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
            if self._spreads:
                self._wake()
            return
        now = trio.current_time()
        if self._spreads or len(self._dirty) > FEW or now - self._hurried < PAUSE_S or len(self._chunks) > FEW_CHUNKS:
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
            if self._spreads:
                await trio.lowlevel.checkpoint()
                self._go_on_spreading()
            elif not self._dirty:
                await self._sleep()
            batch, gathered = self._begin()
            some = SWEEP if gathered < MUCH else SWEEP_OF_MUCH
            ends = turn.end_of_turn()
            for start in range(0, len(batch), some):
                if start and turn.clock() >= ends:
                    await trio.lowlevel.checkpoint()
                    ends = turn.end_of_turn()
                self._sweep(batch[start : start + some])
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
        self._sweeping, self._made = {}, ([], b"")
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
        self._made = [], b""

    def _sweep(self, outboxes: Sequence[Outbox]) -> None:
        """Write what each has gathered, or queue it. Synchronous: no other task sees anything half done."""
        last, frame = self._made
        size = len(frame)
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
        self._made = last, frame

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
