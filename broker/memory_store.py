"""A `Store` that keeps all in memory.

A run of publishes is one `Block`, so keeping a message costs next to nothing beside delivering it. Nothing here waits,
and nothing is sent.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fanwire.protocol.errors import LocalProtocolError

from .store import KEPT_IDS, Stored

if TYPE_CHECKING:
    from .rules import Keeping

# What a kept message costs beside its bytes: an object's head and its place in a list.
_EACH = 48

# And a block beside its messages: measured, with its places in three lists.
_BLOCK = 300


class Block:
    """Messages of one run, one after the other: their offsets begin at ``first``."""

    __slots__ = ("elements", "first", "kept", "size", "stamp", "tails")

    def __init__(self, kept: MemoryKept, first: int, stamp: bytes, elements: int, tails: list[bytes]) -> None:
        self.kept = kept
        self.first = first
        self.stamp = stamp
        self.elements = elements
        self.tails = tails
        self.size = _size_of(tails) + _BLOCK

    @property
    def end(self) -> int:
        """The offset after the last one."""
        return self.first + len(self.tails)

    def cut(self, count: int) -> int:
        """Forget its first ``count`` messages; return how many bytes that were."""
        gone = _size_of(self.tails[:count])
        self.tails = self.tails[count:]
        self.first += count
        self.size -= gone
        return gone


def _size_of(tails: list[bytes]) -> int:
    return sum(map(len, tails)) + _EACH * len(tails)


class MemoryKept:
    """See `Kept`."""

    __slots__ = ("blocks", "count", "gone_us", "head", "ids", "keeping", "last", "name", "serial", "size", "store")

    def __init__(self, store: MemoryStore, name: str, serial: int, keeping: Keeping) -> None:
        self.store = store
        self.name = name
        self.serial = serial
        self.keeping = keeping
        self.head = 0
        self.gone_us = 0
        self.last: Stored | None = None
        self.blocks: deque[Block] = deque()
        self.count = 0
        """Messages kept."""
        self.size = 0
        """Their bytes."""
        self.ids: OrderedDict[str, int] | None = None
        """`msg_id` of the last few publishes that had one, and their offsets."""

    @property
    def has_history(self) -> bool:
        """See `Kept.has_history`."""
        return self.keeping.messages is not None

    @property
    def first(self) -> int:
        """See `Kept.first`."""
        return self.head + 1 - self.count

    def take(self, elements: int, tails: list[bytes], stamp: bytes, retain: bool | None = None) -> int:
        """See `Kept.take`."""
        first = 0
        if self.keeping.messages is not None:
            first = self.head + 1
            self._add(Block(self, first, stamp, elements, tails))
        if retain if retain is not None else self.keeping.retain:
            self._retain(Stored(self.head, stamp, elements, tails[-1]))
        if self.store.size > self.store.limit:
            self.store.shrink()
        return first

    def _add(self, block: Block) -> None:
        self.head += len(block.tails)
        self.count += len(block.tails)
        self.size += block.size
        self.blocks.append(block)
        self.store.add(block)
        keeping = self.keeping
        assert keeping.messages is not None
        if self.count > keeping.messages:
            self._forget(self.count - keeping.messages)
        while self.size > keeping.bytes and self.count > 1:
            self._forget(1)

    def _forget(self, count: int) -> None:
        """The oldest ``count`` messages go."""
        while count:
            block = self.blocks[0]
            some = min(count, len(block.tails))
            if some == len(block.tails):
                self.forget_block()
            else:
                gone = block.cut(some)
                self.gone_us = max(self.gone_us, int.from_bytes(block.stamp, "big"))
                self.count -= some
                self.size -= gone
                self.store.size -= gone
            count -= some

    def forget_block(self) -> None:
        """The oldest block goes."""
        block = self.blocks.popleft()
        self.gone_us = max(self.gone_us, int.from_bytes(block.stamp, "big"))
        self.count -= len(block.tails)
        self.size -= block.size
        self.store.remove(block)

    def _retain(self, stored: Stored) -> None:
        self.store.replace_last(self, None if stored.empty else stored)

    def change(self, keeping: Keeping) -> None:
        """It is to remember something else."""
        if self.keeping.messages is None and keeping.messages is not None and self.head:
            self.head += 1  # never used: what was published in between had no offset
            self.gone_us = time.time_ns() // 1000
        self.keeping = keeping
        self._forget(max(0, self.count - (keeping.messages or 0)))
        while self.size > keeping.bytes and self.count > 1:
            self._forget(1)
        if keeping.retain is False:
            self.store.replace_last(self, None)

    def newest(self) -> Stored | None:
        """See `Kept.newest`."""
        if self.keeping.retain or not self.blocks:
            return self.last
        block = self.blocks[-1]
        return Stored(block.end - 1, block.stamp, block.elements, block.tails[-1])

    def read(self, offset: int) -> Iterator[Stored]:
        """See `Kept.read`."""
        for block in self.blocks:
            if block.end > offset:
                skipped = max(0, offset - block.first)
                for index, tail in enumerate(block.tails[skipped:], skipped):
                    yield Stored(block.first + index, block.stamp, block.elements, tail)

    def first_since(self, time_us: int) -> int:
        """See `Kept.first_since`."""
        for block in self.blocks:
            if int.from_bytes(block.stamp, "big") >= time_us:
                return block.first
        return self.head + 1

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
        self._blocks: OrderedDict[Block, None] = OrderedDict()  # oldest first
        self._lasts: OrderedDict[MemoryKept, None] = OrderedDict()  # replaced longest ago first
        self._expiring: dict[float, OrderedDict[Block, None]] = {}  # by how long they are kept

    def find(self, name: str) -> MemoryKept | None:
        """See `Store.find`."""
        return self._by_name.get(name)

    def topic(self, name: str, keeping: Keeping) -> MemoryKept:
        """See `Store.topic`."""
        kept = self._by_name.get(name)
        if kept is None:
            if len(self.topics) >= self.max_topics:
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
        self._expiring.clear()
        for kept in self.topics:
            if (wanted := keeping(kept.name)) != kept.keeping:
                kept.change(wanted)
        for block in self._blocks:
            self._note_expiry(block)

    def _note_expiry(self, block: Block) -> None:
        seconds = block.kept.keeping.seconds
        if seconds is not None:
            self._expiring.setdefault(seconds, OrderedDict())[block] = None

    # ------------------------------------------------------ for `MemoryKept`

    def add(self, block: Block) -> None:
        """It is kept from now on."""
        self.size += block.size
        self._blocks[block] = None
        self._note_expiry(block)

    def remove(self, block: Block) -> None:
        """It is not kept any more."""
        self.size -= block.size
        del self._blocks[block]
        seconds = block.kept.keeping.seconds
        if seconds is not None and (expiring := self._expiring.get(seconds)) is not None:
            expiring.pop(block, None)  # not there while the rules change

    def replace_last(self, kept: MemoryKept, stored: Stored | None) -> None:
        """A topic has another last value, or none."""
        if kept.last is not None:
            self.size -= len(kept.last.tail) + _EACH
            del self._lasts[kept]
        kept.last = stored
        if stored is not None:
            self.size += len(stored.tail) + _EACH
            self._lasts[kept] = None

    # --------------------------------------------------------------- bounds

    def shrink(self) -> None:
        """Evict until all is within the limit."""
        while self.size > self.limit and self._blocks:
            oldest = next(iter(self._blocks))
            self.evicted += len(oldest.tails)
            oldest.kept.forget_block()
        while self.size > self.limit and self._lasts:
            self.evicted += 1
            self.replace_last(next(iter(self._lasts)), None)

    def expire(self, now_us: int, most: int) -> bool:
        """See `Store.expire`: ``most`` blocks."""
        for seconds, blocks in self._expiring.items():
            until = max(0, now_us - int(seconds * 1e6)).to_bytes(8, "big")
            while blocks:
                oldest = next(iter(blocks))
                if oldest.stamp >= until:
                    break
                if not most:
                    return True
                most -= 1
                oldest.kept.forget_block()
        return False
