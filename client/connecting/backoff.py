"""When to try again.

Full jitter: after an outage that hit all clients at once, waits drawn from the whole interval spread the load best
(Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). A broker that says goodbye draws the wait
itself, for the same reason.
"""

from __future__ import annotations

from ..config import Options

# A connection that the broker ended for slowness was a good one only if it lived this long, in seconds. The slowest of
# the broker's measures takes 30 s to notice (the age of the oldest message): one that ended sooner than twice that may
# have been too slow from its first moment, and the next one will be, too.
GOOD_THOUGH_SLOW_S = 60.0


class Backoff:
    """Draws the waits between attempts."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._failures = 0

    def lived(self, seconds: float, *, too_slow: bool) -> None:
        """A connection ended: a good one makes the next wait a first one again.

        Args:
            seconds: How long it had lived.
            too_slow: Whether the broker ended it because we were too slow. Coming back at once would only repeat that,
                so it counts as a failure even when it lived longer than others have to (`GOOD_THOUGH_SLOW_S`).
        """
        least = self._options.stable_after_s
        if seconds >= (max(least, GOOD_THOUGH_SLOW_S) if too_slow else least):
            self._failures = 0

    def next_wait(self, hint_s: float | None = None) -> float:
        """How long to wait now, in seconds.

        Args:
            hint_s: What the broker asked for. It was drawn at random already, so it is taken as it is for the first
                attempt; attempts after it go by our own count.
        """
        options = self._options
        most = min(options.reconnect_most_s, options.reconnect_base_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        jitter = options.draw() * most
        return jitter if hint_s is None else hint_s if self._failures == 1 else hint_s + jitter
