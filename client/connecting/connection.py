"""One WebSocket life: opened, used until something ends it, closed.

trio-websocket does the protocol, `FrameStream` under it takes whole data frames out (docs/architecture.md). A
`Connection` never reconnects and knows no subscriptions; it says how it ended.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, cast

import trio
from attrs import frozen
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from fanwire.protocol import SUBPROTOCOL
from fanwire.protocol.frames import Fault
from fanwire.protocol.masking import fastest_mask
from fanwire.transport import FrameStream

from ..config import Options
from ..errors import ConnectionFailed, ConnectionLost, FanwireError, Refused
from ..subscribing.slowness import for_slowness
from ..url import Address
from .receiver import Receiver
from .refusal import MOST_HINT_S, parse_refusal
from .unreachable import no_stream, no_tls


@frozen
class Ending:
    """How a connection ended."""

    error: FanwireError
    again: bool
    """Whether another attempt makes sense."""
    hint_s: float | None = None
    """How long the broker asked us to stay away, in seconds."""
    too_slow: bool = False
    """Whether the broker ended it because we did not take our messages quickly enough."""


class _Watched:
    """Stands in for the nursery in which trio-websocket starts its reader, to learn of its end, however it ends."""

    def __init__(self, nursery: trio.Nursery, on_end: Callable[[], None]) -> None:
        self._nursery = nursery
        self._on_end = on_end
        self.error: Exception | None = None

    def start_soon(self, task: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self._nursery.start_soon(self._run, task, *args)

    @trio.lowlevel.enable_ki_protection
    async def _run(self, task: Callable[..., Awaitable[Any]], *args: Any) -> None:
        try:
            await task(*args)
        except Exception as error:  # whatever a strange peer makes trio-websocket raise ends this connection alone
            self.error = error
        finally:
            self._on_end()


async def open_stream(address: Address, options: Options) -> trio.abc.Stream:
    """The byte stream to the broker: TCP, TLS, or what the options say.

    Raises:
        ConnectionFailed: It could not be opened.
    """
    try:
        if options.open_stream:
            return await options.open_stream()
        if address.unix is not None:
            return await trio.open_unix_socket(address.unix)
        tcp = await trio.open_tcp_stream(address.host, address.port)
    except Exception as error:  # OSError mostly, but a name can be odd, and options.open_stream is not ours
        raise no_stream(address, error) from None  # it is in `cause`, and a screenful of tracebacks
    return await _secure(tcp, address, options) if address.tls else tcp


async def _secure(tcp: trio.abc.Stream, address: Address, options: Options) -> trio.abc.Stream:
    context = options.ssl_context or ssl.create_default_context()
    stream = trio.SSLStream(tcp, context, server_hostname=address.host, https_compatible=True)
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise no_tls(address, error) from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


class Connection:
    """A WebSocket to a broker. Open it in a nursery that you cancel when `ended` is set, after `close`."""

    def __init__(self, address: Address, options: Options, *, first: bool) -> None:
        """``first``: there was no connection before. Then a refusal is final, whoever may have spoken it."""
        self._first = first
        self.retry_after_s: float | None = None
        """How long the refusal of the handshake asks us to stay away, in seconds."""
        self._address = address
        self._options = options
        self.ended = trio.Event()
        self.mask = fastest_mask()
        self._receiver: Receiver | None = None
        self._websocket: WebSocketConnection | None = None
        self._watched: _Watched | None = None
        self._silent = False
        self._opened = False

    async def open(self, nursery: trio.Nursery, receiver: Receiver, token: str | None) -> None:
        """Open the byte stream, and do the opening handshake of RFC 6455 section 4.1, with a token if there is one.

        Raises:
            ConnectionFailed: There is no WebSocket at the other end.
            Refused: There is, but not for us.
        """
        self._receiver = receiver
        self.stream = FrameStream(
            await open_stream(self._address, self._options),
            client=True,
            max_message=self._options.most_taken,
            on_messages=receiver.on_messages,
            mask=self.mask,
            key=lambda: os.urandom(4),
            linger_s=self._options.close_timeout_s,
            on_too_large=receiver.on_too_large,
        )
        self._opened = True
        self.stream.why_closing = lambda: receiver.fault
        with trio.CancelScope() as opening:
            self._watched = _Watched(nursery, lambda: self._reader_ended(opening))
            self._websocket = await wrap_client_stream(
                cast(trio.Nursery, self._watched),
                cast(trio.SocketStream, self.stream),  # any stream will do
                self._address.host_header,
                self._address.path,
                subprotocols=[SUBPROTOCOL],
                extra_headers=[(b"Authorization", b"Bearer " + token.encode())] if token is not None else [],
                max_message_size=self._options.most_taken,
                receive_buffer_size=None,
            )
        if self._websocket is None or self.ended.is_set():
            raise self._why_not_open()
        nursery.start_soon(self._take_slow_road)

    def _reader_ended(self, opening: trio.CancelScope) -> None:
        opening.cancel()
        self.end()

    def end(self) -> None:
        """Let the owner know that this connection has to be closed."""
        self.ended.set()
        if self._receiver:
            self._receiver.welcomed.set()  # who waits for that waits in vain

    def _why_not_open(self) -> FanwireError:
        error = self._watched.error if self._watched else None
        refused = parse_refusal(self.stream.refused_head)
        if refused is None:
            return ConnectionFailed(
                f"{self._address} answered, but not as a WebSocket server does"
                f"{f' ({error})' if error else ''}; is that the broker's address?"
            )
        # Without ConnectionRejected the answer was longer than we read, or broke off: its beginning will do.
        body = (error.body or b"") if isinstance(error, ConnectionRejected) else self.stream.refused_body
        text = body[:200].decode(errors="replace").strip()
        message = f"{self._address} refused the handshake: HTTP {refused.status}{f', {text}' if text else ''}"
        self.retry_after_s = refused.retry_after_s
        if refused.status in (400, 401, 403) and (self._first or refused.by_broker):
            return Refused(message, code=refused.status)
        if refused.status == 429 or refused.status >= 500:
            message += "; that may pass: try again later"
        return ConnectionFailed(message)

    @trio.lowlevel.enable_ki_protection
    async def _take_slow_road(self) -> None:
        """What comes in fragments comes through trio-websocket."""
        assert self._websocket
        assert self._receiver
        try:
            while True:
                message = await self._websocket.get_message()
                hold = self._receiver.on_messages([message.encode() if isinstance(message, str) else message])
                if hold:
                    await hold()
        except ConnectionClosed:
            self.end()

    @trio.lowlevel.enable_ki_protection
    async def watch_for_silence(self) -> None:
        """Ping a silent broker; end the connection if that brings no sign of life."""
        while True:
            before = self.stream.bytes_received
            await trio.sleep(self._options.ping_interval_s)
            if self.stream.bytes_received != before:
                continue
            with trio.move_on_after(self._options.ping_timeout_s):
                await self._ping()
            if self.stream.bytes_received == before:
                self._silent = True
                self.end()
                return

    async def _ping(self) -> None:
        assert self._websocket
        try:
            await self._websocket.ping()
        except ConnectionClosed:
            pass

    async def close(self, grace_s: float) -> None:
        """Say goodbye if that is possible within ``grace_s`` seconds, then cut the connection."""
        if not self._opened:
            return
        with trio.CancelScope(shield=True):
            with trio.move_on_after(grace_s):
                if self._websocket and not self._silent and grace_s:
                    code, reason = (self._receiver and self._receiver.fault) or (1000, "")
                    await self.stream.send_close(Fault(code, reason))
                    await self._websocket.aclose()
            await trio.aclose_forcefully(self.stream)

    def ending(self) -> Ending:
        """How it ended. Only after `ended`."""
        receiver, closed = self._receiver, self._websocket and self._websocket.closed
        assert receiver
        hint_s = None if receiver.goodbye is None else min(receiver.goodbye.retry_after_ms / 1000, MOST_HINT_S)
        if receiver.fault or self.stream.refusal:
            fault = receiver.fault or self.stream.refusal
            assert fault
            return Ending(ConnectionLost(fault.reason, code=fault.code), again=True, hint_s=hint_s)
        if self._silent:
            return Ending(ConnectionLost("the broker shows no sign of life", code=4010), again=True, hint_s=hint_s)
        code = closed.code if closed else 1006
        message = self._message(code, closed.reason if closed else None)
        if self._is_final(code):
            return Ending(Refused(message, code=code if code >= 4000 else 4003), again=False)
        too_slow = code == 4008 or for_slowness(receiver.goodbye)
        return Ending(ConnectionLost(message, code=code), again=True, hint_s=hint_s, too_slow=too_slow)

    def _is_final(self, code: int) -> bool:
        """Whether the broker itself has refused us: its GOODBYE says so. A close code alone may be a proxy's, which
        was asked for no opinion on a client that the broker has welcomed."""
        assert self._receiver
        goodbye = self._receiver.goodbye
        if goodbye is None:
            return self._first and not self._receiver.welcome and code in (4001, 4003)
        if goodbye.code == "expired" and callable(self._options.token):
            return False  # the next connection has a new one
        return goodbye.code in ("unauthenticated", "expired", "forbidden")

    def _message(self, code: int, reason: str | None) -> str:
        goodbye = self._receiver and self._receiver.goodbye
        if goodbye:
            return f"the broker said goodbye: {goodbye.message} ({goodbye.code}, close code {code})"
        if code == 1006:
            return f"the connection to {self._address} broke off"
        return f"the broker closed the connection: {reason or 'no reason given'} (close code {code})"
