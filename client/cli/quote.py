"""What a message says of a price, whatever its shape."""

import math
from collections.abc import Mapping

import attrs

_PRICE_KEYS = ("price", "close")


@attrs.frozen(slots=True)
class Quote:
    """What can be shown of one message; `None` for what it does not say."""

    price: float | None = None
    symbol: str | None = None
    date: str | None = None


def quote_of(data: object, field: str | None = None) -> Quote:
    """Read data as a price: a number, text that is a number, or a map with `price` or `close`.

    Anything else is no error, but a quote without a price.

    Args:
        data: The message's value.
        field: Where the price is instead: the name of a key, or names and places in lists joined by dots, as in
            ``data.0.last``.
    """
    price = _number(data) if field is None else _number(_at(data, field))
    if not isinstance(data, Mapping):
        return Quote(price)
    return Quote(_first_number(data) if field is None else price, _text(data.get("symbol")), _text(data.get("date")))


def _at(data: object, field: str) -> object:
    """What a map or list has at a path. A key with dots in its name comes before a path."""
    if isinstance(data, Mapping) and field in data:
        return data[field]
    first, _, rest = field.partition(".")
    if isinstance(data, Mapping):
        inner = data.get(first)
    elif isinstance(data, list | tuple) and first.isdecimal() and int(first) < len(data):
        inner = data[int(first)]
    else:
        return None
    return _at(inner, rest) if rest else inner


def _first_number(data: Mapping[object, object]) -> float | None:
    for key in _PRICE_KEYS:
        if (number := _number(data.get(key))) is not None:
            return number
    return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):  # text that is no number; an integer that no float can hold
        return None
    return number if math.isfinite(number) else None


def _text(value: object) -> str | None:
    """Text that may go to a terminal: printable (no escape sequence), and short."""
    if isinstance(value, str) and value and value.isprintable():
        return value[:24]
    return None
