"""Which numbers a setting or an option takes: finite ones between two bounds. One check for every door.

NaN and the infinities pass the usual comparisons by accident (``inf > 0``, ``not nan < 0``) and fail much later, in
the middle of a sum. So no setting compares by itself: each has a `Range`.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

# A number in an error message is cut after so many characters: a setting may be a text of any length.
_SHOWN: Final = 60


@attrs.frozen
class Range:
    """The numbers from ``least`` to ``most``, both included. As a validator of attrs it checks a field."""

    least: float
    most: float
    whole: bool = False
    """Whether only integers are numbers of this range."""
    optional: bool = False
    """Whether None is allowed, too, for "no limit"."""

    @property
    def or_none(self) -> Range:
        """The same range, with None for "no limit"."""
        return attrs.evolve(self, optional=True)

    def allows(self, value: object) -> bool:
        """Whether a value is a number of this range. True and False are not numbers; NaN is in no range."""
        kinds = int if self.whole else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and self.least <= value <= self.most

    def check(self, name: str, value: object) -> None:
        """Refuse a value that is not in the range.

        Args:
            name: What the setting is called where the value came from.
            value: The value.

        Raises:
            ValueError: It is not; the text names the setting, the range and the value.
        """
        if (value is None and self.optional) or self.allows(value):
            return
        none = ", or None" if self.optional else ""
        raise ValueError(f"{name} must be {self}{none}, not {_shown(value)}")

    def __call__(self, _instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        self.check(attribute.name, value)

    def __str__(self) -> str:
        """For messages and the documentation: ``a whole number from 1 to 65,535``."""
        return f"a {'whole ' if self.whole else ''}number from {written(self.least)} to {written(self.most)}"


def written(number: float) -> str:
    """A bound as people write it: 65,535, or 0.001."""
    return f"{int(number):,}" if number == int(number) else f"{number:g}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def range_of(field: attrs.Attribute[Any]) -> Range | None:
    """The range of an attrs field; None: the field is not a number."""
    return field.validator if isinstance(field.validator, Range) else None


COUNT: Final = Range(1, 1_000_000_000, whole=True)
"""How many of something there may be."""
BYTES: Final = Range(1, 2**40, whole=True)
"""Bytes, up to 1 TiB."""
MESSAGE_BYTES: Final = Range(1, 2**30, whole=True)
"""Bytes of one message, body or buffer of the kernel, up to 1 GiB: the kernel takes numbers of 32 bits."""
SECONDS: Final = Range(0.001, 31_536_000)
"""A deadline or an interval: a millisecond to a year."""
RATE: Final = Range(0.001, 1_000_000)
"""Messages a second: one in a quarter of an hour to a million."""
