"""Who is let in: judged when a connection is accepted, and bounded until it has said who it is."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import trio

from ..settings.networks import proxies_of

if TYPE_CHECKING:
    from ..limits.addresses import Address, Addresses
    from ..limits.refusals import Limits
    from ..settings.config import Config
    from ..telemetry.statistics import Counters

# What who comes from an address with too many is told, unread: best effort, since nothing of the request is waited for.
_TOO_MANY = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 33\r\n"
    b"Retry-After: 1\r\nConnection: close\r\n\r\ntoo many connections from there.\n"
)


class TurnedAway(Exception):
    """A connection is not even read from."""


class Arrived(Protocol):
    """A connection that has been let in."""

    address: Address | None
    """Where it comes from; None: nothing is limited there."""


C = TypeVar("C", bound=Arrived)


class Door(Generic[C]):
    """One for each broker."""

    def __init__(self, config: Config, addresses: Addresses, refusals: Limits, counters: Counters) -> None:
        self._config = config
        self._addresses = addresses
        self._refusals = refusals
        self._counters = counters
        self._opening: dict[C, None] = {}  # who came first stands first

    def change(self, config: Config) -> None:
        """Go by these settings from now on."""
        self._config = config

    @property
    def opening(self) -> int:
        """Connections that have not been welcomed yet."""
        return len(self._opening)

    def judge(self, stream: trio.abc.Stream) -> Address | None:
        """Judge a connection that was accepted, by where it comes from. Nothing of it is read.

        Returns:
            Where it comes from, for `leave`; None: nothing is limited there.

        Raises:
            TurnedAway: It is to be closed; a socket is already, and its client was told, as far as that goes without
                waiting.
        """
        host = _host_of(stream)
        try:
            return self._judge_host(host, stream)
        except TurnedAway:
            self._counters.connections_refused += 1
            raise

    def _judge_host(self, host: str | None, stream: trio.abc.Stream | None = None) -> Address | None:
        """The same by the address that a trusted proxy says."""
        if host is not None and proxies_of(self._config.trusted_proxies).trusts(host):
            return None  # for whom it speaks is judged as soon as it has said so
        now = trio.current_time()
        address = self._addresses.find(host, now)
        limit = None if address is None else self._addresses.refusal(address, now)
        if limit is None:
            return address
        self._refusals.refuse(limit, address=address and address.key)
        if isinstance(stream, trio.SocketStream):
            _close(stream, b"" if self._config.tls is not None else _TOO_MANY)
        raise TurnedAway(limit)

    def move(self, session: C, host: str | None) -> None:
        """A trusted proxy has said where the session's client really is: it counts there, and no more at the proxy's.

        Raises:
            TurnedAway: There are too many from there.
        """
        address, session.address = session.address, None
        self.let_go(address)
        session.address = self._judge_host(host)

    def enter(self, session: C, address: Address | None) -> C | None:
        """A session begins.

        Returns:
            Who has to go, because too many have not been welcomed: the one that came first, which has had its time.
        """
        session.address = address
        self._opening[session] = None
        most = self._config.max_opening
        if most is not None and len(self._opening) > most:
            first = next(iter(self._opening))
            del self._opening[first]
            self._refusals.refuse("max_opening", address=first.address and first.address.key)
            return first
        return None

    def welcomed(self, session: C) -> None:
        """It has said who it is, where that is asked for. Idempotent."""
        self._opening.pop(session, None)

    def leave(self, session: C) -> None:
        """It has ended. Idempotent."""
        self._opening.pop(session, None)
        address, session.address = session.address, None
        self.let_go(address)

    def let_go(self, address: Address | None) -> None:
        """A connection from there has ended."""
        if address is not None:
            self._addresses.leave(address, trio.current_time())

    def note_no_files(self) -> None:
        """None could be accepted: the process has no descriptors left, or the system no memory."""
        self._refusals.count("open_files")


def _host_of(stream: trio.abc.Stream) -> str | None:
    if not isinstance(stream, trio.SocketStream):
        return None
    try:
        name = stream.socket.getpeername()
    except OSError:
        return None  # it has gone
    return name[0] if isinstance(name, tuple) else None  # a Unix socket's is text


def _close(stream: trio.SocketStream, last: bytes) -> None:
    """Say why, and close, without waiting."""
    with socket.socket(fileno=stream.socket.detach()) as plain, suppress(OSError):
        plain.send(last)
