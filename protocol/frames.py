"""WebSocket frames (RFC 6455 section 5): writing ours, and taking whole data frames out of what arrives.

`FrameSplitter` is the sans-I/O half of the fast road (docs/architecture.md): it removes whole, unfragmented binary
frames from a byte stream and leaves the rest, byte for byte, to a complete WebSocket implementation (trio-websocket).
What that implementation handles badly it refuses itself: lengths over the limit at their header, fragments without end,
illegal headers, and anything but a close frame once a close frame of ours was sent.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from .masking import Mask, mask_in_python


class Opcode(IntEnum):
    """RFC 6455 section 5.2."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class Fault(NamedTuple):
    """Why a peer's bytes are refused: the close code to send (RFC 6455 section 7.4.1) and a reason for its log."""

    code: int
    reason: str


class TooLarge(NamedTuple):
    """A message that is over the limit, and passed over: its size in bytes, and its beginning."""

    size: int
    beginning: bytes


# So much of such a message is looked at: enough to see whom it is for. One over `MOST_SKIPPED` is refused.
BEGINNING = 1024
MOST_SKIPPED = 1 << 30

_FIN = 0x80
_MASKED = 0x80
_WHOLE_BINARY = 0x82
_CONTROL = 0x08
_OPCODES = frozenset(Opcode)

# A message in more fragments than this is refused. The Autobahn suite's largest cases have about 50; a message of the
# greatest size in TCP-segment-sized fragments has about 750. Each fragment costs the slow road some 50 bytes of memory.
MAX_FRAGMENTS = 1024

# Pings and pongs of one client that are passed on one by one. Afterwards of each read only the last ping is: it alone
# needs an answer (RFC 6455 section 5.5.3), and each answer costs a write to the socket. A broker may send as many as
# it likes: a client waits for certain pongs.
MAX_PINGS = 16


def frame_header(size: int, opcode: int = Opcode.BINARY) -> bytes:
    """The header of an unmasked, final frame with ``size`` bytes of payload."""
    if size < 126:
        return bytes((_FIN | opcode, size))
    if size < 65536:
        return struct.pack("!BBH", _FIN | opcode, 126, size)
    return struct.pack("!BBQ", _FIN | opcode, 127, size)


def masked_frame(payload: bytes, key: bytes, mask: Mask = mask_in_python, opcode: int = Opcode.BINARY) -> bytes:
    """A whole, final client frame. ``key``: four bytes that cannot be predicted (RFC 6455 section 10.3)."""
    head = frame_header(len(payload), opcode)
    return b"".join((head[:1], bytes((head[1] | _MASKED,)), head[2:], key, mask(payload, key)))


def close_payload(code: int, reason: str = "") -> bytes:
    """The payload of a close frame; the reason is cut to the 123 bytes that a control frame has room for."""
    return struct.pack("!H", code) + reason.encode()[:123].decode(errors="ignore").encode()


def close_frame(code: int, reason: str = "") -> bytes:
    """A whole, unmasked close frame."""
    payload = close_payload(code, reason)
    return frame_header(len(payload), Opcode.CLOSE) + payload


def end_of_frame(data: bytes, position: int) -> int:
    """Where the unmasked frame ends that byte ``position`` of ``data`` lies in; ``data`` begins with a frame.

    For a writer that was stopped half-way: up to there it must go on, after that it may say something else.
    """
    start = 0
    while start < position:
        header = _read_header(data, start)
        assert header is not None, "we wrote whole frames"
        start = header.payload + header.size
    return start


class _Header(NamedTuple):
    first: int  # FIN, RSV1-3, opcode
    masked: bool
    size: int  # of the payload
    minimal: bool  # the length has its shortest form
    payload: int  # where the payload begins


