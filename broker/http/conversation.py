"""One HTTP/1.1 connection: request after request, each bounded in size and time (RFC 9112)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

import h11
import trio

from fanwire.transport import buffer_little, unacknowledged

from ..network.handshake import (
    MAX_HEAD,
    Refused,
    fields_of,
    has_bare_lines,
    headers_of,
    parse_head,
    read_head,
    skip_empty_lines,
    split_target,
)
from ..network.origin_check import cors, preflight, what_to_list
from .answers import Answer, HttpError, Reply, Stream
from .caller import Caller
from .endpoints import Endpoint, find, methods_at
from .locality import on_this_machine
from .request import Request
from .request_id import HEADER, request_id
from .who import Who

if TYPE_CHECKING:
    from ..limits.addresses import Address
    from ..network.peer import Peer
    from ..sessions.hub import Hub

# One read of a body.
_READ = 64 * 1024

# Parts that a body may come in if its sender says no length: taking one out costs 10 µs, however short it is.
MAX_CHUNKS = 4096

# What a client may send while it is sent a stream, for later.
_MAX_AHEAD = MAX_HEAD

_BYTES = "application/octet-stream"
_ALWAYS = ((b"Cache-Control", b"no-store"), (b"X-Content-Type-Options", b"nosniff"))


class Conversation:
    """One client's requests, one after the other."""

    def __init__(
        self,
        hub: Hub,
        stream: trio.abc.Stream,
        received: bytes,
        address: Address | None,
        endpoints: tuple[Endpoint, ...],
        peer: Peer,
        *,
        full: bool,
        admin: bool,
        on_hand_over: Callable[[Conversation], None],
    ) -> None:
        """``full``: the broker has no room for more clients; status is told all the same, and nothing else.

        ``admin``: it came to the operators' own port. ``on_hand_over``: a session that is attached to it counts in its
        place from now on.
        """
        self._on_hand_over = on_hand_over
        self._hub = hub
        self.stream = stream
        self._received = bytearray(received)
        self._endpoints = endpoints
        self._full = full
        self._idle: trio.CancelScope | None = None
        self._head_only = False
        self._cors: dict[str, str] = {}
        self._bare_lines = False
        self.draining = trio.Event()
        self.caller = Caller(hub, peer, address, local=on_this_machine(stream, peer, hub.config), admin=admin)

    async def run(self) -> None:
        """Serve until either side has had enough. Raises what a stream raises that breaks."""
        while await self._wait_for_more():
            if not await self._serve_one():
                await self._linger()
                return
            await trio.lowlevel.checkpoint()  # who sends many at once does not keep others from their turn

    def drain(self) -> None:
        """End as soon as nothing is under way."""
        self.draining.set()
        if self._idle is not None:
            self._idle.cancel()

    # --------------------------------------------------------------- reading

    async def _serve_one(self) -> bool:
        """One request; whether there may be another."""
        exchange = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._head_only = self._bare_lines = False
        self._cors = {}
        self.caller.request_id = None
        try:
            reply = await self._replied(exchange)
        except HttpError as error:
            self._hub.repeats.refused(self.caller, error.code)
            reply = error.answer()
        except Refused as refusal:
            code = "too_large" if refusal.status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE else "malformed"
            self._hub.repeats.refused(self.caller, code)
            reply = HttpError(code, refusal.message, status=refusal.status).closing().answer()
        except trio.TooSlowError:
            reply = _too_late(exchange).answer()
        self.caller.settle()
        return reply is not None and await self._send(exchange, reply)

    async def _wait_for_more(self) -> bool:
        """Whether another request begins in time."""
        skip_empty_lines(self._received)
        if self._received:
            return True
        if self.draining.is_set():
            return False
        with trio.move_on_after(self._hub.config.http_idle_timeout_s) as self._idle:
            while not self._received and (data := await self.stream.receive_some(_READ)):
                self._received += data
                skip_empty_lines(self._received)
        self._idle = None
        return bool(self._received)

    async def _replied(self, exchange: h11.Connection) -> Reply | None:
        """What a request is answered with; None: it was broken off.

        Raises:
            HttpError, Refused: This says with what else.
            trio.TooSlowError: It did not come in, or was not answered, in time.
        """
        config = self._hub.config
        with trio.fail_after(config.handshake_timeout_s):
            end = await read_head(self.stream, self._received)
        if end is None:
            return None
        head = bytes(self._received[:end])
        del self._received[:end]
        self.caller.count(end)
        self._bare_lines = has_bare_lines(head)
        with trio.fail_after(config.http_request_timeout_s):
            return await self._answered(exchange, parse_head(head, exchange))

    async def _answered(self, exchange: h11.Connection, parsed: h11.Request) -> Reply:
        headers = headers_of(parsed)
        self.caller.request_id = request_id(headers.get(HEADER.lower()))
        self._head_only = parsed.method == b"HEAD"
        self._cors = cors(headers.get("origin"), self._hub.config.allowed_origins)
        _check_framing(parsed, headers, bare_lines=self._bare_lines)
        if not ("content-length" in headers or "transfer-encoding" in headers):
            exchange.next_event()  # the request ends with its head
        path, query = split_target(parsed, headers)
        fields, method = fields_of(query), parsed.method.decode("ascii")
        if method == "OPTIONS" and "access-control-request-method" in headers:
            return self._preflight(path, headers)
        if method == "OPTIONS" and path == self._hub.config.path:
            return Answer(HTTPStatus.NO_CONTENT, b"", headers={"Allow": "GET, OPTIONS"})
        endpoint, found = find(self._endpoints, method, path)
        self._check_room(endpoint)
        self.caller.identify(endpoint.who, headers, tuple(value for name, value in fields if name == "token"))
        body = await self._read_body(exchange, headers)  # also if something is wrong: the connection goes on then
        values = endpoint.read_query(fields)
        request = Request(endpoint, self.caller, found, values, headers, body, self._endpoints)
        _check_media(request)
        try:
            return await endpoint.handle(self._hub, request)
        except (HttpError, trio.TooSlowError):
            raise
        except Exception:
            event = "defect: a request could not be handled"
            self._hub.repeats.say(self.caller, "error", event, endpoint.path, path=endpoint.path, exc_info=True)
            raise HttpError("internal", "a defect of the broker; its log has the rest").closing() from None

    def _preflight(self, path: str, headers: dict[str, str]) -> Answer:
        """What a browser asks before it lets a page of another site send a request. No token comes with it."""
        methods = methods_at(self._endpoints, path)
        if "Access-Control-Allow-Origin" not in self._cors:
            raise HttpError("forbidden", what_to_list(headers.get("origin")))
        return Answer(HTTPStatus.NO_CONTENT, b"", headers=preflight(methods))

    def _check_room(self, endpoint: Endpoint) -> None:
        if self._full and endpoint.who is Who.PERMITTED:
            text = "the broker has as many connections as it may have"
            raise HttpError("too_many", text, status=HTTPStatus.SERVICE_UNAVAILABLE).closing()

    async def _read_body(self, exchange: h11.Connection, headers: dict[str, str]) -> bytes:
        limit = self._hub.config.max_body_bytes
        length = headers.get("content-length", "0")
        if len(length) > 18 or int(length) > limit:
            raise _too_large(limit)
        body, chunks = bytearray(), 0
        while exchange.their_state is h11.SEND_BODY:
            event = await self._next_of_body(exchange)
            if isinstance(event, h11.Data):
                body += event.data
                chunks += event.chunk_start
            if len(body) > limit:
                raise _too_large(limit)
            if chunks > MAX_CHUNKS:
                raise HttpError("too_large", f"the body comes in more than {MAX_CHUNKS} chunks").closing()
        self._received += exchange.trailing_data[0]
        self.caller.count(-len(exchange.trailing_data[0]))
        return bytes(body)

    async def _next_of_body(self, exchange: h11.Connection) -> object:
        try:
            event = exchange.next_event()
            if event is not h11.NEED_DATA:
                return event
            if exchange.they_are_waiting_for_100_continue and not self._received:
                go_on = exchange.send(h11.InformationalResponse(status_code=100, headers=[]))
                await self.stream.send_all(go_on or b"")
            if not self._received:
                self._received += await self.stream.receive_some(_READ)
            data = bytes(self._received)
            self._received.clear()
            self.caller.count(len(data))
            exchange.receive_data(data)  # an empty one is its end: the next event is an error then
        except h11.RemoteProtocolError as error:
            error.__traceback__ = None  # see `parse_head`
            raise HttpError("malformed", f"the body is not what the head says: {error}").closing() from None
        return event

    # --------------------------------------------------------------- writing

    async def _send(self, exchange: h11.Connection, reply: Reply) -> bool:
        """Send it; whether there may be another request."""
        if isinstance(reply, Stream):
            return await self._send_stream(exchange, reply)
        last = reply.close or self._full or self.draining.is_set() or exchange.their_state is not h11.DONE
        last = last or self._bare_lines
        length = None if reply.status == HTTPStatus.NO_CONTENT else len(reply.body)
        data = exchange.send(_head_of(reply.status, reply.media_type, self._named(reply), last, length)) or b""
        if not self._head_only:
            data += exchange.send(h11.Data(data=reply.body)) or b""
        data += exchange.send(h11.EndOfMessage()) or b""
        self._hub.counters.count_answer(reply.status)
        with trio.move_on_after(self._hub.config.http_request_timeout_s) as deadline:
            await self.stream.send_all(data)
        return not deadline.cancelled_caught and exchange.our_state is h11.DONE

    async def _send_stream(self, exchange: h11.Connection, reply: Stream) -> bool:
        """Send it to its end, or until the client hangs up; who wants the head alone gets that."""
        refusal: Reply | None = None
        broken = False
        if self._head_only:
            await self.send_stream_head(exchange, reply)
            return False
        async with trio.open_nursery() as nursery:
            outlet = _Outlet(self, exchange, reply, nursery.cancel_scope)
            nursery.start_soon(self._watch_for_the_end, nursery.cancel_scope)
            try:
                await reply.body(outlet)
            except HttpError as error:
                refusal = error.closing().answer()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                broken = True  # told below: see `_Flow.run`
            nursery.cancel_scope.cancel()
        if refusal is not None:
            return await self._send(exchange, refusal)
        if broken:
            raise trio.BrokenResourceError("the client takes nothing any more")
        with trio.move_on_after(self._hub.config.linger_s):
            await self.stream.send_all(exchange.send(h11.EndOfMessage()) or b"")
        return False

    async def send_stream_head(self, exchange: h11.Connection, reply: Stream) -> bool:
        """Whether the client took it in time."""
        self._hub.counters.count_answer(HTTPStatus.OK)
        head = exchange.send(_head_of(HTTPStatus.OK, reply.media_type, self._named(reply), True, None)) or b""
        with trio.move_on_after(self._hub.config.http_request_timeout_s) as deadline:
            await self.stream.send_all(head)
        return not deadline.cancelled_caught

    def hand_over(self) -> None:
        """See `Outlet`."""
        self._on_hand_over(self)

    def _named(self, reply: Reply) -> dict[str, str]:
        """Its headers, and the request's name, so that it can be found in the log."""
        name = self.caller.request_id
        return {**self._cors, **reply.headers, **({} if name is None else {HEADER: name})}

    async def _watch_for_the_end(self, scope: trio.CancelScope) -> None:
        """The client hangs up. What it sends meanwhile is passed over, up to a bound: there is no answer to it."""
        passed_over = 0
        while passed_over <= _MAX_AHEAD:
            try:
                data = await self.stream.receive_some(_READ)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                break
            passed_over += len(data)
        scope.cancel()

    async def _linger(self) -> None:
        """Let the client read to the end: closing with input unread would reset the answer away."""
        with trio.move_on_after(self._hub.config.linger_s):
            if isinstance(self.stream, trio.abc.HalfCloseableStream):
                await self.stream.send_eof()
            while await self.stream.receive_some(_READ):
                pass


