"""What is counted, logged and said when a limit refuses something.

The limits themselves are where they are checked; docs/limits.md has them all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from ..telemetry.log import log

if TYPE_CHECKING:
    from ..telemetry.statistics import Counters
    from .token_bucket import Bucket

# Of one limit: a storm of refusals must not become one of lines.
LOG_EVERY_S = 1.0


class Limits:
    """Counts refusals. One for each broker."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._logged_at: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    def count(self, limit: str, count: int = 1) -> None:
        """A limit has refused something that is logged elsewhere."""
        self._counters.limited[limit] += count

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


def wait_ms(bucket: Bucket) -> int:
    """When to try again, in milliseconds, at least 1."""
    return max(1, math.ceil(bucket.owed_s(trio.current_time()) * 1000))


def why(bucket: Bucket) -> str:
    """In words."""
    whose = "this user's connections together publish" if bucket.name.startswith("user_") else "this connection sends"
    return f"{whose} more than {bucket.name} allows"
