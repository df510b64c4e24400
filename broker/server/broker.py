"""`Broker`: what one starts, embeds, drains and asks for figures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

import trio

from fanwire.protocol import Encoding, PublishOptions, check_topic
from fanwire.transport import memory_stream_pair
from fanwire.version import __version__

from ..http import HttpService
from ..network.accept import accept_connections
from ..network.admission import TurnedAway
from ..network.certificate_expiry import watch_certificate
from ..network.exposure import check_host, warn_of
from ..network.listeners import Listeners, in_url, open_listeners
from ..operations.drain import send_away
from ..operations.foreign_patterns import warn_of_foreign_patterns
from ..operations.kick import kick
from ..operations.reload import reload, watch_expiry
from ..operations.reports import ConnectionInfo, Reports, look_at
from ..sessions import disconnects
from ..sessions.authentication import change_auth
from ..sessions.handlers import check_publishable, message_tail, settle_retain
from ..sessions.hub import Hub
from ..sessions.session import Session
from ..settings.auth import Auth
from ..settings.config import Config
from ..telemetry.closed import ClosedConnection
from ..telemetry.log import log
from ..telemetry.statistics import BrokerStatistics
from ..timing.clock import time_stamp

if TYPE_CHECKING:
    from ..limits.addresses import Address

_PLAIN = PublishOptions()

# Beyond the limit on connections some more are let in, to be told so (4029); beyond these they are just cut off.
_ROOM_TO_REFUSE = 1000


class Broker:
    """A publish/subscribe broker, for as long as `serving` or `serve` runs."""

    def __init__(self, config: Config | None = None) -> None:
        """Nothing is opened yet.

        Args:
            config: All settings; the default listens on ws://127.0.0.1:9473/.

        Raises:
            ValueError: A key or certificate cannot be used; or the broker would be open to the network, and nobody
                must authenticate (`Config.insecure` allows it).
        """
        self.config = config or Config()
        check_host(self.config)
        self._hub = Hub(self.config, HttpService)
        self._reports = Reports(self._hub)
        self._hub.on_asked.append(self._reports.wanted)
        self._connections: trio.Nursery | None = None
        self._accepting: trio.CancelScope | None = None
        self._handled = 0
        self._gone = trio.lowlevel.ParkingLot()
        self._drained = trio.Event()
        self._started = False
        self.port: int | None = None
        """The TCP port it listens on, while it does."""
        self.admin_port: int | None = None
        """That of the operators, while there is one (`Config.admin_port`)."""
        self._unix_path: str | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """Where clients reach it; none without a port and a Unix socket."""
        urls = []
        if self.port is not None:
            scheme, host = "wss" if self.config.tls else "ws", in_url(str(self.config.host))
            urls.append(f"{scheme}://{host}:{self.port}{self.config.path}")
        if self._unix_path is not None:
            urls.append(f"ws+unix:{self._unix_path}")
        return tuple(urls)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        """Serve while the body of ``async with`` runs; clients are drained when it ends.

        Raises:
            OSError: The port cannot be opened.
        """
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(self.serve)
                yield self
            except BaseException as error:
                failure = error  # raised outside of the nursery, which would wrap it in a group
            with trio.CancelScope(shield=True):
                await self.drain()
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def serve(self, *, task_status: trio.TaskStatus[Broker] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled or drained; ``task_status`` gets the broker once clients can come.

        Raises:
            OSError: The port, or the Unix socket, cannot be opened.
            RuntimeError: This broker has been started before.
            ValueError: `Config.host` is a name of an address of the network, and nobody must authenticate.
        """
        if self._started:
            raise RuntimeError("a Broker serves once; make a new one")
        self._started = True
        listeners = await self._listen()
        try:
            log.info("starting", version=__version__)
            warn_of(self.config, listeners.addresses)
            warn_of_foreign_patterns(self.config)
            self._hub.began = trio.current_time()
            async with trio.open_nursery() as nursery:
                watch_expiry(self._hub)
                watch_certificate(lambda: self._hub.tls, self._hub.watchdog)
                nursery.start_soon(self._hub.fanout.run)
                nursery.start_soon(self._hub.watchdog.run)
                nursery.start_soon(self._reports.run)
                nursery.start_soon(self._hub.demand.run)
                nursery.start_soon(self._hub.presence.run)
                async with trio.open_nursery() as self._connections:
                    self._connections.start_soon(self._accept, listeners, self._connections)
                    task_status.started(self)
                    await self._drained.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._connections = None
            self._hub.repeats.tell()
            self.port = self.admin_port = self._unix_path = None

    async def _listen(self) -> Listeners:
        listeners = await open_listeners(self.config)
        self.port, self.admin_port, self._unix_path = listeners.port, listeners.admin_port, listeners.unix_path
        return listeners

    async def _accept(self, listeners: Listeners, nursery: trio.Nursery) -> None:
        try:
            with trio.CancelScope() as self._accepting:
                async with trio.open_nursery() as accepting:
                    for listener in listeners.all:
                        accepting.start_soon(accept_connections, listener, nursery, self._run, self._hub.door)
                    for listener in listeners.admin:
                        accepting.start_soon(accept_connections, listener, nursery, self._run_admin, self._hub.door)
        finally:  # also when cancelled
            listeners.close()

    async def _handle(self, stream: trio.abc.Stream) -> None:
        """As the accept loop does, for a stream that comes in another way."""
        try:
            address = self._hub.door.judge(stream)
        except TurnedAway:
            await trio.aclose_forcefully(stream)
        else:
            await self._run(stream, address)

    async def _run_admin(self, stream: trio.abc.Stream, address: Address | None) -> None:
        await self._run(stream, address, admin=True)

    async def _run(self, stream: trio.abc.Stream, address: Address | None, *, admin: bool = False) -> None:
        limit = self.config.max_connections
        if limit is not None and self._handled >= limit + _ROOM_TO_REFUSE:
            self._hub.counters.connections_refused += 1
            self._hub.limits.refuse("max_connections")
            self._hub.door.let_go(address)
            await trio.aclose_forcefully(stream)
            return
        self._handled += 1
        session = Session(self._hub)
        first = self._hub.door.enter(session, address)
        if first is not None:
            self._turn_out(first)
        try:
            await session.run(stream, admin=admin)
        finally:
            self._handled -= 1
            self._gone.unpark_all()

    def _turn_out(self, first: Session) -> None:
        """It has not said in time who it is, and others want to come in."""
        if first.opened_time_us:
            first.end(disconnects.too_many_opening(self.config.drain_spread_s))
        else:
            self._hub.counters.connections_refused += 1
            first.cut()

    async def open_stream(self) -> trio.abc.Stream:
        """A client's end of a connection in memory: speak WebSocket on it. No port is needed.

        Raises:
            RuntimeError: The broker does not serve.
        """
        if self._connections is None:
            raise RuntimeError("the broker does not serve: use `async with broker.serving()`")
        ours, theirs = memory_stream_pair()
        self._connections.start_soon(self._handle, ours)
        await trio.lowlevel.checkpoint()
        return theirs

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        encoding: int = Encoding.RAW,
        key: str | None = None,
        retain: bool | None = None,
    ) -> int:
        """Publish from inside the broker's own program; never waits.

        Args:
            topic: Where to.
            payload: Opaque bytes.
            encoding: What they are, for the receivers (`fanwire.protocol.Encoding`).
            key: For subscribers that conflate: only messages of the same topic and key replace each other.
            retain: Whether it is the topic's last value from now on; None: as the topic's rule has it.

        Returns:
            The number of subscriptions reached.

        Raises:
            LocalProtocolError: ``topic`` is no topic, or the broker's own; ``key`` is none; the topic's rule settles
                otherwise whether it retains; or as many topics are remembered as may be (`too_many`).
            TypeError: ``payload`` is not bytes.
        """
        if not isinstance(payload, bytes | bytearray | memoryview):
            raise TypeError(f"a payload is bytes, not {type(payload).__name__}; see fanwire.protocol.pack")
        check_publishable(check_topic(topic))
        entry = self._hub.registry.topic_named(topic)
        options = _PLAIN if key is None else PublishOptions(key=key)
        tail, elements = message_tail(bytes(payload), Encoding(encoding), options)
        settle_retain(self._hub.registry, entry, retain)
        return self._hub.fanout.publish(entry, elements, [tail], time_stamp(), trio.current_time(), key, retain)

    async def change_auth(self, auth: Auth) -> None:
        """Go by other settings of who may come in, at once, also for those who are connected.

        A connection whose token is not accepted by them is closed with 4001: its token or its user's certificate is
        not listed any more, or the key of its JWT has gone, or is for another algorithm, or another issuer or audience
        is asked for. Subscriptions that are no longer allowed end.

        Args:
            auth: Instead of `Config.auth`.

        Raises:
            ValueError: They cannot be used, and nothing has changed; or there was no `Config.auth`.
        """
        await change_auth(self._hub, auth)

    async def reload(self, config: Config) -> tuple[str, ...]:
        """Go by other settings from now on; docs/configuration.md says what that means for whom.

        Args:
            config: Instead of the one there is.

        Returns:
            The fields in which they differ and that need a restart; these are as before.

        Raises:
            ValueError: They cannot be used, and nothing has changed.
        """
        try:
            return await reload(self._hub, config)
        finally:
            self.config = self._hub.config  # also when cancelled while clients are looked at again

    def statistics(self) -> BrokerStatistics:
        """What has been counted so far."""
        return self._hub.statistics()

    def connections(self) -> list[ConnectionInfo]:
        """Every connection, now, in the order in which they came. Takes some 10 µs for each."""
        return [look_at(session) for session in self._hub.sessions if hasattr(session, "outbox")]

    def closed_connections(self) -> list[ClosedConnection]:
        """The last thousand clients that ended, the last hundred never welcomed, and why; the newest first."""
        return list(self._hub.closed.newest_first())

    def kick(self, session: str, *, by: str = "") -> bool:
        """Send one client away: GOODBYE `forbidden`, close 4003, so that it does not come back by itself.

        Args:
            session: The connection, as `ConnectionInfo.session` names it.
            by: Who wants that, for the log.

        Returns:
            Whether there is such a connection.
        """
        return kick(self._hub, session, by)

    async def watch_lag(self) -> None:
        """Look how late the event loop is, ten times a second, for `statistics`. Runs until cancelled.

        `fanwire serve` does this. A program that embeds a broker may: it is the program's loop, too.
        """
        await self._hub.lag.run()

    async def drain(self) -> None:
        """Take no more clients, tell those there are to go (GOODBYE, 1001), wait for them within the deadlines, end.

        From the first moment on the broker says that it is not ready; after ``drain_delay_s`` it takes no more clients,
        and sends those away that it has, within ``drain_spread_s``. What is queued for a client is sent first, within
        ``drain_timeout_s``. `serve` returns afterwards, also when this is cancelled: then whoever is still there is
        cut off.
        """
        hub, config = self._hub, self.config
        hub.draining = True
        try:
            if config.drain_delay_s:
                await trio.sleep(config.drain_delay_s)
            if self._accepting is not None:
                self._accepting.cancel()
            hub.http.drain()
            await send_away(hub)
            with trio.move_on_after(config.drain_timeout_s + 2 * config.linger_s):
                await self._all_gone()
        finally:
            self._drained.set()
            if self._connections is not None:
                self._connections.cancel_scope.cancel()

    async def _all_gone(self) -> None:
        while self._handled:
            await self._gone.park()

    def __repr__(self) -> str:
        return f"<Broker {', '.join(self.urls) or 'without a port'}>"
