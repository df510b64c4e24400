"""What a measured message carries: a magic to be counted by, the time it was due, and a sequence number."""

from __future__ import annotations

import struct

MAGIC = bytes.fromhex("f757b14cc3648e9b")
FIELDS = struct.Struct("!QI")
"""After the magic: the time and the number."""

LEAST = len(MAGIC) + FIELDS.size


def make(number: int, due_ns: int, size: int) -> bytes:
    """A payload of ``size`` bytes, at least `LEAST`. ``due_ns``: time.monotonic_ns, the same clock in all processes."""
    return MAGIC + FIELDS.pack(due_ns, number) + bytes(size - LEAST)


def parse(made: bytes) -> tuple[int, int]:
    """Number and time of one payload."""
    due_ns, number = FIELDS.unpack_from(made, len(MAGIC))
    return number, due_ns


class Reader:
    """Finds the messages in one subscriber's bytes, wherever they were cut."""

    def __init__(self) -> None:
        self.count = 0
        self.wrong = 0
        """Messages whose number was not the one after the last: lost, doubled or out of order."""
        self._next = 0
        self._rest = b""

    def read(self, data: bytes) -> list[int]:
        """Take in what was received; return the times that its messages were due."""
        data = self._rest + data
        due: list[int] = []
        at, end = data.find(MAGIC), len(data) - LEAST
        while 0 <= at <= end:
            time_ns, number = FIELDS.unpack_from(data, at + len(MAGIC))
            self.wrong += number != self._next
            self._next = number + 1
            due.append(time_ns)
            at = data.find(MAGIC, at + LEAST)
        self._rest = data[at:] if at >= 0 else data[1 - len(MAGIC) :]
        self.count += len(due)
        return due


class Counter:
    """Only counts, quickly: the same buffer for all subscribers, nothing copied but the few bytes between two reads."""

    _KEEP = len(MAGIC) - 1
    buffer = bytearray(_KEEP + 256 * 1024)
    room = memoryview(buffer)[_KEEP:]

    def __init__(self) -> None:
        self.count = 0
        self._tail = bytes(self._KEEP)

    def read(self, size: int) -> None:
        """Count in the ``size`` bytes that were just read into `room`."""
        keep, buffer = self._KEEP, self.buffer
        buffer[:keep] = self._tail
        self.count += buffer.count(MAGIC, 0, keep + size)
        self._tail = bytes(buffer[size : size + keep])
