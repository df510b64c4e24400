"""Tables on a terminal of any width, with any figures: a number is shown whole, or its column is not there."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.text import Text

from fanwire.broker.cli import connections as operators
from fanwire.broker.cli.operator_table import table as operator_table
from fanwire.client.cli.board import Board
from fanwire.client.cli.cells import cells_of
from fanwire.client.cli.columns import Column, fitted, short_count, short_seconds
from fanwire.client.cli.live_table import live_table
from fanwire.client.cli.top_table import drawn
from fanwire.client.cli.top_view import COLUMNS, Reports, cells, nearest_limit

WIDTHS = [80, 100, 120, 160]

figures = st.integers(0, 10**22) | st.integers(0, 10**7) | st.sampled_from([9_999, 10_000, 999_499, 999_500])
words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="│"), max_size=60)
connections = st.fixed_dictionaries(
    {
        "session": st.text("0123456789abcdef", min_size=8, max_size=16), "name": words, "user": words | st.none(),
        "lagging": st.booleans(), "queued": figures, "queued_bytes": figures, "oldest_ms": figures, "held": figures,
        "lost": figures, "replaced": figures, "client_queued": figures, "client_limit": figures,
        "on_slow": st.lists(st.sampled_from(["conflate", "drop_oldest"]), max_size=2), "subscriptions": figures,
        "patterns": st.lists(words, max_size=3), "percent": st.integers(0, 120),
        "measure": st.sampled_from(["queue", "max_pending", "max_age", "stall_timeout", None]),
    }
)  # fmt: skip


def _lines(shown: RenderableType, width: int) -> list[str]:
    console = Console(width=width, height=50, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(shown)
    return captured.get().splitlines()


def _rows(lines: list[str]) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows of a table with rounded borders."""
    cut = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    return cut[0], cut[1:]


@pytest.mark.parametrize("width", WIDTHS)
@given(listed=st.lists(connections, min_size=1, max_size=5), published=figures)
def test_top_cuts_no_number(width: int, listed: list[dict[str, Any]], published: int) -> None:
    """`fanwire top`: figures whole, names of sessions whole, words cut with a mark, every line within the terminal."""
    stats = {"uptime_s": 10.0, "published": published, "delivered": published, "lost": {"drop_oldest": published}}
    reports = Reports(stats, {"connections": listed}, {"uptime_s": 9.0})
    lines = _lines(drawn(reports, "lag", 50, width), width)
    headings, rows = _rows(lines)

    assert max(map(cell_len, lines)) <= width
    assert {"CLIENT", "STATE", "QUEUED", "BYTES", "OLDEST"} <= set(headings)
    assert len(rows) == len(listed)
    for row, connection in zip(rows, reports.listed("lag", 50), strict=True):
        whole = dict(zip((column.heading for column in COLUMNS), cells(connection, short=True), strict=True))
        for column in COLUMNS:
            if not column.words and column.heading in headings:
                assert row[headings.index(column.heading)] == whole[column.heading]


@pytest.mark.parametrize("width", WIDTHS)
@given(
    prices=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30),
    ascii_only=st.booleans(),
)
def test_watch_cuts_no_number(width: int, prices: list[float], ascii_only: bool) -> None:
    """`fanwire watch`: prices, changes, ages whole, whatever the price; nothing but ASCII where that is asked for."""
    board = Board(0.0)
    for number, price in enumerate(prices):
        board.take("a.topic.with.a.long.name" * 3, {"price": price, "date": "2024-05-01"}, number / 10)
    shown = live_table(board, 500_000.0, Text("title"), width, 24, ascii_only=ascii_only)
    lines = _lines(shown, width)
    headings, [row] = _rows(lines)
    [one] = board.rows()
    whole = cells_of(one, 500_000.0)

    assert max(map(cell_len, lines)) <= width
    assert row[headings.index("PRICE")] == whole.price
    assert re.sub("[▲▼] ", "", row[headings.index("CHANGE%")]) == whole.change_percent
    assert row[headings.index("AGE")] == whole.age
    if ascii_only:
        assert re.sub("[╭─┬╮│├┼┤╰┴╯…]", "", "".join(lines)).isascii()


@given(width=st.integers(40, 200), listed=st.lists(connections, min_size=1, max_size=3), pipe=st.booleans())
def test_connections_cut_no_number(width: int, listed: list[dict[str, Any]], pipe: bool) -> None:
    """`fanwire connections`: a terminal gets what fits, and a pipe gets everything whole."""
    rows = [
        ("5e55" * 4, one["name"], one["user"], "10.0.0.1", "ok", *(one[key] for key in ("queued", "queued_bytes")),
         one["oldest_ms"], nearest_limit(one), one["lost"], one["replaced"], one["subscriptions"])
        for one in listed
    ]  # fmt: skip
    heading, *lines = operator_table(operators._OPEN, rows, None if pipe else width).splitlines()
    shown = heading.split()

    assert len(shown) == len(operators._OPEN) or not pipe
    for line, row in zip(lines, rows, strict=True):
        assert len(line.split()) == len(shown)
        for column, value in zip(operators._OPEN, row, strict=True):
            if isinstance(value, int) and column.heading in shown:
                assert line.split()[shown.index(column.heading)] == str(value)


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.booleans(), st.integers(1, 30), st.integers(0, 40)), min_size=1, max_size=8
    ),
    st.integers(1, 200),
)
def test_what_fits_is_chosen(parts: list[tuple[int, bool, int, int]], room: int) -> None:
    """Within the room, the most important one always; what is no word has all that it wants."""
    columns = [Column("H", rank, words=words, least=least) for rank, words, least, _ in parts]
    wanted = [max(width, 1) for *_, width in parts]
    chosen = fitted(columns, wanted, room)

    assert min(range(len(parts)), key=lambda place: columns[place].rank) in chosen
    assert len(chosen) == 1 or sum(chosen.values()) + 3 * (len(chosen) - 1) <= room
    assert all(width == wanted[place] or columns[place].words for place, width in chosen.items())
    assert all(width <= wanted[place] for place, width in chosen.items())


@given(figures)
@example(10**21)
def test_a_short_count_is_near_and_short(count: int) -> None:
    """At most five characters, and within half a percent."""
    short = short_count(count)
    unit = "kMGTPE".find(short[-1]) + 1

    assert len(short) <= 5
    if count < 999 * 10**18:
        assert float(short.rstrip("kMGTPE")) * 1000**unit == pytest.approx(count, rel=0.005)


@given(st.floats(0, 1e12))
def test_a_short_time_is_short(seconds: float) -> None:
    """Also after years."""
    assert re.fullmatch(r"\d\.\ds|\d+[smhd]|[\d.]+[kM]d", short_seconds(seconds))
    assert len(short_seconds(seconds)) <= 6
