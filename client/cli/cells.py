"""The words and numbers of a board's row, the same for a terminal and for a pipe."""

import attrs

from .board import Board, Row
from .columns import short_seconds
from .sparkline import sparkline

HEADINGS = ("SYMBOL", "DATE", "PRICE", "CHANGE", "CHANGE%", "TREND", "MESSAGES", "MSG/S", "AGE")
NOTHING = "-"


@attrs.frozen(slots=True)
class Cells:
    """One row as text, in the order of `HEADINGS`; no cell is empty or holds a blank."""

    symbol: str
    date: str
    price: str
    change: str
    change_percent: str
    trend: str
    messages: str
    rate: str
    age: str


def cells_of(row: Row, now: float) -> Cells:
    """What to show of a row at a time."""
    return Cells(
        symbol=row.symbol.replace(" ", "_"),
        date=(row.date or NOTHING).replace(" ", "T"),
        price=number_text(row.price),
        change=number_text(row.change, signed=True),
        change_percent=percent_text(row.change_percent),
        trend=sparkline(row.trend) or NOTHING,
        messages=f"{row.messages}",
        rate=f"{row.rate.per_second(now):.1f}",
        age=short_seconds(now - row.seen_at),
    )


def number_text(number: float | None, *, signed: bool = False) -> str:
    """A price with its cents; more digits where it is small, fewer where it would not fit."""
    if number is None:
        return NOTHING
    sign = "+" if signed else ""
    if number and not 0.01 <= abs(number) < 1e9:
        return f"{number:{sign}.4g}"
    return f"{number:{sign}.2f}"


def percent_text(percent: float | None) -> str:
    """A change in percent; one beyond all measure is no number to read."""
    if percent is None:
        return NOTHING
    return f"{percent:+.2f}%" if abs(percent) < 10_000 else "+>9999%" if percent > 0 else "->9999%"


def totals_text(board: Board, now: float) -> str:
    """One line on the whole: `250 messages of 5 topics in 5.0 s, 50.0 messages/s`."""
    line = (
        f"{board.messages} messages of {len(board)} topics in {now - board.began_at:.1f} s, "
        f"{board.rate.per_second(now):.1f} messages/s"
    )
    notes = (
        (board.left_out, "of further topics not shown"),
        (board.lost, "lost"),
        (board.fell_behind, "times fallen behind and subscribed anew"),
    )
    return "; ".join([line, *(f"{count} {what}" for count, what in notes if count)])
