"""How long one task may work before the others get their turn.

trio switches between tasks only where one of them awaits something. So what a client can ask for at once is done for as
long as a turn lasts; the rest goes on, in order, after all others had theirs. Turns are measured in time, not in things
done: what a publish costs depends on how many subscribers and patterns there are.

A turn for each client would be too much where a thousand of them ask for much. So clients whose work is long share
turns: those that go on stand in one line, and one of them has its turn in each round of the event loop; those that
begin share the time of one turn, and stand in line with what is left. A client that asks for little never notices: its
work is done before anybody looks at the clock.

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


class _Line:
    """The tasks of one event loop that have long work to do."""

    __slots__ = ("_begun", "_due", "_waiting")

    def __init__(self) -> None:
        self._waiting = trio.lowlevel.ParkingLot()
        self._due = False  # whether one of them has its turn in the next round
        self._begun = 0.0  # when those that begin had their last turn together

    def first_end(self, now: float) -> float:
        """When a turn is over that begins ``now`` with new work. All that begins within a turn's time ends with it; and
        then as much time passes before there is another such turn."""
        if not self._begun <= now < self._begun + 2 * TURN_S:
            self._begun = now
        return self._begun + TURN_S

    async def stand(self) -> None:
        """Wait for one's turn. Always a checkpoint."""
        if self._due:
            await self._waiting.park()
            self._call_next()
            return
        self._due = True
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self._call_next()

    def _call_next(self) -> None:
        """Whoever comes next has its turn one round later: tasks that are woken now run when all others have run."""
        if self._waiting:
            self._waiting.unpark()
        else:
            self._due = False


def end_of_turn() -> float:
    """When a turn is over that begins now, by `clock`: of the broker's own tasks, and of whoever stood in line."""
    return clock() + TURN_S


_line_of_run = trio.lowlevel.RunVar[_Line]("fanwire.broker.turn")


def _line() -> _Line:
    try:
        return _line_of_run.get()
    except LookupError:
        line = _Line()
        _line_of_run.set(line)
        return line


def first_end(now: float) -> float:
    """When the turn is over of a task that begins long work at ``now``, by `clock`: within `TURN_S`, and at once if
    others that begin have had their time. Do a little in any case, then call `next_turn`."""
    return _line().first_end(now)


async def next_turn() -> None:
    """Let all others have their turn, and wait for one's own, in line with all whose work is long. It then lasts
    `TURN_S`."""
    await _line().stand()


class Turn:
    """A turn of the task that makes it, for work that may be long and has just begun."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends = first_end(clock())

    @property
    def over(self) -> bool:
        """Whether it is time for the others."""
        return clock() >= self._ends

    async def pause(self) -> None:
        """If the turn is over, let the others have theirs, and wait for another one. A checkpoint only then."""
        if clock() >= self._ends:
            await next_turn()
            self._ends = end_of_turn()