def _read_header(data: bytes, start: int) -> _Header | None:
    """The frame header at ``start``, or None if it is cut off."""
    have = len(data) - start
    if have < 2:
        return None
    second = data[start + 1]
    size, body, minimal = second & 0x7F, start + 2, True
    if size >= 126:
        width = 2 if size == 126 else 8
        least = 126 if width == 2 else 65536
        body += width
        size = int.from_bytes(data[start + 2 : body], "big")
        if have < 2 + width:
            return None
        minimal = size >= least
    masked = second >= _MASKED
    if masked:
        body += 4
    if len(data) < body:
        return None
    return _Header(data[start], masked, size, minimal, body)


def _take_masked(data: bytes, start: int, limit: int, messages: list[bytes], mask: Mask) -> int:
    """Append the payloads of the leading whole masked binary frames to ``messages``; return where they end.

    Frames of a stream mostly have the same size, so the header up to the mask is mostly the same bytes as the one
    before: one comparison instead of taking it apart.
    """
    end, append = len(data), messages.append
    head: bytes | tuple[()] = ()  # no bytes begin with none of these
    size = width = 0
    while True:
        if not data.startswith(head, start):
            if end - start < 6 or data[start] != _WHOLE_BINARY:
                return start
            header = _read_header(data, start)
            if header is None or not header.masked or not header.minimal or header.size > limit:
                return start
            size, width = header.size, header.payload - start
            head = data[start : header.payload - 4]
        body = start + width
        stop = body + size
        if stop > end:
            return start
        append(mask(data[body:stop], data[body - 4 : body]))
        start = stop


def _take_unmasked(data: bytes, start: int, limit: int, messages: list[bytes], _mask: Mask) -> int:
    """As `_take_masked`, for what a server sends."""
    end, append = len(data), messages.append
    while end - start >= 2 and data[start] == _WHOLE_BINARY:
        header = _read_header(data, start)
        if header is None or header.masked or not header.minimal or header.size > limit:
            return start
        stop = header.payload + header.size
        if stop > end:
            return start
        append(data[header.payload : stop])
        start = stop
    return start


