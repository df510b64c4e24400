"""What all sessions of one broker share: registry, fanout, watchdog, counters, and the list of sessions."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from fanwire.protocol.masking import fastest_mask

from . import endings
from .access import authenticator_of
from .closed import ClosedConnections
from .demand import Demand
from .episodes import Episodes
from .fanout import Fanout
from .heartbeats import Heartbeats
from .http import HttpService
from .lag import LoopLag
from .memory_store import MemoryStore
from .presence import Presence
from .registry import Registry
from .reload import for_those_there
from .repeats import Repeats
from .reports import Reports
from .statistics import DEPTHS, BrokerStatistics, Counters
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
        self.authenticator = authenticator_of(config.auth)
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
        self.sessions: dict[Session, None] = {}
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
        limit = self.config.max_connections
        self.counters.connections_total += 1
        if limit is not None and len(self.sessions) + self.http.connections >= limit:
            session.end(endings.too_many_connections(self.config.drain_spread_s))
            return  # not listed: while it lingers it takes nobody's place
        self.sessions[session] = None
        if session.config is not self.config:  # changed during the handshake
            session.config = for_those_there(session.config, self.config)
        if self.parting:
            session.end(endings.draining(self.config.drain_spread_s))

    def leave(self, session: Session) -> None:
        """A session has ended, entered or not."""
        self.sessions.pop(session, None)

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
        )
