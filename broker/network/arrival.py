"""From an accepted socket to a stream on which HTTP is spoken, and to who is at its other end.

In the order of the bytes: the PROXY header, TLS, and then, with the request, X-Forwarded-For and Origin.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from ..auth.client_certificate import certificate_of
from ..settings.networks import proxies_of
from ..telemetry.text import shown
from .admission import TurnedAway
from .handshake import Opening, Refused
from .origin_check import what_to_list, why_refused
from .peer import Peer, peer_of
from .proxy_protocol import BadProxyHeader, read_proxy_header
from .unix_socket import AF_UNIX

if TYPE_CHECKING:
    from ..settings.config import Config
    from ..settings.tls import LoadedTls


class Judged(Protocol):
    """Whoever a web page may speak through."""

    peer: Peer

    @property
    def config(self) -> Config:
        """The settings that hold for it."""

    def turned_away(self, where: str, reason: str, **facts: str) -> None:
        """It may not come in: that is counted and logged."""


class Arriving(Judged, Protocol):
    """A connection of which nothing was read yet."""

    vouched: bool
    """Whether who it is was asked before it began."""

    @property
    def tls(self) -> LoadedTls | None:
        """What TLS is spoken with; None: it is not."""

    def move(self, host: str | None) -> None:
        """A trusted proxy has said where it really comes from. Raises `TurnedAway`: there are too many from there."""


async def arrive(session: Arriving, raw: trio.abc.Stream, due: float) -> trio.abc.Stream | None:
    """Do what comes before the request, and note in the session who it is.

    Args:
        session: Whose connection it is.
        raw: What was accepted, or made in memory: there nothing comes before the request.
        due: Until when, on trio's clock.

    Returns:
        What to speak HTTP on; None: nothing can be spoken with it, which was counted and logged.

    Raises:
        Refused: It speaks HTTP where TLS is spoken.
    """
    if session.vouched:
        return raw
    proxies = proxies_of(session.config.trusted_proxies)
    session.peer = peer_of(raw, proxies)
    if not isinstance(raw, trio.SocketStream):
        return raw
    step = "proxy"
    try:
        with trio.fail_at(due):
            if session.config.proxy_protocol and session.peer.trusted:
                address = await read_proxy_header(raw)
                if address is not None:
                    _move(session, session.peer.behind(address, proxies))
            step = "tls"
            if session.tls is not None and raw.socket.family != AF_UNIX:
                return await _secure(session, raw, session.tls)
    except trio.TooSlowError:
        session.turned_away(step, "not done in time")
    except (BadProxyHeader, trio.BrokenResourceError) as error:
        session.turned_away(step, str(error.__cause__ or error))
    except TurnedAway:
        pass  # `Door` has counted and logged it
    else:
        return raw
    return None


def _move(session: Arriving, peer: Peer) -> None:
    """A trusted proxy has said for whom it speaks: limits on addresses hold for that one. Raises `TurnedAway`."""
    if peer is not session.peer:
        session.peer = peer
        session.move(peer.numeric)


async def _secure(session: Arriving, raw: trio.SocketStream, tls: LoadedTls) -> trio.abc.Stream:
    # As browsers do: the end of the stream will do, without TLS's own good-bye.
    stream = trio.SSLStream(raw, tls.context, server_side=True, https_compatible=True)
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        if getattr(error.__cause__, "reason", "") != "HTTP_REQUEST":
            raise
        session.turned_away("tls", "plain HTTP")
        raise Refused(HTTPStatus.BAD_REQUEST, "TLS is spoken here: connect with wss:// (or https://)") from None
    session.peer = attrs.evolve(session.peer, secure=True, certificate=certificate_of(stream))
    return stream


def look_over(session: Arriving, opening: Opening, *, ambient: bool) -> None:
    """Note for whom a trusted proxy speaks, and see from where the page comes.

    Args:
        session: Whose request it is.
        opening: The request.
        ambient: See `why_refused`.

    Raises:
        Refused: From nowhere that may.
    """
    try:
        _move(session, speaking_for(session.peer, opening.forwarded_for, session.config))
    except TurnedAway:
        raise Refused(HTTPStatus.TOO_MANY_REQUESTS, "too many connections from there", ("Retry-After", "1")) from None
    if not may_page(session, opening.origin, opening.host, ambient=ambient):
        raise Refused(HTTPStatus.FORBIDDEN, what_to_list(opening.origin))


def speaking_for(peer: Peer, forwarded: str | None, config: Config) -> Peer:
    """For whom a request is, if it comes from a trusted proxy with this X-Forwarded-For; else who it comes from."""
    if forwarded is None or not peer.trusted:
        return peer
    proxies = proxies_of(config.trusted_proxies)
    address = proxies.client_behind(peer.address, forwarded)
    return peer if address == peer.address else peer.behind(address, proxies)


def may_page(asker: Judged, origin: str | None, host: str | None, *, ambient: bool) -> bool:
    """Whether a request may be heard, by where its page comes from (see `why_refused`). If not, that is counted and
    logged, and the caller says so."""
    reason = why_refused(origin, host, asker.config, asker.peer, ambient=ambient)
    if reason is not None:
        asker.turned_away("origin", reason, origin=shown(origin or ""), host=shown(host or ""))
    return reason is None
