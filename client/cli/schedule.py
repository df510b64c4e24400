"""When each thing is due: pure arithmetic, so that a replay can be tested without waiting for it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import trio

T = TypeVar("T")

Due = tuple[float, T]
"""Seconds after the start, and the thing that is due then."""


def evenly(things: Iterable[T], *, rate: float) -> Iterator[Due[T]]:
    """One thing after the other, `rate` a second."""
    for number, thing in enumerate(things):
        yield number / rate, thing


def by_group(groups: Iterable[Sequence[T]], *, speed: float) -> Iterator[Due[T]]:
    """`speed` groups a second, the things of each spread evenly over its time."""
    for number, group in enumerate(groups):
        for place, thing in enumerate(group):
            yield (number + place / len(group)) / speed, thing


class Pace:
    """Waits for what is due. Being a little late is made up for; nothing is left out.

    After being held up for longer (the broker was away) it goes on from there: to make up for that would be a flood.
    """

    _MADE_UP_FOR_S = 1.0

    def __init__(self) -> None:
        self._start = trio.current_time()

    def late(self, due: float) -> bool:
        """Is this due by now? Then there is nothing to wait for."""
        return trio.current_time() >= self._start + due

    async def until(self, due: float) -> None:
        """Wait until so many seconds after the start; a checkpoint in any case."""
        await trio.sleep_until(self._start + due)
        behind = trio.current_time() - (self._start + due)
        if behind > self._MADE_UP_FOR_S:
            self._start += behind
