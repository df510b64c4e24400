"""One timer for all of a client's requests: a cancel scope for each would take longer than all else that is done here
for a request and its reply."""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

import trio

# Entries of requests that are over, beside as many as there are open ones, before they are cleared away.
MOST_OVER = 64


class Expiring(Protocol):
    """Somebody whose time may be up."""

    @property
    def over(self) -> bool:
        """Whether it does not matter any more."""

    def expire(self) -> None:
        """Called at the deadline, unless it was over before."""


class Deadlines:
    """`run` belongs to the connection: who waits with one of these waits for what comes over that."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Expiring]] = []
        self._numbers = count()  # so that nobody compares what has the same deadline
        self._open = 0
        self._next = math.inf
        self._earlier = trio.lowlevel.ParkingLot()

    def add(self, deadline: float, expiring: Expiring) -> None:
        """Call its `expire` at ``deadline``, on trio's clock. Call `done` when it is over."""
        self._open += 1
        if deadline == math.inf:
            return
        heappush(self._heap, (deadline, next(self._numbers), expiring))
        if deadline < self._next:
            self._next = deadline
            self._earlier.unpark_all()

    def done(self) -> None:
        """One of them is over."""
        self._open -= 1
        if len(self._heap) > 2 * self._open + MOST_OVER:
            self._heap = [entry for entry in self._heap if not entry[2].over]
            heapify(self._heap)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            self._next = self._heap[0][0] if self._heap else math.inf
            with trio.move_on_at(self._next):
                await self._earlier.park()
            now = trio.current_time()
            while self._heap and self._heap[0][0] <= now:
                _, _, expiring = heappop(self._heap)
                if not expiring.over:
                    expiring.expire()
