"""What is counted, logged and said when a limit refuses something.

The limits themselves are where they are checked; docs/limits.md has them all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from fanwire.protocol import Error

from ..telemetry.log import log

if TYPE_CHECKING:
    from ..sessions.hub import Hub
    from ..sessions.session import Session
    from ..topics.routes import Route
    from .token_bucket import Bucket

# Of one limit: a storm of refusals must not become one of lines.
LOG_EVERY_S = 1.0


class Limits:
    """Counts refusals. One for each broker."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._logged_at: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    def count(self, limit: str, count: int = 1) -> None:
        """A limit has refused something that is logged elsewhere."""
        self._hub.counters.limited[limit] += count

    def refuse(self, limit: str, count: int = 1, **facts: object) -> None:
        """A limit has refused something: count it, and log it, once a second at most.

        Args:
            limit: Its name (`LIMITS` has them).
            count: How many at once.
            facts: For the log. ``times`` there is how many since the last line.
        """
        self.count(limit, count)
        now = trio.current_time()
        times = self._unlogged.get(limit, 0) + count
        if now < self._logged_at.get(limit, -math.inf) + LOG_EVERY_S:
            self._unlogged[limit] = times
            return
        self._logged_at[limit], self._unlogged[limit] = now, 0
        log.warning("limit reached", limit=limit, times=times, **facts)

    def too_many(self, session: Session, route: Route) -> tuple[str, str] | None:
        """Which limit one more subscription of this connection would break, in name and words; None: it may be had."""
        config, hub = self._hub.config, self._hub
        own, total, patterns = config.max_subscriptions, config.max_total_subscriptions, config.max_patterns
        if own is not None and len(session.outbox.subscriptions) >= own:
            return "max_subscriptions", f"a connection may have {own} subscriptions; unsubscribe from some first"
        if total is not None and hub.subscriptions >= total:
            return "max_total_subscriptions", "the broker has as many subscriptions as it may have"
        if patterns is not None and not route.outboxes and len(hub.registry.routes) > patterns:
            return "max_patterns", "as many different patterns are subscribed to as may be"
        return None


def wait_ms(bucket: Bucket) -> int:
    """When to try again, in milliseconds, at least 1."""
    return max(1, math.ceil(bucket.owed_s(trio.current_time()) * 1000))


def too_fast(session: Session, bucket: Bucket, requests: list[int]) -> None:
    """Refuse publishes that want an answer."""
    session.hub.limits.refuse(bucket.name, len(requests), session=session.id, user=session.user)
    retry = wait_ms(bucket)
    for request in requests:
        session.reject(Error(request, "rate_limited", why(bucket), {"limit": bucket.name, "retry_after_ms": retry}))


def why(bucket: Bucket) -> str:
    """In words."""
    whose = "this user's connections together publish" if bucket.name.startswith("user_") else "this connection sends"
    return f"{whose} more than {bucket.name} allows"
