"""A middleman in memory that cuts at any byte, holds everything back, refuses, and closes with codes of its own."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable

import trio

from fanwire.transport import memory_stream_pair

READ = 16 * 1024

# Bytes that lie between client and proxy: little, so that much is half written when a connection breaks.
BUFFER = 256

REFUSALS = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nRetry-After: 1\r\n\r\nbusy",
    b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n<html>",
    b"SSH-2.0-OpenSSH_9.7\r\n\r\n",
)


class CuttingProxy:
    """Carries any number of connections. Its tasks live in ``nursery``."""

    def __init__(self, nursery: trio.Nursery, open_upstream: Callable[[], Awaitable[trio.abc.Stream]]) -> None:
        """``open_upstream`` opens the way to the broker, anew for each connection; OSError: it is away."""
        self._nursery = nursery
        self._open_upstream = open_upstream
        self._carried: dict[trio.CancelScope, trio.abc.Stream] = {}
        self._flows = trio.Event()
        self._flows.set()
        self._left: int | None = None
        self.down = False
        """New connections are refused."""
        self.refusal: bytes | None = None
        """What new connections are answered with, instead of the broker's answer."""

    async def open_stream(self) -> trio.abc.Stream:
        """The client's end of a new connection. Raises OSError while it is down."""
        if self.down:
            raise OSError("the way to the broker is cut")
        mine, clients = memory_stream_pair(BUFFER)
        self._nursery.start_soon(self._carry, mine)
        stream: trio.abc.Stream = clients
        return stream

    async def _carry(self, near: trio.abc.Stream) -> None:
        ends, scope = [near], trio.CancelScope()
        self._carried[scope] = near
        try:
            with scope:
                if (refusal := self.refusal) is not None:  # there may be none any more when the request is here
                    await near.receive_some(READ)
                    await near.send_all(refusal)
                    return
                far = await self._open_upstream()
                ends.append(far)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, scope, near, far)
                    nursery.start_soon(self._pump, scope, far, near)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass
        finally:
            del self._carried[scope]
            for end in ends:
                await trio.aclose_forcefully(end)

    async def _pump(self, scope: trio.CancelScope, source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        try:
            while data := await source.receive_some(READ):
                await self._flows.wait()
                data = self._portion(data)
                await sink.send_all(data)
                if self._left == 0:
                    self._left = None
                    self.cut()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):  # `close` is writing
            pass
        scope.cancel()

    def _portion(self, data: bytes | bytearray) -> bytes | bytearray:
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        return data

    def cut(self) -> None:
        """All connections break off."""
        for scope in tuple(self._carried):
            scope.cancel()

    def cut_after(self, size: int) -> None:
        """All connections break off when so many more bytes have gone through, in whichever direction."""
        self._left = size

    def stall(self) -> None:
        """Nothing goes through; nothing breaks."""
        if self._flows.is_set():
            self._flows = trio.Event()

    def flow(self) -> None:
        """What was held back goes on; nothing is refused or cut any more."""
        self._flows.set()
        self._left, self.down, self.refusal = None, False, None

    async def close(self, code: int) -> None:
        """Close all connections as a WebSocket proxy that restarts does."""
        for scope, near in tuple(self._carried.items()):
            with trio.move_on_after(0.1):
                try:
                    await near.send_all(b"\x88\x02" + struct.pack("!H", code))
                except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                    pass
            scope.cancel()
