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


def quote_of(data: object) -> Quote:
    """Read data as a price: a number, text that is a number, or a map with `price` or `close`.

    Anything else is no error, but a quote without a price.
    """
    if isinstance(data, Mapping):
        return Quote(_first_number(data), _text(data.get("symbol")), _text(data.get("date")))
    return Quote(_number(data))


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
