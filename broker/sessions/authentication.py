"""What a session may do: who it is, from the handshake or HELLO on, and what that allows.

Without `Config.auth` nobody asks: a session has neither identity nor permissions. One bad token is the end of a
connection, so each guess costs a connection.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import trio

from fanwire.protocol import Error, encode
from fanwire.protocol.reserved import is_inbox, tells_of_the_broker, watched, without_inbox

from ..auth.authenticator import Authenticator
from ..auth.failure import AuthenticationFailed
from ..auth.identity import Identity
from ..limits.users import budgets_of
from ..network.handshake import Opening, Refused
from ..telemetry.log import log_of
from ..timing.turn import Turn
from . import disconnects

if TYPE_CHECKING:
    from ..network.peer import Peer
    from ..requests.asker import Asker
    from ..settings.auth import Auth
    from .hub import Hub
    from .session import Session

# Seconds between two tokens that one connection brings by HELLO: verifying one takes up to 0.2 ms of everybody's time.
RENEWAL_INTERVAL_S = 1.0

GUESSED = "too many tokens from there were not accepted"

_bearer = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE).fullmatch


def authenticator_of(auth: Auth | None) -> Authenticator | None:
    """What judges tokens, if anything does. Raises ValueError, which says the file, if a key cannot be used."""
    return None if auth is None else Authenticator(auth)


# ---------------------------------------------------------------- who it is


def admit(session: Session, opening: Opening) -> None:
    """Look at what the handshake says of who comes.

    A token counts more than a client certificate, which comes by itself. A bad token in the query is the end of the
    session, told by GOODBYE: browsers show no HTTP status.

    Raises:
        Refused: A bad token in the header, or a certificate of nobody who is known.
    """
    authenticator = session.hub.authenticator
    if authenticator is None or session.vouched:
        return
    owed = guesses_owed_s(session) if opening.authorization is not None or opening.tokens else 0.0
    if owed and opening.authorization is not None:
        wait = ("Retry-After", str(math.ceil(owed)))
        raise Refused(HTTPStatus.TOO_MANY_REQUESTS, GUESSED, wait)
    if owed:
        session.end(disconnects.rate_limited(GUESSED, owed, "auth_failures"))
        return
    if opening.authorization is not None:
        try:
            _accept(session, authenticator.authenticate(token_of(opening.authorization)))
        except AuthenticationFailed as failure:
            note_unauthenticated(session, "header", failure)
            count_guess(session, failure)
            challenge = ("WWW-Authenticate", 'Bearer error="invalid_token"')
            raise Refused(HTTPStatus.UNAUTHORIZED, failure.message, challenge) from None
    elif opening.tokens:
        try:
            _accept(session, authenticator.authenticate(only_one(opening.tokens)))
        except AuthenticationFailed as failure:
            _end(session, "query", failure)
            count_guess(session, failure)
    elif authenticator.knows(session.peer.certificate):
        _admit_by_certificate(session, authenticator)
    elif authenticator.anonymous is not None:
        _accept(session, authenticator.anonymous)


def is_ambient(session: Session, opening: Opening) -> bool:
    """Whether a request would be heard without a token of its own: then a browser may have been talked into it."""
    authenticator = session.hub.authenticator
    if authenticator is None:
        return True
    if opening.authorization is not None or opening.tokens:
        return False
    return authenticator.anonymous is not None or authenticator.knows(session.peer.certificate)


def _admit_by_certificate(session: Session, authenticator: Authenticator) -> None:
    certificate = session.peer.certificate
    assert certificate is not None
    try:
        _accept(session, authenticator.by_certificate(certificate))
    except AuthenticationFailed as failure:
        note_unauthenticated(session, "certificate", failure)
        raise Refused(HTTPStatus.FORBIDDEN, "the client certificate is not accepted") from None


def vouch(session: Session, peer: Peer, identity: Identity | None, *, admin: bool = False) -> None:
    """Who a session is going to be was asked before it began. The settings may be others by now: `look_again`."""
    session.vouched, session.peer, session.admin = True, peer, admin
    if identity is not None:
        _accept(session, identity)
        session.accepted_by = None


def token_of(authorization: str) -> str:
    """The token of an Authorization header. Raises `AuthenticationFailed`."""
    found = _bearer(authorization)
    if found is None:
        raise AuthenticationFailed("the Authorization header is not 'Bearer' and one token")
    return found[1]


def only_one(tokens: tuple[str, ...]) -> str:
    """The token of a query that has no other. Raises `AuthenticationFailed`."""
    if len(tokens) > 1:
        raise AuthenticationFailed("the query has several tokens")
    return tokens[0]


def too_soon(session: Session) -> bool:
    """Whether the session has brought a token by HELLO a moment ago."""
    return session.hub.authenticator is not None and trio.current_time() < session.identified_at + RENEWAL_INTERVAL_S


def hello(session: Session, token: str | None) -> dict[str, Any]:
    """Look at what HELLO says of who this is. The session may have ended afterwards.

    Returns:
        For the answer.
    """
    authenticator = session.hub.authenticator
    if authenticator is None:
        return {}
    if token is not None:
        session.identified_at = trio.current_time()
        if (session.account is None) and (owed := guesses_owed_s(session)):
            session.end(disconnects.rate_limited(GUESSED, owed, "auth_failures"))
            return {}
        _identify(session, lambda: authenticator.authenticate(token))
    elif session.identity is None:
        _end(session, "hello", AuthenticationFailed("no token"), "a token is needed here")
    return {} if session.identity is None else session.identity.as_map()


def guesses_owed_s(session: Asker) -> float:
    """Seconds until a token from where the session comes from is looked at; then that refusal is counted. 0: now."""
    bucket = session.address.guesses if session.address is not None else None
    owed = 0.0 if bucket is None else bucket.owed_s(trio.current_time())
    if owed:
        session.hub.limits.refuse("auth_failures", address=session.address and session.address.key)
    return owed


def count_guess(session: Asker, failure: AuthenticationFailed) -> None:
    """A token that was once good is no guess."""
    if failure.code != "expired" and session.address is not None and session.address.guesses is not None:
        session.address.guesses.take(1, trio.current_time())


def _identify(session: Session, authenticate: Callable[[], Identity]) -> None:
    known = session.identity
    try:
        identity = authenticate()
    except AuthenticationFailed as failure:
        _end(session, "hello", failure)
        count_guess(session, failure)
        return
    if known is not None and known.user not in (None, identity.user):
        note_unauthenticated(session, "hello", AuthenticationFailed("another user's token"))
        session.end(disconnects.other_user())
        return
    _accept(session, identity)
    _revoke(session)


def _accept(session: Session, identity: Identity) -> None:
    left = identity.expires_in_s
    session.identity, session.permissions = identity, identity.permissions
    session.accepted_by = session.hub.authenticator
    session.expires = math.inf if left is None else trio.current_time() + left
    session.look_anew()
    _belong(session)
    log_of(session).debug("authenticated")


def _belong(session: Session) -> None:
    """It has said who it is; it is ended if that user has too many connections."""
    name, hub = session.account_name, session.hub
    if name is None or session.account is not None:
        return
    session.account = hub.users.enter(name)
    if session.account is None:
        session.end(disconnects.too_many_connections(hub.config.drain_spread_s, "this user has"))
        return
    equip(session)


def equip(session: Session) -> None:
    """Give a session the meter that it is to have by now: its own budgets, and its user's."""
    user = None if session.account is None else session.account.key
    session.meter = session.hub.users.meter(budgets_of(session.hub.config), user)
    if session.meter is not None and hasattr(session, "stream"):
        session.meter.bytes_charged = session.stream.bytes_received


