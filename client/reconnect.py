"""When to try again.

Full jitter: after an outage that hit all clients at once, waits drawn from the whole interval spread the load best
(Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). A broker that says goodbye draws the wait
itself, for the same reason.
"""

from __future__ import annotations

from .config import Options


class Backoff:
    """Draws the waits between attempts."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._failures = 0

    def lived(self, seconds: float) -> None:
        """A connection ended that had lived ``seconds``: a good one makes the next wait a first one again."""
        if seconds >= self._options.stable_after_s:
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