class _Outlet:
    """See `answers.Outlet`."""

    def __init__(
        self, conversation: Conversation, exchange: h11.Connection, reply: Stream, scope: trio.CancelScope
    ) -> None:
        """``scope``: what to cancel if the body is of no use."""
        self._conversation = conversation
        self._stream = conversation.stream
        self._exchange = exchange
        self._reply = reply
        self._scope = scope
        self._begun = False
        self._sent = 0
        self.draining = conversation.draining
        self.hand_over = conversation.hand_over

    async def send(self, data: bytes) -> None:
        if not self._begun:
            await self._begin()
        framed = self._exchange.send(h11.Data(data=data)) or b""
        self._sent += len(framed)
        await self._stream.send_all(framed)

    async def _begin(self) -> None:
        self._begun = True
        if not await self._conversation.send_stream_head(self._exchange, self._reply):
            self._scope.cancel()
            await trio.lowlevel.checkpoint()

    def acknowledged(self) -> tuple[int, int]:
        waiting = unacknowledged(self._stream)
        return self._sent - waiting, waiting

    def buffer_little(self, size: int) -> None:
        buffer_little(self._stream, size)


def _check_framing(parsed: h11.Request, headers: dict[str, str], *, bare_lines: bool) -> None:
    """No request may end elsewhere for us than for whoever passed it on (RFC 9112 section 6.1)."""
    if parsed.http_version not in (b"1.0", b"1.1"):
        status = HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
        raise HttpError("malformed", "only HTTP/1.0 and 1.1 are spoken here", status=status).closing()
    if bare_lines and not headers.keys().isdisjoint(("content-length", "transfer-encoding")):
        raise HttpError("malformed", "lines of a request with a body end with CR LF").closing()
    if "transfer-encoding" in headers and ("content-length" in headers or parsed.http_version == b"1.0"):
        text = "Transfer-Encoding goes neither with Content-Length nor with HTTP/1.0"
        raise HttpError("malformed", text).closing()


