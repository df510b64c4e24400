"""`FrameStream` writes whole frames in turn, whoever writes them, and ends cleanly."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.protocol.frames import Fault, frame_header, masked_frame
from fanwire.transport import FrameStream, memory_stream_pair
from fanwire.transport.memory import MemoryStream
from tests.peers.frames import BINARY, CLOSE, PONG, Frame, frame, read_frames


def _server(capacity: int = 20) -> tuple[FrameStream, MemoryStream, list[bytes]]:
    """A broker's end after the handshake, its peer, and the messages that come in."""
    ours, theirs = memory_stream_pair(capacity)
    messages: list[bytes] = []
    stream = FrameStream(ours, client=False, max_message=1000, on_messages=messages.extend)
    stream.open()
    return stream, theirs, messages


def _binary(payload: bytes) -> bytes:
    return frame_header(len(payload)) + payload


async def _read(peer: MemoryStream) -> list[Frame]:
    """Everything that can be read without waiting for more."""
    data = bytearray()
    with trio.move_on_after(1):
        while more := await peer.receive_some():
            data += more
    frames, rest = read_frames(bytes(data))
    assert not rest
    return frames


async def test_a_pong_waits_for_the_rest(autojump_clock: MockClock) -> None:
    """What trio-websocket sends never lands inside a frame of which the socket took only a part."""
    stream, peer, _ = _server()
    stream.write_nowait(_binary(b"x" * 50))
    assert not stream.clear

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, frame(PONG, b"pong", masked=False))
        frames = await _read(peer)

    assert [(each.opcode, each.payload) for each in frames] == [(BINARY, b"x" * 50), (PONG, b"pong")]
    assert stream.clear


async def test_half_written(autojump_clock: MockClock) -> None:
    """Of several frames only the one that is half written is finished; what is said next follows it."""
    stream, peer, _ = _server()
    stream.write_nowait(_binary(b"a" * 5) + _binary(b"b" * 30) + _binary(b"c" * 5))

    stream.keep_half_written()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_close, Fault(1008, "slow"))
        frames = await _read(peer)

    assert [each.payload for each in frames] == [b"a" * 5, b"b" * 30, b"\x03\xf0slow"]


async def test_nothing_follows_a_close_frame(autojump_clock: MockClock) -> None:
    """RFC 6455 section 5.5.1; what must be written before it can be, and that only once."""
    stream, peer, _ = _server(1000)
    stream.before_close = lambda: stream.write_nowait(_binary(b"last words"))

    await stream.send_close(Fault(1000, ""))
    await stream.send_close(Fault(1001, ""))
    await stream.send_all(frame(PONG, masked=False))

    assert not stream.clear
    assert [each.opcode for each in await _read(peer)] == [BINARY, CLOSE]


async def test_closed_by_two(autojump_clock: MockClock) -> None:
    """Whoever closes second waits for the first, who lets the peer read why."""
    stream, peer, _ = _server(1000)
    stream.why_closing = lambda: Fault(1007, "bad")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.aclose)
        nursery.start_soon(stream.aclose)
        frames = await _read(peer)
        await peer.aclose()

    assert [each.payload for each in frames] == [b"\x03\xefbad"]
    assert trio.current_time() < 1.5


async def test_unfinished_since(autojump_clock: MockClock) -> None:
    """It tells since when one and the same message is owed, whatever comes in the meantime."""
    stream, peer, messages = _server(1000)
    data = frame(BINARY, b"x" * 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        start = trio.current_time()
        for piece in (data + data[:5], data[5:6], data[6:7]):
            await peer.send_all(piece)
            await wait_all_tasks_blocked()
            assert stream.unfinished_since() == start
            await trio.sleep(10)
        await peer.send_all(data[7:])
        await wait_all_tasks_blocked()
        assert stream.unfinished_since() is None
        nursery.cancel_scope.cancel()

    assert messages == [b"x" * 20] * 2


async def test_a_held_peer_is_not_late(autojump_clock: MockClock) -> None:
    """While we do not read, because of what a peer's whole messages caused, it owes us nothing."""
    ours, theirs = memory_stream_pair()
    since: list[float | None] = []

    async def hold() -> None:
        await trio.sleep(100)
        since.append(stream.unfinished_since())

    stream = FrameStream(ours, client=False, max_message=1000, on_messages=lambda _: hold)
    stream.open()
    whole = masked_frame(b"12345678", b"\1\2\3\4")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        await theirs.send_all(whole[:5])
        await wait_all_tasks_blocked()
        assert stream.unfinished_since() == trio.current_time()
        await theirs.send_all(whole[5:])
        await trio.sleep(101)
        nursery.cancel_scope.cancel()

    assert since == [None]
