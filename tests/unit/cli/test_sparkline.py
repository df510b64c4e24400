import pytest

from fanwire.client.cli.sparkline import sparkline


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([5.0], "▄"),
        ([2.0, 2.0], "▄▄"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([-1.0, 1.0], "▁█"),
        ([-1.7e308, 1.7e308], "▁█"),
    ],
)
def test_sparkline(values: list[float], line: str) -> None:
    """The lowest value is the lowest bar, the highest the highest; no spread is a middle line."""
    assert sparkline(values) == line


def test_a_spread_too_small_for_division_is_still_a_line() -> None:
    """Neighbouring floats do not divide by zero."""
    low, high = 5e-324, 1e-323

    assert len(sparkline([low, high])) == 2
