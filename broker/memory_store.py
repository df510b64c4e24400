"""A `Store` that keeps all in memory.

A run of publishes is one `Block`, so keeping a message costs little beside delivering it. Nothing here waits, and
nothing is sent.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush, heapreplace
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, TypeAlias

from fanwire.protocol.codes import MAX_NUMBER
from fanwire.protocol.errors import LocalProtocolError

from .store import KEPT_IDS, Stored

if TYPE_CHECKING:
    from .rules import Keeping

# What a kept message costs beside its bytes: an object's head and its place in a tuple.
_EACH = 48

# And a block beside its messages: two tuples, two numbers, a stamp, and the place of all that.
_BLOCK = 280

# A block of one message, and of two, without their bytes.
_ONE, _TWO = _BLOCK + _EACH, _BLOCK + 2 * _EACH

Block: TypeAlias = tuple[int, bytes, int, tuple[bytes, ...], int]
"""Messages of one run: the offset after the last one, their stamp, elements and tails (see `Stored`), and what all of
it takes in memory. (A plain tuple: one is made for every publish that comes alone, and the garbage collector does not
look at tuples of such things again. Of a topic's oldest block some may not be kept any more: see `Kept.first`.)"""

_end_of = itemgetter(0)


class MemoryKept:
    """See `Kept`."""

    __slots__ = (
        "_gone",
        "_limit",
        "_most",
        "_retains",
        "blocks",
        "head",
        "ids",
        "keeping",
        "last",
        "name",
        "serial",
        "size",
        "store",
    )

    def __init__(self, store: MemoryStore, name: str, serial: int, keeping: Keeping) -> None:
        self.store = store
        self.name = name
        self.serial = serial
        self._go_by(keeping)
        self.head = 0
        self._gone = bytes(8)  # stamp of the newest block that has gone, or lost some of its messages
        self.last: Stored | None = None
        self.blocks: deque[Block] = deque()
        self.size = 0
        """Bytes of the messages kept."""
        self.ids: OrderedDict[str, int] | None = None
        """`msg_id` of the last few publishes that had one, and their offsets."""

    def _go_by(self, keeping: Keeping) -> None:
        """Note what `take` asks for each time: a look-up less, of what is in no cache on many topics."""
        self.keeping = keeping
        self._most, self._limit, self._retains = keeping.messages, keeping.bytes, keeping.retain

    @property
    def has_history(self) -> bool:
        """See `Kept.has_history`."""
        return self._most is not None

    @property
    def first(self) -> int:
        """See `Kept.first`."""
        if not self.blocks or self._most is None:
            return self.head + 1
        end, _, _, tails, _ = self.blocks[0]
        return max(end - len(tails), self.head + 1 - self._most)

    @property
    def gone_us(self) -> int:
        """See `Kept.gone_us`."""
        gone = self._gone
        if self.blocks and self.blocks[0][0] - len(self.blocks[0][3]) < self.first:
            gone = max(gone, self.blocks[0][1])
        return int.from_bytes(gone, "big")

    def take(self, elements: int, tails: list[bytes], stamp: bytes, retain: bool | None = None) -> int:
        """See `Kept.take`."""
        most, store = self._most, self.store
        if most is None:
            first = 0
        else:  # in line here: a call costs as much as a third of it
            first, count = self.head + 1, len(tails)
            end = first + count
            self.head = end - 1
            if count == 1:
                size = _ONE + len(tails[0])
            elif count == 2:
                one, other = tails
                size = _TWO + len(one) + len(other)
            else:
                size = _BLOCK + _EACH * count + sum(map(len, tails))
            blocks, before = self.blocks, self.size
            blocks.append((end, stamp, elements, tuple(tails), size))
            if before:
                oldest = end - most
                while blocks[0][0] <= oldest:
                    _, self._gone, _, _, gone = blocks.popleft()
                    size -= gone
            else:
                store.begun(self)
            store.size += size
            self.size = size = before + size
            if size > self._limit:
                self._keep_within(self._limit)
        if retain or (retain is None and self._retains):
            self._retain(Stored(self.head, stamp, elements, tails[-1]))
        if store.size > store.limit:
            store.shrink()
        return first

    def _keep_within(self, limit: int) -> None:
        """The oldest messages go until the others take at most so many bytes; the newest stays in any case."""
        while self.size > limit and self.blocks:
            end, _, _, tails, size = self.blocks[0]
            newest = len(self.blocks) == 1
            if not newest and self.size - size >= limit:
                self.forget_block()
                continue
            skip, spared = max(0, len(tails) - (end - self.first)), 0
            for tail in tails[:skip]:
                spared += len(tail) + _EACH
            while self.size - spared > limit and skip < len(tails) - newest:
                spared += len(tails[skip]) + _EACH
                skip += 1
            if skip == len(tails):
                self.forget_block()
                continue
            if not skip:
                return
            self._cut(end - len(tails) + skip)
            return

    def forget_block(self) -> int:
        """The oldest block goes; how many messages that are."""
        gone = -self.first
        end, self._gone, _, _, size = self.blocks.popleft()
        gone += end
        self.size -= size
        self.store.size -= size
        return gone

    def _retain(self, stored: Stored) -> None:
        self.store.replace_last(self, None if stored.empty else stored)

    def change(self, keeping: Keeping) -> None:
        """It is to remember something else."""
        if self.keeping.messages is None and keeping.messages is not None and self.head:
            self.head += 1  # never used: what was published in between had no offset
            self._gone = (time.time_ns() // 1000).to_bytes(8, "big")
        before, most = self.first, keeping.messages
        while self.blocks and (most is None or self.blocks[0][0] <= self.head + 1 - most):
            self.forget_block()
        self._go_by(keeping)
        if self.first < before:
            self._cut(before)  # or more messages allowed would bring back what had gone
        if self.size > keeping.bytes:
            self._keep_within(keeping.bytes)
        if keeping.retain is False:
            self.store.replace_last(self, None)

    def _cut(self, first: int) -> None:
        """Of the oldest block, whatever comes before an offset within it goes."""
        end, stamp, elements, tails, size = self.blocks[0]
        gone = tails[: first - end]
        freed = sum(map(len, gone)) + _EACH * len(gone)
        self._gone = stamp
        self.blocks[0] = (end, stamp, elements, tails[first - end :], size - freed)
        self.size -= freed
        self.store.size -= freed

    def newest(self) -> Stored | None:
        """See `Kept.newest`."""
        if self.keeping.retain or not self.blocks:
            return self.last
        end, stamp, elements, tails, _ = self.blocks[-1]
        return Stored(end - 1, stamp, elements, tails[-1])

    def read(self, offset: int) -> Iterator[Stored]:
        """Messages from ``offset`` on, or from the oldest that is kept. Not to be used across a checkpoint."""
        offset = max(offset, self.first)
        for end, stamp, elements, tails, _ in islice(self.blocks, self._block_of(offset), None):
            begin = max(offset, end - len(tails))
            for at, tail in enumerate(tails[begin - end :], begin):
                yield Stored(at, stamp, elements, tail)

    def _block_of(self, offset: int) -> int:
        """The index of the block with that offset."""
        return bisect_right(self.blocks, offset, key=_end_of)

    def first_since(self, time_us: int) -> int:
        """Offset of the oldest message kept that was taken in at ``time_us`` or later."""
        since = min(time_us, MAX_NUMBER).to_bytes(8, "big")
        for end, stamp, _, tails, _ in self.blocks:
            if stamp >= since:
                return max(self.first, end - len(tails))
        return self.head + 1

    @property
    def oldest_us(self) -> int:
        """When the oldest block was taken in; there must be one."""
        return int.from_bytes(self.blocks[0][1], "big")

    def remember_id(self, msg_id: str, offset: int) -> None:
        """See `Kept.remember_id`."""
        if self.ids is None:
            self.ids = OrderedDict()
        self.ids[msg_id] = offset
        if len(self.ids) > KEPT_IDS:
            self.ids.popitem(last=False)

    def offset_of(self, msg_id: str) -> int | None:
        """See `Kept.offset_of`."""
        return None if self.ids is None else self.ids.get(msg_id)


class MemoryStore:
    """See `Store`."""

    def __init__(self, epoch: str, limit: int, max_topics: int) -> None:
        """Empty.

        Args:
            epoch: Names its life: offsets of another epoch mean nothing here.
            limit: Bytes that all topics together may remember.
            max_topics: Topics that may remember anything.
        """
        self.epoch = epoch
        self.limit = limit
        self.max_topics = max_topics
        self.size = 0
        self.evicted = 0
        self.topics: list[MemoryKept] = []
        self._by_name: dict[str, MemoryKept] = {}
        # Topics by the age of what was their oldest block some time ago (they never get older than that), and by when
        # it must go. Each topic that has history is in there once; some that have none any more are, too.
        self._by_age: list[tuple[int, int]] = []
        self._by_end: list[tuple[int, int]] = []
        self._in_by_age: set[int] = set()
        self._in_by_end: set[int] = set()
        self._lasts: OrderedDict[MemoryKept, None] = OrderedDict()  # replaced longest ago first

    def find(self, name: str) -> MemoryKept | None:
        """See `Store.find`."""
        return self._by_name.get(name)

    def topic(self, name: str, keeping: Keeping, *, always: bool = False) -> MemoryKept:
        """See `Store.topic`."""
        kept = self._by_name.get(name)
        if kept is None:
            if len(self.topics) >= self.max_topics and not always:
                raise LocalProtocolError(
                    f"{name}: the broker remembers {self.max_topics} topics already (max_stored_topics)",
                    code="too_many",
                )
            kept = self._by_name[name] = MemoryKept(self, name, len(self.topics), keeping)
            self.topics.append(kept)
        return kept

    def resize(self, limit: int, max_topics: int) -> None:
        """See `Store.resize`."""
        self.limit, self.max_topics = limit, max_topics
        self.shrink()

    def change(self, keeping: Callable[[str], Keeping]) -> None:
        """See `Store.change`."""
        self._by_end.clear()
        self._in_by_end.clear()
        for kept in self.topics:
            if (wanted := keeping(kept.name)) != kept.keeping:
                kept.change(wanted)
            if kept.blocks:
                self.begun(kept)

    # ------------------------------------------------------ for `MemoryKept`

    def begun(self, kept: MemoryKept) -> None:
        """A topic has history, and had none before."""
        if kept.serial not in self._in_by_age:
            self._in_by_age.add(kept.serial)
            heappush(self._by_age, (kept.oldest_us, kept.serial))
        if kept.keeping.seconds is not None and kept.serial not in self._in_by_end:
            self._in_by_end.add(kept.serial)
            heappush(self._by_end, (_end_of_life(kept), kept.serial))

    def replace_last(self, kept: MemoryKept, stored: Stored | None) -> None:
        """A topic has another last value, or none."""
        before, kept.last = kept.last, stored
        if before is not None:
            self.size -= len(before.tail) + _EACH
        if stored is not None:
            self.size += len(stored.tail) + _EACH
        if before is None and stored is not None:
            self._lasts[kept] = None
        elif before is not None and stored is None:
            del self._lasts[kept]
        elif stored is not None:  # taken out and put in again the dict would be built anew now and then, in 20 ms
            self._lasts.move_to_end(kept)

    # --------------------------------------------------------------- bounds

    def shrink(self) -> None:
        """Evict until all is within the limit."""
        by_age = self._by_age
        while self.size > self.limit and by_age:
            age, serial = by_age[0]
            kept = self.topics[serial]
            if not kept.blocks:
                heappop(by_age)
                self._in_by_age.discard(serial)
            elif age != kept.oldest_us:
                heapreplace(by_age, (kept.oldest_us, serial))
            else:
                self.evicted += kept.forget_block()
        while self.size > self.limit and self._lasts:
            self.evicted += 1
            self.replace_last(next(iter(self._lasts)), None)

    def expire(self, now_us: int, most: int) -> bool:
        """See `Store.expire`: ``most`` blocks."""
        by_end = self._by_end
        while by_end and by_end[0][0] < now_us:
            end, serial = by_end[0]
            kept = self.topics[serial]
            if not kept.blocks:
                heappop(by_end)
                self._in_by_end.discard(serial)
            elif end != _end_of_life(kept):
                heapreplace(by_end, (_end_of_life(kept), serial))
            elif not most:
                return True
            else:
                most -= 1
                kept.forget_block()
        return False


def _end_of_life(kept: MemoryKept) -> int:
    """When the topic's oldest block must go, in microseconds since 1970."""
    assert kept.keeping.seconds is not None
    return kept.oldest_us + int(kept.keeping.seconds * 1e6)
