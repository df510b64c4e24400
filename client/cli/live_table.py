"""The board as a live table on a terminal, with rich; imported only when there is a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .board import Board, Row
from .cells import Cells, cells_of, totals_text
from .columns import Column, fitted
from .output import output_errors

_BORDERS = 4  # columns of the terminal that the table's outer borders take
_FRAME_LINES = 7  # title, borders, heading and caption: what a screen holds besides rows
_STALE_S = 10  # a row that has been silent for longer is dimmed


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
        with output_errors(), self._live:
            yield

    def draw(self, board: Board, now: float, state: str) -> None:
        """Draw the board as it is now, with the connection's state beside the title."""
        size = self._console.size
        ascii_only = self._console.options.ascii_only
        table = live_table(board, now, self._heading(state, ascii_only), size.width, size.height, ascii_only=ascii_only)
        with output_errors():
            self._live.update(table, refresh=True)

    def _heading(self, state: str, ascii_only: bool) -> Text:
        colour = "green" if state == "connected" else "yellow"
        mark = "* " if ascii_only else "● "
        return Text.assemble(("fanwire ", "bold cyan"), self._title, "  ", (mark, colour), (state, colour))


def live_table(board: Board, now: float, title: Text, width: int, height: int, *, ascii_only: bool = False) -> Table:
    """The board as a table that fits a terminal: fewer columns, then the first topics, when not all fit.

    Args:
        board: What to show.
        now: The time on the board's clock, in seconds.
        title: The line above the table.
        width: Columns of the terminal.
        height: Its lines.
        ascii_only: Whether the terminal has no characters but those of ASCII: then there is no trend.
    """
    table = Table(
        title=title,
        title_justify="left",
        title_style="",
        box=box.ROUNDED,
        border_style="bright_black",
        header_style="bold",
        caption=Text(f"{totals_text(board, now)}; Ctrl-C ends"),
        caption_justify="left",
    )
    shown = board.rows()[: max(height - _FRAME_LINES, 1)]
    rows = [_texts(row, cells_of(row, now), ascii_only) for row in shown]
    widths = [max([least, *(row[place].cell_len for row in rows)]) for place, least in enumerate(_LEAST)]
    chosen = fitted(_COLUMNS, widths, width - _BORDERS)
    if ascii_only:
        chosen.pop(_TREND, None)
    for place, wide in chosen.items():
        table.add_column(
            _COLUMNS[place].heading,
            justify="left" if _COLUMNS[place].left else "right",
            no_wrap=True,
            min_width=wide,
            width=wide,
        )
    for row, texts in zip(shown, rows, strict=True):
        if _TREND in chosen:
            texts[_TREND] = texts[_TREND][-chosen[_TREND] :]  # the newest prices
        style = "dim" if now - row.seen_at > _STALE_S else ""
        table.add_row(*(texts[place] for place in chosen), style=style)
    return table


def _texts(row: Row, cells: Cells, ascii_only: bool) -> list[Text]:
    """In the order of `_COLUMNS`."""
    return [
        Text(cells.symbol, "bold"),
        Text(cells.date, "dim"),
        Text(cells.price, "bold"),
        _coloured(row, cells.change, ascii_only),
        _coloured(row, cells.change_percent, ascii_only),
        Text("" if ascii_only else cells.trend, "cyan"),
        Text(cells.messages),
        Text(cells.rate),
        Text(cells.age, "dim"),
    ]


def _coloured(row: Row, text: str, ascii_only: bool) -> Text:
    if not row.change:
        return Text(text, "dim")
    colour = "green" if row.change > 0 else "red"
    return Text(text if ascii_only else f"{'▲' if row.change > 0 else '▼'} {text}", colour)


_COLUMNS = (
    Column("SYMBOL", 0, words=True, least=6),
    Column("DATE", 6, name=True),
    Column("PRICE", 1),
    Column("CHANGE", 7),
    Column("CHANGE%", 2),
    Column("TREND", 5, words=True),
    Column("MESSAGES", 8),
    Column("MSG/S", 3),
    Column("AGE", 4),
)
_LEAST = (6, 10, 7, 9, 9, 24, 8, 6, 4)
"""How wide each is at least, so that it does not jump when a number grows."""
_TREND = 5
