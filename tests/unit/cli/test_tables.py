import pytest
from rich.console import Console
from rich.text import Text

from fanwire.client.cli.board import Board
from fanwire.client.cli.cells import number_text, percent_text
from fanwire.client.cli.columns import short_seconds
from fanwire.client.cli.live_table import LiveTable, live_table
from fanwire.client.cli.plain_table import plain_table
from fanwire.client.cli.prices import read_bars


def _board() -> Board:
    board = Board(0.0)
    for number, bar in enumerate(read_bars(since="2012-12-03")[:50]):
        board.take(bar.topic, bar.to_data(), number / 10)
    return board


def test_the_plain_table_can_be_split_at_blanks() -> None:
    """Every line of topics has as many words as the heading, and the real price in its place."""
    heading, *rows, totals = plain_table(_board(), 5.0).splitlines()

    assert heading.split() == ["SYMBOL", "DATE", "PRICE", "CHANGE", "CHANGE%", "TREND", "MESSAGES", "MSG/S", "AGE"]
    assert [len(row.split()) for row in rows] == [9] * 5
    assert rows[0].split()[:3] == ["AAPL", "2012-12-14", "509.79"]
    assert totals == "50 messages of 5 topics in 5.0 s, 10.0 messages/s"


def test_odd_data_keeps_the_columns() -> None:
    """Data without a price, and a symbol with a blank, still fill each cell with one word."""
    board = Board(0.0)
    board.take("a", "hello", 0.0)
    board.take("b", {"symbol": "New York", "date": "1 March", "price": 1e-9}, 0.0)
    _, *rows, _ = plain_table(board, 1.0).splitlines()

    assert [len(row.split()) for row in rows] == [9, 9]


def test_an_empty_board_is_a_heading_and_totals() -> None:
    """Nothing received is shown as nothing, not as an error."""
    assert plain_table(Board(0.0), 2.0).splitlines()[1:] == ["0 messages of 0 topics in 2.0 s, 0.0 messages/s"]


def test_left_out_topics_are_told() -> None:
    """Messages without a row are in the totals."""
    board = Board(0.0, max_rows=1)
    board.take("a", 1, 0.0)
    board.take("b", 1, 0.0)

    assert plain_table(board, 1.0).endswith("; 1 of further topics not shown")


@pytest.mark.parametrize("width", [48, 60, 72, 80, 100, 104, 116, 200])
def test_the_live_table_fits_the_terminal(width: int) -> None:
    """At any usual width no line is longer than the terminal, and nothing is cut short."""
    console = Console(width=width, height=24, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(live_table(_board(), 5.0, Text("title"), width, 24))
    lines = captured.get().splitlines()

    assert all(len(line) <= width for line in lines)
    assert "…" not in captured.get()
    assert "509.79" in captured.get()


def test_the_live_table_fits_the_height() -> None:
    """Of many topics the first are shown."""
    board = Board(0.0)
    for number in range(100):
        board.take(f"t{number:03}", number, 0.0)
    console = Console(width=100, height=24, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(live_table(board, 5.0, Text("title"), 100, 24))

    assert len(captured.get().splitlines()) <= 24
    assert "t000" in captured.get()


def test_the_live_table_is_drawn_with_its_state() -> None:
    """What is drawn names what is watched and how the connection stands."""
    console = Console(width=100, height=24, force_terminal=True, color_system=None)
    table = LiveTable("stocks.>", console)
    with console.capture() as captured, table.shown():
        table.draw(_board(), 5.0, "connected")

    assert "fanwire stocks.>  ● connected" in captured.get()


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "-"), (130.3, "130.30"), (0.0, "0.00"), (0.00123, "0.00123"), (-5.0, "-5.00"), (1e12, "1e+12")],
)
def test_numbers(number: float | None, text: str) -> None:
    """Prices have cents, and more digits where cents would say nothing."""
    assert number_text(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-0.1, "0.0s"), (0.34, "0.3s"), (42.9, "42s"), (130, "2m"), (10_000, "2h")]
)
def test_ages(seconds: float, text: str) -> None:
    """An age is as exact as one cares to know."""
    assert short_seconds(seconds) == text


@pytest.mark.parametrize(("percent", "text"), [(None, "-"), (1.234, "+1.23%"), (1e9, "+>9999%"), (-1e9, "->9999%")])
def test_percentages(percent: float | None, text: str) -> None:
    """A change beyond all measure keeps its column narrow."""
    assert percent_text(percent) == text
