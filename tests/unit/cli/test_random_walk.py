from datetime import date
from itertools import islice, pairwise

from fanwire.client.cli.prices import Bar
from fanwire.client.cli.random_walk import random_walk


def _walk(count: int, *, seed: int = 7) -> list[Bar]:
    return list(islice(random_walk(["AAA", "BBB"], seed=seed), count))


def test_the_same_seed_gives_the_same_bars() -> None:
    """Two walks of one seed are equal, bar by bar."""
    assert _walk(1000) == _walk(1000)


def test_another_seed_gives_other_bars() -> None:
    """The seed is really used."""
    assert _walk(10, seed=1) != _walk(10, seed=2)


def test_symbols_take_turns() -> None:
    """There is one bar of each symbol in turn."""
    assert [bar.symbol for bar in _walk(4)] == ["AAA", "BBB", "AAA", "BBB"]


def test_each_bar_opens_where_the_last_one_closed() -> None:
    """The price of a symbol goes on from bar to bar, and lies between low and high."""
    bars = [bar for bar in _walk(2000) if bar.symbol == "AAA"]

    assert all(later.open == earlier.close for earlier, later in pairwise(bars))
    assert all(bar.low <= bar.open <= bar.high and bar.low <= bar.close <= bar.high for bar in bars)
    assert all(bar.low >= 0.01 for bar in bars)


def test_a_day_has_390_minutes_and_no_weekend() -> None:
    """The date moves on after 390 bars of each symbol, over weekdays only."""
    days = [bar.date for bar in _walk(390 * 2 * 6)]

    assert days[0] == days[779] == "2000-01-03"
    assert days[780] == "2000-01-04"
    assert all(date.fromisoformat(day).weekday() < 5 for day in days)
