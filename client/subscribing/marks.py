"""Marks: they wait in a subscription's buffer among the messages, where others are missing, or nothing came."""

from __future__ import annotations

from typing import TypeAlias

from ..message import Raw
from ..notices import LostMessages, Mark, Stale

# Kinds of marks (a topic, a reason) that one place can tell apart. A broker that drops from ten thousand topics would
# otherwise fill the memory of a program that does not read: marks take no message's room.
KINDS_A_PLACE = 256

_MARK = -1

Kind: TypeAlias = tuple[str, str | None, bool]


def mark_of(told: Mark) -> Raw:
    """``told`` in the shape of a message, to wait in a buffer among messages.

    A copy of it: a mark may be added to, and several subscriptions are told of a loss with one object.
    """
    return (_MARK, 0, told.topic, 0, 0, b"", _copied(told, told.topic))


def _copied(told: Mark, topic: str | None) -> Mark:
    same = topic == told.topic
    if isinstance(told, Stale):
        return Stale(topic, told.pattern, told.silent_s, told.offset if same else 0, connected=told.connected)
    if not same:
        return LostMessages(told.count, told.reason, topic)
    return LostMessages(told.count, told.reason, topic, told.first, told.last)


def is_mark(raw: Raw) -> bool:
    """Whether it is from `mark_of`."""
    return bool(raw[0] == _MARK)


def lost_of(raw: Raw) -> Mark | None:
    """The opposite of `mark_of`; None for a message."""
    return raw[6] if raw[0] == _MARK else None


def is_stale(raw: Raw) -> bool:
    """Whether it is a mark, of silence."""
    return raw[0] == _MARK and isinstance(raw[6], Stale)


def lost_here(told: Mark) -> bool:
    """Whether it tells what this process was too slow for, not what the broker has lost."""
    return isinstance(told, LostMessages) and told.reason == "buffer"


def joined(raw: Raw, later: Mark) -> bool:
    """Let the mark ``raw`` tell of ``later`` too, if it is of the same kind; return whether it does."""
    lost = lost_of(raw)
    if lost is None or _kind_of(lost) != _kind_of(later):
        return False
    _add(lost, later)
    return True


class Place:
    """The marks that stand side by side in one place: one for each kind.

    Of more kinds than it may tell apart, the further ones become one for each reason, without a topic.
    """

    def __init__(self) -> None:
        self._losses: dict[Kind, Mark] = {}

    def add(self, lost: Mark, kinds: int = KINDS_A_PLACE) -> Raw | None:
        """Take in a loss, or silence, where ``kinds`` may be told apart.

        Returns:
            A mark to be put there; None if one that is there tells of it now.
        """
        kind = _kind_of(lost)
        if len(self._losses) >= kinds and kind not in self._losses:
            lost = _copied(lost, None)
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


def _kind_of(told: Mark) -> Kind:
    if isinstance(told, Stale):
        return "stale", told.topic, told.connected
    return told.reason, told.topic, told.count is None


def _add(told: Mark, later: Mark) -> None:
    """They are of one kind."""
    if isinstance(told, Stale):
        assert isinstance(later, Stale)
        told.silent_s, told.offset = later.silent_s, later.offset
        return
    assert isinstance(later, LostMessages)
    if told.count is not None and later.count is not None:
        told.count += later.count
    if told.last is not None and later.last is not None:
        told.last = later.last
    else:
        told.first = told.last = None
