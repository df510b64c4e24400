"""Who is at the other end of a connection, as far as the network knows."""

from __future__ import annotations

import attrs
import trio

from ..auth.client_certificate import ClientCertificate
from ..settings.networks import UNIX, Proxies, address_of
from .remote import remote_of
from .unix_socket import AF_UNIX


@attrs.frozen
class Peer:
    """Of one connection. What it says later (a token, a name) is not here."""

    address: str = "memory"
    """The client's IP address; "unix": it came through the Unix socket; "memory": from inside the broker's program;
    "unknown": a proxy does not know."""
    remote: str = ""
    """The same for the log, with the port if it is known (`remote`); of a program's own connection nothing."""
    trusted: bool = False
    """Whether that is a trusted proxy: then what it says of its client counts."""
    nearby: bool = False
    """Whether it is a program on this machine and no trusted proxy: a browser, perhaps, with a page from anywhere."""
    secure: bool = False
    """Whether it speaks TLS with us."""
    certificate: ClientCertificate | None = None
    """Its own, if it showed one."""

    @property
    def numeric(self) -> str | None:
        """The address, if it is one of IP."""
        return None if address_of(self.address) is None else self.address

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, as far as the network knows."""
        numeric = address_of(self.address)
        return self.address in (UNIX, "memory") if numeric is None else numeric.is_loopback

    def behind(self, address: str, proxies: Proxies) -> Peer:
        """Whom it speaks for, by its own word."""
        return attrs.evolve(self, address=address, remote=address, trusted=proxies.trusts(address))


def peer_of(stream: trio.abc.Stream, proxies: Proxies) -> Peer:
    """Who a stream leads to, before anything was read from it."""
    if not isinstance(stream, trio.SocketStream):
        return Peer(secure=isinstance(stream, trio.SSLStream))
    address = _address_of(stream)
    trusted, numeric = proxies.trusts(address), address_of(address)
    return Peer(address, remote_of(stream), trusted, nearby=not trusted and numeric is not None and numeric.is_loopback)


def _address_of(stream: trio.SocketStream) -> str:
    if stream.socket.family == AF_UNIX:
        return UNIX
    try:
        return str(address_of(stream.socket.getpeername()[0]))
    except OSError:
        return "gone"
