"""A middleman between clients and a broker that cuts, delays and half-closes what goes through it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from socket import SHUT_WR

import trio

from fanwire.transport import memory_stream_pair

READ = 16 * 1024


class _Carried:
    """One connection that goes through."""

    def __init__(self, near: trio.abc.Stream, far: trio.abc.Stream) -> None:
        self.near = near
        self.far = far
        self.scope = trio.CancelScope()


class Proxy:
    """Carries any number of connections. Its tasks live in ``nursery``."""

    def __init__(self, nursery: trio.Nursery, open_upstream: Callable[[], Awaitable[trio.abc.Stream]]) -> None:
        """``open_upstream`` opens the way to the broker, anew for each connection."""
        self._nursery = nursery
        self._open_upstream = open_upstream
        self._carried: set[_Carried] = set()
        self.delay: Callable[[], float] | None = None
        """How many seconds each piece of data is held, if it is."""
        self.opened = 0
        """Connections so far."""
        self.down = False
        """New connections are refused."""

    async def open_stream(self) -> trio.abc.Stream:
        """The client's end of a new connection in memory. Raises OSError while it is down."""
        if self.down:
            raise OSError("the way to the broker is cut")
        mine, clients = memory_stream_pair()
        self._nursery.start_soon(self._carry, mine, await self._open_upstream())
        self.opened += 1
        stream: trio.abc.Stream = clients
        return stream

    async def serve(self, *, task_status: trio.TaskStatus[int]) -> None:
        """Take TCP connections on a free port of this machine, which is given to ``task_status``."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        task_status.started(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(self._take, listeners)

    async def _take(self, near: trio.abc.Stream) -> None:
        if not self.down:
            self.opened += 1
            await self._carry(near, await self._open_upstream())

    async def _carry(self, near: trio.abc.Stream, far: trio.abc.Stream) -> None:
        carried = _Carried(near, far)
        self._carried.add(carried)
        try:
            with carried.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, carried, carried.near, carried.far)
                    nursery.start_soon(self._pump, carried, carried.far, carried.near)
        finally:
            self._carried.discard(carried)
            await trio.aclose_forcefully(carried.near)
            await trio.aclose_forcefully(carried.far)

    async def _pump(self, carried: _Carried, source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        try:
            while data := await source.receive_some(READ):
                if self.delay:
                    await trio.sleep(self.delay())
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        carried.scope.cancel()

    def cut(self) -> None:
        """All connections break off, wherever they are, perhaps in the middle of a frame."""
        for carried in self._carried:
            carried.scope.cancel()

    def half_close(self) -> None:
        """The broker is told that nothing more comes from the clients; the other way stays open until it closes. TCP
        only."""
        for carried in self._carried:
            assert isinstance(carried.far, trio.SocketStream)
            with suppress(OSError):  # it has gone already
                carried.far.socket.shutdown(SHUT_WR)
