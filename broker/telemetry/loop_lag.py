"""How late the event loop is: one timer that looks ten times a second when it was really called.

Whatever a client waits for, it waits at least as long: the first figure to look at when messages are late.
"""

from __future__ import annotations

from bisect import bisect_left

import trio

PERIOD_S = 0.1
"""Between two looks: ten wake-ups a second cost a resting broker some 0.1 % of a core."""

LAGS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Bounds of the histogram: each bucket holds what is late by up to its bound. The clock is good for a millisecond."""


class LoopLag:
    """One for each broker."""

    def __init__(self) -> None:
        self._counts = [0] * (len(LAGS_S) + 1)
        self.sum_s = 0.0
        """Of all looks."""

    @property
    def histogram(self) -> dict[str, int]:
        """Times, by upper bound in seconds, the last one "more"; not cumulative."""
        return dict(zip([*map(str, LAGS_S), "more"], self._counts, strict=True))

    def observe(self, late_s: float) -> None:
        """One look."""
        self._counts[bisect_left(LAGS_S, late_s)] += 1
        self.sum_s += late_s

    async def run(self) -> None:
        """Runs until cancelled; the caller's task."""
        while True:
            due = trio.current_time() + PERIOD_S
            await trio.sleep_until(due)
            self.observe(max(0.0, trio.current_time() - due))
