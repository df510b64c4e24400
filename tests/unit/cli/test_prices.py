import itertools

import pytest

from fanwire.client.cli.prices import Bar, read_bars, trading_days


def test_all_bars_are_there_in_date_order() -> None:
    """The data file holds 12,154 bars of five shares, and they come by date, then by symbol."""
    bars = read_bars()

    assert len(bars) == 12_154
    assert {bar.symbol for bar in bars} == {"AAPL", "FB", "GOOG", "IBM", "MSFT"}
    assert [(bar.date, bar.symbol) for bar in bars] == sorted((bar.date, bar.symbol) for bar in bars)


def test_a_bar_is_what_the_file_says() -> None:
    """The first bar is Apple's of 2000-03-01, every column in its field."""
    assert read_bars()[0] == Bar("AAPL", "2000-03-01", 118.56, 132.06, 118.5, 130.31, 9_616_100)


def test_data_names_the_close_as_the_price() -> None:
    """A bar goes over the wire as a map in which `price` is the close."""
    bar = Bar("AAPL", "2000-03-01", 118.56, 132.06, 118.5, 130.31, 9_616_100)

    assert bar.topic == "stocks.AAPL"
    assert bar.to_data() == {
        "symbol": "AAPL",
        "date": "2000-03-01",
        "price": 130.31,
        "open": 118.56,
        "high": 132.06,
        "low": 118.5,
        "close": 130.31,
        "volume": 9_616_100,
    }


def test_symbols_and_since_choose() -> None:
    """Only the shares and dates that were asked for are replayed."""
    bars = read_bars(["IBM", "FB"], since="2012-05-18")

    assert bars[0].date == "2012-05-18"
    assert {bar.symbol for bar in bars} == {"FB", "IBM"}


def test_an_unknown_symbol_is_named() -> None:
    """Asking for a share that is not in the file tells which there are."""
    with pytest.raises(ValueError, match="no prices of XYZ: there are those of AAPL, FB, GOOG, IBM, MSFT"):
        read_bars(["AAPL", "XYZ"])


def test_a_date_behind_the_last_is_an_error() -> None:
    """An empty replay would look like a hang, so it is refused with the dates there are."""
    with pytest.raises(ValueError, match="they run from 2000-03-01 to 2013-03-01"):
        read_bars(since="2020-01-01")


def test_a_trading_day_has_one_bar_of_each_share() -> None:
    """No share has two bars on a day, and each list is of one day."""
    days = list(trading_days(read_bars()))

    assert all(len({bar.symbol for bar in day}) == len(day) for day in days)
    assert all(len({bar.date for bar in day}) == 1 for day in days)
    assert all(earlier[0].date < later[0].date for earlier, later in itertools.pairwise(days))
