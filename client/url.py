"""Which broker is meant by a URL."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from attrs import frozen

from fanwire.protocol.codes import DEFAULT_PORT

_UNIX = "ws+unix:"
DEFAULT_URL = f"ws://127.0.0.1:{DEFAULT_PORT}/"


@frozen
class Address:
    """Where a broker listens."""

    host: str
    port: int
    path: str
    tls: bool
    unix: str | None = None
    """A Unix socket on this machine, in place of host and port."""

    @property
    def host_header(self) -> str:
        """For the ``Host`` header (RFC 9110 section 7.2): with the port unless it is the scheme's own."""
        if self.unix is not None:
            return self.host
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        """The URL, without anything secret."""
        if self.unix is not None:
            return f"ws+unix:{self.unix}:{self.path.partition('?')[0]}"
        return f"{'wss' if self.tls else 'ws'}://{self.host_header}{self.path.partition('?')[0]}"


def parse_url(url: str) -> Address:
    """Take ``url`` apart; a bare host, or host and port, means ``ws://``.

    Args:
        url: Such as "ws://127.0.0.1:9473/", "wss://broker.example/feed", "localhost", "localhost:9473". Without a port
            ``ws`` means 9473 and ``wss`` 443. "ws+unix:/run/fanwire.sock" is a Unix socket; a request path may follow
            behind another colon: "ws+unix:/run/fanwire.sock:/feed".

    Raises:
        ValueError: It is no such URL; the message says why.
        TypeError: It is no text.
    """
    if not isinstance(url, str):
        raise TypeError(f"url is {url!r:.60}; it must be text, such as {DEFAULT_URL}")
    if url.startswith(_UNIX):
        return _unix_address(url)
    parts = _split(url)
    if parts.scheme not in ("ws", "wss"):
        raise ValueError(f"a broker's URL begins with ws:// or wss://, not {parts.scheme}://: {url!r}")
    if not parts.hostname:
        raise ValueError(f"there is no host in {url!r}; write for example {DEFAULT_URL}")
    if parts.username is not None:
        raise ValueError("a user name in the URL is not sent; pass connect(…, token=…) instead")
    if parts.fragment:
        raise ValueError(f"a broker's URL has no fragment (#{parts.fragment}): {url!r}")
    tls = parts.scheme == "wss"
    path = parts.path or "/"
    return Address(
        host=parts.hostname,
        port=_port(parts, url) or (443 if tls else DEFAULT_PORT),
        path=f"{path}?{parts.query}" if parts.query else path,
        tls=tls,
    )


def _unix_address(url: str) -> Address:
    socket, _, path = url.removeprefix(_UNIX).partition(":")
    if socket.startswith("//"):
        socket = socket[2:]
    if not socket.startswith("/") or any(c <= " " for c in path) or not path.isascii():
        raise ValueError(f"write ws+unix:/run/fanwire.sock, not {url!r}")
    return Address(host="localhost", port=0, path=path or "/", tls=False, unix=socket)


def _split(url: str) -> SplitResult:
    if not url.isascii() or any(c <= " " for c in url):
        raise ValueError(f"a URL holds neither spaces nor characters beyond ASCII: {url!r}")
    try:
        return urlsplit(url if "://" in url else f"ws://{url}")
    except ValueError as error:
        raise ValueError(f"{url!r} is no URL: {error}") from None


def _port(parts: SplitResult, url: str) -> int | None:
    try:
        return parts.port
    except ValueError:
        raise ValueError(f"the port in {url!r} is not a number from 1 to 65535") from None
