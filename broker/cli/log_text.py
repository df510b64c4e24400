"""Nothing that a client says can end a line of the log, begin another one, or move the cursor of who reads it.

Topics, names, user agents and whatever libraries quote of them are text from outside: line breaks, escape codes of
terminals, characters that turn the direction of writing. All that is not printable is shown as Python writes it.
"""

from collections.abc import MutableMapping
from typing import Any

LONGEST = 1_000
"""Characters of one value; a traceback may be as long as `LONGEST_TRACEBACK`. So a line has a bound, too."""

LONGEST_TRACEBACK = 16_000

MOST_KEYS = 40

_MARGIN = "    "


def printable(text: str, longest: int = LONGEST) -> str:
    """One line without anything but printable characters, and not too long."""
    text = cut(text, longest)
    return text if text.isprintable() else "".join(each if each.isprintable() else _escaped(each) for each in text)


def cut(text: str, longest: int = LONGEST) -> str:
    """At most so long."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _traceback(text: str) -> str:
    """Line for line, each moved in: a message with line breaks in it cannot look like a line of the log."""
    lines = cut(text, LONGEST_TRACEBACK).split("\n")
    return "\n".join(_MARGIN + printable(line) for line in lines)


def clean(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """For lines of text: a processor of structlog."""
    return {printable(str(key), 64): _clean(key, value) for key, value in list(event.items())[:MOST_KEYS]}


def _clean(key: str, value: Any) -> Any:
    if key == "exception" and isinstance(value, str):
        return _traceback(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return printable(value if isinstance(value, str) else repr(value))


def shorten(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """For JSON, which escapes by itself: only the lengths are bounded."""
    return {cut(str(key), 64): _shorten(key, value) for key, value in list(event.items())[:MOST_KEYS]}


def _shorten(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return cut(value, LONGEST_TRACEBACK if key == "exception" else LONGEST)
    if value is None or isinstance(value, bool | int | float):
        return value
    return value if len(text := repr(value)) <= LONGEST else cut(text)
