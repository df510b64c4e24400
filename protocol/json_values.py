"""Values for JSON: the numbers that JSON, or those who read it, cannot say become text, and nothing else changes.

As in the JSON mapping of Protocol Buffers, so that readers find what they may know already.
"""

from __future__ import annotations

import math
from typing import Any, Final

MAX_EXACT: Final = 2**53
"""Beyond it JavaScript, and whoever else reads numbers of JSON as floats, takes an integer for another one."""


def for_json(value: Any) -> Any:
    """A value as JSON can say it.

    Args:
        value: Made of dicts, lists and scalars.

    Returns:
        The same value, but ``"NaN"``, ``"Infinity"`` and ``"-Infinity"`` for floats that are not finite, and decimal
        digits as text for integers beyond ±2^53.

    Raises:
        RecursionError: It is nested too deeply.
    """
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else _words(value)
    if kind is int:
        return value if -MAX_EXACT <= value <= MAX_EXACT else str(value)
    if kind is dict:
        return {key: for_json(item) for key, item in value.items()}
    if kind is list:
        return [for_json(item) for item in value]
    return value


def _words(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
