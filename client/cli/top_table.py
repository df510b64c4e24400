"""`fanwire top` on a terminal, with rich; imported only when there is one."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, JustifyMethod
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .columns import fitted
from .output import output_errors
from .top_view import COLUMNS, HEADINGS, Reports, cells, summary

_AROUND = 10  # lines of a screen that are no rows of the table
_MOST_CLOSED = 3
_BORDERS = 4  # columns of the terminal that the table's outer borders take


class TopTable:
    """Draws reports again and again on the same place of the terminal."""

    def __init__(self, sort: str, limit: int, console: Console | None = None) -> None:
        self._sort = sort
        self._limit = limit
        self._console = console or Console()
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The cursor is hidden meanwhile; the last drawing stays."""
        with output_errors(), self._live:
            yield

    def draw(self, reports: Reports) -> None:
        """Draw them."""
        size = self._console.size
        limit = min(self._limit, max(size.height - _AROUND, 1))
        with output_errors():
            self._live.update(drawn(reports, self._sort, limit, size.width), refresh=True)


def drawn(reports: Reports, sort: str, limit: int, width: int) -> Group:
    """Summary, table and the connections closed last, for a terminal of so many columns."""
    table = Table(box=box.ROUNDED, border_style="bright_black", header_style="bold", expand=False)
    connections = reports.listed(sort, limit)
    rows = [HEADINGS, *(cells(connection, short=True) for connection in connections)]
    shown = fitted(COLUMNS, [max(map(cell_len, column)) for column in zip(*rows, strict=True)], width - _BORDERS)
    for place, wide in shown.items():
        justify: JustifyMethod = "left" if COLUMNS[place].left else "right"
        table.add_column(HEADINGS[place], justify=justify, no_wrap=True, min_width=wide, width=wide)
    for row, connection in zip(rows[1:], connections, strict=True):
        table.add_row(*(Text(row[place]) for place in shown), style="yellow" if connection.get("lagging") else "")
    lines = [Text(line) for line in summary(reports)]
    closed = [Text(line, "dim") for line in reports.closed(_MOST_CLOSED)]
    return Group(*lines, table, *closed, Text(f"sorted by {sort}; Ctrl-C ends", "dim"))
