"""From an accepted socket to a stream on which HTTP is spoken, and to who is at its other end.

In the order of the bytes: the PROXY header, TLS, and then, with the request, X-Forwarded-For and Origin.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

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
    from ..requests.asker import Asker
    from ..sessions.session import Session
    from ..settings.config import Config
    from ..settings.tls import LoadedTls


async def arrive(session: Session, raw: trio.abc.Stream, due: float) -> trio.abc.Stream | None:
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
            if session.hub.tls is not None and raw.socket.family != AF_UNIX:
                return await _secure(session, raw, session.hub.tls)
    except trio.TooSlowError:
        _turn_away(session, step, "not done in time")
    except (BadProxyHeader, trio.BrokenResourceError) as error:
        _turn_away(session, step, str(error.__cause__ or error))
    except TurnedAway:
        pass  # `Door` has counted and logged it
    else:
        return raw
    return None


def _move(session: Session, peer: Peer) -> None:
    """A trusted proxy has said for whom it speaks: limits on addresses hold for that one. Raises `TurnedAway`."""
    if peer is not session.peer:
        session.peer = peer
        session.hub.door.move(session, peer.numeric)


async def _secure(session: Session, raw: trio.SocketStream, tls: LoadedTls) -> trio.abc.Stream:
    # As browsers do: the end of the stream will do, without TLS's own good-bye.
    stream = trio.SSLStream(raw, tls.context, server_side=True, https_compatible=True)
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        if getattr(error.__cause__, "reason", "") != "HTTP_REQUEST":
            raise
        _turn_away(session, "tls", "plain HTTP")
        raise Refused(HTTPStatus.BAD_REQUEST, "TLS is spoken here: connect with wss:// (or https://)") from None
    session.peer = attrs.evolve(session.peer, secure=True, certificate=certificate_of(stream))
    return stream


def look_over(session: Session, opening: Opening) -> None:
    """Note for whom a trusted proxy speaks, and see from where the page comes.

    Raises:
        Refused: From nowhere that may.
    """
    try:
        _move(session, speaking_for(session.peer, opening.forwarded_for, session.config))
    except TurnedAway:
        raise Refused(HTTPStatus.TOO_MANY_REQUESTS, "too many connections from there", ("Retry-After", "1")) from None
    if not may_page(session, opening.origin, opening.host, ambient=_is_ambient(session, opening)):
        raise Refused(HTTPStatus.FORBIDDEN, what_to_list(opening.origin))


def speaking_for(peer: Peer, forwarded: str | None, config: Config) -> Peer:
    """For whom a request is, if it comes from a trusted proxy with this X-Forwarded-For; else who it comes from."""
    if forwarded is None or not peer.trusted:
        return peer
    proxies = proxies_of(config.trusted_proxies)
    address = proxies.client_behind(peer.address, forwarded)
    return peer if address == peer.address else peer.behind(address, proxies)


def may_page(asker: Asker, origin: str | None, host: str | None, *, ambient: bool) -> bool:
    """Whether a request may be heard, by where its page comes from (see `why_refused`). If not, that is counted and
    logged, and the caller says so."""
    reason = why_refused(origin, host, asker.config, asker.peer, ambient=ambient)
    if reason is not None:
        _turn_away(asker, "origin", reason, origin=shown(origin or ""), host=shown(host or ""))
    return reason is None


def _is_ambient(session: Session, opening: Opening) -> bool:
    authenticator = session.hub.authenticator
    if authenticator is None:
        return True
    if opening.authorization is not None or opening.tokens:
        return False
    return authenticator.anonymous is not None or authenticator.knows(session.peer.certificate)


def _turn_away(asker: Asker, where: str, reason: str, **facts: str) -> None:
    counted = asker.hub.counters.turned_away
    counted[where] = counted.get(where, 0) + 1
    asker.hub.repeats.say(asker, "info", "turned away", where, where=where, reason=reason, **facts)
