"""Which columns of a table a terminal has room for, and how wide each is.

A number is never cut: words give way first, then whole columns, the least important ones first.
"""

import math
from collections.abc import Sequence

import attrs


@attrs.frozen(slots=True)
class Column:
    """A column of a table."""

    heading: str
    rank: int
    """How important: columns with a greater rank are left out first."""
    words: bool = False
    """Whether the cells are words, which may be cut; everything else is shown whole or not at all."""
    least: int = 8
    """Columns of the terminal below which words are left out rather than cut."""
    name: bool = False
    """Whether the cells are names that are needed whole: they stand to the left, as words do."""

    @property
    def left(self) -> bool:
        """Whether cells stand to the left; numbers stand to the right."""
        return self.words or self.name


def fitted(columns: Sequence[Column], wanted: Sequence[int], room: int, *, between: int = 3) -> dict[int, int]:
    """Choose columns for a terminal.

    Args:
        columns: All there are, in the order in which they are shown.
        wanted: How wide the widest cell of each is, with the heading.
        room: Columns that the terminal has for the table, without what is drawn around it.
        between: Columns of the terminal that are taken by whatever stands between two cells.

    Returns:
        The places of the columns to show, in their order, with their widths. The most important one is among them
        whatever the room.
    """
    widths: dict[int, int] = {}
    left = room + between
    for place in sorted(range(len(columns)), key=lambda place: columns[place].rank):
        column = columns[place]
        width = min(wanted[place], max(column.least, len(column.heading))) if column.words else wanted[place]
        if width + between <= left or not widths:
            widths[place] = width
            left -= width + between
    for place in widths:  # by rank: words get what is left
        if columns[place].words and left > 0:
            more = min(wanted[place] - widths[place], left)
            widths[place] += more
            left -= more
    return dict(sorted(widths.items()))


def short_count(count: float) -> str:
    """A count with at most five characters, or six below zero: `9999`, `12.3k`, `456M`, `1.2G`."""
    if abs(count) < 10_000:
        return f"{count:.0f}"
    for unit in "kMGTPE":
        count /= 1000
        if abs(count) < 999.5:
            return f"{count:.3g}{unit}"
    return "++++" if count > 0 else "----"


def short_seconds(seconds: float) -> str:
    """A time with at most four characters, as far as that goes: `0.3s`, `42s`, `7m`, `3h`, `12d`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}s"
    if seconds < 120:
        return f"{math.floor(seconds)}s"
    for unit, size, most in (("m", 60, 120), ("h", 3600, 48)):
        if seconds < most * size:
            return f"{math.floor(seconds / size)}{unit}"
    return f"{short_count(math.floor(seconds / 86_400))}d"
