"""How long one task may work before the others get their turn.

trio switches between tasks only where one of them awaits something. So what a client can ask for at once is done for as
long as a turn lasts; the rest goes on, in order, after all others had theirs. Turns are measured in time, not in things
done: what a publish costs depends on how many subscribers and patterns there are.

A turn for each client would be too much where a thousand of them ask for much. So clients whose work is long share
turns: those that go on stand in one line, and in each round of the event loop the first of them share a turn; those
that begin in one round share another one, though each may do a millisecond's work. A client that asks for little never
notices: its work is done before anybody looks at the clock.

To ask the clock takes 50 ns. Loops over quick things ask after some of them, and begin with few.
"""

from __future__ import annotations

import time

import trio

# Seconds. A client that answers a ping in 20 ms sees nothing of it, also when two such turns come one after the other;
# and what a switch costs (some 20 µs, with a look at all sockets) is less than a hundredth of it.
TURN_S = 0.005

# What each client that begins may take in any case, in seconds: a usual read is done by then. To leave the rest of it
# for another round would cost a third of what a broker under full load can do.
LEAST_S = 0.001

# Clients of the line that share the turn of one round.
MOST_AT_ONCE = 8

clock = time.perf_counter
"""Not trio's: a turn is time that the processor works, and a test's clock stands still meanwhile. Tests replace it."""


class _Line(trio.abc.Instrument):
    """The tasks of one event loop that have long work to do. As an instrument it learns when a round begins."""

    def __init__(self) -> None:
        self._waiting = trio.lowlevel.ParkingLot()
        self._due = 0  # how many of them have their turn in the next round, or in this one
        self._share = TURN_S  # how long that is for each of them
        self._ends = 0.0  # when the turn ends that those share who begin in this round; 0: nobody has begun

    def after_io_wait(self, timeout: float) -> None:
        """See `trio.abc.Instrument`: a round begins."""
        self._ends = 0.0

    def first_end(self, now: float) -> float:
        """When a turn is over that begins ``now`` with new work."""
        if not self._ends:
            self._ends = now + TURN_S
        return max(self._ends, now + LEAST_S)

    async def stand(self) -> float:
        """Wait for one's turn. Always a checkpoint. Returns how long the turn is."""
        if self._due:
            await self._waiting.park()
        else:
            self._due, self._share = 1, TURN_S
            try:
                await trio.lowlevel.checkpoint()
            except BaseException:
                self._begin()
                raise
        share = self._share
        self._begin()
        return share

    def _begin(self) -> None:
        """One that was due begins. The last of them wakes the next ones, which then run one round later."""
        self._due -= 1
        if not self._due and self._waiting:
            self._due = min(len(self._waiting), MOST_AT_ONCE)
            self._share = TURN_S / self._due
            self._waiting.unpark(count=self._due)


def end_of_turn() -> float:
    """When a turn is over that begins now, by `clock`: of the broker's own tasks."""
    return clock() + TURN_S


_line_of_run = trio.lowlevel.RunVar[_Line]("fanwire.broker.timing.turn")


def _line() -> _Line:
    try:
        return _line_of_run.get()
    except LookupError:
        line = _Line()
        _line_of_run.set(line)
        trio.lowlevel.add_instrument(line)  # until the end of this `trio.run`
        return line


def first_end(now: float) -> float:
    """When the turn is over of a task that begins long work at ``now``, by `clock`: within `TURN_S`, and sooner if
    others have begun in the same round of the event loop, but not before `LEAST_S`. Call `next_turn` then."""
    return _line().first_end(now)


async def next_turn() -> float:
    """Let all others have their turn, and wait for one's own, in line with all whose work is long.

    Returns:
        How long it may last, in seconds by `clock`.
    """
    return await _line().stand()


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
            share = await next_turn()
            self._ends = clock() + share
