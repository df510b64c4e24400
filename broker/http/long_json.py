"""Long JSON, cut into the items of its outermost array before any of it is parsed, in turns.

The parser cannot be interrupted: a megabyte of small values takes it 20 to 45 ms, and as much again to write them. So
what is long is gone over first, without making values of it; then each item is parsed by itself. That finds exactly
what a parser would: where every item is JSON and between them are single commas, the whole is an array of them; and
where it is not, an item is none, or what is around them is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..timing.turn import Turn
from .answers import HttpError

AT_ONCE = 64 * 1024
"""What is parsed in one go, in bytes: the smallest values take some 5 ms then, and to write them takes as long. Within
texts a byte costs next to nothing, so of what is longer only the rest counts, for each item."""

# Steps between two looks at the clock, and bytes that one step goes over at most: together some 100 µs.
_STEPS = 64
_STRETCH = 1024

_spaces = re.compile(rb"[ \t\n\r]*")
# A short text is taken as a whole; of others the quote that they begin with.
_mark = re.compile(rb'"(?:[^"\\]{0,64}")?|[\[\]{}]').search
_mark_or_comma = re.compile(rb'"(?:[^"\\]{0,64}")?|[\[\]{},]').search
_of_text = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)

_QUOTE, _COMMA, _CLOSING = b'",]'
_OPENING = frozenset(b"[{")


async def items_of(body: bytes, turn: Turn, first: int = 1, *, count: Callable[[int], None]) -> list[bytes]:
    """The items of the array that this should be, each of which may still be anything.

    Args:
        body: JSON in UTF-8, perhaps.
        turn: In which it is done.
        first: The number that errors give the first item.
        count: Called with the number of each item as it is found; what it raises ends this.

    Raises:
        HttpError: It is no array (`bad_envelope`), it is cut off or has more behind it (`malformed`), or an item has
            more than `AT_ONCE` beside its texts (`too_large`).
    """
    begin = _after_space(body, 0)
    if body[begin : begin + 1] != b"[":
        raise HttpError("bad_envelope", "a batch is an array of messages")
    items: list[bytes] = []
    end = _after_space(body, begin + 1)
    last = body[end : end + 1] == b"]"
    while not last:
        count(len(items) + 1)
        item = _Item(body, begin + 1, first + len(items))
        while (found := item.end()) is None:
            await turn.pause()
        items.append(body[begin + 1 : found])
        begin = end = found
        last = body[end] != _COMMA
        await turn.pause()
    if body[end] != _CLOSING or _after_space(body, end + 1) < len(body):
        raise HttpError("malformed", f"this is no JSON: the array does not end as one, at byte {end}")
    return items


def _after_space(body: bytes, at: int) -> int:
    found = _spaces.match(body, at)
    return found.end() if found else at


class _Item:
    """One that is gone over."""

    def __init__(self, body: bytes, begin: int, number: int) -> None:
        self._body = body
        self._begin = self._at = begin
        self._number = number
        self._depth = 0
        self._in_text = False
        self._of_texts = 0

    def end(self) -> int | None:
        """Go on for some steps. Returns where the comma or bracket is that the item ends with, once that is known."""
        for _ in range(_STEPS):
            if self._in_text:
                self._skip_text()
            elif (found := self._step()) is not None:
                return found
        return None

    def _step(self) -> int | None:
        """Go to behind the next mark, if it is near."""
        body, at = self._body, self._at
        found = (_mark if self._depth else _mark_or_comma)(body, at, at + _STRETCH)
        self._at = found.end() if found else at + _STRETCH
        if self._at - self._begin - self._of_texts > AT_ONCE + 1:
            raise _too_much(self._number)
        if not found:
            if self._at >= len(body):
                raise _cut_off(self._number)
            return None
        start = found.start()
        sign = body[start]
        if sign == _QUOTE:
            self._in_text = self._at == start + 1
            self._of_texts += max(0, self._at - start - 2)
        elif sign in _OPENING:
            self._depth += 1
        elif self._depth:
            self._depth -= 1
        else:
            return start
        return None

    def _skip_text(self) -> None:
        """Some of it, and its closing quote."""
        body, at = self._body, self._at
        stretch = at + _STRETCH
        found = _of_text.match(body, at, stretch)
        end = found.end() if found else at
        self._of_texts += end - at
        self._at = end
        # What is at the last byte is left to the next step: perhaps an escape begins there.
        if end < stretch - 1:
            if body[end : end + 1] != b'"':
                raise _cut_off(self._number)
            self._in_text = False
            self._at = end + 1


def _cut_off(number: int) -> HttpError:
    return HttpError("malformed", f"this is no JSON: it ends within message {number}")


def _too_much(number: int) -> HttpError:
    text = (
        f"message {number}: none of a batch may have more than {AT_ONCE // 1024} KiB of JSON beside its texts; "
        "send it by itself with POST /v1/publish/{topic}, where it is not looked into"
    )
    return HttpError("too_large", text)
