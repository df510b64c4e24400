"""Marks of loss: they wait in a subscription's buffer among the messages, where others are missing."""

from __future__ import annotations

from .message import LostMessages, Raw

# Kinds of loss (a topic, a reason) that one place can tell apart. A broker that drops from ten thousand topics would
# otherwise fill the memory of a program that does not read: marks take no message's room.
KINDS_A_PLACE = 256

_MARK = -1


def mark_of(lost: LostMessages) -> Raw:
    """``lost`` in the shape of a message, to wait in a buffer among messages.

    A copy of it: a mark may be added to, and several subscriptions are told of a loss with one object.
    """
    own = LostMessages(lost.count, lost.reason, lost.topic, lost.first, lost.last)
    return (_MARK, 0, lost.topic, 0, 0, b"", own)


def is_mark(raw: Raw) -> bool:
    """Whether it is from `mark_of`."""
    return bool(raw[0] == _MARK)


def lost_of(raw: Raw) -> LostMessages | None:
    """The opposite of `mark_of`; None for a message."""
    return raw[6] if raw[0] == _MARK else None


def lost_here(lost: LostMessages) -> bool:
    """Whether it tells what this process was too slow for, not what the broker has lost."""
    return lost.reason == "buffer"


def joined(raw: Raw, later: LostMessages) -> bool:
    """Let the mark ``raw`` tell of ``later`` too, if it is of the same kind; return whether it does."""
    lost = lost_of(raw)
    if lost is None or _kind_of(lost) != _kind_of(later):
        return False
    _add(lost, later)
    return True


class Place:
    """The marks that stand side by side in one place: one for each kind of loss.

    Of more kinds than it may tell apart, the further ones become one for each reason, without a topic.
    """

    def __init__(self) -> None:
        self._losses: dict[tuple[str, str | None, bool], LostMessages] = {}

    def add(self, lost: LostMessages, kinds: int = KINDS_A_PLACE) -> Raw | None:
        """Take in a loss, where ``kinds`` may be told apart.

        Returns:
            A mark to be put there; None if one that is there tells of it now.
        """
        kind = _kind_of(lost)
        if len(self._losses) >= kinds and kind not in self._losses:
            lost = LostMessages(lost.count, lost.reason, None)
            kind = _kind_of(lost)
        found = self._losses.get(kind)
        if found is not None:
            _add(found, lost)
            return None
        mark = mark_of(lost)
        self._losses[kind] = mark[6]
        return mark


def gathered(marks: list[Raw]) -> list[Raw]:
    """The marks for one place, where the messages between ``marks`` have gone."""
    place = Place()
    losses = [lost for lost in map(lost_of, marks) if lost is not None]
    return [mark for mark in map(place.add, losses) if mark is not None]


def _kind_of(lost: LostMessages) -> tuple[str, str | None, bool]:
    return lost.reason, lost.topic, lost.count is None


def _add(lost: LostMessages, later: LostMessages) -> None:
    if lost.count is not None and later.count is not None:
        lost.count += later.count
    if lost.last is not None and later.last is not None:
        lost.last = later.last
    else:
        lost.first = lost.last = None
