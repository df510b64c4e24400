"""Whether a web page may be heard, by where it comes from; and what its browser is told (Fetch, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from ..settings.networks import address_of
from ..settings.origins import Origin, read_origin
from ..telemetry.text import shown

if TYPE_CHECKING:
    from ..settings.config import Config
    from .peer import Peer


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
