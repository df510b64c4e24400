"""All that a broker listens on: TCP, a Unix socket, both, or nothing."""

from __future__ import annotations

import errno

import trio

from ..settings.config import Config
from .exposure import check_bound
from .unix_socket import UnixSocket, listen_on

EVERY_ADDRESS = ("::", "*")
"""Hosts that stand for all addresses of the machine, IPv4 and IPv6. ``0.0.0.0`` stands for those of IPv4."""


def in_url(host: str) -> str:
    """A host as it stands in a URL: an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    host = "::" if host in EVERY_ADDRESS else host
    return f"[{host}]" if ":" in host else host


# Of IPv4 and IPv6 one may be taken on a port that is free for the other.
_ATTEMPTS = 20


class Listeners:
    """Open ones. Close them."""

    def __init__(self, tcp: list[trio.SocketListener]) -> None:
        self._tcp = tcp
        self.admin: list[trio.SocketListener] = []
        """To accept operators on."""
        self.unix: UnixSocket | None = None

    @property
    def all(self) -> list[trio.SocketListener]:
        """To accept clients on."""
        return self._tcp if self.unix is None else [*self._tcp, self.unix.listener]

    @property
    def addresses(self) -> list[str]:
        """The IP addresses, clients' and operators'."""
        return [listener.socket.getsockname()[0] for listener in (*self._tcp, *self.admin)]

    @property
    def port(self) -> int | None:
        """The TCP port, if there is one."""
        return _port_of(self._tcp)

    @property
    def admin_port(self) -> int | None:
        """That of the operators, if they have one."""
        return _port_of(self.admin)

    @property
    def unix_path(self) -> str | None:
        """The Unix socket, if there is one."""
        return None if self.unix is None else self.unix.path

    def close(self) -> None:
        """Synchronous: `aclose` would pass a checkpoint after the first of them. Idempotent."""
        for listener in (*self._tcp, *self.admin):
            listener.socket.close()
        if self.unix is not None:
            self.unix.close()


def _port_of(listeners: list[trio.SocketListener]) -> int | None:
    return listeners[0].socket.getsockname()[1] if listeners else None


# `OSError.filename` where it is the operators' own port that cannot be had; the others say nothing, or a file.
ADMIN = "admin"


async def open_listeners(config: Config) -> Listeners:
    """What the configuration says.

    Raises:
        OSError: Something cannot be opened.
        ValueError: It would be open to the network, where nobody must say who they are.
    """
    if not config.listen:
        return Listeners([])
    opened = Listeners([])
    try:
        if config.host is not None:
            opened = Listeners(await _listen(config, config.host, config.port))
        if config.admin_port is not None:
            try:
                opened.admin = await _listen(config, config.admin_host, config.admin_port)
            except OSError as error:
                error.filename = ADMIN
                raise
        if config.unix_path is not None:
            opened.unix = listen_on(config.unix_path, config.unix_mode, config.backlog)
    except BaseException:
        opened.close()
        raise
    return opened


async def _open(host: str | None, port: int, backlog: int) -> list[trio.SocketListener]:
    """Open every address of a host on the same port, also where any free one will do."""
    listeners = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    for _ in range(_ATTEMPTS):
        ports = [listener.socket.getsockname()[1] for listener in listeners]
        if len(set(ports)) <= 1:
            break
        # Each address got a free port of its own: try to have the first one for all of them.
        for listener in listeners:
            listener.socket.close()
        try:
            listeners = await trio.open_tcp_listeners(ports[0], host=host, backlog=backlog)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            listeners = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    return listeners


async def _listen(config: Config, host: str, port: int) -> list[trio.SocketListener]:
    listeners = await _open(None if host in EVERY_ADDRESS else host, port, config.backlog)
    try:
        check_bound(config, host, [listener.socket.getsockname()[0] for listener in listeners])
    except ValueError:
        for listener in listeners:
            listener.socket.close()
        raise
    return listeners
