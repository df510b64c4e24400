"""What all sessions of one broker share: registry, fanout, watchdog, counters, and the list of sessions."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from fanwire.protocol.masking import fastest_mask

from ..delivery.fanout import Fanout
from ..delivery.routes import Registry
from ..delivery.slow_events import Episodes
from ..delivery.total_pending import Pressure
from ..limits.addresses import Addresses
from ..limits.refusals import Limits
from ..limits.users import Users
from ..network.admission import Door
from ..options import replay
from ..options.group_watch import GroupWatch
from ..options.heartbeats import Heartbeats
from ..options.queue_groups import GroupRoute
from ..presence.demand import Demand
from ..presence.presence import Presence
from ..settings.config import for_those_there
from ..settings.tls import load
from ..store.memory import MemoryStore
from ..telemetry.bounded_log import Repeats
from ..telemetry.closed import ClosedConnections
from ..telemetry.loop_lag import LoopLag
from ..telemetry.statistics import DEPTHS, BrokerStatistics, Counters
from ..timing.timers import Watchdog
from . import disconnects
from .authentication import authenticator_of

if TYPE_CHECKING:
    from ..delivery.subscription import Subscription
    from ..limits.addresses import Address
    from ..network.peer import Peer
    from ..settings.config import Config
    from ..store.interface import Store
    from .session import Session


class PlainHttp(Protocol):
    """Serves connections that want no WebSocket."""

    @property
    def connections(self) -> int:
        """How many there are, without those that a session is attached to."""

    async def serve(
        self,
        stream: trio.abc.Stream,
        received: bytes = b"",
        address: Address | None = None,
        *,
        admin: bool = False,
        peer: Peer | None = None,
    ) -> None:
        """Serve one connection to its end. Whatever happens, only that ends; the caller closes the stream."""

    def drain(self) -> None:
        """Nobody is kept waiting for another request; what is under way is answered."""


class Hub:
    """One for each broker."""

    def __init__(self, config: Config, http: Callable[[Hub], PlainHttp]) -> None:
        """``http``: makes what serves requests that want no WebSocket."""
        self.config = config
        self.counters = Counters()
        self.fanout = Fanout(self.counters)
        self.store: Store = MemoryStore(secrets.token_hex(8), config.max_stored_bytes, config.max_stored_topics)
        self.groups = GroupWatch()
        self.registry = Registry(config.rules, self.store, partial(GroupRoute, fanout=self.fanout, watch=self.groups))
        self.authenticator = authenticator_of(config.auth)
        self.tls = load(config.tls)
        self.watchdog = Watchdog()
        self.groups.begin(self.counters, self.fanout, self.watchdog, self.registry.release)
        self.repeats = Repeats(self.watchdog)
        self.heartbeats = Heartbeats(self.fanout, self.store, self.watchdog)
        self.closed = ClosedConnections()
        self.episodes = Episodes(self.counters, self.registry, self.fanout, self.repeats)
        self.on_asked: list[Callable[[str], None]] = []
        """Told of each pattern that begins with ``$sys`` and is subscribed to."""
        self.began = 0.0
        """When the broker began to serve, on trio's clock."""
        self.demand = Demand(self.registry, self.fanout)
        self.presence = Presence(config, self.fanout, self.watchdog)
        self.http = http(self)
        self.limits = Limits(self.counters)
        self.addresses = Addresses(config)
        self.users = Users(config, self.limits)
        self.door: Door[Session] = Door(config, self.addresses, self.limits, self.counters)
        self.pressure = Pressure(config, self.watchdog, self.limits)
        self.replays = trio.Semaphore(replay.AT_ONCE)
        """Slots for those that have pages of a replay put together."""
        self.sessions: dict[Session, None] = {}
        self.unwelcomed: set[Session] = set()
        """Those of them that have yet to say HELLO: they take nobody's place."""
        self.subscriptions = 0
        self.mask = fastest_mask()
        self.lag = LoopLag()
        self.draining = False
        """Whether the broker is about to end, and wants no new clients: it is not ready."""
        self.parting = False
        """Whether it sends its clients away, and each new one, too."""
        self.expires = False
        """Whether old history is looked for."""

    @property
    def epoch(self) -> str:
        """The life of the store."""
        return self.store.epoch

    def enter(self, session: Session) -> None:
        """A handshake was answered. The session is told to end at once if there is no room for it."""
        self.counters.connections_total += 1
        if self.full:
            self._refuse(session)
            return  # not listed: while it lingers it takes nobody's place
        self.sessions[session] = None
        self.unwelcomed.add(session)
        if session.config is not self.config:  # changed during the handshake
            session.config = for_those_there(session.config, self.config)
        if self.parting:
            session.end(disconnects.draining(self.config.drain_spread_s))

    def welcome(self, session: Session) -> bool:
        """It has said who it is, where that is asked for. False: meanwhile others have taken all places."""
        self.door.welcomed(session)
        if self.full:
            self.sessions.pop(session, None)
            self._refuse(session)
        self.unwelcomed.discard(session)
        return session.ending is None

    @property
    def full(self) -> bool:
        """Whether there are as many clients as there may be, those of HTTP among them."""
        limit = self.config.max_connections
        return limit is not None and len(self.sessions) - len(self.unwelcomed) + self.http.connections >= limit

    def _refuse(self, session: Session) -> None:
        self.limits.refuse("max_connections")
        session.end(disconnects.too_many_connections(self.config.drain_spread_s))

    def leave(self, session: Session) -> None:
        """A session has ended, entered or not."""
        self.sessions.pop(session, None)
        self.unwelcomed.discard(session)
        user, session.account = session.account, None
        if user is not None:
            self.users.leave(user)
        self.door.leave(session)

    def subscribed(self) -> Iterator[tuple[Session, Subscription]]:
        """Who is connected, with each subscription."""
        for session in self.sessions:
            if hasattr(session, "outbox"):
                for subscription in session.outbox.subscriptions.values():
                    yield session, subscription

    def statistics(self) -> BrokerStatistics:
        """A frozen copy of the figures."""
        counters = self.counters
        return BrokerStatistics(
            connections=len(self.sessions),
            subscriptions=self.subscriptions,
            routes=len(self.registry.routes),
            connections_total=counters.connections_total,
            connections_refused=counters.connections_refused,
            published=counters.published,
            delivered=counters.delivered,
            rejected=counters.rejected,
            lagging=counters.lagging,
            slow_episodes=counters.slow_episodes,
            slow_consumers=counters.slow_consumers,
            slow_unsubscribed=counters.slow_unsubscribed,
            slow_by_measure=dict(counters.slow_by_measure),
            lost=dict(counters.lost),
            replaced=counters.replaced,
            queue_depths=dict(zip([*map(str, DEPTHS), "more"], counters.queue_depths, strict=True)),
            stored_topics=len(self.store.topics),
            stored_bytes=self.store.size,
            evicted=self.store.evicted,
            closed_by_broker=dict(counters.closed_by_broker),
            unauthenticated=dict(counters.unauthenticated),
            forbidden=dict(counters.forbidden),
            http_connections=self.http.connections,
            http_answers=dict(counters.http_answers),
            loop_lag=self.lag.histogram,
            loop_lag_sum_s=self.lag.sum_s,
            turned_away=dict(counters.turned_away),
            certificate_expires_in_s=None if self.tls is None else round(self.tls.expires_in_s, 3),
            opening=self.door.opening,
            addresses=len(self.addresses),
            limited=dict(counters.limited),
            publishers_slowed=counters.publishers_slowed,
        )
