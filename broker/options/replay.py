"""Beginning a subscription with what its topics remember: snapshot, replay, and then live without a seam.

A cursor walks the topics. What is published meanwhile on a topic that it has not passed is left to it, if the topic
remembers that; what is published on others waits here, and goes out behind what the cursor has found. All of it
travels with the answers, a page at a time, as the client takes it: it does not count against `queue`. The answers
stand before all messages, so when the cursor is at the end the subscription can simply be switched to live.

It gets there however much is published: between two looks at the clock it sends twice as much as has come for it since
the last time. What was left to the cursor and is not kept any more when it comes, because it was evicted or the rules
have changed, is told as LOST.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import attrs
import trio

from fanwire.protocol import MAX_BATCH, Lost, SnapshotEnd, encode, matcher

from ..timing import turn

if TYPE_CHECKING:
    from fanwire.protocol import Replay

    from ..delivery.fanout import Fanout
    from ..delivery.outbox import Outbox
    from ..delivery.routes import Route
    from ..delivery.subscription import Subscription
    from ..store.interface import Kept, Store, Stored
    from ..topics.chunks import Chunk
    from ..topics.takers import Inlet

# Of one page: so many topics are looked at, at a third of a microsecond each, and so many bytes put together, at about
# one a message. Between pages the loop goes round so many times: of what others wait for the pages are a small part.
PORTION = 500
PAGE_BYTES = 4 * 1024
# Who catches up with a history is in more of a hurry than who looks at 100,000 topics: it has to overtake what is live.
TURNS = 24
TURNS_OF_REPLAY = 4

# Where more than that comes meanwhile, so many times as much goes out, in larger pages; but for no longer than a turn.
GAIN = 2
LARGE_PAGE = MAX_BATCH // 2

# Replays of all clients that have a page between two others' turns, or wait for theirs; the rest waits in line. When a
# thousand clients come back at once, their pages would otherwise all be put together in one round of the event loop.
AT_ONCE = 32

# Pages that may wait for the socket: with fewer the writer would have nothing to write until we have our turn.
PAGES_WAITING = 4

# With less than so many pages allowed to wait for a connection (`max_pending`) they stay small.
_ROOM_FOR_LARGE = 16

# What a topic named in ``offsets`` takes in memory beside its bytes: a text, an offset, and their place in a dict.
_EACH_OFFSET = 150

# What is noted of a topic that the cursor has yet to come to.
_EACH_NOTE = 64


@attrs.frozen
class Start:
    """From which offset on a topic's history is wanted, and what of that is not kept any more."""

    offset: int
    lost: Lost | None


