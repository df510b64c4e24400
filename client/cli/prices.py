"""The real daily bars that come with Fanwire, in the order in which they happened."""

import csv
import gzip
import io
from collections.abc import Collection, Iterator
from importlib.resources import files
from itertools import groupby
from operator import attrgetter

import attrs

TOPIC_PREFIX = "stocks"
"""A bar of AAPL is published on the topic `stocks.AAPL`."""


@attrs.frozen(slots=True)
class Bar:
    """What one share did in one stretch of time: a trading day of the real prices, a minute of a random walk."""

    symbol: str
    date: str
    """ISO 8601, `2000-03-01`."""
    open: float
    high: float
    low: float
    close: float
    volume: int

    @property
    def topic(self) -> str:
        """Where the bar is published: `stocks.AAPL`."""
        return f"{TOPIC_PREFIX}.{self.symbol}"

    def to_data(self) -> dict[str, str | float | int]:
        """The bar as it goes over the wire: its fields, and `price`, which is the close."""
        return {
            "symbol": self.symbol,
            "date": self.date,
            "price": self.close,
            "open": self.open,
            "high": self.high,
            "low": self.low,
            "close": self.close,
            "volume": self.volume,
        }


def read_bars(symbols: Collection[str] | None = None, *, since: str = "") -> list[Bar]:
    """The real bars by date, and by symbol within a date.

    Args:
        symbols: the shares wanted; all five when `None`.
        since: the first date wanted, ISO 8601; from the beginning when empty.

    Raises:
        ValueError: no bars of a symbol that was asked for, or none since that date; the text says which there are.
    """
    bars = sorted(_all_bars(), key=attrgetter("date", "symbol"))
    known = sorted({bar.symbol for bar in bars})
    if unknown := sorted(set(symbols or ()) - set(known)):
        raise ValueError(f"no prices of {', '.join(unknown)}: there are those of {', '.join(known)}")
    wanted = frozenset(symbols or known)
    chosen = [bar for bar in bars if bar.symbol in wanted and bar.date >= since]
    if not chosen:
        raise ValueError(f"no prices since {since}: they run from {bars[0].date} to {bars[-1].date}")
    return chosen


def trading_days(bars: list[Bar]) -> Iterator[list[Bar]]:
    """Bars in date order, gathered by date: each list holds one bar of every share that was traded that day."""
    for _, day in groupby(bars, key=attrgetter("date")):
        yield list(day)


def _all_bars() -> Iterator[Bar]:
    packed = files("fanwire.client.cli.data").joinpath("stocks.csv.gz").read_bytes()
    rows = csv.reader(io.StringIO(gzip.decompress(packed).decode("ascii"), newline=""))
    next(rows)  # the heading
    for symbol, date, open_, high, low, close, volume, _adjusted in rows:
        yield Bar(symbol, date, float(open_), float(high), float(low), float(close), int(float(volume)))
