"""The figures for Prometheus: read when it asks, from what is counted anyway. No label names a client or a topic."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fanwire.version import __version__

from .answers import Answer

if TYPE_CHECKING:
    from ..sessions.hub import Hub

GAUGES = {
    "connections": ("connections", "Clients connected by WebSocket."),
    "http_connections": ("http_connections", "HTTP connections."),
    "subscriptions": ("subscriptions", "Subscriptions."),
    "routes": ("routes", "Distinct pairs of pattern and queue group subscribed to."),
    "lagging": ("lagging_subscriptions", "Subscriptions of which more than 75 % of what may wait does."),
    "opening": ("opening_connections", "Connections that are not welcomed yet."),
    "addresses": ("addresses", "Addresses that are remembered for the limits on them."),
    "stored_topics": ("stored_topics", "Topics that remember something."),
    "certificate_expires_in_s": ("certificate_expires_in_seconds", "Until the certificate ends. Only with TLS."),
    "stored_bytes": ("stored_bytes", "Bytes of history and last values."),
}
"""By the field of `BrokerStatistics`: name and help."""

COUNTERS = {
    "connections_total": ("connections_opened", "Handshakes answered."),
    "connections_refused": ("connections_refused", "Handshakes refused, broken off, or not finished in time."),
    "published": ("published_messages", "Messages taken in."),
    "delivered": ("delivered_messages", "Messages handed to subscriptions."),
    "rejected": ("rejected_requests", "Requests answered with ERROR."),
    "slow_episodes": ("slow_episodes", "Times that a subscription began to lag."),
    "slow_consumers": ("slow_consumers", "Connections closed for being slow."),
    "slow_unsubscribed": ("slow_unsubscribed", "Subscriptions ended for being slow."),
    "replaced": ("replaced_messages", "Messages conflated, or passed over by a subscriber's rate."),
    "publishers_slowed": ("publishers_slowed", "Times a connection was not read from because it published too fast."),
    "evicted": ("evicted_messages", "Messages forgotten because all topics together remembered too much."),
}
"""The same; names end with _total."""

COUNTERS_BY = {
    "slow_by_measure": ("slow_consumers_by_measure", "measure", "Connections closed for being slow, by measure."),
    "lost": ("lost_messages", "policy", "Messages dropped and told by LOST, by policy; group: nobody was left."),
    "closed_by_broker": ("closed_connections", "code", "Connections that the broker closed, by close code."),
    "unauthenticated": ("unauthenticated", "where", "Tokens not accepted, or missing, by where they came."),
    "forbidden": ("forbidden", "action", "Requests refused for want of a permission, by what was asked for."),
    "turned_away": ("turned_away", "where", "Connections that ended at the door: proxy, tls, origin."),
    "limited": ("limited", "limit", "What limits have refused, by the limit's name."),
    "http_answers": ("http_requests", "status", "HTTP requests, by the status they were answered with."),
}
"""The same, with a label."""

HISTOGRAMS = {
    "queue_depths": (
        "queue_depth",
        "Each time a socket was behind: the most messages of one subscription that waited.",
        None,
    ),
    "loop_lag": ("loop_lag_seconds", "How late the event loop was, looked at ten times a second.", "loop_lag_sum_s"),
}
"""The same, not cumulative; the third is the field of the sum, if there is one."""


class _Figures(Collector):
    """Asked with each scrape."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        figures = self._hub.statistics()
        build = GaugeMetricFamily("fanwire_build_info", "Always 1; the label is the release.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        for field, (name, about) in GAUGES.items():
            if (value := getattr(figures, field)) is not None:
                yield GaugeMetricFamily(f"fanwire_{name}", about, value=value)
        for field, (name, about) in COUNTERS.items():
            yield CounterMetricFamily(f"fanwire_{name}", about, value=getattr(figures, field))
        for field, (name, label, about) in COUNTERS_BY.items():
            family = CounterMetricFamily(f"fanwire_{name}", about, labels=[label])
            for value, count in getattr(figures, field).items():
                family.add_metric([str(value)], count)
            yield family
        for field, (name, about, sum_field) in HISTOGRAMS.items():
            yield _histogram(name, about, getattr(figures, field), getattr(figures, sum_field) if sum_field else None)
        pending = self._hub.pressure.waiting_bytes
        yield GaugeMetricFamily("fanwire_pending_bytes", "Bytes that wait for all connections.", value=pending)
        yield GaugeMetricFamily("fanwire_draining", "1 while the broker shuts down.", value=int(self._hub.draining))


def _histogram(name: str, about: str, counts: dict[str, int], total: float | None) -> Metric:
    bounds = ["+Inf" if bound == "more" else str(float(bound)) for bound in counts]
    buckets = list(zip(bounds, accumulate(counts.values()), strict=True))
    family = HistogramMetricFamily(f"fanwire_{name}", about)
    family.add_metric([], buckets=buckets, sum_value=total)
    return family


def exposition(hub: Hub) -> Answer:
    """All of it, and the process's own figures, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(hub))
    ProcessCollector(registry=registry)
    return Answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
