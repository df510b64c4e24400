"""`fanwire top` on a terminal, with rich; imported only when there is one."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .top_view import HEADINGS, WORDS, Reports, cells, summary

_AROUND = 10  # lines of a screen that are no rows of the table
_MOST_CLOSED = 3

# Columns that a narrow terminal goes without: the columns that it must have for them.
_NEEDS = {"SESSION": 130, "BUFFER": 150, "HELD": 110, "REPLACED": 100, "POLICY": 90}


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
        with self._live:
            yield

    def draw(self, reports: Reports) -> None:
        """Draw them."""
        size = self._console.size
        limit = min(self._limit, max(size.height - _AROUND, 1))
        self._live.update(drawn(reports, self._sort, limit, size.width), refresh=True)


def drawn(reports: Reports, sort: str, limit: int, width: int) -> Group:
    """Summary, table and the connections closed last, for a terminal of so many columns."""
    shown = [place for place, heading in enumerate(HEADINGS) if width >= _NEEDS.get(heading, 0)]
    table = Table(box=box.ROUNDED, border_style="bright_black", header_style="bold", expand=False)
    for place in shown:
        heading = HEADINGS[place]
        words = heading in WORDS
        table.add_column(
            heading, justify="left" if words else "right", no_wrap=True, overflow="ellipsis" if words else "fold"
        )
    for connection in reports.listed(sort, limit):
        row = cells(connection)
        table.add_row(*(Text(row[place]) for place in shown), style="yellow" if connection.get("lagging") else "")
    lines = [Text(line) for line in summary(reports)]
    closed = [Text(line, "dim") for line in reports.closed(_MOST_CLOSED)]
    return Group(*lines, table, *closed, Text(f"sorted by {sort} · Ctrl-C ends", "dim"))
