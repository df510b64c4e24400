"""The line: what waits for one connection's socket, in the order in which it came, in a bounded trio channel.

A trio channel can neither be peeked into nor have anything taken out of its middle. So what is dropped while it waits
is only marked as dead, and skipped when it comes out; a line in which most are dead is refilled with the living.

Nothing here takes long, however many have died: what is done is done some at a time. While the line is refilled there
are two channels: of those that were looked at and live, and behind them of those that were not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from .subscription import Entry

if TYPE_CHECKING:
    from ..topics.chunks import ConflationKey

# Memory of one entry, in bytes, beside the messages in it. Its object and its two places in queues take 115. What is
# known of its chunk takes 135 more, but is shared with all who wait for the same.
ENTRY_BYTES = 180

# Memory of a key that is conflated, beside its entry: its place among the keys. And of a message's own key, beside its
# characters, the text and what holds it together with its topic.
KEY_BYTES, OWN_KEY_BYTES = 100, 280

# Dead entries that are left alone: refilling for a few would cost more than skipping them.
_FEW = 64

# For each that dies, so many dead ones in front may be passed over, and so many of a line that is refilled are looked
# at: more than may die before the next refill begins.
_PASSED_EACH, MOVED_EACH = 4, 8

# The dead in front that are passed over in one step: some hundred microseconds.
PASSED = 500


def size_of_key(key: ConflationKey) -> int:
    """Bytes that a key takes while something newer may go in the place of what waits."""
    return KEY_BYTES if isinstance(key, str) else OWN_KEY_BYTES + len(key[1])


class Line:
    """Entries, oldest first."""

    __slots__ = ("_capacity", "_dead", "_living", "_moved", "_receive", "_send", "_usual", "head", "length", "may_pass")

    def __init__(self, max_bytes: int | None) -> None:
        """``max_bytes``: memory that its entries may take, `ENTRY_BYTES` each. Who puts them in counts that."""
        self._capacity = math.inf if max_bytes is None else max_bytes // ENTRY_BYTES + 1
        # Opened when the socket first lags: most never do, and a channel takes 2 KiB.
        self._send: trio.MemorySendChannel[Entry]
        self._receive: trio.MemoryReceiveChannel[Entry] | None = None
        # While the line is refilled: the channel of those that were looked at, which are in front, and how many are in.
        self._living: tuple[trio.MemorySendChannel[Entry], trio.MemoryReceiveChannel[Entry]] | None = None
        self._moved = 0
        self._usual = False  # whether it is opened, and not being refilled
        self.head: Entry | None = None
        """Taken out of the channel already, because somebody wanted to look at it. Who takes what `first` has returned
        sets it to None."""
        self.length = 0
        """Entries in the channels, dead or not."""
        self._dead = 0  # of those, and of the head
        self.may_pass = PASSED
        """How many dead ones `first` may still pass over: who begins a step that takes entries out says so."""

    def put(self, entry: Entry) -> None:
        """Add an entry at the end."""
        send = self._send if self._usual else self._prepared()
        send.send_nowait(entry)
        self.length += 1

    def _prepared(self) -> trio.MemorySendChannel[Entry]:
        if self._living is None:
            self._send, self._receive = trio.open_memory_channel[Entry](self._capacity)
            self._usual = True
        elif self.length >= self._capacity:
            raise trio.WouldBlock  # each of the two has room for all
        return self._send

    def first(self) -> Entry | None:
        """The first in line that is not dead. None while ``length`` is not 0: more are dead in front than may be passed
        over in this step."""
        head = self.head
        if head is not None:
            if head.count:
                return head
            self.head = None
            self._dead -= 1
        if not self.length:
            return None
        self.length -= 1
        if self._moved:
            assert self._living is not None
            self._moved -= 1
            entry = self._living[1].receive_nowait()
        else:
            assert self._receive is not None
            entry = self._receive.receive_nowait()
        if entry.count:
            self.head = entry
            return entry
        self._dead -= 1
        return self._pass_dead()

    def _pass_dead(self) -> Entry | None:
        while self.length and self.may_pass:
            self.may_pass -= 1
            entry = self._next()
            if entry.count:
                self.head = entry
                return entry
            self._dead -= 1
        return None

    def _next(self) -> Entry:
        self.length -= 1
        receive = self._receive
        if self._moved:
            assert self._living is not None
            self._moved -= 1
            receive = self._living[1]
        assert receive is not None
        return receive.receive_nowait()

    def note_dead(self, count: int = 1) -> None:
        """So many entries have died. Those in front are skipped; when too many are left the line is refilled."""
        self._dead += count
        self.may_pass = _PASSED_EACH * count
        self.first()
        if self._living is not None or (self._dead > _FEW and self._dead * 2 > self.length):
            self.refill(MOVED_EACH * count)

    def refill(self, most: int) -> bool:
        """Go on to drop the dead, if there are too many, by looking at ``most`` entries; whether there is more to do.

        All refills together look at no more than twice as many as have died, and as many as were put in meanwhile.
        """
        if self._living is None:
            if self._dead <= _FEW or self._dead * 2 <= self.length:
                return False
            self._living, self._usual = trio.open_memory_channel[Entry](self._capacity), False
        assert self._receive is not None
        send, receive = self._living[0].send_nowait, self._receive.receive_nowait
        for _ in range(min(most, self.length - self._moved)):
            entry = receive()
            if entry.count:
                send(entry)
                self._moved += 1
            else:
                self.length -= 1
                self._dead -= 1
        if self._moved < self.length:
            return True
        self._send, self._receive = self._living
        self._living, self._moved, self._usual = None, 0, True
        return self._dead > _FEW and self._dead * 2 > self.length
