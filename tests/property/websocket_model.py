"""RFC 6455 read by the letter: what a receiver of binary messages must make of any bytes.

Slow, plain, and written without a look at the product; the third opinion where trio-websocket has none.
"""

from __future__ import annotations

import attrs

from tests.peers.frames import CLOSE, CONTINUATION, PING, TEXT, Head, mask, read_head


@attrs.frozen
class Verdict:
    """What the application sees, and what the peer is told."""

    messages: list[bytes]
    pings: list[bytes]
    """Those to be answered."""
    close: bytes | None
    """The payload of the peer's close frame, to be echoed; None: it sent none, or a wrong one."""
    fault: int | None
    """The close code for what is wrong, if anything is."""

    @property
    def code(self) -> int | None:
        """That of the close frame to be sent; 1005: one without code."""
        if self.close is None:
            return self.fault
        return int.from_bytes(self.close[:2], "big") or 1005


def judge(data: bytes, *, masked: bool, limit: int, most_fragments: int) -> Verdict:
    """Read all of ``data``; ``masked``: as a server must demand."""
    messages: list[bytes] = []
    pings: list[bytes] = []
    parts: list[bytes] | None = None
    size = at = 0
    while head := read_head(data, at):
        at = head.end + head.size
        payload = mask(data[head.end : at], head.key) if head.masked else data[head.end : at]
        if fault := _fault(head, masked, parts is not None):
            return Verdict(messages, pings, None, fault)
        if head.opcode < CLOSE:
            size = head.size + (size if parts is not None else 0)
            if size > limit or (parts is not None and len(parts) >= most_fragments):
                return Verdict(messages, pings, None, 1009)
            parts = [*(parts or []), payload]
            if at <= len(data) and head.fin:
                messages.append(b"".join(parts))
                parts = None
        if at > len(data):
            break
        if head.opcode == PING:
            pings.append(payload)
        if head.opcode == CLOSE:
            fault = _fault_of_close(payload)
            return Verdict(messages, pings, None if fault else payload, fault)
    return Verdict(messages, pings, None, None)


def _fault(head: Head, masked: bool, inside: bool) -> int | None:
    """Sections 5.1, 5.2, 5.4, 5.5; 1003: a text message, where there may be none."""
    control = head.opcode >= CLOSE
    if head.rsv or head.opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15) or head.masked != masked:
        return 1002
    if head.size >= 2**63 or (head.width == 2 and head.size < 126) or (head.width == 8 and head.size < 2**16):
        return 1002
    if control:
        return 1002 if not head.fin or head.size > 125 else None
    if inside != (head.opcode == CONTINUATION):
        return 1002
    return 1003 if head.opcode == TEXT else None


def _fault_of_close(payload: bytes) -> int | None:
    """Sections 5.5.1, 7.4 and 8.1; 1012 and 1013 are registered since (1014, too, but trio-websocket refuses it)."""
    if not payload:
        return None
    code = int.from_bytes(payload[:2], "big") if len(payload) > 1 else 0
    if code not in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, *range(3000, 5000)):
        return 1002
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return 1007
    return None
