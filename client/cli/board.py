"""What `fanwire watch` knows: one row a topic. Pure: messages in, rows out, time told by the caller."""

from collections import deque

import attrs

from .quote import Quote, quote_of
from .recent_rate import RecentRate
from .terminal_text import printable

_TREND = 24  # prices a sparkline shows
_MAX_ROWS = 10_000  # a row takes about 2 KiB: 20 MiB


@attrs.define(slots=True)
class Row:
    """The latest of one topic."""

    topic: str
    rate: RecentRate
    symbol: str
    """What the messages call it; the topic where they don't say."""
    date: str | None = None
    price: float | None = None
    previous: float | None = None
    """The price before this one; `change` is against it."""
    trend: deque[float] = attrs.field(factory=lambda: deque(maxlen=_TREND))
    messages: int = 0
    seen_at: float = 0.0
    """Seconds, on the clock of whoever calls."""

    @property
    def change(self) -> float | None:
        """The price less the one before it; `None` before the second price."""
        if self.price is None or self.previous is None:
            return None
        return self.price - self.previous

    @property
    def change_percent(self) -> float | None:
        """The change in percent of the price before; `None` where there is none, or that was zero."""
        if self.change is None or not self.previous:
            return None
        return 100 * self.change / abs(self.previous)

    def take(self, quote: Quote, now: float) -> None:
        """Take in one message."""
        self.messages += 1
        self.seen_at = now
        self.rate.add(now)
        self.symbol = quote.symbol or self.symbol
        self.date = quote.date or self.date
        if quote.price is not None:
            self.previous, self.price = self.price, quote.price
            self.trend.append(quote.price)


class Board:
    """All rows, and how many messages made them.

    Args:
        now: the time, in seconds, on the clock that every other method is told.
        field: where a message's price is; see `quote_of`.
        max_rows: topics beyond this many are counted in `messages` and `topics_left_out`, but have no row.
    """

    def __init__(self, now: float, *, field: str | None = None, max_rows: int = _MAX_ROWS) -> None:
        self.began_at = now
        self.messages = 0
        self.rate = RecentRate(now)
        self.left_out = 0
        """Messages of topics that have no row because there are too many of them."""
        self.lost = 0
        """Messages that never came, as far as the subscription knows."""
        self.fell_behind = 0
        """Times that a subscription was ended because it did not keep up, and was begun anew."""
        self._field = field
        self._max_rows = max_rows
        self._rows: dict[str, Row] = {}

    def take(self, topic: str, data: object, now: float) -> None:
        """Take in one message of a topic."""
        self.messages += 1
        self.rate.add(now)
        row = self._row_of(topic, now)
        if row is None:
            self.left_out += 1
        else:
            row.take(quote_of(data, self._field), now)

    def rows(self) -> list[Row]:
        """The rows, by topic."""
        return sorted(self._rows.values(), key=lambda row: row.topic)

    def __len__(self) -> int:
        return len(self._rows)

    def _row_of(self, topic: str, now: float) -> Row | None:
        row = self._rows.get(topic)
        if row is None and len(self._rows) < self._max_rows:
            row = self._rows[topic] = Row(topic, RecentRate(now), symbol=printable(topic))
        return row