async def change_auth(hub: Hub, auth: Auth) -> None:
    """Go by other settings from now on, for those who are connected, too.

    Raises:
        ValueError: They cannot be used; nothing has changed.
    """
    if hub.authenticator is None:
        raise ValueError("a broker that has asked nobody who they are cannot begin to while it runs")
    await go_by(hub, Authenticator(auth))


async def go_by(hub: Hub, authenticator: Authenticator) -> None:
    """Judge by this one from now on, and look again at everybody who is connected. Nothing can fail."""
    hub.authenticator = authenticator
    turn = Turn()
    for session in list(hub.sessions):
        await turn.pause()
        look_again(session)


def look_again(session: Session) -> None:
    """Go by the settings as they are now, if they have changed since the session was accepted."""
    identity, authenticator = session.identity, session.hub.authenticator
    if identity is None or authenticator is None or authenticator is session.accepted_by or session.ending is not None:
        return
    try:
        _accept(session, authenticator.again(identity))
    except AuthenticationFailed as failure:
        _end(session, "changed", failure)
    else:
        _revoke(session)


def _revoke(session: Session) -> None:
    """End the subscriptions that a new token does not allow."""
    permissions = session.permissions
    assert permissions is not None
    for subscription in list(session.outbox.subscriptions.values()):
        pattern, number = subscription.route.pattern, subscription.route.number
        if not (is_inbox(pattern) or permissions.may_subscribe(watched(pattern))):
            session.part(subscription)
            session.answer(encode(Error(0, "forbidden", f"{pattern}: no longer allowed", {"route": number})))
            count_forbidden(session, "revoked", pattern)


