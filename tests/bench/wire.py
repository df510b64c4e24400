"""The least a client needs, on plain sockets: cheap enough to play thousands of subscribers in one process.

It counts messages by finding the beginnings of envelopes in what it receives, without decoding anything.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any

import msgpack

_REQUEST = (
    b"GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: fanwire.v1\r\n"
)
OK = b"\x93\x11"
"""How an OK begins: an array of three, type 17."""

# How an ERROR begins that answers request 1: an array of four, or with a detail of five, type 18.
_REFUSALS = (b"\x94\x12\x01", b"\x95\x12\x01")

CLOSE = b"\x88\x80\x00\x00\x00\x00"
"""A close frame without a code, masked with zeros."""

TOGETHER = 64
"""Handshakes under way at a time."""

_PATIENCE_S = 30.0


def frame(payload: bytes) -> bytes:
    """A binary frame from a client. The masking key is zero: then masking changes nothing, and costs us nothing."""
    size = len(payload)
    if size < 126:
        return b"\x82" + bytes((0x80 | size,)) + bytes(4) + payload
    if size < 65536:
        return b"\x82\xfe" + struct.pack("!H", size) + bytes(4) + payload
    return b"\x82\xff" + struct.pack("!Q", size) + bytes(4) + payload


def subscribe(pattern: str, **options: Any) -> bytes:
    """A frame: SUBSCRIBE with id 1, and with these options."""
    if not options:
        return frame(b"\x93\x02\x01" + _string(pattern))
    return frame(b"\x94\x02\x01" + _string(pattern) + msgpack.packb(options))


def unsubscribe(route: int) -> bytes:
    """A frame: UNSUBSCRIBE, no answer wanted."""
    return frame(b"\x93\x03\x00" + msgpack.packb(route))


def publish(topic: str, payload: bytes, request: int = 0) -> bytes:
    """An envelope: PUBLISH; ``request`` (0 to 127) is its id, 0: no answer wanted."""
    size = len(payload)
    head = bytes((0xC4, size)) if size < 256 else b"\xc5" + struct.pack("!H", size)
    return b"\x94\x04" + bytes((request,)) + _string(topic) + head + payload


def _string(text: str) -> bytes:
    data = text.encode()
    return (bytes((0xA0 | len(data),)) if len(data) < 32 else bytes((0xD9, len(data)))) + data


def connect(
    address: tuple[str, int], count: int, receive_buffer: int | None = None, token: str | None = None
) -> list[socket.socket]:
    """Open ``count`` connections, `TOGETHER` at a time, each through its handshake."""
    request = _REQUEST + (f"Authorization: Bearer {token}\r\n".encode() if token else b"") + b"\r\n"
    opened: list[socket.socket] = []
    while len(opened) < count:
        group = [_open(address, receive_buffer) for _ in range(min(TOGETHER, count - len(opened)))]
        _ask(group, request, b"\r\n\r\n")
        opened += group
    return opened


def subscribe_all(connections: Sequence[socket.socket], pattern: str, **options: Any) -> int:
    """Subscribe each of them, wait for each one's OK, and return the route's number.

    Nothing may be on its way to them but the answer: it would be taken for that, and be missing afterwards.
    """
    request = subscribe(pattern, **options)
    answer = b""
    for start in range(0, len(connections), TOGETHER):
        answer = _ask(connections[start : start + TOGETHER], request, OK)
    _, _, result = msgpack.unpackb(answer[answer.index(OK) :])
    return int(result["route"])


def name(connection: socket.socket, name: str) -> None:
    """Say HELLO with this name."""
    _ask([connection], frame(msgpack.packb([1, 1, {"name": name}])), OK)


def part(connections: Sequence[socket.socket]) -> None:
    """Close each of them as RFC 6455 wants it."""
    for start in range(0, len(connections), TOGETHER):
        group = connections[start : start + TOGETHER]
        for connection in group:
            connection.sendall(CLOSE)
        for connection in group:
            while connection.recv(4096):
                pass
            connection.close()


def _open(address: tuple[str, int], receive_buffer: int | None) -> socket.socket:
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(_PATIENCE_S)
    connection.connect(address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _ask(connections: Sequence[socket.socket], request: bytes, answer: bytes) -> bytes:
    """Send each the request, wait for each one's answer; return what the last one got."""
    received = b""
    for connection in connections:
        connection.sendall(request)
    for connection in connections:
        received = b""
        while answer not in received:
            data = connection.recv(4096)
            received += data
            if not data:
                raise SystemExit(f"error: the broker closed a connection instead of answering: {received[-200:]!r}")
            if any(refusal in received for refusal in _REFUSALS):
                raise SystemExit(f"error: the broker refused: {received[-200:]!r}")
    return received
