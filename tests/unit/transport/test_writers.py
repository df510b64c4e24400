"""Reading from a socket that is mostly empty: as trio's own stream does it, but waiting first."""

from __future__ import annotations

import socket
import struct

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fanwire.transport.writers import Writer, take_over


async def _pair() -> tuple[trio.abc.Stream, Writer, trio.SocketStream]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        theirs = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        stream, writer = take_over(await listener.accept())
    return stream, writer, theirs


async def test_what_comes_is_read(nursery: trio.Nursery) -> None:
    """What is there already, what comes later, and the end."""
    stream, writer, theirs = await _pair()
    await theirs.send_all(b"there")
    assert await writer.receive(100) == b"there"
    nursery.start_soon(theirs.send_all, b"later")
    assert await writer.receive(3) == b"lat"
    assert await writer.receive(100) == b"er"
    await theirs.aclose()
    assert await writer.receive(100) == b""
    await stream.aclose()


async def test_a_closed_socket_is_told(nursery: trio.Nursery) -> None:
    """While somebody waits for it, and afterwards."""
    stream, writer, theirs = await _pair()

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await writer.receive(100)

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    await stream.aclose()
    await wait()
    await theirs.aclose()


async def test_nobody_waits_to_write_to_a_closed_socket() -> None:
    """Between two pieces that go out the socket may be closed: trio must not be asked to wait for descriptor -1."""
    stream, writer, theirs = await _pair()
    await stream.aclose()

    for _ in range(2):
        with pytest.raises(trio.ClosedResourceError):
            await writer.push(lambda: b"more")
        with pytest.raises(trio.ClosedResourceError):
            await writer.receive(100)
    await theirs.aclose()


async def test_a_broken_connection_is_told() -> None:
    """A peer that resets it."""
    stream, writer, theirs = await _pair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await theirs.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await writer.receive(100)
    await stream.aclose()


async def test_waiting_can_be_cancelled() -> None:
    """And nothing is lost by that."""
    stream, writer, theirs = await _pair()
    with trio.move_on_after(0.01) as scope:
        await writer.receive(100)
    assert scope.cancelled_caught
    await theirs.send_all(b"x")
    assert await writer.receive(100) == b"x"
    await stream.aclose()
    await theirs.aclose()