def note_expired(session: Session) -> None:
    """Its token has expired, and no other one has come."""
    _end(session, "expired", AuthenticationFailed("expired", code="expired"))


def _end(session: Session, where: str, failure: AuthenticationFailed, message: str | None = None) -> None:
    note_unauthenticated(session, where, failure)
    session.end(disconnects.not_accepted(failure.code, message or failure.message))


def note_unauthenticated(session: Asker, where: str, failure: AuthenticationFailed) -> None:
    """Count and log it, never with the token."""
    counted = session.hub.counters.unauthenticated
    counted[where] = counted.get(where, 0) + 1
    session.hub.repeats.say(session, "warning", "authentication failed", where, where=where, reason=failure.reason)


def note_turned_away(session: Asker, where: str, reason: str, **facts: str) -> None:
    """Count and log that it may not come in: `proxy`, `tls` or `origin`."""
    counted = session.hub.counters.turned_away
    counted[where] = counted.get(where, 0) + 1
    session.hub.repeats.say(session, "info", "turned away", where, where=where, reason=reason, **facts)


# ------------------------------------------------------------- what it may do


def may(session: Asker, action: str, name: str, count: int = 1) -> bool:
    """Whether the session may do something; if not, that is counted and logged, and the caller says so.

    Args:
        session: Whose request it is.
        action: "publish", or what needs the permission to subscribe: "subscribe", "fetch" …
        name: A valid topic, or a pattern.
        count: How many requests.
    """
    permissions = session.permissions
    if permissions is None:
        if session.hub.authenticator is not None:
            return False
        allowed = action == "publish" or not (tells_of_the_broker(name) and _elsewhere(session))
    else:
        allowed = permissions.may_publish(name) if action == "publish" else permissions.may_subscribe(name)
    if not allowed:
        count_forbidden(session, action, name, count)
    return allowed


def _elsewhere(session: Asker) -> bool:
    """Whether what the broker tells of itself is told on a port of its own, and this is another one."""
    return session.hub.config.admin_port is not None and not session.admin


def count_forbidden(session: Asker, action: str, name: str, count: int = 1) -> None:
    """Of one session the first is logged, the second, the fourth and so on: it could ask very often."""
    counted = session.hub.counters.forbidden
    counted[action] = counted.get(action, 0) + count
    before, session.forbidden = session.forbidden, session.forbidden + count
    if before.bit_length() < session.forbidden.bit_length():
        facts = {"action": action, "topic": without_inbox(name), "times": session.forbidden}
        session.hub.repeats.say(session, "warning", "forbidden", action, **facts)
