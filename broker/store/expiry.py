"""History that is only kept for some time: forgotten within a second after that, a portion at a time."""

from __future__ import annotations

from ..timing.clock import wall_clock_us
from ..timing.timers import Watched
from .interface import Store

EVERY_S = 1.0

# Blocks forgotten at once before others get their turn: about 2 µs each.
PORTION = 500


class Expiry(Watched):
    """One entry of the watchdog."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def look(self, now: float) -> float | None:
        """See `Watched`."""
        more = self._store.expire(wall_clock_us(), PORTION)
        return now + (0.005 if more else EVERY_S)
