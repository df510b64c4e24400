"""A rule as one line of text: ``stocks.> user=legacy-* on_slow=conflate max_rate=10``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any

import attrs

from fanwire.protocol.ranges import range_of

from .rules import TopicRule

_UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}


def size_of(text: str) -> int:
    """Return a size in bytes that is written as 65536, 64KiB or 16MiB.

    Raises:
        ValueError: It is not a size.
    """
    found = re.fullmatch(r"([0-9]{1,20}) ?([A-Za-z]*)", text)
    if found is None or found[2].lower() not in _UNITS:
        raise ValueError(f"{text!r} is not a size in bytes: write 65536, 64KiB or 16MiB")
    return int(found[1]) * _UNITS[found[2].lower()]


def yes_or_no(text: str) -> bool:
    """Return what a word means: ``yes``, ``true`` or ``on``, ``no``, ``false`` or ``off``.

    Raises:
        ValueError: It is another word.
    """
    meaning = _WORDS.get(text.lower())
    if meaning is None:
        raise ValueError(f"{text!r} is neither yes nor no")
    return meaning


_WORDS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


def whole(text: str) -> int:
    """Return the integer that a text says. Raises ValueError."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text[:64]!r} is not a whole number") from None


def number(text: str) -> float:
    """Return the number that a text says. Raises ValueError."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text[:64]!r} is not a number") from None


NO_LIMIT = ("none", "inf")
"""How a text says that there is no limit, where a setting may have none."""

RULE_FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "user": ("user", str),
    "on_slow": ("on_slow", str),
    "max_queue": ("max_queue", whole),
    "max_rate": ("max_rate", number),
    "publisher_wait": ("publisher_wait_s", number),
    "retain": ("retain", yes_or_no),
    "presence": ("presence", yes_or_no),
    "history": ("history", whole),
    "history_seconds": ("history_s", number),
    "history_bytes": ("history_bytes", size_of),
}
"""What a rule may say: the name in the text, the field of `TopicRule`, and how its text is read."""


def rule_value(name: str, text: str) -> Any:
    """Return what a rule's text says of one of its settings; None: no limit.

    Args:
        name: One of `RULE_FIELDS`.
        text: What is said.

    Raises:
        ValueError: It cannot be that.
    """
    field, read = RULE_FIELDS[name]
    allowed = range_of(_FIELDS[field])
    if allowed is not None and allowed.optional and text.lower() in NO_LIMIT:
        return None
    return read(text)


_FIELDS = attrs.fields_dict(TopicRule)


def read_rule(text: str) -> TopicRule:
    """Read a rule.

    Args:
        text: A pattern, then ``name=value`` once or several times, with spaces between them.

    Returns:
        The rule.

    Raises:
        ValueError: The text is not a rule; says which part is wrong.
    """
    pattern, *parts = text.split() or [""]
    fields: dict[str, Any] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or name not in RULE_FIELDS:
            near = difflib.get_close_matches(name, RULE_FIELDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"a rule has {', '.join(RULE_FIELDS)}"
            raise ValueError(f"rule {text!r}: {part!r} is not a setting of a rule; {hint}")
        field = RULE_FIELDS[name][0]
        if field in fields:
            raise ValueError(f"rule {text!r}: {name} is given twice")
        try:
            fields[field] = rule_value(name, value)
        except ValueError as error:
            raise ValueError(f"rule {text!r}: {name}: {error}") from None
    if not parts:
        raise ValueError(f"rule {text!r} says nothing about its topics; add for example max_rate=10")
    try:
        return TopicRule(pattern=pattern, **fields)
    except ValueError as error:
        raise ValueError(f"rule {text!r}: {error}") from None