@attrs.frozen
class Wish:
    """What a SUBSCRIBE asked for."""

    pattern: str
    epoch: str
    snapshot: bool
    replay: Replay | None

    def start(self, kept: Kept, route: int, begun: int | None = None) -> Start:
        """Where the replay of a topic with history begins.

        Args:
            kept: The topic.
            route: For LOST.
            begun: Offset of the first message since SUBSCRIBE: from there on nothing may be passed over in silence.
                None: there has been none.
        """
        replay = self.replay
        assert replay is not None
        had = replay.offset if replay.offsets is None else replay.offsets.get(kept.name)
        if had is None:
            return self._start_without_offset(kept, route, replay, kept.head + 1 if begun is None else begun)
        if replay.epoch != self.epoch or had > kept.head:
            return Start(kept.first, Lost(route, None, "restart", kept.name))
        if had + 1 < kept.first:
            return Start(kept.first, lost_between(kept, had + 1, route))
        return Start(had + 1, None)

    def _start_without_offset(self, kept: Kept, route: int, replay: Replay, begun: int) -> Start:
        lost = lost_between(kept, begun, route) if begun < kept.first else None
        if replay.last is not None:
            return Start(max(kept.first, begun - replay.last), lost)
        if replay.since is None:
            return Start(kept.first, lost)
        if (
            lost is None and kept.gone_us and kept.gone_us >= replay.since
        ):  # of what was asked for; nobody knows any more how many
            lost = Lost(route, None, "evicted", kept.name)
        return Start(max(kept.first, min(begun, kept.first_since(replay.since))), lost)

    @property
    def had(self) -> Mapping[str, int]:
        """The topics whose offsets were given, and these."""
        replay = self.replay
        if replay is None or replay.epoch is None:
            return {}
        return {self.pattern: replay.offset or 0} if replay.offsets is None else replay.offsets

    @property
    def same_life(self) -> bool:
        """Whether these are offsets of the store that there is."""
        return self.replay is not None and self.replay.epoch == self.epoch

    @property
    def size(self) -> int:
        """Bytes in memory of what was named."""
        had = self.had
        return sum(map(len, had)) + _EACH_OFFSET * len(had)

    def recovered(self, store: Store, route: int) -> bool:
        """Whether all that was asked for is kept, as things stand."""
        replay = self.replay
        if replay is None:
            return True
        if replay.epoch is None:
            kept = store.find(self.pattern)
            return kept is None or not kept.has_history or self.start(kept, route).lost is None
        if replay.epoch != self.epoch:
            return False
        had = self.had
        return all(_covers(store.find(name), had[name]) for name in filter(matcher(self.pattern), had))


def _covers(kept: Kept | None, had: int) -> bool:
    """Whether all behind that offset is kept."""
    if kept is None or not kept.has_history:
        return had == 0
    return kept.first - 1 <= had <= kept.head


def lost_between(kept: Kept, first: int, route: int) -> Lost:
    """LOST for all from offset ``first`` to the oldest that is kept."""
    return _lost(kept, first, kept.first - 1, route)


def _lost(kept: Kept, first: int, last: int, route: int) -> Lost:
    return Lost(route, last - first + 1, "evicted", kept.name, first, last)


