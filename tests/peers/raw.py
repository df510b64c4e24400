"""A peer that says what it is told to, byte for byte, and remembers the answer."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from enum import Enum, auto

import attrs
import trio

from .frames import Frame, close_code, read_frames

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3, with its answer
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
_END_OF_HEAD = b"\r\n\r\n"


def request(*extra: bytes, line: bytes = b"GET / HTTP/1.1", key: str | None = KEY, version: str | None = "13") -> bytes:
    """A WebSocket handshake request, right unless told otherwise; ``extra``: more header lines."""
    lines = [line, b"Host: localhost", b"Upgrade: websocket", b"Connection: Upgrade"]
    if key is not None:
        lines.append(b"Sec-WebSocket-Key: " + key.encode("latin-1"))
    if version is not None:
        lines.append(b"Sec-WebSocket-Version: " + version.encode())
    return b"\r\n".join((*lines, *extra)) + _END_OF_HEAD


@attrs.frozen
class Heard:
    """All that came back until the other side was done."""

    status: int | None
    """Of the HTTP response; None: there was none."""
    frames: list[Frame]
    rest: bytes
    """A cut-off frame after them, or the body of a refusal."""

    @property
    def close_code(self) -> int | None:
        """See `frames.close_code`."""
        return close_code(self.frames)

    @property
    def outcome(self) -> int | None:
        """A close code (1000 and above), else the HTTP status of a refusal, else None: cut off without a word."""
        return self.close_code if self.status in (101, None) else self.status


def parse(data: bytes) -> Heard:
    """Take apart what a server said."""
    if not data:
        return Heard(None, [], b"")
    head, _, rest = data.partition(_END_OF_HEAD)
    status = int(head.split(b" ", 2)[1])
    if status != 101:
        return Heard(status, [], rest)
    assert ACCEPT in head
    return Heard(status, *read_frames(rest))


class Exit(Enum):
    """What a peer does after it has said everything."""

    LISTEN = auto()
    """Reads to the end."""
    HANG_UP = auto()
    """Closes the connection at once."""
    RESET = auto()
    """The same, with a TCP reset."""


class RawPeer:
    """One end of a byte stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.heard = bytearray()

    async def say(self, parts: Iterable[bytes | float]) -> None:
        """Send each part by itself; a number is a pause in seconds. Ends early when nobody listens any more."""
        try:
            for part in parts:
                if isinstance(part, bytes):
                    await self.stream.send_all(part)
                else:
                    await trio.sleep(part)
        except trio.BrokenResourceError:
            pass

    async def listen(self) -> None:
        """Read to the end; a reset is one."""
        try:
            while data := await self.stream.receive_some(65536):
                self.heard += data
        except trio.BrokenResourceError:
            pass

    async def hear_head(self) -> None:
        """Read on until the response head is there."""
        while _END_OF_HEAD not in self.heard:
            data = await self.stream.receive_some(65536)
            assert data, "the other side hung up inside its response"
            self.heard += data

    async def leave(self, how: Exit) -> None:
        """Close. LISTEN: hear them out first."""
        if how is Exit.LISTEN:
            await self.listen()
        elif how is Exit.RESET and isinstance(self.stream, trio.SocketStream):
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(self.stream)


async def converse(
    stream: trio.abc.Stream, parts: Iterable[bytes | float], *, opened: bool = True, leave: Exit = Exit.LISTEN
) -> Heard:
    """A whole life: the handshake if ``opened``, then ``parts``, then the end. Reads all the while.

    Returns:
        What came back.
    """
    peer = RawPeer(stream)
    if opened:
        await stream.send_all(request())
        await peer.hear_head()
    if leave is not Exit.LISTEN:
        await peer.say(parts)
        await peer.leave(leave)
        return parse(bytes(peer.heard))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.say, parts)
        await peer.listen()
        nursery.cancel_scope.cancel()  # whatever is still to be said
    await trio.aclose_forcefully(stream)
    return parse(bytes(peer.heard))
