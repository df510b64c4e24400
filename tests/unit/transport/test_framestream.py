"""`FrameStream` writes whole frames in turn, whoever writes them, and ends cleanly."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.protocol.frames import Fault, frame_header, masked_frame
from fanwire.transport import FrameStream, memory_stream_pair
from fanwire.transport.framestream import LEAST_READ, Hold
from fanwire.transport.memory import MemoryStream
from tests.peers.frames import BINARY, CLOSE, CONTINUATION, PONG, Frame, frame, read_frames


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


async def test_what_was_written_whole_is_not_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever sent it would send it again. What was cancelled before that has not been begun."""
    ours, peer = memory_stream_pair()
    scope = trio.CancelScope()
    accept = ours.accept

    def accept_and_cancel(data: bytes | memoryview) -> int:
        scope.cancel()
        return accept(data)

    monkeypatch.setattr(ours, "accept", accept_and_cancel)
    stream = FrameStream(ours, client=False, max_message=1000, on_messages=lambda _: None)
    sent: list[bytes] = []

    with scope:
        for payload in (b"whole", b"never begun"):
            await stream.send_all(_binary(payload))
            sent.append(payload)
    await stream.aclose()

    assert scope.cancelled_caught
    assert [each.payload for each in await _read(peer)] == sent == [b"whole"]


async def test_control_frames_in_bits_are_not_one_unfinished_message(autojump_clock: MockClock) -> None:
    """Each is another one. Inside of a fragmented message they do not make that younger."""
    stream, peer, _ = _server(1000)
    whole = frame(PONG, b"life")

    async def pass_on() -> None:
        while await stream.receive_some():
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_on)
        await peer.send_all(whole[:3])
        for _ in range(4):
            await trio.sleep(10)
            await peer.send_all(whole[3:] + whole[:3])
            await wait_all_tasks_blocked()
            assert stream.unfinished_since() == trio.current_time()
        await peer.send_all(whole[3:] + frame(BINARY, b"first of two", fin=False) + whole[:3])
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        for _ in range(4):
            await trio.sleep(10)
            await peer.send_all(whole[3:] + whole[:3])
            await wait_all_tasks_blocked()
            assert stream.unfinished_since() == begun
        await trio.sleep(10)
        await peer.send_all(whole[3:] + frame(CONTINUATION, b"second") + whole[:3])
        await wait_all_tasks_blocked()
        assert stream.unfinished_since() == trio.current_time()
        nursery.cancel_scope.cancel()


class Payload(bytes):
    """Counts those that exist."""

    alive = 0

    @classmethod
    def unmask(cls, data: bytes, key: bytes) -> bytes:
        """As the one with the key of four zeros."""
        cls.alive += 1
        return cls(data)

    def __del__(self) -> None:
        Payload.alive -= 1


@pytest.mark.parametrize("holds", [False, True], ids=["reading", "holding"])
async def test_a_stream_at_rest_keeps_no_message(holds: bool, autojump_clock: MockClock) -> None:
    """Neither while it waits for more, however long that is, nor while it does not read because of what came."""
    ours, peer = memory_stream_pair()
    seen: list[int] = []

    def on_messages(messages: list[bytes]) -> Hold | None:
        seen.append(len(messages[0]))
        return trio.sleep_forever if holds else None

    stream = FrameStream(ours, client=False, max_message=1000, on_messages=on_messages, mask=Payload.unmask)
    stream.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        await peer.send_all(frame(BINARY, b"x" * 900, key=bytes(4)))
        await wait_all_tasks_blocked()

        assert seen == [900]
        assert Payload.alive == 0
        nursery.cancel_scope.cancel()


async def test_of_a_large_fragment_the_last_byte_comes_alone(autojump_clock: MockClock) -> None:
    """trio-websocket and wsproto keep what they were given last for as long as nothing follows."""
    ours, peer = memory_stream_pair(1 << 20)
    stream = FrameStream(ours, client=False, max_message=1 << 20, on_messages=lambda _: None)
    stream.open()
    data = frame(BINARY, b"x" * 100_000, fin=False) + frame(PONG, b"small")
    pieces: list[bytes] = []
    await peer.send_all(data)
    await peer.send_eof()

    while piece := await stream.receive_some():
        pieces.append(piece)

    assert b"".join(pieces) == data
    assert all(len(first) <= LEAST_READ or len(second) == 1 for first, second in pairwise(pieces))
    assert len(pieces[-1]) <= LEAST_READ
