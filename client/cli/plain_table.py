"""The board as plain text: for pipes, logs and tests. Blanks part the columns; no cell holds one."""

from collections.abc import Iterable

import attrs

from .board import Board
from .cells import HEADINGS, cells_of, totals_text

_WORDS = (0, 1, 5)  # columns of words stand to the left, numbers to the right


def plain_table(board: Board, now: float) -> str:
    """A heading, one line a topic and a line of totals, without a newline at the end."""
    lines = [HEADINGS, *(attrs.astuple(cells_of(row, now)) for row in board.rows())]
    return "\n".join([*_aligned(lines), totals_text(board, now)])


def _aligned(lines: list[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.ljust(width) if place in _WORDS else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
