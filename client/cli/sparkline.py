"""A row of small bars that shows where numbers went."""

from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"
_MIDDLE = _BARS[3]


def sparkline(values: Sequence[float]) -> str:
    """One character for each value, from the lowest (▁) to the highest (█) of them; all the same is a middle line."""
    # Halved, so that the spread of the hugest numbers stays finite.
    halves = [value / 2 for value in values]
    low, high = min(halves, default=0), max(halves, default=0)
    if low == high:
        return _MIDDLE * len(values)
    return "".join(_BARS[min(int((half - low) / (high - low) * len(_BARS)), len(_BARS) - 1)] for half in halves)
