"""Whatever arrives, in whatever cuts: the fast road shows the application what trio-websocket alone would show it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable
from typing import cast

import attrs
import pytest
import trio
import trio_websocket
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fanwire.protocol.frames import MAX_FRAGMENTS, Fault, FrameSplitter
from fanwire.transport import FrameStream
from tests.peers.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, frame, read_frames
from tests.peers.raw import request
from tests.property.frame_streams import LIMIT, arriving, flooding
from tests.property.websocket_model import Verdict, judge

_END_OF_HEAD = b"\r\n\r\n"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


@given(arriving(masked=True))
@example([frame(PING, b"four") + b"\xff"])
@example([frame(BINARY, b"whole") + b"\xff" * 20])
@example([frame(PING, b"four") + b"\x82\xff" + b"\0" * 8])
@example([close(1000) + frame(PING)])
@example([frame(BINARY, b"x" * (LIMIT + 1)) * 2])
@example([frame(BINARY, b"x" * (LIMIT + 1)) + frame(PING)])
@example([frame(BINARY, b"a", fin=False) + frame(PING, b"p") + frame(BINARY, b"b")])
def test_what_a_broker_reads(pieces: list[bytes]) -> None:
    """A broker's end agrees with trio-websocket's and with RFC 6455, and says so in its close frame."""
    _compare(pieces, _as_server_alone, _as_server, masked=True)


@given(flooding())
@settings(max_examples=300)
def test_control_frames_of_a_flood_stay_between_frames(pieces: list[bytes]) -> None:
    """Many more pings and pongs than are passed on one by one, between fragments, in whatever cuts.

    What is passed on are whole frames: all data frames as they came, and of the pings a part, in order, the last of
    all among them.
    """
    data = b"".join(pieces)
    splitter = FrameSplitter(client=False, max_message=LIMIT)
    messages: list[bytes] = []
    passed = bytearray()
    for piece in pieces:
        splitter.feed(piece)
        while more := splitter.take(messages):
            passed += more
    sent, _ = read_frames(data)
    kept, rest = read_frames(bytes(passed))

    assert splitter.fault is None
    assert not rest
    data_sent = [each for each in sent if each.opcode not in (PING, PONG)]
    taken, said = data_sent[: len(messages)], data_sent[len(messages) :]
    assert messages == [each.payload for each in taken]
    assert [each for each in kept if each.opcode not in (PING, PONG)] == [
        each for each in said if each.payload or each.fin or each.opcode
    ]
    pings = [each.payload for each in sent if each.opcode == PING]
    heard = iter(pings)
    assert all(each.payload in heard for each in kept if each.opcode == PING)  # a part of them, in order
    assert not pings or [each.payload for each in kept if each.opcode == PING][-1] == pings[-1]


@given(arriving(masked=False), st.booleans())
@example([frame(PING, b"four", masked=False) + b"\xff"], False)
@example([close(1000, masked=False) + frame(PING, masked=False)], True)
def test_what_a_client_reads(pieces: list[bytes], joined: bool) -> None:
    """So does a client's end, also when the first frames come together with the broker's response."""
    _compare(pieces, _as_client_alone, lambda pieces: _as_client(pieces, joined), masked=False)


@pytest.mark.parametrize("masked", [True, False], ids=["broker", "client"])
@pytest.mark.parametrize(
    "text",
    [[(b"text", True)], [(b"", True)], [(b"te", False), (b"xt", True)]],
    ids=["whole", "empty", "fragmented"],
)
def test_text(text: list[tuple[bytes, bool]], masked: bool) -> None:
    """A text message is refused with 1003, as an application on trio-websocket alone would refuse it."""
    frames = [frame(CONTINUATION if i else TEXT, part, fin=fin, masked=masked) for i, (part, fin) in enumerate(text)]
    pieces = [frame(BINARY, b"before", masked=masked), *frames]

    alone, ours = (_as_server_alone, _as_server) if masked else (_as_client_alone, _as_client)

    assert trio.run(alone, pieces).code == 1003
    assert trio.run(ours, pieces).code == 1003
    assert trio.run(alone, pieces).messages == trio.run(ours, pieces).messages == [b"before"]


@attrs.define
class Seen:
    """What the application got, and the peer."""

    messages: list[bytes] = attrs.field(factory=list)
    pongs: list[bytes] = attrs.field(factory=list)
    close: bytes | None = None
    """The payload of the close frame."""
    crashed: bool = False
    """Whether an exception came out of the connection."""

    @property
    def code(self) -> int | None:
        """Of the close frame."""
        return None if self.close is None else int.from_bytes(self.close[:2], "big") or 1005

    def hear(self, sent: bytes) -> None:
        """Take apart what was sent to the peer. Nothing may follow a close frame."""
        frames, rest = read_frames(sent.partition(_END_OF_HEAD)[2])
        assert not rest
        self.pongs = [each.payload for each in frames if each.opcode == PONG]
        closes = [each.payload for each in frames if each.opcode == CLOSE]
        if closes:
            self.close = closes[0]
        if not self.crashed:
            assert [each.opcode for each in frames if each.opcode != PONG] == [CLOSE] * bool(closes)


Road = Callable[[list[bytes]], Awaitable[Seen]]


def _compare(pieces: list[bytes], alone: Road, fast: Road, *, masked: bool) -> None:
    ours = trio.run(fast, pieces)
    theirs = trio.run(alone, pieces)
    right = judge(b"".join(pieces), masked=masked, limit=LIMIT, most_fragments=MAX_FRAGMENTS)

    assert not ours.crashed
    assert (ours.messages, ours.pongs, ours.code) == (right.messages, right.pings, right.code)
    assert ours.close == right.close or right.close is None
    _agree(ours, theirs, right)


def _agree(ours: Seen, theirs: Seen, right: Verdict) -> None:
    """With trio-websocket alone, as far as it keeps its word."""
    if theirs.crashed or right.fault == 1009:  # it throws away what the application has not fetched yet
        assert theirs.messages == ours.messages[: len(theirs.messages)]
    else:
        assert theirs.messages == ours.messages
    if right.fault is None and not theirs.crashed:
        assert theirs.pongs == ours.pongs
    if theirs.close is not None and right.fault != 1003:  # text is refused at its header, whatever may follow
        assert theirs.code == ours.code


class Scripted(trio.abc.Stream):
    """A peer that sends pieces, then hangs up; what it is sent is kept."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = list(pieces)
        self.may_go_on = trio.Event()
        self.sent = bytearray()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        await self.may_go_on.wait()
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if max_bytes is not None and len(piece) > max_bytes:
            self.pieces.insert(0, piece[max_bytes:])
        return piece[:max_bytes]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.pieces.clear()
        self.may_go_on.set()
        await trio.lowlevel.checkpoint()


