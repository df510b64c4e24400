"""Which web pages may speak to the broker. A browser says in `Origin` from where the page comes that it acts for.

Programs send no `Origin`, or any they like: this protects users of browsers from pages, and the broker from nobody.
The browser's own proof (a cookie, a client certificate, that it stands inside the network) comes along whoever's page
it is; a token does not. So without a token a page must come from the host that it speaks to, or from a listed one.
"""

from __future__ import annotations

import re

import attrs

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
