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


@pytest.mark.parametrize(
    ("data", "field", "price"),
    [
        ({"p": 189.5, "price": 1.0}, "p", 189.5),
        ({"lastPrice": "30000.5"}, "lastPrice", 30000.5),
        ({"channel": "ticker", "data": [{"last": 30000.1}]}, "data.0.last", 30000.1),
        ({"a.b": 1.0, "a": {"b": 2.0}}, "a.b", 1.0),
        ([1.0, [2.0, 3.0]], "1.0", 2.0),
        ({"price": 1.0}, "p", None),
        ({"p": {"q": 1.0}}, "p", None),
        ({"data": [1.0]}, "data.7", None),
        ({"data": [1.0]}, "data.-1", None),
        (5.0, "p", None),
        (None, "a.b", None),
    ],
)
def test_a_field_says_where_the_price_is(data: object, field: str, price: float | None) -> None:
    """A key, or a path of keys and places; `price` is then a key like any other."""
    assert quote_of(data, field).price == price


def test_a_field_is_beside_symbol_and_date() -> None:
    """What else a message says is read as always."""
    assert quote_of({"p": 1.0, "symbol": "A", "date": "2020"}, "p") == Quote(1.0, "A", "2020")
