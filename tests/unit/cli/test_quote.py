import pytest

from fanwire.client.cli.quote import Quote, quote_of


@pytest.mark.parametrize(
    ("data", "price"),
    [
        (12.5, 12.5),
        (3, 3.0),
        ("12.5", 12.5),
        ({"price": 1.5, "close": 2}, 1.5),
        ({"close": 2}, 2.0),
        ({"price": None, "close": 2}, 2.0),
        ({"price": "7.25"}, 7.25),
    ],
)
def test_prices_are_found(data: object, price: float) -> None:
    """A number, text that is one, or a map with `price` or else `close` has a price."""
    assert quote_of(data).price == price


@pytest.mark.parametrize(
    "data",
    [None, True, "hello", b"12", [1, 2], {}, {"price": True}, {1: 2}, float("nan"), float("inf"), 10**400, "nan"],
)
def test_anything_else_has_none(data: object) -> None:
    """Other data is no error, but has no price."""
    assert quote_of(data) == Quote()


def test_symbol_and_date_are_taken_when_they_are_text() -> None:
    """A map may name its symbol and date; what is no printable text is passed over."""
    assert quote_of({"symbol": "AAPL", "date": "2000-03-01", "price": 1}) == Quote(1.0, "AAPL", "2000-03-01")
    assert quote_of({"symbol": 5, "date": "\x1b[2J"}) == Quote()
