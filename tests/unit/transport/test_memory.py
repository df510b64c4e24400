"""The in-memory stream is a stream as trio has them, bounded, and writes without waiting what fits."""

from __future__ import annotations

import pytest
import trio
from trio.testing import check_half_closeable_stream, wait_all_tasks_blocked

from fanwire.transport import memory_stream_pair
from fanwire.transport.memory import MemoryStream


async def _pair() -> tuple[MemoryStream, MemoryStream]:
    return memory_stream_pair(1024)


async def _clogged() -> tuple[MemoryStream, MemoryStream]:
    ours, theirs = memory_stream_pair(1024)
    ours.accept(b"x" * 1024)
    theirs.accept(b"x" * 1024)
    return ours, theirs


async def test_contract() -> None:
    """trio's own suite for half-closeable streams passes."""
    await check_half_closeable_stream(_pair, _clogged)


async def test_bounded() -> None:
    """No more than the capacity is taken at once; reading makes room."""
    ours, theirs = memory_stream_pair(10)

    assert ours.accept(b"x" * 8) == 8
    assert ours.accept(b"y" * 8) == 2
    assert ours.accept(b"z") == 0
    assert ours.in_flight() == 10
    assert await theirs.receive_some(4) == b"xxxx"
    assert ours.accept(b"z" * 8) == 4
    assert await theirs.receive_some() == b"xxxxyyzzzz"


async def test_a_sender_waits() -> None:
    """`send_all` returns when everything has been taken, not before."""
    ours, theirs = memory_stream_pair(10)
    sent = trio.Event()

    async def send() -> None:
        await ours.send_all(b"x" * 25)
        sent.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        for waiting in (True, True, False):
            await wait_all_tasks_blocked()
            assert sent.is_set() is not waiting
            await theirs.receive_some()


async def test_closed() -> None:
    """Either end's closing is told apart: what the other left can be read, what we closed is closed."""
    ours, theirs = memory_stream_pair()
    ours.accept(b"last words")
    await ours.aclose()

    with pytest.raises(trio.ClosedResourceError):
        ours.accept(b"more")
    assert await theirs.receive_some() == b"last words"
    assert await theirs.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        theirs.accept(b"answer")
