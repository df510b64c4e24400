"""What a broker says is not believed: numbers and texts of its answers, or what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fanwire.protocol.codes import MAX_NUMBER
from fanwire.protocol.fields import shown

from .errors import ConnectionLost

MOST_TEXT = 4096
"""Characters of a text that a broker may make us keep: names, epochs. Its own bounds are far lower."""


def unsigned_of(value: object) -> int | None:
    """``value`` if it is an unsigned integer of the protocol, else None."""
    return value if type(value) is int and 0 <= value <= MAX_NUMBER else None


def number_of(value: object) -> float | None:
    """``value`` if it is a finite number greater than 0, else None."""
    return value if type(value) in (int, float) and 0 < value < math.inf else None  # type: ignore[operator, return-value]


def word_of(value: object) -> str | None:
    """``value`` if it is a text that is neither empty nor long, else None."""
    return value if type(value) is str and 0 < len(value) <= MOST_TEXT else None


def not_in_protocol(request: str, what: str) -> ConnectionLost:
    """The error for an answer that makes no sense. Who asked gets it; the connection goes on."""
    return ConnectionLost(f"the broker answered {request} with what is not in the protocol: {what}", code=1002)


def field_of(request: str, of: Any, name: Any, kind: type[Any] | tuple[type[Any], ...]) -> Any:
    """A field of an answer.

    Args:
        request: What was asked, for the error.
        of: The answer, or a part of it.
        name: A key, or an index.
        kind: What it must be. An int must be unsigned, too.

    Raises:
        ConnectionLost: It is missing, or something else.
    """
    try:
        value = of[name]
    except (LookupError, TypeError):
        value = None
    if kind is int and unsigned_of(value) is None:
        raise not_in_protocol(request, f"{name!r} is {shown(value)}")
    if not isinstance(value, kind):
        raise not_in_protocol(request, f"{name!r} is {shown(value)}")
    return value


def headers_of(meta: Mapping[str, Any]) -> Mapping[str, str] | None:
    """The headers of a message, if they are a map of text to text."""
    headers = meta.get("headers")
    if type(headers) is dict and all(type(each) is str for pair in headers.items() for each in pair):
        return headers
    return None
