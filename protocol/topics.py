"""Names of topics, patterns, and which pattern matches which topic (protocol reference, Topics and patterns).

A topic is tokens joined by ``.``; in a pattern a token may be ``*``, and the last one ``>``. `matches` is the
reference: whatever index a broker builds has to agree with it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Final

from .errors import LocalProtocolError

MAX_NAME_BYTES: Final = 255
"""A name's length in UTF-8. It fits a one-byte length, and bounds what routing one message can cost."""

# Unicode's control characters (Cc) and separators (Zs, Zl, Zp), written out: one regular expression in C instead of a
# look-up for each character. A test compares the list with the Unicode database. Surrogates have no UTF-8 at all.
BLANK: Final = r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_LITERAL: Final = rf"[^.*>{BLANK}\ud800-\udfff]+"
_is_topic = re.compile(rf"{_LITERAL}(?:\.{_LITERAL})*").fullmatch
_is_pattern = re.compile(rf"(?:{_LITERAL}|\*)(?:\.(?:{_LITERAL}|\*))*(?:\.>)?|>").fullmatch
_find_bad = re.compile(rf"[{BLANK}\ud800-\udfff]").search


def check_topic(topic: str) -> str:
    """Return a topic as it is, if it is one.

    Raises:
        LocalProtocolError: code ``bad_topic``; says what is wrong, and where.
    """
    if len(topic) <= MAX_NAME_BYTES and _is_topic(topic) and (topic.isascii() or _fits(topic)):
        return topic
    raise LocalProtocolError(_fault("topic", topic), code="bad_topic")


def check_pattern(pattern: str) -> str:
    """Return a pattern as it is, if it is one. Every topic is a pattern too.

    Raises:
        LocalProtocolError: code ``bad_pattern``; says what is wrong, and where.
    """
    if len(pattern) <= MAX_NAME_BYTES and _is_pattern(pattern) and (pattern.isascii() or _fits(pattern)):
        return pattern
    raise LocalProtocolError(_fault("pattern", pattern), code="bad_pattern")


def _fits(name: str) -> bool:
    return len(name.encode()) <= MAX_NAME_BYTES


def split(topic: str) -> list[str]:
    """The tokens of a topic or pattern."""
    return topic.split(".")


def is_wildcard(pattern: str) -> bool:
    """Whether a (valid) pattern can match more than one topic."""
    return "*" in pattern or ">" in pattern


def foreign_wildcards(pattern: str) -> str | None:
    """Say what is probably meant by a (valid) pattern that is written as for MQTT or AMQP.

    Here ``#`` and ``+`` are tokens like any other, and ``/`` is a character like any other, so that such a pattern does
    not match what its author thinks.

    Returns:
        One line for the author; None for any other pattern.
    """
    tokens = [token for token in re.split("[./]", pattern) if token]
    if not {"#", "+"}.intersection(tokens) and ("/" not in pattern or "." in pattern):
        return None
    if tokens and tokens[-1] == "#":
        tokens[-1] = ">"
    meant = ".".join("*" if token == "+" else token for token in tokens)
    hint = f"; did you mean {meant!r}?" if meant and "#" not in tokens else ""
    return (
        f"pattern {pattern!r} looks like one of MQTT or AMQP: here '.' separates tokens, '*' stands for one token, and"
        f" '>' at the end for one or more{hint}"
    )


def matches(pattern: str, topic: str) -> bool:
    """Whether a (valid) pattern matches a (valid) topic.

    ``*`` stands for exactly one token, ``>`` for one or more; neither stands for a first token that begins with ``$``.
    """
    wanted, tokens = split(pattern), split(topic)
    if topic.startswith("$") and wanted[0] in ("*", ">"):
        return False
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
        del tokens[len(wanted) :]
    return len(wanted) == len(tokens) and all(want in ("*", token) for want, token in zip(wanted, tokens, strict=True))


def matcher(pattern: str) -> Callable[[str], bool]:
    """`matches` for one (valid) pattern and very many (valid) topics: the usual ones cost one comparison."""
    if not is_wildcard(pattern):
        return pattern.__eq__
    start = pattern[:-1]
    if pattern.endswith(">") and not is_wildcard(start):
        if not start:
            return lambda topic: not topic.startswith("$")
        return lambda topic: topic.startswith(start)
    return lambda topic: matches(pattern, topic)


def patterns_overlap(one: str, other: str) -> bool:
    """Whether there can be a topic that both (valid) patterns match."""
    first, second = split(one), split(other)
    if any(ours[0].startswith("$") and theirs[0] in ("*", ">") for ours, theirs in ((first, second), (second, first))):
        return False
    for want, wanted in zip(first, second, strict=False):
        if ">" in (want, wanted):
            return True
        if want != wanted and "*" not in (want, wanted):
            return False
    return len(first) == len(second)


def pattern_covers(wide: str, narrow: str) -> bool:
    """Whether every topic that the (valid) pattern ``narrow`` matches is matched by ``wide`` too."""
    ours, theirs = split(wide), split(narrow)
    if theirs[0].startswith("$") and ours[0] in ("*", ">"):
        return False
    for index, want in enumerate(ours):
        if index >= len(theirs):
            return False
        if want == ">":
            return True
        if theirs[index] == ">" or (want != "*" and want != theirs[index]):
            return False
    return len(ours) == len(theirs)


def _fault(kind: str, name: str) -> str:
    """What is wrong with a name that was refused. Slow, but bounded: the name may be of any length."""
    if not name:
        return f"{kind} is empty"
    shown = f"{kind} {name!r}" if len(name) <= MAX_NAME_BYTES else f"{kind} {name[:40]!r}…"
    if len(name) > MAX_NAME_BYTES:
        return f"{shown} has {len(name)} characters; at most {MAX_NAME_BYTES} bytes of UTF-8 are allowed"
    if bad := _find_bad(name):
        return f"{shown} has {_called(bad[0])} at position {bad.start()}"
    if not _fits(name):
        return f"{shown} has {len(name.encode())} bytes in UTF-8; at most {MAX_NAME_BYTES} are allowed"
    return f"{shown}: {_fault_of_token(kind, split(name))}"


def _called(character: str) -> str:
    point = f"U+{ord(character):04X}"
    if "\ud800" <= character <= "\udfff":
        return f"{point}, half of a surrogate pair,"
    return f"the {'control character' if unicodedata.category(character) == 'Cc' else 'whitespace'} {point}"


def _fault_of_token(kind: str, tokens: list[str]) -> str:
    for number, token in enumerate(tokens, 1):
        if not token:
            return f"token {number} of {len(tokens)} is empty"
        if kind == "topic" and ("*" in token or ">" in token):
            return f"token {number} is {token!r}, but '*' and '>' belong in patterns only"
        if token == ">" and number < len(tokens):
            return f"token {number} is '>', which may only be the last one"
        if token not in ("*", ">") and ("*" in token or ">" in token):
            return f"token {number} is {token!r}, but '*' and '>' stand alone in a token"
    raise AssertionError(f"nothing is wrong with {kind} {'.'.join(tokens)!r}")
