import pytest

from fanwire.client.cli.board import Board


def test_a_row_holds_the_latest_price_and_its_change() -> None:
    """The second price of a topic changes against the first, in money and in percent."""
    board = Board(0.0)
    board.take("stocks.AAPL", {"symbol": "AAPL", "date": "2000-03-01", "price": 100.0}, 1.0)
    board.take("stocks.AAPL", {"symbol": "AAPL", "date": "2000-03-02", "price": 98.0}, 2.0)
    (row,) = board.rows()

    assert (row.symbol, row.date, row.price, row.messages, row.seen_at) == ("AAPL", "2000-03-02", 98.0, 2, 2.0)
    assert row.change == -2.0
    assert row.change_percent == -2.0
    assert list(row.trend) == [100.0, 98.0]


def test_the_first_price_has_no_change() -> None:
    """There is nothing to compare the first price with."""
    board = Board(0.0)
    board.take("a", 1, 0.0)

    assert board.rows()[0].change is None
    assert board.rows()[0].change_percent is None


def test_a_change_from_zero_has_no_percentage() -> None:
    """Percent of zero are nothing, and no error."""
    board = Board(0.0)
    board.take("a", 0, 0.0)
    board.take("a", 5, 0.0)

    assert (board.rows()[0].change, board.rows()[0].change_percent) == (5.0, None)


def test_data_without_a_price_counts_and_leaves_the_price() -> None:
    """A message that is no price is counted; the last price stays."""
    board = Board(0.0)
    board.take("a", 3, 0.0)
    board.take("a", {"note": "market closed"}, 1.0)

    assert (board.rows()[0].price, board.rows()[0].messages) == (3.0, 2)


def test_rows_come_by_topic() -> None:
    """Rows stand in the order of their topics, whatever came first."""
    board = Board(0.0)
    for topic in ("c", "a", "b"):
        board.take(topic, 1, 0.0)

    assert [row.topic for row in board.rows()] == ["a", "b", "c"]


def test_a_topic_without_a_symbol_goes_by_its_name() -> None:
    """Where messages do not say what they are about, the topic does, with nothing a terminal would obey."""
    board = Board(0.0)
    board.take("rooms.kitchen.\u202etemperature", 21.5, 0.0)

    assert board.rows()[0].symbol == "rooms.kitchen.\\u202etemperature"


def test_rows_are_bounded_and_the_rest_is_counted() -> None:
    """Topics beyond the bound get no row, and their messages are counted."""
    board = Board(0.0, max_rows=2)
    for topic in ("a", "b", "c", "c", "a"):
        board.take(topic, 1, 0.0)

    assert (len(board), board.messages, board.left_out) == (2, 5, 2)


@pytest.mark.parametrize("count", [1, 24, 100])
def test_the_trend_is_bounded(count: int) -> None:
    """A row keeps the last 24 prices."""
    board = Board(0.0)
    for price in range(count):
        board.take("a", price, 0.0)

    assert list(board.rows()[0].trend) == [float(price) for price in range(count)][-24:]
