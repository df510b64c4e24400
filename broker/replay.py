"""Beginning a subscription with what its topics remember: snapshot, replay, and then live without a seam.

A cursor walks the topics. What is published meanwhile on a topic that it has not passed is left to it, if the topic
remembers that; what is published on others waits here, and goes out behind what the cursor has found. All of it
travels with the answers, a page at a time, as the client takes it: it does not count against `queue`. The answers
stand before all messages, so when the cursor is at the end the subscription can simply be switched to live.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import TYPE_CHECKING

import attrs
import trio

from fanwire.protocol import Lost, SnapshotEnd, encode, matcher

if TYPE_CHECKING:
    from fanwire.protocol import Replay

    from .fanout import Fanout
    from .outbox import Outbox
    from .routes import Chunk, Route
    from .store import Kept, Store
    from .subscription import Subscription

# Of one page: so many topics are looked at, at a third of a microsecond each, and so many bytes put together, at about
# one a message. Between pages the loop goes round so many times: of what others wait for the pages are a small part.
PORTION = 500
PAGE_BYTES = 4 * 1024
# Who catches up with a history is in more of a hurry than who looks at 100,000 topics: it has to overtake what is live.
TURNS = 24
TURNS_OF_REPLAY = 4


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
        had: Mapping[str, int] = {self.pattern: replay.offset or 0} if replay.offsets is None else replay.offsets
        ours = filter(matcher(self.pattern), had)
        return all(self._covers(store.find(name), had[name], route) for name in ours)

    def _covers(self, kept: Kept | None, had: int, route: int) -> bool:
        if kept is None or not kept.has_history:
            return had == 0
        return self.start(kept, route).lost is None


def lost_between(kept: Kept, first: int, route: int) -> Lost:
    """LOST for all from offset ``first`` to the oldest that is kept."""
    return Lost(route, kept.first - first, "evicted", kept.name, first, kept.first - 1)


class Replaying:
    """One subscription before it is live. Its `run` belongs to the session; a publish calls `offer`."""

    def __init__(
        self, wish: Wish, subscription: Subscription, outbox: Outbox, fanout: Fanout, store: Store,
        live: Callable[[], None],
    ) -> None:  # fmt: skip
        """``live`` is called at the end, synchronously: from then on it is for others to send."""
        self._wish = wish
        self._route: Route = subscription.route
        self._outbox = outbox
        self._fanout = fanout
        self._store = store
        self._live = live
        self._at = 0  # the topic that the cursor has come to, by serial number
        self._end = len(store.topics)
        self._next: int | None = None  # of that topic's history: the offset to go on from
        self._begun: dict[int, int] = {}  # of topics still to come: the offset of the first publish since SUBSCRIBE
        self._early: set[int] = set()  # topics behind the cursor's back that are done already
        self._waiting: deque[tuple[bytes, int]] = deque()  # what goes next: envelopes, messages among them
        self._count = 0
        self._matches = matcher(wish.pattern)
        self.closed = False
        self._skip_to_exact()
        self._tell_unknown()

    def _skip_to_exact(self) -> None:
        """Without a wildcard there is one topic at most."""
        if not self._route.wildcard:
            kept = self._store.find(self._route.pattern)
            self._at, self._end = (0, 0) if kept is None else (kept.serial, kept.serial + 1)
            if kept is not None and kept.has_history and self._wish.replay is not None:
                self._begin(kept)  # OK says how many there are

    def _tell_unknown(self) -> None:
        """Topics that somebody else's life of the store knew, and this one does not."""
        replay = self._wish.replay
        if replay is None or replay.epoch is None:
            return
        had = {self._wish.pattern: replay.offset or 0} if replay.offsets is None else replay.offsets
        for name, offset in had.items():
            kept = self._store.find(name)
            if offset and (kept is None or not kept.has_history) and self._matches(name):
                self._waiting.append((encode(Lost(self._route.number, None, "restart", name)), 0))

    # ------------------------------------------------------------- publishes

    def offer(self, chunk: Chunk, now: float, fanout: Fanout) -> int:
        """See `Taker` (it is remembered already, where it is at all). Never blocks, never fails.

        Whoever wants no echo gets it all the same: what is remembered does not know its publisher.
        """
        if not self.closed and not self._left_to_cursor(chunk):
            self._outbox.held_bytes += len(chunk.data)
            self._waiting.append((chunk.data, chunk.count))
            self._outbox.check_bytes()
        return 1

    def _left_to_cursor(self, chunk: Chunk) -> bool:
        kept = self._store.find(chunk.topic)
        if kept is None or not self._at <= kept.serial < self._end or kept.serial in self._early:
            return False
        wish = self._wish
        if kept.has_history:
            if wish.replay is not None:
                self._begun.setdefault(kept.serial, self._route.first_offset(chunk))
            return wish.replay is not None or wish.snapshot
        if not wish.snapshot:
            return False
        if kept.keeping.retain:
            return True
        # It may not have been retained: then what was has its place before it.
        self._early.add(kept.serial)
        if kept.last is not None and not chunk.data.endswith(kept.last.tail):
            self._put(self._route.retained(kept.name, kept.last))
        return False

    def _put(self, data: bytes) -> None:
        self._outbox.held_bytes += len(data)
        self._waiting.append((data, 1))

    # ------------------------------------------------------------------ pages

    async def run(self) -> None:
        """Send page after page, until the subscription is live, or closed."""
        outbox = self._outbox
        while not self.closed:
            while self._fanout.spreading:  # published, and remembered, but not offered to us yet
                await self._fanout.swept()
            if self.closed:
                return
            # Never the very bytes of one chunk, as a join of one would give: `Fanout` knows chunks by identity.
            page = b"".join((b"", *self._page()))
            if page:
                self._fanout.answer(outbox, page)
                self._fanout.flush(outbox)  # may be the end of the subscription
            if not self.closed and self._at >= self._end and not self._waiting:
                self._finish()
                return
            if outbox.answer_bytes:
                await outbox.answers_taken()
            else:
                for _ in range(TURNS if self._wish.replay is None else TURNS_OF_REPLAY):
                    await trio.lowlevel.checkpoint()

    def _finish(self) -> None:
        self._fanout.answer(self._outbox, encode(SnapshotEnd(self._route.number, self._count)))
        self.close()
        self._live()

    def _page(self) -> list[bytes]:
        """Envelopes, together at most `PAGE_BYTES` bytes, unless the first alone is larger."""
        page: list[bytes] = []
        size, looked = 0, 0
        while True:
            while self._waiting:
                data, count = self._waiting[0]
                if size and size + len(data) > PAGE_BYTES:
                    return page
                self._waiting.popleft()
                if count:
                    self._outbox.held_bytes -= len(data)
                size += len(data)
                self._count += count
                page.append(data)
            topics, matches, retained = self._store.topics, self._matches, self._route.retained
            while not self._waiting:
                if self._at >= self._end or looked >= PORTION or size >= PAGE_BYTES:
                    return page
                looked += 1
                kept = topics[self._at]
                if kept.serial in self._early or not matches(kept.name):
                    self._pass()
                elif self._wish.replay is not None and kept.has_history:
                    self._replay(kept, PAGE_BYTES - size)
                elif self._wish.snapshot and (newest := kept.newest()) is not None:  # no detour: there may be many
                    data = retained(kept.name, newest)
                    self._pass()
                    if size and size + len(data) > PAGE_BYTES:
                        self._put(data)
                        return page
                    size += len(data)
                    self._count += 1
                    page.append(data)
                else:
                    self._pass()

    def _pass(self) -> None:
        """The cursor goes on to the next topic."""
        if self._early:
            self._early.discard(self._store.topics[self._at].serial)
        self._at += 1

    def _replay(self, kept: Kept, room: int) -> None:
        if self._next is None:
            self._begin(kept)
        elif self._next < kept.first:
            self._waiting.append((encode(lost_between(kept, self._next, self._route.number)), 0))
            self._next = kept.first
        assert self._next is not None
        for stored in islice(kept.read(self._next), PORTION):
            data = self._route.replayed(kept.name, stored)
            self._put(data)
            self._next = stored.offset + 1
            room -= len(data)
            if room <= 0:
                break
        if self._next > kept.head:
            self._next = None
            self._pass()

    def _begin(self, kept: Kept) -> None:
        start = self._wish.start(kept, self._route.number, self._begun.pop(kept.serial, None))
        if start.lost is not None:
            self._waiting.append((encode(start.lost), 0))
        self._next = start.offset

    def close(self) -> None:
        """Nobody wants it any more. Idempotent."""
        self.closed = True
        self._outbox.held_bytes -= sum([len(data) for data, count in self._waiting if count])
        self._waiting.clear()
        self._begun.clear()
