"""Whether an argument is what it has to be. Each check names the argument, and says what would be right.

For what stays in the client. Options that go to the broker are checked by `fanwire.protocol`.
"""

from __future__ import annotations

import math

from fanwire.protocol import LocalProtocolError
from fanwire.protocol.fields import lone_surrogate, shown

LONGEST_S = 100 * 365 * 24 * 3600.0
"""The longest time that is taken, in seconds: a hundred years. Longer ones are mistakes, or ``math.inf``."""


def check_flag(name: str, value: object) -> None:
    """Raise TypeError unless ``value`` is True or False."""
    if type(value) is not bool:
        raise TypeError(f"{name} is {shown(value)}; it must be True or False")


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raise TypeError unless ``value`` is an int, ValueError if it is less than ``least``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {shown(value)}; it must be an integer from {least} on")
    if value < least:
        raise ValueError(f"{name} is {shown(value)}; it must be an integer from {least} on")


def check_seconds(name: str, value: object, *, endless: bool = False) -> None:
    """Raise TypeError unless ``value`` is a number, ValueError unless it can be a time in seconds greater than 0.

    Args:
        name: The argument's.
        value: What was given.
        endless: Whether ``math.inf`` will do: no limit.
    """
    wanted = "a number of seconds greater than 0" + (" (math.inf: without limit)" if endless else "")
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} is {shown(value)}; it must be {wanted}")
    if not 0 < value <= LONGEST_S and not (endless and value == math.inf):
        raise ValueError(f"{name} is {shown(value)}; it must be {wanted}")


def check_word(name: str, value: object, words: tuple[str, ...]) -> None:
    """Raise ValueError unless ``value`` is one of ``words``."""
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name} is {shown(value)}; it must be {', '.join(map(repr, words[:-1]))} or {words[-1]!r}")


def check_text(name: str, value: object) -> None:
    """Raise TypeError unless ``value`` is a str, LocalProtocolError if it has no UTF-8 (half of a surrogate pair)."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {shown(value)}; it must be text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"{name} cannot be sent: {lone_surrogate(error)}", code="bad_option") from None
