"""The line: what waits for one connection's socket, in the order in which it came, in a bounded trio channel.

A trio channel can neither be peeked into nor have anything taken out of its middle. So what is dropped while it waits
is only marked as dead, and skipped when it comes out; a line in which most are dead is refilled with the living.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ..topics.routes import Chunk
    from .losses import Losses
    from .subscription import Subscription

# Memory of one entry, in bytes, beside the messages in it: the object and its two places in queues take about 100.
ENTRY_BYTES = 128

# Dead entries that are left alone: refilling for a few would cost more than skipping them.
_FEW = 64


class Entry:
    """Some messages of one subscription, waiting: ``count`` of a chunk's, from its ``first`` on."""

    __slots__ = ("chunk", "count", "first", "lost", "size", "subscription")

    def __init__(self, subscription: Subscription, chunk: Chunk) -> None:
        self.subscription = subscription
        self.chunk = chunk
        self.first = 0
        self.count = chunk.count
        """0: dead."""
        self.size = len(chunk.data)
        """Bytes of what remains of it."""
        self.lost: Losses | None = None
        """To be told before it."""

    def data(self) -> bytes:
        """The envelopes."""
        chunk = self.chunk
        return chunk.data if self.count == chunk.count else chunk.part(self.first, self.count)

    def kill(self) -> None:
        """Nothing of it is sent: it stays in line until it comes out, but holds no messages."""
        self.count = 0
        del self.chunk

    def cut(self, first: int, count: int) -> int:
        """Keep only ``count`` of its messages, from the ``first`` that it has; return how many bytes went."""
        before = self.size
        self.first += first
        self.count = count
        self.size = self.chunk.size_of(self.first, count) if count else 0
        return before - self.size


class Line:
    """Entries, oldest first."""

    __slots__ = ("_capacity", "_dead", "_head", "_receive", "_send", "length")

    def __init__(self, max_bytes: int | None) -> None:
        """``max_bytes``: memory that its entries may take, `ENTRY_BYTES` each. Who puts them in counts that."""
        self._capacity = math.inf if max_bytes is None else max_bytes // ENTRY_BYTES + 1
        # Opened when the socket first lags: most never do, and a channel takes 2 KiB.
        self._send: trio.MemorySendChannel[Entry] | None = None
        self._receive: trio.MemoryReceiveChannel[Entry] | None = None
        self._head: Entry | None = None  # taken out of the channel already, because somebody wanted to look at it
        self.length = 0
        """Entries in the channel, dead or not."""
        self._dead = 0  # of those

    def put(self, entry: Entry) -> None:
        """Add an entry at the end."""
        if self._send is None:
            self._send, self._receive = trio.open_memory_channel[Entry](self._capacity)
        self._send.send_nowait(entry)
        self.length += 1

    def first(self) -> Entry | None:
        """The first in line that is not dead."""
        while self._head is None or not self._head.count:
            if self._head is not None:
                self._head = None
                self._dead -= 1
            if not self.length:
                return None
            assert self._receive is not None
            self._head = self._receive.receive_nowait()
            self.length -= 1
        return self._head

    def take_first(self) -> None:
        """Remove what `first` has returned."""
        self._head = None

    def note_dead(self, count: int = 1) -> None:
        """So many entries have died. Those in front are skipped; when too many are left the line is refilled."""
        self._dead += count
        self.first()
        if self._dead > _FEW and self._dead * 2 > self.length:
            self._refill()

    def _refill(self) -> None:
        """Costs about 2 µs for each that is in it: at most twice as many as have died since the last time."""
        self.first()
        assert self._send is not None
        assert self._receive is not None
        for _ in range(self.length):
            entry = self._receive.receive_nowait()
            if entry.count:
                self._send.send_nowait(entry)
            else:
                self.length -= 1
        self._dead = 0
