"""What all sessions of one broker share: registry, fanout, watchdog, counters, and the list of sessions."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import trio

from fanwire.protocol.masking import fastest_mask

from . import endings, replay
from .access import authenticator_of
from .addresses import Addresses
from .closed import ClosedConnections
from .demand import Demand
from .door import Door
from .episodes import Episodes
from .fanout import Fanout
from .heartbeats import Heartbeats
from .http import HttpService
from .lag import LoopLag
from .limits import Limits
from .memory_store import MemoryStore
from .presence import Presence
from .pressure import Pressure
from .registry import Registry
from .reload import for_those_there
from .repeats import Repeats
from .reports import Reports
from .statistics import DEPTHS, BrokerStatistics, Counters
from .tls import load
from .users import Users
from .watchdog import Watchdog

if TYPE_CHECKING:
    from .config import Config
    from .session import Session
    from .store import Store


class Hub:
    """One for each broker."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.counters = Counters()
        self.store: Store = MemoryStore(secrets.token_hex(8), config.max_stored_bytes, config.max_stored_topics)
        self.registry = Registry(config.rules, self.store)
        self.registry.groups.begin(self)
        self.authenticator = authenticator_of(config.auth)
        self.tls = load(config.tls)
        self.fanout = Fanout(self.counters)
        self.watchdog = Watchdog()
        self.repeats = Repeats(self.watchdog)
        self.heartbeats = Heartbeats(self.fanout, self.store, self.watchdog)
        self.closed = ClosedConnections()
        self.episodes = Episodes(self)
        self.reports = Reports(self)
        self.demand = Demand(self)
        self.presence = Presence(self)
        self.http = HttpService(self)
        self.limits = Limits(self)
        self.addresses = Addresses(config)
        self.users = Users(self)
        self.door = Door(self)
        self.pressure = Pressure(self)
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
            session.end(endings.draining(self.config.drain_spread_s))

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
        session.end(endings.too_many_connections(self.config.drain_spread_s))

    def leave(self, session: Session) -> None:
        """A session has ended, entered or not."""
        self.sessions.pop(session, None)
        self.unwelcomed.discard(session)
        self.users.leave(session)
        self.door.leave(session)

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
