"""Writing without waiting, for each kind of stream: what it takes at once, and waiting until it takes more; reading.

Plain sockets and in-memory streams can say at once how much they take. Any other trio stream (TLS, a user's own) can
only be handed bytes and waited for: `TaskWriter` never takes anything at once.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Protocol, TypeAlias

import trio

from .memory import MemoryStream

try:
    import fcntl
    import termios
except ModuleNotFoundError:  # Windows: there nothing is known of what is on the way
    _TIOCOUTQ = None
else:
    _TIOCOUTQ = termios.TIOCOUTQ

# A stream that can only be waited for shows no progress inside one `send_all`. Small slices keep the stall measure
# honest: 16 KiB is one TLS record.
SLICE = 16 * 1024

# Where it stands in Linux's struct tcp_info.
_ACKNOWLEDGED = slice(120, 128)

Rest: TypeAlias = Callable[[], bytes | memoryview]


class Writer(Protocol):
    """What `FrameStream` needs of the stream that it writes to."""

    def accept(self, data: bytes | memoryview) -> int:
        """Write what goes without waiting; return the number of bytes.

        Raises:
            trio.BrokenResourceError: The peer is gone.
            trio.ClosedResourceError: We closed it.
        """

    async def push(self, rest: Rest) -> int:
        """Wait until bytes of ``rest()`` were taken; return how many (0: there is no rest any more).

        ``rest`` is asked when the stream is ready, not before: meanwhile what waits may have been thrown away.
        """

    async def receive(self, most: int) -> bytes | bytearray:
        """As the stream's ``receive_some``, where nothing is expected to be there already."""

    def buffer_little(self, size: int) -> None:
        """See `FrameStream.buffer_little`."""

    def in_flight(self) -> int:
        """Bytes that were taken and have not reached the peer's machine, as far as is known."""

    def acknowledged(self) -> int | None:
        """See `FrameStream.acknowledged`."""

    @property
    def in_hand(self) -> int:
        """Bytes of the rest that a `push` under way will have written, whatever becomes of the rest."""


class SocketWriter:
    """Plain TCP: one system call, no task switch."""

    __slots__ = ("_plain", "_socket", "send")

    in_hand = 0

    def __init__(self, stream: trio.SocketStream, plain: socket.socket) -> None:
        self._socket = stream.socket
        self._plain = plain
        # Of the socket object, not of its number: a cached descriptor can belong to somebody else's connection after
        # a close, this one says EBADF. It costs no more than os.write.
        self.send = plain.send

    def accept(self, data: bytes | memoryview) -> int:
        try:
            return self.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(f"socket connection broken: {error}") from error

    async def push(self, rest: Rest) -> int:
        while True:
            if self._plain.fileno() < 0:  # trio would wait for descriptor -1, and remember that it does
                raise trio.ClosedResourceError("this socket was closed")
            await trio.lowlevel.wait_writable(self._socket)
            data = rest()
            if (taken := self.accept(data)) or not data:
                return taken

    async def receive(self, most: int) -> bytes:
        """Waits before it reads. trio tries first, and goes through more layers, which a single message waits for."""
        plain = self._plain
        while True:
            if plain.fileno() < 0:
                raise trio.ClosedResourceError("this socket was closed")
            await trio.lowlevel.wait_readable(plain)
            try:
                return plain.recv(most)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(f"socket connection broken: {error}") from error

    def buffer_little(self, size: int) -> None:
        _buffer_little(self._plain, size)

    def in_flight(self) -> int:
        """The send queue of the socket (Linux: SIOCOUTQ, the same number as TIOCOUTQ)."""
        return _in_flight(self._plain.fileno())

    def acknowledged(self) -> int | None:
        """As the kernel counts."""
        return _acknowledged(self._plain)


class MemoryWriter:
    """As `SocketWriter`, in memory."""

    in_hand = 0

    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream
        self.accept = stream.accept
        self.receive = stream.receive_some

    async def push(self, rest: Rest) -> int:
        while True:
            await self._stream.wait_for_room()
            data = rest()
            if (taken := self.accept(data)) or not data:
                return taken

    def buffer_little(self, size: int) -> None:
        pass  # it holds 64 KiB as it is

    def in_flight(self) -> int:
        return self._stream.in_flight()

    def acknowledged(self) -> int | None:
        return self._stream.acknowledged()


class TaskWriter:
    """Any other stream: a task has to wait for it. Cancelled half-way, the stream is of no more use."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.receive = stream.receive_some
        self.in_hand = 0

    def accept(self, data: bytes | memoryview) -> int:
        return 0

    async def push(self, rest: Rest) -> int:
        part = rest()[:SLICE]
        self.in_hand = len(part)
        try:
            await self._stream.send_all(part)
        finally:
            self.in_hand = 0
        return len(part)

    def buffer_little(self, size: int) -> None:
        buffer_little(self._stream, size)

    def in_flight(self) -> int:
        return 0

    def acknowledged(self) -> int | None:
        """Below TLS: records, which are longer than what they hold."""
        below = _below_tls(self._stream)
        return _acknowledged(below.socket) if isinstance(below, trio.SocketStream) else None


def _acknowledged(of: socket.socket | trio.socket.SocketType) -> int | None:
    """``tcpi_bytes_acked`` (Linux 4.1); a sandbox that has not got it says 0, where the kernel counts the SYN, too."""
    if sys.platform != "linux":
        return None
    try:
        info = of.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.stop)
    except OSError:  # not TCP
        return None
    return int.from_bytes(info[_ACKNOWLEDGED], sys.byteorder) or None


def _in_flight(descriptor: int) -> int:
    if _TIOCOUTQ is None:
        return 0
    try:
        answer = fcntl.ioctl(descriptor, _TIOCOUTQ, b"\0\0\0\0")
    except (OSError, ValueError):
        return 0
    return int.from_bytes(answer, sys.byteorder)


def _below_tls(stream: trio.abc.Stream) -> trio.abc.Stream:
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream


def unacknowledged(stream: trio.abc.Stream) -> int:
    """See `FrameStream.in_flight`, for a stream that is no such one."""
    below = _below_tls(stream)
    if isinstance(below, trio.SocketStream):
        return _in_flight(below.socket.fileno())
    return below.in_flight() if isinstance(below, MemoryStream) else 0


def buffer_little(stream: trio.abc.Stream, size: int) -> None:
    """See `FrameStream.buffer_little`, for a stream that is no such one."""
    below = _below_tls(stream)
    if isinstance(below, trio.SocketStream):
        _buffer_little(below.socket, size)


def _buffer_little(of: socket.socket | trio.socket.SocketType, size: int) -> None:
    """Not an error when the platform has not all of it: then more lies in the kernel."""
    try:
        of.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            of.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size // 4)
    except OSError:
        pass


def take_over(stream: trio.abc.Stream) -> tuple[trio.abc.Stream, Writer]:
    """The quickest writer that the stream allows, and the stream to use from now on instead of this one.

    trio's sockets can only be awaited. So the descriptor moves to a socket object of the standard library, for writing
    without waiting, around which the stream gets a new trio socket.
    """
    if isinstance(stream, trio.SocketStream):
        plain = socket.socket(fileno=stream.socket.detach())
        stream.socket = trio.socket.from_stdlib_socket(plain)
        return stream, SocketWriter(stream, plain)
    if isinstance(stream, MemoryStream):
        return stream, MemoryWriter(stream)
    return stream, TaskWriter(stream)
