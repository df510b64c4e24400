"""A table for people and for `awk`: blanks part the columns, and no cell holds one."""

from collections.abc import Sequence

from fanwire.client.cli.columns import Column, fitted
from fanwire.client.cli.terminal_text import printable

_BETWEEN = 2


def table(columns: Sequence[Column], rows: Sequence[Sequence[object]], room: int | None = None) -> str:
    """Headings and rows, aligned.

    Args:
        columns: Of the table.
        rows: A value for each column.
        room: Columns of the terminal: words are cut, and columns left out, as far as needed. None: there is no
            terminal, and everything is written.
    """
    lines = [tuple(column.heading for column in columns), *(tuple(_cell(value) for value in row) for row in rows)]
    wanted = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    widths = dict(enumerate(wanted)) if room is None else fitted(columns, wanted, room, between=_BETWEEN)
    return "".join(
        (" " * _BETWEEN)
        .join(
            _cut(line[place], width).ljust(width) if columns[place].left else line[place].rjust(width)
            for place, width in widths.items()
        )
        .rstrip()
        + "\n"
        for line in lines
    )


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 1] + "…"


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "_".join(printable(str(value)).split()) or "-"