class ScriptedClient(Scripted):
    """As `Scripted`; sends its request first, and nothing with it: trio-websocket would lose that."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self.sent and self.may_go_on.is_set():
            self.may_go_on = trio.Event()
            return request()
        return await super().receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await super().send_all(data)
        self.may_go_on.set()


class ScriptedServer(Scripted):
    """As `Scripted`; answers the client's handshake first."""

    def __init__(self, pieces: list[bytes], *, joined: bool = False) -> None:
        super().__init__(pieces)
        self._joined = joined

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await super().send_all(data)
        if not self.may_go_on.is_set() and _END_OF_HEAD in self.sent:
            self._answer()
            self.may_go_on.set()

    def _answer(self) -> None:
        lines = bytes(self.sent).split(b"\r\n")
        key = next(line.partition(b":")[2].strip() for line in lines if line.lower().startswith(b"sec-websocket-key:"))
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        answer = head + b"Sec-WebSocket-Accept: " + accept + _END_OF_HEAD
        if self._joined and self.pieces:
            self.pieces[0] = answer + self.pieces[0]
        else:
            self.pieces.insert(0, answer)


async def _as_server_alone(pieces: list[bytes]) -> Seen:
    stream, seen = ScriptedClient(pieces), Seen()
    stream.may_go_on.set()
    try:
        async with trio.open_nursery() as nursery:
            proposal = await trio_websocket.wrap_server_stream(nursery, stream, max_message_size=LIMIT)
            connection = await proposal.accept()
            await _read_all(connection, seen)
    except* Exception:
        seen.crashed = True
    seen.hear(bytes(stream.sent))
    return seen


async def _as_client_alone(pieces: list[bytes]) -> Seen:
    stream, seen = ScriptedServer(pieces), Seen()
    try:
        async with trio.open_nursery() as nursery:
            connection = await trio_websocket.wrap_client_stream(
                nursery, cast(trio.SocketStream, stream), "localhost", "/", max_message_size=LIMIT
            )
            await _read_all(connection, seen)
    except* Exception:
        seen.crashed = True
    seen.hear(bytes(stream.sent))
    return seen


async def _as_server(pieces: list[bytes]) -> Seen:
    stream, seen = Scripted(pieces), Seen()
    stream.may_go_on.set()
    ours = FrameStream(stream, client=False, max_message=LIMIT, on_messages=seen.messages.extend, head=request())
    async with trio.open_nursery() as nursery:
        proposal = await trio_websocket.wrap_server_stream(nursery, ours, max_message_size=2 * LIMIT)
        connection = await proposal.accept()
        ours.open()
        await _read_fast(connection, ours, seen)
    seen.hear(bytes(stream.sent))
    return seen


async def _as_client(pieces: list[bytes], joined: bool = False) -> Seen:
    stream, seen = ScriptedServer(pieces, joined=joined), Seen()
    ours = FrameStream(stream, client=True, max_message=LIMIT, on_messages=seen.messages.extend)
    async with trio.open_nursery() as nursery:
        connection = await trio_websocket.wrap_client_stream(
            nursery, cast(trio.SocketStream, ours), "localhost", "/", max_message_size=2 * LIMIT
        )
        await _read_fast(connection, ours, seen)
    seen.hear(bytes(stream.sent))
    return seen


async def _read_fast(connection: trio_websocket.WebSocketConnection, ours: FrameStream, seen: Seen) -> None:
    ours.why_closing = lambda: _fault_of(connection)
    await _read_all(connection, seen)
    await ours.aclose()


async def _read_all(connection: trio_websocket.WebSocketConnection, seen: Seen) -> None:
    """An application that speaks binary."""
    try:
        while True:
            message = await connection.get_message()
            if isinstance(message, str):
                await connection.aclose(1003)
                return
            seen.messages.append(message)
    except trio_websocket.ConnectionClosed:
        pass


def _fault_of(connection: trio_websocket.WebSocketConnection) -> Fault | None:
    """What the owner of a `FrameStream` has to tell it: why trio-websocket cuts the connection."""
    reason = connection.closed
    return Fault(reason.code, reason.reason or "") if reason and reason.code not in (1005, 1006) else None
