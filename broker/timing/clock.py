"""The wall clock: the one place that reads it."""

from __future__ import annotations

import time


def time_stamp() -> bytes:
    """Now, as MESSAGE has it, in eight bytes."""
    return wall_clock_us().to_bytes(8, "big")


_last_us = 0


def wall_clock_us() -> int:
    """Microseconds since 1970. The one place that reads the wall clock.

    Every call gives a greater number, even when the system's clock steps back: what is replayed `since` the time that
    OK to a SUBSCRIBE gave is then exactly what was published after it.
    """
    global _last_us
    now = time.time_ns() // 1000
    _last_us = now if now > _last_us else _last_us + 1
    return _last_us
