"""A duplex stream in memory that, like a socket, is bounded, writes without waiting what fits, and reports the rest.

trio's own `memory_stream_pair` takes any amount, so nobody can ever be slow on it.
"""

from __future__ import annotations

import operator

import trio


class _Pipe:
    """One direction. The reader frees room, the writer fills it; either end may close."""

    __slots__ = ("buffer", "capacity", "changed", "reader_closed", "taken", "writer_closed")

    def __init__(self, capacity: int) -> None:
        self.buffer = bytearray()
        self.capacity = capacity
        self.taken = 0
        self.reader_closed = False
        self.writer_closed = False
        self.changed = trio.lowlevel.ParkingLot()

    def accept(self, data: bytes | memoryview) -> int:
        if self.reader_closed:
            raise trio.BrokenResourceError("the other end is closed")
        taken = data[: self.capacity - len(self.buffer)]
        if taken:
            self.buffer += taken
            self.changed.unpark_all()
        return len(taken)

    def take(self, most: int) -> bytes:
        taken = bytes(self.buffer[:most])
        del self.buffer[:most]
        self.taken += len(taken)
        self.changed.unpark_all()
        return taken


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of `memory_stream_pair`."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False
        self._sending = False
        self._receiving = False

    def accept(self, data: bytes | memoryview) -> int:
        """Write what fits, without waiting; return how many bytes that was.

        Raises:
            trio.ClosedResourceError: This end was closed.
            trio.BrokenResourceError: The other end was closed.
        """
        self._check_open()
        return self._outgoing.accept(data)

    def _check_open(self) -> None:
        if self._closed or self._outgoing.writer_closed:
            raise trio.ClosedResourceError("this end was closed")

    def in_flight(self) -> int:
        """Bytes written that the other end has not read."""
        return len(self._outgoing.buffer)

    def acknowledged(self) -> int:
        """Bytes that the other end has read so far."""
        return self._outgoing.taken

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream.send_all`."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        rest = bytes(data)
        self._sending = True
        try:
            self._check_open()
            await trio.lowlevel.checkpoint()
            while rest := rest[self.accept(rest) :]:
                await self._outgoing.changed.park()
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream.wait_send_all_might_not_block`; returns at once when the other end is closed."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._check_open()
        self._sending = True
        try:
            await self.wait_for_room()
        finally:
            self._sending = False
        self._check_open()

    async def wait_for_room(self) -> None:
        """As `wait_send_all_might_not_block`, for who writes with `accept`, which bars nobody else from sending."""
        await trio.lowlevel.checkpoint()
        pipe = self._outgoing
        while not self._closed and not pipe.reader_closed and len(pipe.buffer) >= pipe.capacity:
            await pipe.changed.park()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `trio.abc.ReceiveStream.receive_some`."""
        pipe = self._incoming
        most = pipe.capacity if max_bytes is None else operator.index(max_bytes)
        if most < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while not self._closed and not pipe.buffer and not pipe.writer_closed:
                await pipe.changed.park()
        finally:
            self._receiving = False
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")
        return pipe.take(most)

    async def send_eof(self) -> None:
        """See `trio.abc.HalfCloseableStream.send_eof`."""
        if self._closed:
            raise trio.ClosedResourceError("this end was closed")
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._outgoing.writer_closed = True
        self._outgoing.changed.unpark_all()
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close both directions; what was written before can still be read by the other end."""
        self._closed = True
        self._outgoing.writer_closed = True
        self._incoming.reader_closed = True
        self._outgoing.changed.unpark_all()
        self._incoming.changed.unpark_all()
        await trio.lowlevel.checkpoint()


def memory_stream_pair(capacity: int = 65536) -> tuple[MemoryStream, MemoryStream]:
    """Two ends, joined. ``capacity``: bytes on the way in each direction before a writer has to wait."""
    there, back = _Pipe(capacity), _Pipe(capacity)
    return MemoryStream(back, there), MemoryStream(there, back)
