"""What a broker has counted: plain integers on the hot path, a frozen copy for whoever asks."""

from __future__ import annotations

from bisect import bisect_left

import attrs

# Bounds of the histogram of queue depths: each bucket holds depths up to its bound.
DEPTHS = (1, 10, 100, 1_000, 10_000, 100_000)


LIMITS = (
    "max_connections",
    "max_connections_per_address",
    "max_connections_per_user",
    "max_opening",
    "connect_rate",
    "auth_failures",
    "open_files",
    "max_subscriptions",
    "max_total_subscriptions",
    "max_patterns",
    "max_message",
    "max_envelopes",
    "publish_rate",
    "publish_volume",
    "user_publish_rate",
    "user_publish_volume",
    "idle_timeout",
    "max_total_pending",
)
"""Limits that refuse something, and are counted in `BrokerStatistics.limited`. As the settings are called."""


class Counters:
    """Mutable, owned by the broker; every field is explained in `BrokerStatistics`."""

    __slots__ = (
        "closed_by_broker",
        "connections_refused",
        "connections_total",
        "delivered",
        "forbidden",
        "http_answers",
        "lagging",
        "limited",
        "loss_bytes",
        "lost",
        "published",
        "publishers_slowed",
        "queue_depths",
        "rejected",
        "replaced",
        "slow_by_measure",
        "slow_consumers",
        "slow_episodes",
        "slow_unsubscribed",
        "turned_away",
        "unauthenticated",
    )

    def __init__(self) -> None:
        self.connections_total = 0
        self.connections_refused = 0
        self.published = 0
        self.delivered = 0
        self.rejected = 0
        self.lagging = 0
        self.slow_episodes = 0
        self.slow_consumers = 0
        self.slow_unsubscribed = 0
        self.slow_by_measure: dict[str, int] = {}
        self.lost: dict[str, int] = {}
        self.loss_bytes = 0  # of what was lost and is yet to be told, of all connections
        self.replaced = 0
        self.queue_depths = [0] * (len(DEPTHS) + 1)
        self.closed_by_broker: dict[int, int] = {}
        self.unauthenticated: dict[str, int] = {}
        self.forbidden: dict[str, int] = {}
        self.http_answers: dict[int, int] = {}
        self.turned_away: dict[str, int] = {}
        self.limited = dict.fromkeys(LIMITS, 0)
        self.publishers_slowed = 0

    def observe_depth(self, messages: int) -> None:
        """A socket that was behind has caught up: the most messages of a subscription that waited meanwhile."""
        self.queue_depths[bisect_left(DEPTHS, messages)] += 1

    def count_close(self, code: int) -> None:
        """One more connection that the broker closed with this code."""
        self.closed_by_broker[code] = self.closed_by_broker.get(code, 0) + 1

    def count_answer(self, status: int) -> None:
        """One more HTTP request that was answered with this status."""
        self.http_answers[status] = self.http_answers.get(status, 0) + 1


@attrs.frozen
class BrokerStatistics:
    """What `Broker.statistics` returns: one moment, consistent in itself."""

    connections: int
    """Clients connected now."""
    subscriptions: int
    """Subscriptions of all of them now."""
    routes: int
    """Distinct pairs of pattern and queue group subscribed to now."""
    connections_total: int
    """Handshakes answered since the start."""
    connections_refused: int
    """Handshakes refused, broken off, or not finished in time."""
    published: int
    """Messages taken in; the broker's own, such as `$sys.stats`, do not count."""
    delivered: int
    """Messages handed to subscriptions: one publish to ten subscribers counts ten. The broker's own do not count."""
    rejected: int
    """Requests answered with ERROR."""
    lagging: int
    """Subscriptions of which more than 75 % of what may wait does (until it is less than half)."""
    slow_episodes: int
    """Times that a subscription began to lag."""
    slow_consumers: int
    """Connections closed with 4008."""
    slow_unsubscribed: int
    """Subscriptions ended by their policy `unsubscribe`."""
    slow_by_measure: dict[str, int]
    """Connections closed with 4008, by the measure that they passed: queue, max_pending, stall_timeout, max_age."""
    lost: dict[str, int]
    """Messages dropped and told by LOST, by policy; "group": of queue groups, where nobody was left who
    could have them."""
    replaced: int
    """Messages conflated, or passed over by a subscriber's rate: by its own wish, so not lost."""
    queue_depths: dict[str, int]
    """How deep queues get: of each time that a socket was behind, the most messages of one subscription that waited.
    Times, by upper bound (`DEPTHS`, and "more"); not cumulative."""
    stored_topics: int
    """Topics that remember something, or have: their last value, their history, or where its offsets are."""
    stored_bytes: int
    """Bytes of history and last values."""
    evicted: int
    """Messages of the history, and last values, forgotten because of ``max_stored_bytes``."""
    closed_by_broker: dict[int, int]
    """Connections that the broker closed, by close code."""
    unauthenticated: dict[str, int]
    """Tokens that were not accepted, and connections without one that needed one, by where it came: header, query,
    hello, certificate; and those that have expired while connected, or are none any more since the settings changed."""
    forbidden: dict[str, int]
    """Requests refused for want of a permission, by what was asked for: publish, subscribe, fetch; and subscriptions
    ended (revoked) because a new token did not allow them."""
    http_connections: int
    """HTTP connections now; they count against ``max_connections``, too."""
    http_answers: dict[int, int]
    """HTTP requests, by the status that they were answered with."""
    loop_lag: dict[str, int]
    """How late the event loop was, looked at ten times a second: times, by upper bound in seconds (`loop_lag`); the
    last one is "more"; not cumulative."""
    loop_lag_sum_s: float
    """All of these together, in seconds."""
    turned_away: dict[str, int]
    """Connections that came no further than to the door, by where it was: proxy (no good PROXY header), tls (no TLS
    handshake, or none in time), origin (a web page that may not)."""
    certificate_expires_in_s: float | None
    """Until the broker's own certificate ends; negative: it has. None: no TLS is spoken."""
    opening: int
    """Connections that are not welcomed yet: in their handshake, or before a HELLO that is needed."""
    addresses: int
    """Addresses that are remembered because of their connections, or what they did a moment ago."""
    limited: dict[str, int]
    """What limits have refused, by the limit's name: connections, requests, and those disconnected for it."""
    publishers_slowed: int
    """Times that a connection was not read from for a while because it, or its user, published more than it may."""
