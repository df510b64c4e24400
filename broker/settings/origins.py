"""Which web pages may speak to the broker. A browser says in `Origin` from where the page comes that it acts for.

Programs send no `Origin`, or any they like: this protects users of browsers from pages, and the broker from nobody.
The browser's own proof (a cookie, a client certificate, that it stands inside the network) comes along whoever's page
it is; a token does not. So without a token a page must come from the host that it speaks to, or from a listed one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

import attrs

from ..telemetry.closed import shown
from .networks import address_of

if TYPE_CHECKING:
    from ..network.peer import Peer
    from .config import Config

_DEFAULT_PORTS = {"http": 80, "https": 443}
_parts = re.compile(
    r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]*,]+|\*\.[^\s/?#@:\[\]*,]+)(?::([0-9]{1,5}))?"
).fullmatch


@attrs.frozen
class Origin:
    """Scheme, host and port (RFC 6454). In a list the host may begin with ``*.``: any name that ends like that."""

    scheme: str
    host: str
    port: int | None
    """None: another scheme than http and https has none."""

    def allows(self, other: Origin) -> bool:
        """Whether ``other`` is this one, or one of these. Schemes are compared: http can be forged by the network."""
        if (self.scheme, self.port) != (other.scheme, other.port):
            return False
        if not self.host.startswith("*."):
            return other.host == self.host
        return other.host.endswith(self.host[1:]) and not other.host.startswith(".")


def read_origin(text: str) -> Origin | None:
    """As a browser sends it; None: it is none, or ``null``."""
    found = _parts(text.lower()) if text.isascii() else None
    if found is None:
        return None
    port = int(found[3]) if found[3] else _DEFAULT_PORTS.get(found[1])
    return Origin(found[1], found[2].removesuffix("."), port)


def check_allowed(text: str) -> str:
    """Return an entry of `Config.allowed_origins` as it is, if it is one. Raises ValueError."""
    origin = read_origin(text)
    if text not in ("*", "null") and (origin is None or origin.host in ("", "*.")):
        raise ValueError(
            f"allowed_origins: {text!r} is no origin: write https://app.example, https://app.example:8443,"
            " https://*.app.example, null or *"
        )
    return text


@lru_cache(maxsize=8)
def _read(texts: tuple[str, ...]) -> list[Origin]:
    return [origin for text in texts if (origin := read_origin(text)) is not None]


def why_refused(origin: str | None, host: str | None, config: Config, peer: Peer, *, ambient: bool) -> str | None:
    """Why a request may not be heard, by where its page comes from. For WebSocket handshakes and all of HTTP.

    Args:
        origin: The header `Origin`; None: there is none.
        host: The header `Host`.
        config: Its `allowed_origins`, if any are listed, are the whole truth.
        peer: Who is at the other end.
        ambient: Whether it would be heard without a token of its own: there is no authentication, anonymous clients are
            let in, or it is known by its client certificate.

    Returns:
        For the log; None: it may.
    """
    if origin is None:
        return None
    allowed = config.allowed_origins
    if allowed:
        return None if _is_listed(origin, allowed) else "its origin is not in allowed_origins"
    if not ambient:
        return None
    page = read_origin(origin)
    if page is None or not _is_own(page, host, peer):
        return "a page of another site, without a token: allowed_origins would have to list it"
    if peer.nearby and not _cannot_be_rebound(page.host):
        return "the page's name may have been pointed at this machine by anybody: allowed_origins would have to list it"
    return None


def _is_listed(origin: str, allowed: tuple[str, ...]) -> bool:
    if "*" in allowed:
        return True
    if origin == "null":
        return "null" in allowed
    page = read_origin(origin)
    # A sender of a pattern is no page: hosts have no asterisks.
    return page is not None and "*" not in page.host and any(each.allows(page) for each in _read(allowed))


# What a page may send beside what every page may, and what it may read of an answer beside the usual.
_REQUEST_HEADERS = "Authorization, Content-Type, Last-Event-ID, X-Request-Id"
_ANSWER_HEADERS = "Retry-After, WWW-Authenticate, X-Request-Id"

# Seconds for which a browser need not ask again. Chromium remembers it for two hours at most.
_PREFLIGHT_S = 7200


def cors(origin: str | None, allowed: tuple[str, ...]) -> dict[str, str]:
    """The headers by which a browser lets a page of another site read an answer (Fetch, section 3.2).

    Never with credentials: the broker takes no cookies.

    Args:
        origin: The header `Origin` of the request; None: there is none.
        allowed: `Config.allowed_origins`. Without a list no page of another site may read anything.

    Returns:
        Headers by name. Also an answer to others differs by origin, so a cache must not mix them up.
    """
    if not allowed:
        return {}
    if origin is None or not _is_listed(origin, allowed):
        return {"Vary": "Origin"}
    return {
        "Access-Control-Allow-Origin": "*" if "*" in allowed else origin,
        "Access-Control-Expose-Headers": _ANSWER_HEADERS,
        "Vary": "Origin",
    }


def preflight(methods: Iterable[str]) -> dict[str, str]:
    """What a browser is told that asks before a page's request, beside `cors`.

    Args:
        methods: What is served at the path.
    """
    return {
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Allow-Headers": _REQUEST_HEADERS,
        "Access-Control-Max-Age": str(_PREFLIGHT_S),
    }


def what_to_list(origin: str | None) -> str:
    """The text for a page that is refused: its origin, and the setting that would let it in."""
    return (
        f"pages of {shown(origin or 'no origin')} are not allowed here: add this origin to the setting allowed_origins"
    )


def _is_own(page: Origin, host: str | None, peer: Peer) -> bool:
    """Whether the page comes from the very host that the request is for. Of plain text we cannot know whether a proxy
    has ended TLS in front of us, so there either scheme will do."""
    if page.scheme not in (("https",) if peer.secure else ("http", "https")):
        return False
    ours = read_origin(f"{page.scheme}://{host}")
    return ours is not None and "*" not in ours.host and ours == page


def _cannot_be_rebound(host: str) -> bool:
    """Whether nobody's name server says where this is."""
    return address_of(host.strip("[]")) is not None or host == "localhost" or host.endswith(".localhost")
