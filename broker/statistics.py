"""What a broker has counted: plain integers on the hot path, a frozen copy for whoever asks."""

from __future__ import annotations

import attrs


class Counters:
    """Mutable, owned by the broker; every field is explained in `BrokerStatistics`."""

    __slots__ = (
        "closed_by_broker",
        "connections_refused",
        "connections_total",
        "delivered",
        "lagging",
        "lost",
        "published",
        "rejected",
        "replaced",
        "slow_consumers",
    )

    def __init__(self) -> None:
        self.connections_total = 0
        self.connections_refused = 0
        self.published = 0
        self.delivered = 0
        self.rejected = 0
        self.slow_consumers = 0
        self.closed_by_broker: dict[int, int] = {}
        self.lost: dict[str, int] = {}
        self.replaced = 0
        self.lagging = 0

    def observe_depth(self, messages: int) -> None:
        """One time that a subscriber's socket was behind: the most messages of a subscription that waited then."""

    def count_close(self, code: int) -> None:
        """One more connection that the broker closed with this code."""
        self.closed_by_broker[code] = self.closed_by_broker.get(code, 0) + 1


@attrs.frozen
class BrokerStatistics:
    """What `Broker.statistics` returns: one moment, consistent in itself."""

    connections: int
    """Clients connected now."""
    subscriptions: int
    """Subscriptions of all of them now."""
    routes: int
    """Distinct patterns subscribed to now."""
    connections_total: int
    """Handshakes answered since the start."""
    connections_refused: int
    """Handshakes refused, broken off, or not finished in time."""
    published: int
    """Messages taken in."""
    delivered: int
    """Messages handed to subscriptions: one publish to ten subscribers counts ten."""
    rejected: int
    """Requests answered with ERROR."""
    slow_consumers: int
    """Connections closed with 4008."""
    closed_by_broker: dict[int, int]
    """Connections that the broker closed, by close code."""
