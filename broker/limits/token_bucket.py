"""Token buckets: so many a second on average, and a burst of so many at once.

One number each, the time at which the bucket will have been filled for all that was taken (known as GCRA): nothing runs
to fill it. A bucket may go into debt, for who learns only afterwards how much there was.
"""

from __future__ import annotations

import math

# What adding up floats may lose.
_EXACT_S = 1e-9


class Bucket:
    """One budget."""

    __slots__ = ("_depth_s", "_interval_s", "_paid_until", "name", "rate")

    def __init__(self, name: str, rate: float, burst: float) -> None:
        """Full at the beginning.

        Args:
            name: Of the limit, for counters and those who are told.
            rate: How many a second.
            burst: How many at once, 1 or more.
        """
        self.name = name
        self._paid_until = -math.inf
        self.change(rate, burst)

    def change(self, rate: float, burst: float) -> None:
        """Another rate and burst from now on. Debts stay as long as they were, in seconds."""
        self.rate = rate
        self._interval_s = 1 / rate
        self._depth_s = max(burst - 1, 0) / rate

    def owed_s(self, now: float) -> float:
        """Seconds until something may be taken again; 0: now."""
        owed = self._paid_until - now
        return owed if owed > _EXACT_S else 0.0

    def take(self, count: float, now: float) -> float:
        """Take so many, also where that is more than there is; return `owed_s` afterwards."""
        full = now - self._depth_s
        paid_until = self._paid_until
        self._paid_until = (paid_until if paid_until > full else full) + count * self._interval_s
        return self.owed_s(now)

    def full(self, now: float) -> bool:
        """Whether it is as it was in the beginning."""
        return self._paid_until <= now - self._depth_s