class FrameSplitter:
    """Parts what a peer sends into whole binary messages and bytes for a full WebSocket implementation.

    After `feed` call `take` again and again until it returns nothing; stop when `fault` is set (send its close code,
    read no more) or when the bytes returned hold the peer's close frame (`peer_closed`).

    Once a fragmented or a text message was seen, everything goes to the implementation: there is only one order. But
    for what means nothing: empty fragments in the middle of a message, and pings without end (see `MAX_PINGS`).
    """

    __slots__ = (
        "_at",
        "_data",
        "_fast",
        "_fragments",
        "_last_ping",
        "_mask",
        "_masked",
        "_max_fragments",
        "_need",
        "_open",
        "_passing",
        "_pings",
        "_rest",
        "_size",
        "_skip",
        "_skipped",
        "_skips",
        "_slow",
        "_steps",
        "_text",
        "closing",
        "fault",
        "limit",
        "messages",
        "peer_closed",
        "too_large",
    )

    def __init__(
        self,
        *,
        client: bool,
        max_message: int,
        mask: Mask = mask_in_python,
        text: bool = False,
        max_fragments: int = MAX_FRAGMENTS,
        skips: bool = False,
    ) -> None:
        """Start at a frame boundary, right after the handshake.

        Args:
            client: Whose end this is: a client reads unmasked frames, a broker masked ones.
            max_message: Bytes of payload that one message may have, over all its fragments.
            mask: From `masking`.
            text: Whether text messages are spoken here; if not, one is refused with 1003.
            max_fragments: Frames that one message may consist of.
            skips: Whether a whole binary frame over ``max_message`` is passed over (see `too_large`), not a fault.
        """
        self.too_large: TooLarge | None = None  # what is passed over: `take` goes on when the owner has taken it
        self._skips = skips
        self._skip = 0  # payload bytes of it that have not come yet
        self.fault: Fault | None = None
        self.peer_closed = False
        self.closing = False  # set by the owner when it sends a close frame: only the peer's matters from then on
        self.messages = 0  # begun so far
        self._masked = not client
        self._fast = _take_unmasked if client else _take_masked
        self.limit = max_message  # may be changed at any time, for messages that have not begun
        self._mask = mask
        self._text = text
        self._max_fragments = max_fragments
        self._data = b""
        self._at = 0
        self._rest: bytearray | None = None  # a frame's beginning, kept until `_need` bytes are there
        self._need = 0
        self._slow = False
        self._passing = 0  # payload bytes of the current slow frame that have not come yet
        self._open = False  # inside a fragmented message
        self._size = 0
        self._fragments = 0
        self._pings = 0  # and pongs, passed on so far
        self._skipped = 0  # of the last read, not passed on one by one
        self._last_ping = b""  # the last of those; it may go out between two frames only
        self._steps = 0  # messages begun and finished on the slow road, and control frames outside of messages

    @property
    def flooded(self) -> bool:
        """Whether in the last read there were several pings or pongs that nobody needs."""
        return self._skipped > 1

    @property
    def unfinished(self) -> bool:
        """Whether the peer owes us the rest of a frame or message."""
        return self._open or self._passing > 0 or self._skip > 0 or self._rest is not None

    @property
    def steps(self) -> int:
        """Grows with each message, and each control frame outside of a message: while `unfinished` and this stay the
        same, the peer owes the rest of one and the same frame or message."""
        return self.messages + self._steps

    def feed(self, data: bytes) -> None:
        """Take in what was read. Call only after `take` has returned nothing."""
        rest, self._skipped = self._rest, 0
        if rest is None:
            self._data, self._at = data, 0
        elif len(rest) + len(data) < self._need:
            rest += data  # amortised: a large frame that comes byte by byte must not be copied at every byte
        else:
            self._data, self._at, self._rest = b"".join((rest, data)), 0, None

    def take(self, messages: list[bytes]) -> bytes:
        """Append whole messages to ``messages``; return bytes for the implementation, b"" when more must be fed."""
        while self._at < len(self._data) and not self.fault and not self.peer_closed and self.too_large is None:
            if self._skip:
                step = min(self._skip, len(self._data) - self._at)
                self._skip -= step
                self._at += step
                continue
            if not self._slow:
                self._take_whole(messages)
            if passed := self._pass_on(self._at):
                return passed
        return self._take_last_ping()

    def _take_last_ping(self) -> bytes:
        """The ping that stands for all that were skipped. Call between two frames only: it must not land inside one."""
        passed, self._last_ping = self._last_ping, b""
        return b"" if self.fault or self.peer_closed or self.closing else passed

    def _take_whole(self, messages: list[bytes]) -> None:
        before = len(messages)
        self._at = self._fast(self._data, self._at, self.limit, messages, self._mask)
        self.messages += len(messages) - before
        if self.closing:
            del messages[before:]

    def _pass_on(self, start: int) -> bytes:
        """Walk over frames for the implementation, as far as they are legal; return their bytes."""
        data, at, end = self._data, start, len(self._data)
        while at < end:
            if self._passing:
                step = min(self._passing, end - at)
                self._passing -= step
                at += step
                self._steps += not (self._passing or self._open)
                continue
            header = _read_header(data, at)
            if header is None:
                self._keep(at, end - at + 1)
                return data[start:at]
            if self._skips and not self._slow and self._is_skipped(header):
                self._begin_skipping(header, at)
                return data[start:at]
            self.fault = self._fault_of(header)
            if self.fault:
                self._data, self._at = b"", 0
                return data[start:at]
            stop = header.payload + header.size
            if header.first & _CONTROL:
                if stop > end:
                    self._keep(at, stop - at)
                    return data[start:at]
                return self._control(header.first & 0x0F, start, at, stop)
            if not self._slow and header.first == _WHOLE_BINARY:
                self._keep(at, stop - at)  # for the fast road, once it is whole
                return data[start:at]
            if stop > end and self._last_ping:  # all pings of this read stand before this frame, which outlasts it
                self._at = at
                return data[start:at] + self._take_last_ping()
            self._begin_slow(header)
            if header.first == Opcode.CONTINUATION and not header.size:  # adds nothing; what is before it goes first
                self._at = header.payload
                return data[start:at]
            at = header.payload
        self._data, self._at = b"", 0
        return data[start:at]

    def _is_skipped(self, header: _Header) -> bool:
        return (
            header.first == _WHOLE_BINARY
            and self.limit < header.size <= MOST_SKIPPED
            and header.minimal
            and header.masked == self._masked
        )

    def _begin_skipping(self, header: _Header, at: int) -> None:
        begun = header.payload + min(header.size, BEGINNING)
        if begun > len(self._data):
            self._keep(at, begun - at)
            return
        if not self.closing:
            self.too_large = TooLarge(header.size, self._data[header.payload : begun])
        self.messages += 1
        self._at, self._skip = header.payload, header.size

    def _control(self, opcode: int, start: int, at: int, stop: int) -> bytes:
        data, self._at = self._data, stop
        self._steps += not self._open
        if opcode == Opcode.CLOSE:
            self.peer_closed = True
            self._data, self._at = b"", 0
        elif self.closing:  # trio-websocket would answer a ping after its close frame, and fall over that
            return data[start:at]
        elif self._pings < MAX_PINGS or not self._masked:
            self._pings += 1
        else:
            self._skipped += 1
            if opcode == Opcode.PING:
                self._last_ping = data[at:stop]
            return data[start:at]
        return data[start:stop]

    def _begin_slow(self, header: _Header) -> None:
        self._slow = True
        if header.first & 0x0F:
            self.messages += 1
            self._size = self._fragments = 0
        self._size += header.size
        self._fragments += 1
        self._open = not header.first & _FIN
        self._passing = header.size
        self._steps += not (self._open or self._passing)

    def _keep(self, at: int, need: int) -> None:
        self._rest, self._need = bytearray(self._data[at:]), need
        self._data, self._at = b"", 0

    def _fault_of(self, header: _Header) -> Fault | None:
        """The rules of RFC 6455 sections 5.1, 5.2, 5.4 and 5.5 that a header alone can break, and our limits."""
        opcode = header.first & 0x0F
        if header.first & 0x70:
            return Fault(1002, "reserved bits set and no extension agreed on")
        if opcode not in _OPCODES:
            return Fault(1002, f"unknown opcode 0x{opcode:X}")
        if header.masked != self._masked:
            return Fault(1002, "frame is not masked" if self._masked else "frame from a server is masked")
        if not header.minimal or header.size >> 63:
            return Fault(1002, "payload length is not in its shortest form")
        if opcode & _CONTROL:
            return self._fault_of_control(header)
        return self._fault_of_data(header, opcode)

    @staticmethod
    def _fault_of_control(header: _Header) -> Fault | None:
        if not header.first & _FIN:
            return Fault(1002, "control frame is fragmented")
        if header.size > 125:
            return Fault(1002, f"control frame with {header.size} bytes, over 125")
        return None

    def _fault_of_data(self, header: _Header, opcode: int) -> Fault | None:
        if self._open != (opcode == Opcode.CONTINUATION):
            return Fault(1002, "new message inside a fragmented one" if self._open else "continuation of nothing")
        if opcode == Opcode.TEXT and not self._text:
            return Fault(1003, "text message; this subprotocol speaks binary ones")
        size = self._size + header.size if self._open else header.size
        if size > self.limit:
            return Fault(1009, f"message of {size} bytes or more; at most {self.limit} are taken")
        if self._open and self._fragments >= self._max_fragments:
            return Fault(1009, f"message in more than {self._max_fragments} fragments")
        return None
