"""Episodes of slowness: from more than 75 % of one of the four measures to less than 50 % of all, or to the end.
Counted, logged once, and published on ``$sys.slow`` (docs/operations.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgpack
import trio

from fanwire.protocol.reserved import SLOW, without_inbox

from ..telemetry.log import Speaker
from ..telemetry.text import shown

if TYPE_CHECKING:
    from ..telemetry.bounded_log import Repeats
    from ..telemetry.statistics import Counters
    from .fanout import Fanout
    from .outbox import Outbox, SlowConsumer
    from .routes import Registry
    from .subscription import Subscription

_pack = msgpack.Packer().pack
_MSGPACK = b"\x01"


class Subscriber(Speaker, Protocol):
    """Whose slowness it is."""

    outbox: Outbox

    def totals(self) -> tuple[int, int]:
        """Messages that all its subscriptions have lost, and that were replaced."""


class Episodes:
    """Notes when somebody becomes slow, and how it ends. All of it may be called from inside a sweep."""

    def __init__(self, counters: Counters, registry: Registry, fanout: Fanout, repeats: Repeats) -> None:
        """They are told on a topic of ``registry``, through ``fanout``, and to the log by ``repeats``."""
        self._counters = counters
        self._registry = registry
        self._fanout = fanout
        self._repeats = repeats

    def began(self, session: Subscriber, subscription: Subscription) -> None:
        """It passed 75 %: one line in the log, and one event."""
        self._counters.slow_episodes += 1
        outbox = session.outbox
        facts = _facts(session, subscription, outbox.all_bytes, outbox.oldest_s())
        facts |= _nearest(session, subscription)
        self._repeats.say(session, "warning", "subscriber is lagging", **_logged(facts))
        self._tell("lagging", facts)

    def ended(self, session: Subscriber, subscription: Subscription) -> None:
        """It is below 50 % again."""
        outbox, (lost, replaced) = session.outbox, subscription.before_lagging
        facts = _facts(session, subscription, outbox.all_bytes, outbox.oldest_s())
        lasted_ms = int((trio.current_time() - subscription.lagging_since) * 1000)
        during = {"lost": subscription.lost - lost, "replaced": subscription.replaced - replaced}
        self._tell("recovered", {**facts, **during, "lasted_ms": lasted_ms})

    def unsubscribed(self, session: Subscriber, verdict: SlowConsumer) -> None:
        """Its policy was to be unsubscribed, and it was."""
        self._counters.slow_unsubscribed += 1
        facts = _facts_of(session, verdict)
        self._repeats.say(session, "warning", "slow subscriber was unsubscribed", verdict.measure, **_logged(facts))
        self._tell("unsubscribed", facts)

    def disconnected(self, session: Subscriber, verdict: SlowConsumer) -> None:
        """The connection is closed for it; its session logs that."""
        by_measure = self._counters.slow_by_measure
        by_measure[verdict.measure] = by_measure.get(verdict.measure, 0) + 1
        self._tell("disconnected", _facts_of(session, verdict))

    def _tell(self, event: str, facts: dict[str, Any]) -> None:
        topic = self._registry.topic_named(SLOW)
        if topic.routes:
            tail = _pack(_pack({"event": event, **facts})) + _MSGPACK
            self._fanout.publish_own(topic, [tail])


def _logged(facts: dict[str, Any]) -> dict[str, Any]:
    """Without those that each line about a connection has."""
    return {key: value for key, value in facts.items() if key not in ("session", "name")}


def _facts_of(session: Subscriber, verdict: SlowConsumer) -> dict[str, Any]:
    facts = _facts(session, verdict.subscription, verdict.queued_bytes, verdict.oldest_s)
    return {**facts, "queued": verdict.messages, "measure": verdict.measure}


def _nearest(session: Subscriber, subscription: Subscription) -> dict[str, Any]:
    """Which measure it is that made it lag, and how far it is."""
    share, measure = session.outbox.nearest(trio.current_time(), (subscription,))
    backlog = subscription.backlog
    if backlog is not None and backlog[0] > share * backlog[1]:
        share, measure = backlog[0] / backlog[1], "backlog"
    return {"measure": measure, "percent": int(share * 100)}


def _group(subscription: Subscription | None) -> str | None:
    group = subscription.route.group if subscription else None
    return None if group is None else shown(group)


def _facts(
    session: Subscriber, subscription: Subscription | None, queued_bytes: int, oldest_s: float
) -> dict[str, Any]:
    """As they stand in an event; those of a subscription are nil when it is the connection that is slow."""
    lost, replaced = (subscription.lost, subscription.replaced) if subscription else session.totals()
    backlog = (subscription and subscription.backlog) or (None, None)
    return {
        "session": session.id,
        "name": shown(session.name),
        "route": subscription.route.number if subscription else None,
        "pattern": without_inbox(subscription.route.pattern) if subscription else None,
        "group": _group(subscription),
        "on_slow": subscription.on_slow if subscription else None,
        "queued": subscription.waiting if subscription else 0,
        "limit": subscription.queue if subscription else None,
        "queued_bytes": queued_bytes,
        "oldest_ms": int(oldest_s * 1000),
        "lost": lost,
        "replaced": replaced,
        "client_queued": backlog[0],
        "client_limit": backlog[1],
    }
