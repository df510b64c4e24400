"""How long one task may work before the others get their turn.

trio switches between tasks only where one of them awaits something. So what a client can ask for at once is done for as
long as a turn lasts; the rest goes on, in order, after all others had theirs. Turns are measured in time, not in things
done: what a publish costs depends on how many subscribers and patterns there are.

To ask the clock takes 50 ns. Loops over quick things ask after some of them, and begin with few.
"""

from __future__ import annotations

import time

import trio

# Seconds. A client that answers a ping in 20 ms sees nothing of it, also when two such turns come one after the other;
# and what a switch costs (some 20 µs, with a look at all sockets) is less than a hundredth of it.
TURN_S = 0.005

clock = time.perf_counter
"""Not trio's: a turn is time that the processor works, and a test's clock stands still meanwhile. Tests replace it."""


def end_of_turn() -> float:
    """When a turn that begins now is over, by `clock`."""
    return clock() + TURN_S


class Turn:
    """A turn of the task that makes it."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends = clock() + TURN_S

    @property
    def over(self) -> bool:
        """Whether it is time for the others."""
        return clock() >= self._ends

    async def pause(self) -> None:
        """If the turn is over, let the others have theirs, and begin another one. A checkpoint only then."""
        if clock() >= self._ends:
            await trio.lowlevel.checkpoint()
            self._ends = clock() + TURN_S
