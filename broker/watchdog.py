"""One task that looks after every connection's clock: keepalive pings and messages that are never finished.

A task for each connection would cost 3 KiB each. Here each connection is one entry of a heap, due when it next needs
a look; `Watched.look` says when that is again.
"""

from __future__ import annotations

import heapq
import itertools
import math

import trio


class Watched:
    """Something that has to be looked at now and then."""

    __slots__ = ()

    def look(self, now: float) -> float | None:
        """Do what is due at ``now`` (trio's clock); return when to look again, None: never."""
        raise NotImplementedError


class Watchdog:
    """Looks when it is time to. One for each broker."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Watched]] = []
        self._numbers = itertools.count()
        self._nap = trio.CancelScope()

    def watch(self, watched: Watched, due: float) -> None:
        """Have ``watched`` looked at when it is due, until its `look` returns None."""
        heapq.heappush(self._heap, (due, next(self._numbers), watched))
        if due < self._nap.deadline:
            self._nap.deadline = due

    async def run(self) -> None:
        """Runs until cancelled; belongs to the broker."""
        while True:
            with trio.CancelScope(deadline=self._heap[0][0] if self._heap else math.inf) as self._nap:
                await trio.sleep_forever()
            now = trio.current_time()
            while self._heap and self._heap[0][0] <= now:
                _, _, watched = heapq.heappop(self._heap)
                again = watched.look(now)
                if again is not None:
                    heapq.heappush(self._heap, (max(again, now), next(self._numbers), watched))
