"""Hostile peers: what each says, and how its own connection has to end. Nothing else may.

`OPENINGS` are said instead of a handshake, `FRAMES` after a good one, `SILENCES` make the broker wait until a deadline.
"""

from __future__ import annotations

import attrs

from tests.peers.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, frame
from tests.peers.raw import KEY, Exit, request

MAX_MESSAGE = 1024 * 1024
"""The broker's default limit."""

_OVERSIZE = frame(BINARY, announce=MAX_MESSAGE + 1)
_FRAGMENT = frame(BINARY, b"ab", fin=False)
_EMPTY = frame(CONTINUATION, fin=False)


@attrs.frozen
class Case:
    """One hostile peer."""

    name: str
    parts: tuple[bytes | float, ...]
    """Each is sent by itself; a number is a pause in seconds."""
    outcome: int | None
    """Close code (1000 and above), HTTP status, or None: the connection just ends."""
    leave: Exit = Exit.LISTEN
    opened: bool = True
    """Whether a good handshake comes first."""

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def _opening(name: str, outcome: int | None, *parts: bytes | float, leave: Exit = Exit.LISTEN) -> Case:
    return Case(name, parts, outcome, leave, opened=False)


OPENINGS = (
    _opening("not ASCII in the path", 400, request(line="GET /é HTTP/1.1".encode())),
    _opening("not ASCII in a header name", 400, request("X-Fé: 1".encode())),
    _opening("not ASCII in the key", 400, request(key="\xff" * 24)),
    _opening("not ASCII in the subprotocol", 400, request(b"Sec-WebSocket-Protocol: \xff\xfe")),
    _opening("not ASCII in the version", 426, request(b"Sec-WebSocket-Version: \xff", version=None)),
    _opening("NUL in a header", 400, request(b"X-Name: a\0b")),
    _opening("key that is no base64", 400, request(key="!" * 24)),
    _opening("key of 15 bytes", 400, request(key="AAAAAAAAAAAAAAAAAAAA")),
    _opening("no key", 400, request(key=None)),
    _opening("two keys", 400, request(b"Sec-WebSocket-Key: " + KEY.encode())),
    _opening("version 8", 426, request(version="8")),
    _opening("no version", 426, request(version=None)),
    _opening("POST", 405, request(line=b"POST / HTTP/1.1")),
    _opening("HTTP 1.0", 505, request(line=b"GET / HTTP/1.0")),
    _opening("wrong path", 404, request(line=b"GET /elsewhere HTTP/1.1")),
    _opening("unknown subprotocol", 400, request(b"Sec-WebSocket-Protocol: mqtt, wamp")),
    _opening("no upgrade", 426, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    _opening("no host", 400, request().replace(b"Host: localhost\r\n", b"")),
    _opening("no HTTP", 400, b"\x16\x03\x01\x02\x00\r\n\r\n"),
    _opening("TLS hello", 400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32))),
    _opening("only line ends", None, b"\r\n\r\n\r\n\r\n"),
    _opening("head without end", 431, *[b"X-Filler: " + b"x" * 4000 + b"\r\n"] * 100),
    _opening("one header line without end", 431, b"GET / HTTP/1.1\r\nX-Filler: ", *[b"x" * 4096] * 100),
    _opening("ten thousand headers", 431, b"GET / HTTP/1.1\r\n", b"a:b\r\n" * 10_000, b"\r\n"),
    _opening("pipelined requests", 1002, request() + request()),
    _opening("request with a body", 1002, request(b"Content-Length: 5") + b"hello"),
    _opening("data after a refused request", 404, request(line=b"GET /no HTTP/1.1") + frame(BINARY, b"x" * 5000)),
    _opening("connect and hang up", None, leave=Exit.HANG_UP),
    _opening("connect and reset", None, leave=Exit.RESET),
    _opening("hang up inside the request", None, request()[:60], leave=Exit.HANG_UP),
    _opening("reset inside the request", None, request()[:60], leave=Exit.RESET),
    _opening("request and hang up", None, request(), leave=Exit.HANG_UP),
    _opening("request and reset", None, request(), leave=Exit.RESET),
)

_BAD_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)

