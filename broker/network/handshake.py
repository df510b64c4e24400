"""The HTTP request that opens a connection (RFC 6455 section 4.2.1), checked before trio-websocket sees any of it.

trio-websocket falls over header bytes that are not ASCII, and loses what came in the same packet. So the request is
read and judged here, with h11, and what goes on to trio-websocket is a request written afresh from what was found good.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import parse_qsl

import attrs
import h11
import trio

from fanwire.protocol import SUBPROTOCOL
from fanwire.protocol.codes import REFUSAL_HEADER

# A request head over this is refused with 431. Browsers' are under 2 KiB without cookies; nginx allows 8 KiB a line.
MAX_HEAD = 16 * 1024

# Fields of the query that are looked through for a token: one is needed.
MAX_FIELDS = 100

_LINE_END = b"\r\n"
_END = 2 * _LINE_END
_BARE_END = b"\n\n"

# The first byte of a ClientHello (RFC 8446 section 5.1): waiting for the end of a line would be in vain.
_TLS_HANDSHAKE = 0x16


class Refused(Exception):
    """The request cannot become a connection; `response` is what the client is told."""

    def __init__(self, status: HTTPStatus, message: str, *headers: tuple[str, str]) -> None:
        super().__init__(f"{status.value} {status.phrase}: {message}")
        self.status = status
        self.message = message
        self.headers = headers
        self.origin: str | None = None
        """The header `Origin` of the request, as far as there was one to be read."""

    def response(self, more: Mapping[str, str]) -> bytes:
        """A whole HTTP/1.1 response, with ``more`` headers; the connection ends with it."""
        body = f"{self.message}\n".encode()
        head = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
            f"{REFUSAL_HEADER}: {SUBPROTOCOL}",
            *(f"{name}: {value}" for name, value in (*self.headers, *more.items())),
        ]
        return "\r\n".join(head).encode() + _END + body


@attrs.frozen
class Opening:
    """A good request."""

    head: bytes
    """For trio-websocket: the request line and the headers that matter, nothing else."""
    rest: bytes
    """What came after the head: frames already."""
    subprotocol: str | None
    """What to answer in Sec-WebSocket-Protocol; None: the client offered nothing."""
    agent: str
    """The User-Agent, for logs."""
    authorization: str | None = attrs.field(default=None, repr=False)
    """The header of that name."""
    tokens: tuple[str, ...] = attrs.field(default=(), repr=False)
    """What the query calls ``token``."""
    host: str | None = None
    """The header of that name, as those below."""
    origin: str | None = None
    forwarded_for: str | None = None


@attrs.frozen
class PlainRequest:
    """The beginning of a request that wants no WebSocket: for `http`."""

    received: bytes
    """All that has come: the head, and what came with it."""


async def read_opening(stream: trio.abc.ReceiveStream, path: str) -> Opening | PlainRequest | None:
    """Read and check one request.

    Args:
        stream: Where it comes from. The caller sets the deadline.
        path: The one request path that is served.

    Returns:
        The opening; None if the client hung up before it had said it all.

    Raises:
        Refused: It is no HTTP request, or wants a WebSocket and none of ours.
    """
    received = bytearray()
    if (end := await read_head(stream, received)) is None:
        return None
    return check_opening(bytes(received[:end]), bytes(received[end:]), path)


async def read_head(stream: trio.abc.ReceiveStream, received: bytearray) -> int | None:
    """Read until ``received`` has a whole request head at its beginning.

    Returns:
        How long that is; None if the client hung up before it had said it all.

    Raises:
        Refused: It is too long.
    """
    skip_empty_lines(received)
    while not (end := _end_of_head(received)) and len(received) <= MAX_HEAD:
        data = await stream.receive_some(4096)
        if not data:
            return None
        received += data
        skip_empty_lines(received)
        if received and received[0] == _TLS_HANDSHAKE:
            raise Refused(HTTPStatus.BAD_REQUEST, "no TLS is spoken here: connect with ws://")
    if not 0 < end <= MAX_HEAD:
        raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the request head is longer than {MAX_HEAD} bytes")
    return end


def skip_empty_lines(received: bytearray) -> None:
    """Take away empty lines in front of a request line, which some clients send (RFC 9112 section 2.2)."""
    empty = 0
    while received.startswith(_LINE_END, empty):
        empty += len(_LINE_END)
    del received[:empty]


def _end_of_head(received: bytearray) -> int:
    """How long the head is that has come; 0: it is not whole yet."""
    end = received.find(_END)
    bare = received.find(_BARE_END)
    if bare >= 0 and received.find(b"\r", 0, bare) < 0:
        return bare + len(_BARE_END)
    return end + len(_END) if end >= 0 else 0


def has_bare_lines(head: bytes) -> bool:
    """Whether all lines of a head end with LF alone, as some health checks send them: see `parse_head`."""
    return b"\r" not in head


def check_opening(head: bytes, rest: bytes, path: str) -> Opening | PlainRequest:
    """Judge a complete request head. Raises `Refused`."""
    request = parse_head(head)
    headers = headers_of(request)
    try:
        return _judged(request, headers, head, rest, path)
    except Refused as refusal:
        refusal.origin = headers.get("origin")
        raise


def _judged(
    request: h11.Request, headers: dict[str, str], head: bytes, rest: bytes, path: str
) -> Opening | PlainRequest:
    target, query = split_target(request, headers)
    plain = "websocket" not in _tokens(headers.get("upgrade", "").lower())
    if plain and (target != path or request.method == b"OPTIONS"):  # a check of load balancers
        return PlainRequest(head + rest)
    if has_bare_lines(head):
        raise Refused(HTTPStatus.BAD_REQUEST, "lines of a WebSocket handshake end with CR LF")
    if request.http_version != b"1.1":
        raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "WebSocket needs HTTP/1.1")
    if request.method != b"GET":
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "a WebSocket begins with GET", ("Allow", "GET"))
    if target != path:  # the query may hold a token, and is told to nobody
        raise Refused(HTTPStatus.NOT_FOUND, f"nothing is served at {target}; the broker is at {path}")
    _check_upgrade(headers)
    key = _key(headers)
    offered = _tokens(headers.get("sec-websocket-protocol", ""))
    if offered and SUBPROTOCOL not in offered:
        # What was offered is not repeated: browsers have no better place for a token, and this is logged.
        raise Refused(HTTPStatus.BAD_REQUEST, f"none of the offered subprotocols is spoken here, only {SUBPROTOCOL}")
    return Opening(
        _canonical(path, key),
        rest,
        SUBPROTOCOL if offered else None,
        headers.get("user-agent", ""),
        headers.get("authorization"),
        tuple(value for name, value in fields_of(query) if name == "token"),
        headers.get("host"),
        headers.get("origin"),
        headers.get("x-forwarded-for"),
    )


def split_target(request: h11.Request, headers: dict[str, str]) -> tuple[str, str]:
    """The path and the query that are asked for.

    In absolute form (``GET http://host/path``) the host of the target counts, whatever ``Host`` says (RFC 9112 section
    3.2.2): ``headers`` has it afterwards.

    Raises:
        Refused: The target is in absolute form, and names no host.
    """
    target = request.target.decode("latin-1")
    if (found := _absolute(target)) is not None:
        if not found[1] or "@" in found[1]:
            raise Refused(HTTPStatus.BAD_REQUEST, "the request's target names no host")
        headers["host"] = found[1]
        target = found[2] if found[2].startswith("/") else f"/{found[2]}"
    path, _, query = target.partition("?")
    return path, query


_absolute = re.compile(r"(?:https?|wss?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL).fullmatch


def fields_of(query: str) -> list[tuple[str, str]]:
    """The fields of a query, decoded. Raises `Refused` if there are too many."""
    try:
        return parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, f"the query has more than {MAX_FIELDS} fields") from None


def parse_head(head: bytes, connection: h11.Connection | None = None) -> h11.Request:
    """A complete request head; ``connection`` goes on from there. Raises `Refused`."""
    if has_bare_lines(head):
        # Nobody could have read these lines in another way; what follows them is not looked at (`Conversation`).
        head = head.replace(b"\n", _LINE_END)
    if head.count(b"\n") != head.count(_LINE_END) or b"\r\n " in head or b"\r\n\t" in head:
        # h11 would take these; others on the way may have seen other lines.
        raise Refused(HTTPStatus.BAD_REQUEST, "this is not an HTTP request: lines end with CR LF, and are not folded")
    if connection is None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        error.__traceback__ = None  # a frame of h11's holds the error: a circle that only the collector would free
        raise Refused(HTTPStatus.BAD_REQUEST, f"this is no HTTP request: {_kind(error)}") from None
    if not isinstance(event, h11.Request):
        raise Refused(HTTPStatus.BAD_REQUEST, "this is no HTTP request")
    return event


def _kind(error: h11.RemoteProtocolError) -> str:
    """Without what it quotes of the request: a token may stand there, and this is logged."""
    return str(error).partition(":")[0]


def headers_of(request: h11.Request) -> dict[str, str]:
    """Lower-case names; repeated headers are joined, as RFC 9110 section 5.3 has it."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _tokens(value: str) -> list[str]:
    return [token for part in value.split(",") if (token := part.strip())]


def _check_upgrade(headers: dict[str, str]) -> None:
    if "websocket" not in _tokens(headers.get("upgrade", "").lower()) or "upgrade" not in _tokens(
        headers.get("connection", "").lower()
    ):
        raise Refused(
            HTTPStatus.UPGRADE_REQUIRED,
            "this is a WebSocket endpoint: connect with a WebSocket client (ws://)",
            ("Upgrade", "websocket"),
        )
    if headers.get("sec-websocket-version") != "13":
        raise Refused(
            HTTPStatus.UPGRADE_REQUIRED, "WebSocket version 13 is spoken here", ("Sec-WebSocket-Version", "13")
        )


def _key(headers: dict[str, str]) -> str:
    key = headers.get("sec-websocket-key", "")
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise Refused(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64")
    return key


def _canonical(path: str, key: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: fanwire\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    ).encode("ascii")