def _check_media(request: Request) -> None:
    takes = request.endpoint.consumes
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpError("bad_media_type", "a body is taken as it is, without Content-Encoding")
    if takes and request.media_type not in takes and (request.media_type or _BYTES not in takes):
        given = f"is {request.media_type[:64]!r}" if request.media_type else "is missing"
        raise HttpError("bad_media_type", f"Content-Type {given}; it must be one of {', '.join(takes)}")


def _too_large(limit: int) -> HttpError:
    return HttpError("too_large", f"the body is longer than {limit} bytes").closing()


def _too_late(exchange: h11.Connection) -> HttpError:
    if exchange.their_state in (h11.IDLE, h11.SEND_BODY):
        return HttpError("timeout", "the request did not come in within its time").closing()
    return HttpError("unavailable", "there was no answer in time").closing()


def _head_of(status: int, media_type: str, more: Mapping[str, str], last: bool, length: int | None) -> h11.Response:
    headers = [
        (b"Date", formatdate(usegmt=True).encode("ascii")),
        (b"Content-Type", media_type.encode("ascii")),
        *_ALWAYS,
        *((name.encode("ascii"), value.encode("ascii")) for name, value in more.items()),
    ]
    if length is not None:
        headers.append((b"Content-Length", b"%d" % length))
    if last:
        headers.append((b"Connection", b"close"))
    return h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode("ascii"))
