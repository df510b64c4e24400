"""Prices that never were, for as long as one likes: a geometric random walk, the same for the same seed."""

import random
from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from .prices import Bar

_FIRST_DAY = date(2000, 1, 3)  # a Monday
_MINUTES_A_DAY = 390  # from 9:30 to 16:00: a bar of the walk is a minute
_DAYS = 1_000_000  # then the calendar begins anew: it ends in the year 9999
_VOLATILITY = 0.001  # of a minute; some 2 % a day, as shares have


def random_walk(symbols: Sequence[str], *, seed: int) -> Iterator[Bar]:
    """Bars without end: one of each symbol in turn.

    Args:
        symbols: the names of the shares, which need not exist.
        seed: the same seed and symbols give the same bars.
    """
    chance = random.Random(seed)  # nothing secret about it
    prices = {symbol: round(chance.uniform(20, 500), 2) for symbol in symbols}
    for day in _days():
        for _ in range(_MINUTES_A_DAY):
            for symbol in symbols:
                bar = _step(symbol, day, prices[symbol], chance)
                prices[symbol] = bar.close
                yield bar


def _step(symbol: str, day: str, opened: float, chance: random.Random) -> Bar:
    # Never under a cent, from where a walk in whole cents could not come back.
    closed = max(0.01, round(opened * (1 + chance.gauss(0, _VOLATILITY)), 2))
    low, high = sorted((opened, closed))
    return Bar(symbol, day, opened, high, low, closed, chance.randrange(100, 10_000))


def _days() -> Iterator[str]:
    number = 0
    while True:
        weeks, weekday = divmod(number % _DAYS, 5)
        yield (_FIRST_DAY + timedelta(weeks=weeks, days=weekday)).isoformat()
        number += 1
