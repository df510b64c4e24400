"""WebSocket frames as any peer may write them, right or wrong, and a reader of the right ones.

Written from RFC 6455 section 5.2 and not with what it tests: a shared mistake would go unseen.
"""

from __future__ import annotations

from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

_KEY = b"\x37\xfa\x21\x3d"


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    key: bytes = _KEY,
    announce: int | None = None,
    width: int | None = None,
) -> bytes:
    """One frame.

    Args:
        opcode: 0 to 15.
        payload: What is sent after the header.
        fin: Whether the message ends with it.
        rsv: The three reserved bits, 0 to 7.
        masked: As a client must; a server must not.
        key: The masking key.
        announce: The length to claim; that of ``payload`` if None.
        width: Bytes of the extended length (0, 2 or 8); as few as possible if None.
    """
    size = len(payload) if announce is None else announce
    if width is None:
        width = 0 if size < 126 else 2 if size < 65536 else 8
    short = {0: size, 2: 126, 8: 127}[width]
    head = bytes(((0x80 if fin else 0) | rsv << 4 | opcode, (0x80 if masked else 0) | short))
    head += size.to_bytes(width, "big") if width else b""
    return head + key + mask(payload, key) if masked else head + payload


def mask(payload: bytes, key: bytes) -> bytes:
    """RFC 6455 section 5.3, octet by octet."""
    return bytes(octet ^ key[i % 4] for i, octet in enumerate(payload))


def close(code: int | None = None, reason: bytes = b"", *, masked: bool = True) -> bytes:
    """A close frame; None: without a code."""
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason, masked=masked)


class Frame(NamedTuple):
    """A frame that was received, unmasked."""

    opcode: int
    payload: bytes
    fin: bool


class Head(NamedTuple):
    """What a frame begins with."""

    fin: bool
    rsv: int
    opcode: int
    masked: bool
    width: int
    size: int
    key: bytes
    end: int
    """Where the payload begins."""


def read_head(data: bytes, at: int) -> Head | None:
    """The frame header that begins at ``at``; None if it is cut off."""
    if len(data) < at + 2:
        return None
    first, second = data[at], data[at + 1]
    width = {126: 2, 127: 8}.get(second & 0x7F, 0)
    body = at + 2 + width
    end = body + (4 if second & 0x80 else 0)
    if len(data) < end:
        return None
    size = int.from_bytes(data[at + 2 : body], "big") if width else second & 0x7F
    return Head(bool(first & 0x80), first >> 4 & 7, first & 0xF, bool(second & 0x80), width, size, data[body:end], end)


def read_frames(data: bytes) -> tuple[list[Frame], bytes]:
    """All whole frames, and what is left after them."""
    frames, at = [], 0
    while (head := read_head(data, at)) and len(data) >= head.end + head.size:
        payload = data[head.end : head.end + head.size]
        frames.append(Frame(head.opcode, mask(payload, head.key) if head.masked else payload, head.fin))
        at = head.end + head.size
    return frames, data[at:]


def close_code(frames: list[Frame]) -> int | None:
    """The code of the close frame that ends ``frames``; 1005 if it has none, None if there is no close frame.

    That nothing follows it, and that there is only one, is asserted.
    """
    closes = [each for each in frames if each.opcode == CLOSE]
    if not closes:
        return None
    assert closes == frames[-1:], "the close frame is the last one"
    return int.from_bytes(closes[0].payload[:2], "big") or 1005
