"""Who asks over HTTP, and what they may: the same judges as for sessions, asked anew with each request."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

from ..auth.failure import AuthenticationFailed
from ..auth.identity import Identity
from ..limits.publish_meter import MOST_OWED_S
from ..limits.users import budgets_of, rates_of
from ..network.arrival import may_page, speaking_for
from ..network.origin_check import what_to_list
from ..requests.asker import publish_one
from ..sessions.authentication import (
    GUESSED,
    count_forbidden,
    count_guess,
    guesses_owed_s,
    note_turned_away,
    note_unauthenticated,
    only_one,
    token_of,
)
from .answers import HttpError
from .locality import forwarded, names_this_machine
from .who import Who

if TYPE_CHECKING:
    from ..auth.permissions import Permissions
    from ..delivery.routes import Registry, Topic
    from ..limits.addresses import Address
    from ..network.peer import Peer
    from ..sessions.hub import Hub
    from ..settings.config import Config


class Caller:
    """One for each connection; who it is can differ from request to request. See `publishers.Asker`."""

    name = ""
    """See `Asker`: a request has no HELLO."""

    def __init__(
        self, hub: Hub, peer: Peer, address: Address | None = None, *, local: bool, admin: bool = False
    ) -> None:
        """``peer``, ``address`` and ``admin``: where it comes from, see `Asker`; ``local``: from this machine."""
        self.hub = hub
        self.peer = peer
        """Who is at the other end, or for whom that one asks this time."""
        self._nearest = peer
        self.request_id: str | None = None
        """Of the request that it sends just now (`request_id`)."""
        self.id = f"http-{secrets.token_hex(4)}"
        self.identity: Identity | None = None
        self.permissions: Permissions | None = None
        self.admin = admin
        self.forbidden = 0
        self.address = self._nearest_address = address
        self._rates = rates_of(hub.config)
        self._budgets = budgets_of(hub.config)
        self._uncharged = 0
        self.meter = hub.users.meter(self._budgets, None)
        self._local = local

    @property
    def is_forwarded(self) -> bool:
        """Whether a trusted proxy asks for it this time."""
        return self.peer is not self._nearest

    @property
    def remote(self) -> str:
        """See `Asker`."""
        return self.peer.remote

    @property
    def account_name(self) -> str | None:
        """See `Asker`."""
        return None if self.identity is None else self.identity.user

    @property
    def user(self) -> str:
        """See `Asker`."""
        return (self.identity and self.identity.user) or ""

    @property
    def config(self) -> Config:
        """The broker's, as it is now."""
        return self.hub.config

    @property
    def registry(self) -> Registry:
        """See `Asker`."""
        return self.hub.registry

    @property
    def epoch(self) -> str:
        """See `Asker`."""
        return self.hub.epoch

    def turned_away(self, where: str, reason: str, **facts: str) -> None:
        """See `Judged`."""
        note_turned_away(self, where, reason, **facts)

    def publish(
        self, topic: Topic, elements: int, tail: bytes, key: str | None = None, retain: bool | None = None
    ) -> int:
        """See `Asker`."""
        return publish_one(self.hub, topic, elements, tail, key, retain)

    # ----------------------------------------------------- how fast it publishes

    def count(self, size: int) -> None:
        """So many bytes of a request have come: head, body and framing, as on a WebSocket."""
        self._uncharged += size

    def charge(self, messages: int, size: int) -> None:
        """Charge for what was published: messages, and their part of the bytes that have come."""
        size = min(size, self._uncharged)
        self._uncharged -= size
        if self.meter is not None:
            self.meter.charge(messages, size, trio.current_time())

    def settle(self) -> None:
        """Charge for the rest of a request, which has been handled, or refused.

        Not beyond a minute's worth of debt, where a WebSocket would be closed: what is refused here is answered 429.
        """
        now = trio.current_time()
        debt = None if self.meter is None else self.meter.debt(now)
        if debt is None or debt.owed_s(now) <= MOST_OWED_S:
            self.charge(0, self._uncharged)
        self._uncharged = 0

    # -------------------------------------------------------------- who it is

    def identify(self, who: Who, headers: Mapping[str, str], tokens: tuple[str, ...]) -> None:
        """See who sends a request.

        Args:
            who: Who may send it.
            headers: Of the request.
            tokens: What its query calls ``token``.

        Raises:
            HttpError: `unauthenticated`, `expired` or `forbidden`.
        """
        self.identity = self.permissions = None
        if (rates := rates_of(self.config)) != self._rates:
            self._rates, self._budgets = rates, budgets_of(self.config)
        self._hear_proxy(headers)
        self.meter = self.hub.users.meter(self._budgets, None)
        if who is Who.EVERYBODY:
            return
        authorization = headers.get("authorization")
        if self.hub.authenticator is not None:
            self._authenticate(authorization, tokens)
        self._check_site(headers, ambient=self.hub.authenticator is None or not (authorization or tokens))
        if who is Who.OPERATOR:
            self._check_operator(headers)

    def _hear_proxy(self, headers: Mapping[str, str]) -> None:
        """Note for whom a trusted proxy asks this time: guesses at tokens are that one's."""
        self.peer = speaking_for(self._nearest, headers.get("x-forwarded-for"), self.config)
        if self.peer is self._nearest:
            self.address = self._nearest_address
        else:
            self.address = self.hub.addresses.find(self.peer.numeric, trio.current_time())

    def _authenticate(self, authorization: str | None, tokens: tuple[str, ...]) -> None:
        authenticator = self.hub.authenticator
        assert authenticator is not None
        where = "header" if authorization is not None else "query" if tokens else "http"
        if where != "http" and (owed := guesses_owed_s(self)):
            detail = {"limit": "auth_failures", "retry_after_ms": math.ceil(owed * 1000)}
            raise HttpError("rate_limited", GUESSED, detail).closing()
        try:
            if authorization is not None:
                self._accept(authenticator.authenticate(token_of(authorization)))
            elif tokens:
                self._accept(authenticator.authenticate(only_one(tokens)))
            elif self.peer.certificate is not None and authenticator.knows(self.peer.certificate):
                where = "certificate"
                self._accept(authenticator.by_certificate(self.peer.certificate))
            elif authenticator.anonymous is not None:
                self._accept(authenticator.anonymous)
            else:
                raise AuthenticationFailed("no token")
        except AuthenticationFailed as failure:
            note_unauthenticated(self, where, failure)
            if where == "certificate":
                raise HttpError("forbidden", "the client certificate is not accepted").closing() from None
            if where != "http":
                count_guess(self, failure)
            if where == "http":
                raise HttpError("unauthenticated", "a token is needed here").with_header(
                    "WWW-Authenticate", "Bearer"
                ) from None
            raise _bad_token(failure) from None

    def _accept(self, identity: Identity) -> None:
        self.identity, self.permissions = identity, identity.permissions
        self.meter = self.hub.users.meter(self._budgets, identity.user)

    def _check_site(self, headers: Mapping[str, str], *, ambient: bool) -> None:
        """Who brings a token was given it; else a browser may have been talked into this by somebody else's page."""
        host = headers.get("host", "")
        if not may_page(self, headers.get("origin"), host, ambient=ambient):
            raise self._forbid("cross-site", what_to_list(headers.get("origin")))
        if self.hub.authenticator is None and self._here(headers) and not names_this_machine(host):
            text = "Host must be localhost or an address: by another name a page of anybody's could ask"
            raise self._forbid("cross-site", text)

    def _check_operator(self, headers: Mapping[str, str]) -> None:
        if self.permissions is not None:
            allowed = self.permissions.operator
        else:
            allowed = self.hub.authenticator is None and self._here(headers)
        if not allowed:
            raise self._forbid("status", "this is for operators; without authentication it is told on the machine only")

    def _here(self, headers: Mapping[str, str]) -> bool:
        return self._local and not forwarded(headers)

    def _forbid(self, action: str, text: str) -> HttpError:
        count_forbidden(self, action, "")
        return HttpError("forbidden", text)


def _bad_token(failure: AuthenticationFailed) -> HttpError:
    """Each guess costs a connection. Made here: a frame that holds the error it raises is left to the collector."""
    error = HttpError(failure.code, failure.message).closing()
    return error.with_header("WWW-Authenticate", 'Bearer error="invalid_token"')
