"""What becomes of the values of several runs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def p99(values: Sequence[float]) -> float:
    """The 99th percentile; nan of less than two values."""
    return statistics.quantiles(values, n=100)[98] if len(values) > 1 else float("nan")


def spread(*kinds: Sequence[float]) -> float:
    """The most that runs of one kind differ."""
    return max(max(values) - min(values) for values in kinds)


def cell(values: Sequence[float], form: str) -> str:
    """Of a table: median, least and most, each written as ``form`` says."""
    median, least, most = (form.format(number) for number in (statistics.median(values), min(values), max(values)))
    return f"{median} ({least} to {most})"
