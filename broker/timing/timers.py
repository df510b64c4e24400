"""One task that looks after every connection's clock: keepalive pings and messages that are never finished.

A task for each connection would cost 3 KiB each. Here each connection is one entry of a heap, due when it next needs
a look; `Watched.look` says when that is again.
"""

from __future__ import annotations

import heapq
import itertools
import math

import trio

# Entries of the heap that may be dead beside as many as are alive: so forgetting costs next to nothing each time.
_ROOM = 256


class Watched:
    """Something that has to be looked at now and then."""

    __slots__ = ()

    def look(self, now: float) -> float | None:
        """Do what is due at ``now`` (trio's clock); return when to look again, None: never."""
        raise NotImplementedError


class Watchdog:
    """Looks when it is time to. One for each broker."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._watched: dict[int, Watched] = {}
        self._numbers = itertools.count()
        self._nap = trio.CancelScope()

    def watch(self, watched: Watched, due: float) -> int:
        """Have ``watched`` looked at when it is due, until its `look` returns None.

        Returns:
            What to call `forget` with when it ends earlier.
        """
        number = next(self._numbers)
        self._watched[number] = watched
        heapq.heappush(self._heap, (due, number))
        if due < self._nap.deadline:
            self._nap.deadline = due
        return number

    def forget(self, number: int) -> None:
        """The contrary of `watch`: nothing of what was watched is kept until it would have been due. Idempotent."""
        self._watched.pop(number, None)
        if len(self._heap) > 2 * len(self._watched) + _ROOM:
            self._heap = [entry for entry in self._heap if entry[1] in self._watched]
            heapq.heapify(self._heap)

    async def run(self) -> None:
        """Runs until cancelled; belongs to the broker."""
        while True:
            with trio.CancelScope(deadline=self._heap[0][0] if self._heap else math.inf) as self._nap:
                await trio.sleep_forever()
            self._look(trio.current_time())

    def _look(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            number = heapq.heappop(self._heap)[1]
            watched = self._watched.get(number)
            if watched is None:
                continue
            again = watched.look(now)
            if again is None:
                self._watched.pop(number, None)
            else:
                heapq.heappush(self._heap, (max(again, now), number))
