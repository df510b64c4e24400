"""The board as a live table on a terminal, with rich; imported only when there is a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .board import Board, Row
from .cells import Cells, cells_of, totals_text

_FRAME_LINES = 7  # title, borders, heading and caption: what a screen holds besides rows
_STALE_S = 10  # a row that has been silent for longer is dimmed


@attrs.frozen(slots=True)
class _Column:
    heading: str
    width: int
    text: Callable[[Row, Cells, int], Text]
    """Of the row, its cells, and the terminal's width in columns."""
    needs: int = 0
    """Columns of the terminal under which this one is left out."""
    justify_right: bool = True


class LiveTable:
    """Draws a board again and again on the same place of the terminal.

    Args:
        title: what is watched, and where.
        console: where to draw.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._title = title
        self._console = console or Console()
        # Its refreshing thread is not wanted: the caller draws when there is something new.
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The cursor is hidden while the table is shown; the last drawing stays."""
        with self._live:
            yield

    def draw(self, board: Board, now: float, state: str) -> None:
        """Draw the board as it is now, with the connection's state beside the title."""
        size = self._console.size
        self._live.update(live_table(board, now, self._heading(state), size.width, size.height), refresh=True)

    def _heading(self, state: str) -> Text:
        colour = "green" if state == "connected" else "yellow"
        return Text.assemble(("fanwire ", "bold cyan"), self._title, "  ", ("● ", colour), (state, colour))


def live_table(board: Board, now: float, title: Text, width: int, height: int) -> Table:
    """The board as a table that fits a terminal of so many columns and lines: the first topics, when not all fit."""
    columns = [column for column in _COLUMNS if width >= column.needs]
    table = Table(
        title=title,
        title_justify="left",
        title_style="",
        box=box.ROUNDED,
        border_style="bright_black",
        header_style="bold",
        caption=Text(f"{totals_text(board, now)} · Ctrl-C ends"),
        caption_justify="left",
    )
    for column in columns:
        table.add_column(
            column.heading, justify="right" if column.justify_right else "left", no_wrap=True, min_width=column.width
        )
    for row in board.rows()[: max(height - _FRAME_LINES, 1)]:
        cells = cells_of(row, now)
        style = "dim" if now - row.seen_at > _STALE_S else ""
        table.add_row(*(column.text(row, cells, width) for column in columns), style=style)
    return table


def _coloured(row: Row, text: str) -> Text:
    if not row.change:
        return Text(text, "dim")
    return Text(f"▲ {text}", "green") if row.change > 0 else Text(f"▼ {text}", "red")


def _trend(trend: str, width: int) -> Text:
    # The other columns of a narrow terminal take 66; what it leaves goes to the newest prices.
    return Text(trend[-max(width - 66, 8) :], "cyan")


_COLUMNS = (
    _Column("SYMBOL", 6, lambda _row, cells, _width: Text(cells.symbol, "bold"), justify_right=False),
    _Column("DATE", 10, lambda _row, cells, _width: Text(cells.date, "dim"), needs=72, justify_right=False),
    _Column("PRICE", 7, lambda _row, cells, _width: Text(cells.price, "bold")),
    _Column("CHANGE", 9, lambda row, cells, _width: _coloured(row, cells.change), needs=104),
    _Column("CHANGE%", 9, lambda row, cells, _width: _coloured(row, cells.change_percent)),
    _Column("TREND", 8, lambda _row, cells, width: _trend(cells.trend, width), needs=60, justify_right=False),
    _Column("MESSAGES", 8, lambda _row, cells, _width: Text(cells.messages), needs=116),
    _Column("MSG/S", 6, lambda _row, cells, _width: Text(cells.rate)),
    _Column("AGE", 4, lambda _row, cells, _width: Text(cells.age, "dim")),
)