FRAMES = (
    Case("ping after close", (close(1000) + frame(PING, b"still there?"),), 1000),
    Case("message after close", (close(1000), frame(BINARY, b"\xff")), 1000),
    Case("close after close", (close(1000) + close(1001),), 1000),
    Case("garbage after close", (close(4000, b"bye") + b"\xff" * 1000,), 4000),
    Case("close without code", (close(),), 1005),
    Case("oversize twice in one read", (_OVERSIZE + _OVERSIZE,), 1009),
    Case("oversize and ping", (_OVERSIZE + frame(PING),), 1009),
    Case("oversize to the last byte", (_OVERSIZE, *[b"x" * 65536] * 17), 1009),
    Case("oversize in fragments", (_FRAGMENT, frame(CONTINUATION, announce=MAX_MESSAGE - 1)), 1009),
    Case("announced 1 GiB", (frame(BINARY, b"x", announce=2**30),), 1009),
    Case("announced 2 to the 62", (frame(BINARY, b"x", announce=2**62),), 1009),
    Case("announced 2 to the 63", (frame(BINARY, b"x", announce=2**63),), 1002),
    Case("announced all ones", (frame(BINARY, b"x", announce=2**64 - 1),), 1002),
    Case("announced 1 GiB after a fragment", (_FRAGMENT + frame(CONTINUATION, announce=2**30),), 1009),
    Case("not masked", (frame(BINARY, b"\xc0", masked=False),), 1002),
    Case("not masked and empty", (frame(BINARY, masked=False),), 1002),
    Case("ping not masked", (frame(PING, masked=False),), 1002),
    Case("close not masked", (close(1000, masked=False),), 1002),
    *(Case(f"reserved bit {bit}", (frame(BINARY, b"\xc0", rsv=bit),), 1002) for bit in (1, 2, 4, 7)),
    *(Case(f"reserved bit {bit} in a ping", (frame(PING, rsv=bit),), 1002) for bit in (1, 2, 4)),
    *(Case(f"unknown opcode {code:X}", (frame(code, b"x"),), 1002) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    Case("text", (frame(TEXT, b"hello"),), 1003),
    Case("empty text", (frame(TEXT),), 1003),
    Case("text fragment", (frame(TEXT, b"hel", fin=False),), 1003),
    Case("text that is no UTF-8", (frame(TEXT, b"\xff"),), 1003),
    Case("continuation of nothing", (frame(CONTINUATION, b"x"),), 1002),
    Case("unfinished continuation of nothing", (frame(CONTINUATION, b"x", fin=False),), 1002),
    Case("new message inside a fragmented one", (_FRAGMENT + frame(BINARY, b"x"),), 1002),
    Case("text inside a fragmented message", (_FRAGMENT + frame(TEXT, b"x"),), 1002),
    Case("fragmented ping", (frame(PING, b"x", fin=False) + frame(CONTINUATION, b"x"),), 1002),
    Case("fragmented close", (frame(CLOSE, b"\x03\xe8", fin=False),), 1002),
    Case("ping of 126 bytes", (frame(PING, b"x" * 126),), 1002),
    Case("pong of 126 bytes", (frame(PONG, b"x" * 126),), 1002),
    Case("ping of 1 GiB", (frame(PING, announce=2**30),), 1002),
    Case("close of 126 bytes", (close(1000, b"x" * 124),), 1002),
    Case("length of 5 in two bytes", (frame(BINARY, b"hello", width=2),), 1002),
    Case("length of 5 in eight bytes", (frame(BINARY, b"hello", width=8),), 1002),
    Case("length of 65535 in eight bytes", (frame(BINARY, b"x" * 65535, width=8),), 1002),
    Case("close payload of one byte", (frame(CLOSE, b"\x03"),), 1002),
    *(Case(f"close code {code}", (close(code),), 1002) for code in _BAD_CODES),
    Case("bad UTF-8 in a close reason", (close(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80"),), 1007),
    Case("cut-off UTF-8 in a close reason", (close(1000, b"\xe2\x82"),), 1007),
    Case("empty continuations without end", (_FRAGMENT, *[_EMPTY * 1000] * 100), 1009),
    Case("empty message in empty fragments", (frame(BINARY, fin=False), *[_EMPTY * 500] * 9), 1009),
    Case("1 MB in fragments of one byte", (_FRAGMENT, *[frame(CONTINUATION, b"x", fin=False) * 10_000] * 105), 1009),
    Case("envelope of garbage", (frame(BINARY, b"\xc1"),), 1007),
    Case("envelope cut off", (frame(BINARY, b"\x94\x04"),), 1007),
    Case("envelope nested a thousand deep", (frame(BINARY, b"\x91" * 1000 + b"\x01"),), 1007),
    Case("array of four billion", (frame(BINARY, b"\xdd\xff\xff\xff\xff"),), 1007),
    Case("garbage", (bytes(range(255, 0, -1)) * 20,), 1002),
    Case("hang up inside a frame", (frame(BINARY, b"x" * 100)[:50],), None, Exit.HANG_UP),
    Case("reset inside a frame", (frame(BINARY, b"x" * 100)[:50],), None, Exit.RESET),
    Case("hang up inside a header", (frame(BINARY, b"x" * 100)[:3],), None, Exit.HANG_UP),
    Case("reset inside a fragmented message", (_FRAGMENT,), None, Exit.RESET),
    Case("reset after close", (close(1000),), None, Exit.RESET),
    Case("reset after oversize", (_OVERSIZE,), None, Exit.RESET),
    Case("reset after a thousand pings", (frame(PING, b"x" * 125) * 1000,), None, Exit.RESET),
)


def _drip(data: bytes, pause_s: float) -> tuple[bytes | float, ...]:
    return tuple(part for i in range(len(data)) for part in (data[i : i + 1], pause_s))


def _each(times: int, data: bytes, pause_s: float) -> tuple[bytes | float, ...]:
    return (data, pause_s) * times


SILENCES = (
    _opening("silence instead of a request", None),
    _opening("half a request", None, request()[:60]),
    _opening("request without its last byte", None, request()[:-1]),
    _opening("request in a drip", None, *_drip(request(), 0.5)),
    Case("header of two bytes", (frame(BINARY, b"x" * 100)[:2],), 1008),
    Case("half a frame", (frame(BINARY, b"x" * 100)[:50],), 1008),
    Case("half a frame after whole ones", (frame(BINARY) * 3 + frame(BINARY, b"x" * 100)[:50],), 1008),
    Case("half a ping", (frame(PING, b"x" * 100)[:50],), 1008),
    Case("fragmented message without end", (_FRAGMENT,), 1008),
    Case("fragmented message without end, pinging on", (_FRAGMENT, *_each(50, frame(PING), 3.0)), 1008),
    Case("frame in a drip", _drip(frame(BINARY, b"x" * 200), 2.0), 1008),
    Case("fragments in a drip", (_FRAGMENT, *_each(100, frame(CONTINUATION, b"x", fin=False), 2.0)), 1008),
    Case("half a fragment in a drip", (_FRAGMENT, *_drip(frame(CONTINUATION, b"x" * 200), 2.0)), 1008),
)
