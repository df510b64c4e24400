"""A `Store` that keeps all in memory.

A run of publishes is one `Block`, so keeping a message costs little beside delivering it. A topic's blocks are a list
of which the front is not used any more: so the block of any offset, and of any time, is found by halving. Nothing here
waits, and nothing is sent.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from hashlib import blake2b
from heapq import heappop, heappush, heapreplace
from operator import itemgetter
from typing import TYPE_CHECKING, TypeAlias

from fanwire.protocol.codes import MAX_NUMBER
from fanwire.protocol.errors import LocalProtocolError

from .interface import KEPT_IDS, Run, Stored

if TYPE_CHECKING:
    from ..settings.rules import Keeping

# What a kept message costs beside its bytes: an object's head and its place in a tuple.
_EACH = 48

# And a block beside its messages: two tuples, two numbers, a stamp, and the place of all that.
_BLOCK = 280

# A block of one message, and of two, without their bytes.
_ONE, _TWO = _BLOCK + _EACH, _BLOCK + 2 * _EACH

# A last value beside its bytes: a tuple, a stamp, the head of an object, and its place among all last values.
_LAST = 210

# A topic that remembers something, beside its name: its object, and its places by name and by number.
_TOPIC = 300

# An id of a publish beside its bytes: a text, an offset, and its place in a dict. Of one that is longer than that, in
# characters, only a hash is remembered: it may be as long as a message.
_ID = 170
_LONGEST_ID = 64

# What is done for one publish, in steps of 1 to 2 µs each, to keep the oldest in sight before there is too much; and
# when there is, some more than that, and one for so many bytes of it.
_AHEAD = 8
_STEPS = 256
_BYTES_A_STEP = 128

# Unused places at the front of a list of blocks that are not worth being cut off.
_FEW = 32

Block: TypeAlias = tuple[int, bytes, int, tuple[bytes, ...], int]
"""Messages of one run: the offset after the last one, their stamp, elements and tails (see `Stored`), and what all of
it takes in memory. (A plain tuple: one is made for every publish that comes alone, and the garbage collector does not
look at tuples of such things again. Of a topic's oldest block some may not be kept any more: see `Kept.first`.)"""

_end_of = itemgetter(0)
_stamp_of = itemgetter(1)

_NEVER = bytes(8)
_NO_BLOCKS: list[Block] = []  # shared by all topics without history; never changed
_GONE: Block = (0, _NEVER, 0, (), 0)  # in the place of a block that has been forgotten

# In the heaps a topic is one number: a time in microseconds, and its serial number in the last bits.
_SERIAL_BITS = 32
_SERIAL = (1 << _SERIAL_BITS) - 1

# In which heaps it is.
_BY_AGE, _BY_END, _BY_LAST = 1, 2, 4


class MemoryKept:
    """See `Kept`."""

    __slots__ = (
        "_begin",
        "_gone",
        "_limit",
        "_most",
        "_retains",
        "blocks",
        "head",
        "ids",
        "keeping",
        "last",
        "listed",
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
        self._gone = _NEVER  # stamp of the newest block that has gone, or lost some of its messages
        self.last: Stored | None = None
        self.blocks = _NO_BLOCKS
        """From the one at `_begin` on; empty when there are none."""
        self._begin = 0
        self.size = 0
        """Bytes of the messages kept."""
        self.ids: OrderedDict[str | bytes, int] | None = None
        """`msg_id` of the last few publishes that had one, or its hash, and their offsets."""
        self.listed = 0
        """In which of the store's heaps it is."""

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
        end, _, _, tails, _ = self.blocks[self._begin]
        return max(end - len(tails), self.head + 1 - self._most)

    @property
    def gone_us(self) -> int:
        """See `Kept.gone_us`."""
        gone = self._gone
        if self.blocks:
            end, stamp, _, tails, _ = self.blocks[self._begin]
            if end - len(tails) < self.first:
                gone = max(gone, stamp)
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
            if before:
                blocks.append((end, stamp, elements, tuple(tails), size))
                oldest, begin = end - most, self._begin
                if blocks[begin][0] <= oldest:
                    while blocks[begin][0] <= oldest:
                        _, self._gone, _, _, gone = blocks[begin]
                        blocks[begin] = _GONE
                        begin += 1
                        size -= gone
                    if begin > _FEW and begin * 2 > len(blocks):
                        del blocks[:begin]
                        begin = 0
                    self._begin = begin
                store.size += size
                self.size = size = before + size
            else:
                self.blocks = [(end, stamp, elements, tuple(tails), size)]
                store.size += size
                self.size = size
                store.begun(self)
            if size > self._limit:
                self._keep_within(self._limit)
        if retain or (retain is None and self._retains):
            self._retain(Stored(self.head, stamp, elements, tails[-1]))
        if store.size > store.nearly:
            store.make_room()
        return first

    def _keep_within(self, limit: int) -> None:
        """The oldest messages go until the others take at most so many bytes; the newest stays in any case."""
        while self.size > limit and self.blocks:
            end, _, _, tails, size = self.blocks[self._begin]
            newest = len(self.blocks) - self._begin == 1
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
        blocks, begin = self.blocks, self._begin
        gone = -self.first
        end, self._gone, _, _, size = blocks[begin]
        gone += end
        blocks[begin] = _GONE
        begin += 1
        if begin == len(blocks):
            self.blocks, begin = _NO_BLOCKS, 0
        elif begin > _FEW and begin * 2 > len(blocks):
            del blocks[:begin]
            begin = 0
        self._begin = begin
        self.size -= size
        self.store.size -= size
        if not self.blocks:
            self.store.emptied(self)
        return gone

    def _retain(self, stored: Stored) -> None:
        self.store.replace_last(self, None if stored.empty else stored)

    def change(self, keeping: Keeping) -> None:
        """It is to remember something else."""
        if self.keeping.messages is None and keeping.messages is not None and self.head:
            self.head += 1  # never used: what was published in between had no offset
            self._gone = (time.time_ns() // 1000).to_bytes(8, "big")
        before, most = self.first, keeping.messages
        while self.blocks and (most is None or self.blocks[self._begin][0] <= self.head + 1 - most):
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
        end, stamp, elements, tails, size = self.blocks[self._begin]
        gone = tails[: first - end]
        freed = sum(map(len, gone)) + _EACH * len(gone)
        self._gone = stamp
        self.blocks[self._begin] = (end, stamp, elements, tails[first - end :], size - freed)
        self.size -= freed
        self.store.size -= freed

    def newest(self) -> Stored | None:
        """See `Kept.newest`."""
        if self.keeping.retain or not self.blocks:
            return self.last
        end, stamp, elements, tails, _ = self.blocks[-1]
        return Stored(end - 1, stamp, elements, tails[-1])

    def runs(self, offset: int) -> Iterator[Run]:
        """See `Kept.runs`."""
        blocks = self.blocks
        begin = max(offset, self.first)
        for at in range(bisect_right(blocks, begin, lo=self._begin, key=_end_of), len(blocks)):
            end, stamp, elements, tails, _ = blocks[at]
            first = end - len(tails)
            if first < begin:
                first, tails = begin, tails[begin - end :]
            yield first, stamp, elements, tails

    def first_since(self, time_us: int) -> int:
        """See `Kept.first_since`."""
        since = max(0, min(time_us, MAX_NUMBER)).to_bytes(8, "big")
        blocks = self.blocks
        at = bisect_left(blocks, since, lo=self._begin, key=_stamp_of)
        if at == len(blocks):
            return self.head + 1
        end, _, _, tails, _ = blocks[at]
        return max(self.first, end - len(tails))

    @property
    def oldest_us(self) -> int:
        """When the oldest block was taken in; there must be one."""
        return int.from_bytes(self.blocks[self._begin][1], "big")

    # -------------------------------------------------------------- ids

    def remember_id(self, msg_id: str, offset: int) -> None:
        """See `Kept.remember_id`."""
        store, known = self.store, _short(msg_id)
        if self.ids is None:
            self.ids = OrderedDict()
            store.have_ids[self] = None
        if known not in self.ids:
            store.size += _size_of_id(known)
        self.ids[known] = offset
        if len(self.ids) > KEPT_IDS:
            store.size -= _size_of_id(self.ids.popitem(last=False)[0])
        if store.size > store.nearly:
            store.make_room()

    def forget_ids(self, before: int) -> None:
        """Those of publishes with smaller offsets go."""
        ids, store = self.ids, self.store
        while ids:
            known, offset = next(iter(ids.items()))
            if offset >= before:
                return
            del ids[known]
            store.size -= _size_of_id(known)
        if ids is not None:
            self.ids = None
            del store.have_ids[self]

    def offset_of(self, msg_id: str) -> int | None:
        """See `Kept.offset_of`."""
        return None if self.ids is None else self.ids.get(_short(msg_id))


def _short(msg_id: str) -> str | bytes:
    return msg_id if len(msg_id) <= _LONGEST_ID else blake2b(msg_id.encode(), digest_size=32).digest()


def _size_of_id(known: str | bytes) -> int:
    return _ID + len(known) * (1 if known.isascii() else 4)


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
        self.max_topics = max_topics
        self._set_limit(limit)
        self.size = 0
        self.evicted = 0
        self.changes = 0
        self.topics: list[MemoryKept] = []
        self._by_name: dict[str, MemoryKept] = {}
        # Topics by the age of what was their oldest block some time ago (they never get older than that), by when it
        # must go, and by what was their last value some time ago. Each topic that has one is in there once; some that
        # have none any more are, too.
        self._by_age: list[int] = []
        self._by_end: list[int] = []
        self._by_last: list[int] = []
        self.have_ids: dict[MemoryKept, None] = {}

    def _set_limit(self, limit: int) -> None:
        self.limit = limit
        self.nearly = limit - limit // 8
        """From there on the heaps are put right a little with each publish: not all at once when it is too much."""

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
        self.max_topics = max_topics
        self._set_limit(limit)

    def change(self, keeping: Callable[[str], Keeping]) -> None:
        """See `Store.change`."""
        self.changes += 1
        self._by_end.clear()
        for kept in self.topics:
            kept.listed &= ~_BY_END
            if (wanted := keeping(kept.name)) != kept.keeping:
                kept.change(wanted)
            if kept.blocks:
                self._list(kept)

    # ------------------------------------------------------ for `MemoryKept`

    def begun(self, kept: MemoryKept) -> None:
        """A topic has history, and had none before."""
        if kept.last is None:
            self.size += _TOPIC + len(kept.name)
        self._list(kept)

    def emptied(self, kept: MemoryKept) -> None:
        """A topic has no history any more."""
        if kept.last is None:
            self.size -= _TOPIC + len(kept.name)

    def _list(self, kept: MemoryKept) -> None:
        """Have it found by age, if it is not."""
        if not kept.listed & _BY_AGE:
            kept.listed |= _BY_AGE
            heappush(self._by_age, _entry(kept.oldest_us, kept))
        if kept.keeping.seconds is not None and not kept.listed & _BY_END:
            kept.listed |= _BY_END
            heappush(self._by_end, _entry(_end_of_life(kept), kept))

    def replace_last(self, kept: MemoryKept, stored: Stored | None) -> None:
        """A topic has another last value, or none."""
        before, kept.last = kept.last, stored
        if before is not None:
            self.size -= len(before.tail) + _LAST
        if stored is not None:
            self.size += len(stored.tail) + _LAST
            if not kept.listed & _BY_LAST:
                kept.listed |= _BY_LAST
                heappush(self._by_last, _entry(stored.time_us, kept))
        if (before is None) is not (stored is None) and not kept.blocks:
            self.size += (_TOPIC + len(kept.name)) * (1 if before is None else -1)

    # --------------------------------------------------------------- bounds

    def make_room(self) -> None:
        """Much is remembered: keep the oldest in sight; and evict it, if it is too much."""
        over = self.size - self.limit
        self._evict(_AHEAD if over <= 0 else _STEPS + over // _BYTES_A_STEP)

    def shrink(self, most: int) -> bool:
        """See `Store.shrink`."""
        if self.size > self.limit:
            self._evict(most)
        return self.size > self.limit

    def _evict(self, steps: int) -> None:
        """Evict until all is within the limit, in so many steps at most; so many, also where nothing has to go."""
        by_age = self._by_age
        while by_age:
            if not steps:
                return
            steps -= 1
            entry = by_age[0]
            kept = self.topics[entry & _SERIAL]
            if not kept.blocks:
                heappop(by_age)
                kept.listed &= ~_BY_AGE
            elif entry != (real := _entry(kept.oldest_us, kept)):
                heapreplace(by_age, real)
            elif self.size <= self.limit:
                return
            else:
                self.evicted += kept.forget_block()
                if kept.ids is not None:
                    kept.forget_ids(kept.first)
        while self.have_ids and self.size > self.limit:
            if not steps:
                return
            steps -= 1
            kept = next(iter(self.have_ids))
            kept.forget_ids(kept.head + 1)
        self._evict_lasts(steps)

    def _evict_lasts(self, steps: int) -> None:
        by_last = self._by_last
        while steps and by_last:
            steps -= 1
            entry = by_last[0]
            kept = self.topics[entry & _SERIAL]
            if kept.last is None:
                heappop(by_last)
                kept.listed &= ~_BY_LAST
            elif entry != (real := _entry(kept.last.time_us, kept)):
                heapreplace(by_last, real)
            elif self.size <= self.limit:
                return
            else:
                self.evicted += 1
                self.replace_last(kept, None)

    def expire(self, now_us: int, most: int) -> bool:
        """See `Store.expire`: ``most`` blocks, or looks at topics of which none has to go."""
        by_end, now = self._by_end, now_us << _SERIAL_BITS
        while by_end and by_end[0] < now:
            if not most:
                return True
            most -= 1
            entry = by_end[0]
            kept = self.topics[entry & _SERIAL]
            if not kept.blocks:
                heappop(by_end)
                kept.listed &= ~_BY_END
            elif entry != (real := _entry(_end_of_life(kept), kept)):
                heapreplace(by_end, real)
            else:
                kept.forget_block()
        return False


def _entry(time_us: int, kept: MemoryKept) -> int:
    """A topic in a heap that is ordered by time."""
    return time_us << _SERIAL_BITS | kept.serial


def _end_of_life(kept: MemoryKept) -> int:
    """When the topic's oldest block must go, in microseconds since 1970."""
    assert kept.keeping.seconds is not None
    return kept.oldest_us + int(kept.keeping.seconds * 1e6)
