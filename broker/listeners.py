"""All that a broker listens on: TCP, a Unix socket, both, or nothing."""

from __future__ import annotations

import trio

from .config import Config
from .exposure import check_bound
from .unix_socket import UnixSocket, listen_on


class Listeners:
    """Open ones. Close them."""

    def __init__(self, tcp: list[trio.SocketListener], unix: UnixSocket | None) -> None:
        self._tcp = tcp
        self._unix = unix

    @property
    def all(self) -> list[trio.SocketListener]:
        """To accept on."""
        return self._tcp if self._unix is None else [*self._tcp, self._unix.listener]

    @property
    def port(self) -> int | None:
        """The TCP port, if there is one."""
        return self._tcp[0].socket.getsockname()[1] if self._tcp else None

    @property
    def unix_path(self) -> str | None:
        """The Unix socket, if there is one."""
        return None if self._unix is None else self._unix.path

    def close(self) -> None:
        """Synchronous: `aclose` would pass a checkpoint after the first of them. Idempotent."""
        for listener in self._tcp:
            listener.socket.close()
        if self._unix is not None:
            self._unix.close()


async def open_listeners(config: Config) -> Listeners:
    """What the configuration says.

    Raises:
        OSError: Something cannot be opened.
        ValueError: It would be open to the network, where nobody must say who they are.
    """
    if not config.listen:
        return Listeners([], None)
    tcp: list[trio.SocketListener] = []
    if config.host is not None:
        tcp = await trio.open_tcp_listeners(config.port, host=config.host, backlog=config.backlog)
    opened = Listeners(tcp, None)
    try:
        check_bound(config, [listener.socket.getsockname()[0] for listener in tcp])
        if config.unix_path is None:
            return opened
        return Listeners(tcp, listen_on(config.unix_path, config.unix_mode, config.backlog))
    except BaseException:
        opened.close()
        raise