class Replaying:
    """One subscription before it is live. Its `run` belongs to the session; a publish calls `offer`."""

    def __init__(
        self, wish: Wish, subscription: Subscription, outbox: Outbox, fanout: Fanout, store: Store,
        slots: trio.Semaphore, live: Callable[[], None],
    ) -> None:  # fmt: skip
        """``slots`` are the broker's, `AT_ONCE` of them. ``live`` is called at the end, synchronously: from then on it
        is for others to send."""
        self._wish = wish
        self._route: Route = subscription.route
        self._outbox = outbox
        self._fanout = fanout
        self._store = store
        self._slots = slots
        self._live = live
        self._at = 0  # the topic that the cursor has come to, by serial number
        self._end = len(store.topics)
        self._next: int | None = None  # of that topic's history: the offset to go on from
        # Of topics still to come: the offset of the first publish since SUBSCRIBE that was left to the cursor; and
        # without offsets, how many were.
        self._begun: dict[int, int] = {}
        self._left: dict[int, int] = {}
        self._early: set[int] = set()  # topics behind the cursor's back that are done already
        self._unknown: deque[str] = deque()  # topics of which nothing is known, and which are told first of all
        self._told: set[str] = set()  # topics whose offsets have been answered with LOST already
        self._waiting: deque[tuple[bytes, int]] = deque()  # what goes next: envelopes, messages among them
        self._count = 0
        self._came = 0  # bytes published for it since the last page
        self._due = 0  # bytes to be sent soon: more than that comes in the meantime
        self._large = outbox.may_wait(_ROOM_FOR_LARGE * LARGE_PAGE)
        self._changes = store.changes
        self._named = self._noted = wish.size  # bytes of what is noted here, as counted with what waits
        outbox.held_bytes += self._noted
        self._matches = matcher(wish.pattern)
        self.closed = False
        self._skip_to_exact()
        self._note_unknown()

    def _skip_to_exact(self) -> None:
        """Without a wildcard there is one topic at most."""
        if not self._route.wildcard:
            kept = self._store.find(self._route.pattern)
            self._at, self._end = (0, 0) if kept is None else (kept.serial, kept.serial + 1)
            if kept is not None and kept.has_history and self._wish.replay is not None:
                self._begin(kept)  # OK says how many there are

    def _note_unknown(self) -> None:
        """Topics that somebody else's life of the store knew, and this one does not."""
        find = self._store.find
        for name, offset in self._wish.had.items():
            if offset and ((kept := find(name)) is None or not kept.has_history) and self._matches(name):
                self._unknown.append(name)
        self._told.update(self._unknown)

    # ------------------------------------------------------------- publishes

    def offer(self, chunk: Chunk, now: float, source: Inlet | None) -> int:
        """See `Taker` (it is remembered already, where it is at all). Never blocks, never fails.

        Whoever wants no echo gets it all the same: what is remembered does not know its publisher.
        """
        if self.closed:
            return 1
        if self._changes != self._store.changes:
            self._go_by_rules()
        size = len(chunk.data)
        self._came += size
        if not self._left_to_cursor(chunk):
            self._outbox.held_bytes += size
            self._waiting.append((chunk.data, chunk.count))
        self._count_notes()
        self._outbox.check_bytes()
        return 1

    def _left_to_cursor(self, chunk: Chunk) -> bool:
        kept = self._store.find(chunk.topic)
        if kept is None or not self._at <= kept.serial < self._end or kept.serial in self._early:
            return False
        if kept.has_history:
            first = self._route.first_offset(chunk)
            if not first:
                return False  # it was published before there was any
            if self._next is None or kept.serial != self._at:
                self._begun.setdefault(kept.serial, first)
            return True
        if not self._wish.snapshot:
            return False
        if kept.keeping.retain:
            self._leave(kept, chunk)
            return True
        # It may not have been retained: then what was has its place before it.
        self._early.add(kept.serial)
        left, last = self._left.pop(kept.serial, 0), kept.last
        if last is not None and last.stamp < self._route.stamp_of(chunk):
            self._put(self._route.retained(kept.name, last))
        elif left and not (last is None and self._route.is_empty(chunk)):  # this one, behind it, has replaced them
            self._lose(Lost(self._route.number, left, "evicted", kept.name))
        return False

    def _leave(self, kept: Kept, chunk: Chunk) -> None:
        """A message replaces the last value, and the cursor will find that, unless it is evicted before."""
        if kept.last is None and self._route.is_empty(chunk):
            self._left.pop(kept.serial, None)  # the publisher has deleted it: nothing is what there is to find
        else:
            self._left[kept.serial] = self._left.get(kept.serial, 0) + chunk.count

    def _put(self, data: bytes, count: int = 1) -> None:
        self._outbox.held_bytes += len(data)
        self._waiting.append((data, count))

    def _lose(self, lost: Lost) -> None:
        self._waiting.append((encode(lost), 0))

    def _count_notes(self) -> None:
        noted = self._named + _EACH_NOTE * (len(self._begun) + len(self._left) + len(self._early))
        self._outbox.held_bytes += noted - self._noted
        self._noted = noted

    # ------------------------------------------------------------ other rules

    def _go_by_rules(self) -> None:
        """They have changed since the last look: what was left to the cursor and is not kept any more is told now.

        Nothing has come since, so this is its place.
        """
        self._changes = self._store.changes
        topics, route = self._store.topics, self._route.number
        if self._next is not None and not (kept := topics[self._at]).has_history:
            if self._next <= kept.head:
                self._lose(_lost(kept, self._next, kept.head, route))
            self._told.add(kept.name)
            self._pass()
        for kept in self._gone():
            self._begun.pop(kept.serial, None)
            self._told.add(kept.name)
            had = self._wish.had[kept.name]
            if had > kept.head or not self._wish.same_life:
                self._lose(Lost(route, None, "restart", kept.name))
            else:
                self._lose_from(kept, had + 1)
        for serial, begun in [*self._begun.items()]:
            if not topics[serial].has_history:
                del self._begun[serial]
                self._lose_from(topics[serial], begun)
        for serial, left in [*self._left.items()]:
            if topics[serial].last is None:
                del self._left[serial]
                self._lose(Lost(route, left, "evicted", topics[serial].name))

    def _gone(self) -> list[Kept]:
        """Topics whose offsets were given, which have no history any more, as far as the cursor has yet to come there.

        What was said in OK of whether all is there holds no more.
        """
        found = [(name, self._store.find(name)) for name, offset in self._wish.had.items() if offset]
        return [
            kept
            for name, kept in found
            if kept is not None and not kept.has_history and self._at <= kept.serial < self._end
            if name not in self._told and self._matches(name)
        ]

    def _lose_from(self, kept: Kept, first: int) -> None:
        """All from an offset on is not kept any more; but the newest message may be the last value, and is sent."""
        last = kept.head
        newest = kept.newest() if self._wish.snapshot else None
        if newest is not None and first <= newest.offset == last:
            if self._wish.replay is None:
                self._left[kept.serial] = last + 1 - first
                return  # it stands for all that it has replaced
            self._left[kept.serial] = 1
            last -= 1
        if first <= last:
            self._lose(_lost(kept, first, last, self._route.number))

    # ------------------------------------------------------------------ pages

    async def run(self) -> None:
        """Send page after page, until the subscription is live, or closed."""
        outbox = self._outbox
        turns = TURNS if self._wish.replay is None else TURNS_OF_REPLAY
        while not self.closed:
            async with self._slots:
                while self._fanout.spreading:  # published, and remembered, but not offered to us yet
                    await self._fanout.swept()
                if self.closed:
                    return
                behind = self._send_some()
                if self.closed:
                    return
                if not outbox.answer_bytes:
                    for _ in range(0 if behind else turns - 1):  # to have a slot takes a turn, too
                        await trio.lowlevel.checkpoint()
                    continue
            await outbox.answers_taken()

    def _send_some(self) -> bool:
        """Send a page, or as many as are needed to gain on what comes, but for one turn at most.

        Returns:
            Whether there should have been more.
        """
        outbox, until = self._outbox, turn.first_end(turn.clock())
        self._count_notes()
        self._due, self._came = self._due + GAIN * self._came, 0
        most = LARGE_PAGE if self._large else PAGE_BYTES
        goal, sent = max(PAGE_BYTES, self._due), 0
        while True:
            # Never the very bytes of one chunk, as a join of one would give: `Fanout` knows chunks by identity.
            page = b"".join((b"", *self._page(min(goal - sent, most))))
            if page:
                self._fanout.answer(outbox, page)
                self._fanout.flush(outbox)  # may be the end of the subscription
            if self.closed:
                return False
            if self._at >= self._end and not self._waiting and not self._unknown:
                self._finish()
                return False
            sent += len(page) or PAGE_BYTES  # looking takes time, too
            if (
                self._fanout.spreading
                or sent >= goal
                or outbox.answer_bytes >= PAGES_WAITING * most
                or turn.clock() >= until
            ):
                self._due = max(0, self._due - sent)
                return self._due > 0

    def _finish(self) -> None:
        self._fanout.answer(self._outbox, encode(SnapshotEnd(self._route.number, self._count)))
        self.close()
        self._live()

    def _page(self, room: int) -> list[bytes]:
        """Envelopes, together so many bytes at most, unless the first alone is larger."""
        if self._changes != self._store.changes:
            self._go_by_rules()
        page: list[bytes] = []
        size, looked = self._tell_unknown(page, room), 0
        while True:
            size += self._take_waiting(page, room - size)
            if self._waiting:
                return page
            topics, matches, retained = self._store.topics, self._matches, self._route.retained
            while not self._waiting:
                if self._at >= self._end or looked >= PORTION or size >= room:
                    return page
                looked += 1
                kept = topics[self._at]
                if kept.serial in self._early or not matches(kept.name):
                    self._pass()
                elif self._wish.replay is not None and kept.has_history:
                    self._replay(kept, room - size)
                elif self._wish.snapshot and (newest := kept.newest()) is not None:  # no detour: there may be many
                    data = retained(kept.name, newest)
                    self._tell_evicted(kept, newest)
                    self._pass()
                    if size and size + len(data) > room:
                        self._outbox.held_bytes += len(data)
                        self._waiting.appendleft((data, 1))
                        return page
                    size += len(data)
                    self._count += 1
                    page.append(data)
                else:
                    self._tell_evicted(kept, None)
                    self._pass()

    def _tell_unknown(self, page: list[bytes], room: int) -> int:
        """Of these the subscriber knows something that nobody here does. Returns the bytes added to the page."""
        size = 0
        while self._unknown and size < room:
            page.append(encode(Lost(self._route.number, None, "restart", self._unknown.popleft())))
            size += len(page[-1])
        return size

    def _take_waiting(self, page: list[bytes], room: int) -> int:
        """Add what waits, as far as there is room. Returns its bytes."""
        size = 0
        while self._waiting:
            data, count = self._waiting[0]
            if page and size + len(data) > room:
                break
            self._waiting.popleft()
            if count:
                self._outbox.held_bytes -= len(data)
            size += len(data)
            self._count += count
            page.append(data)
        return size

    def _pass(self) -> None:
        """The cursor goes on to the next topic: no position in the one before means anything there."""
        if self._early:
            self._early.discard(self._at)
        self._at += 1
        self._next = None

    def _tell_evicted(self, kept: Kept, newest: Stored | None) -> None:
        """Of what was left to the cursor nothing may be kept any more, or only something older."""
        if not self._begun and not self._left:
            return
        begun, left = self._begun.pop(kept.serial, None), self._left.pop(kept.serial, 0)
        if begun is not None:
            older = newest is None or newest.offset < begun
            if older and kept.first > kept.head >= begun:
                self._lose(_lost(kept, begun, kept.head, self._route.number))
        elif left and newest is None:
            self._lose(Lost(self._route.number, left, "evicted", kept.name))

    def _replay(self, kept: Kept, room: int) -> None:
        if self._next is None:
            self._begin(kept)
        elif self._next < kept.first:
            self._lose(lost_between(kept, self._next, self._route.number))
            self._next = kept.first
        assert self._next is not None
        for run in kept.runs(self._next):
            data, count = self._route.replayed(kept.name, run, room)
            self._put(data, count)
            self._next = run[0] + count
            room -= len(data)
            if room <= 0 or count < len(run[3]):
                break
        if self._next > kept.head:
            self._pass()

    def _begin(self, kept: Kept) -> None:
        """Where that topic's replay begins."""
        route, begun = self._route.number, self._begun.pop(kept.serial, None)
        if left := self._left.pop(kept.serial, 0):  # it had no history then
            self._lose(Lost(route, left, "evicted", kept.name))
        if kept.name in self._told:
            evicted = begun is not None and begun < kept.first
            start = Start(kept.first, lost_between(kept, begun or 0, route) if evicted else None)
        else:
            start = self._wish.start(kept, route, begun)
        if start.lost is not None:
            self._lose(start.lost)
        self._next = start.offset

    def close(self) -> None:
        """Nobody wants it any more. Idempotent."""
        self.closed = True
        self._outbox.held_bytes -= self._noted + sum([len(data) for data, count in self._waiting if count])
        self._noted = 0
        self._waiting.clear()
        self._begun.clear()
        self._left.clear()
        self._early.clear()
        self._unknown.clear()
        self._told.clear()
