"""What a waiting message costs in memory: its payload, its Python objects, and what stands beside the payload.

Most messages have nothing beside it, and are counted by columns. Those with headers or a key carry their weight with
them, so that what was added is what is taken away again.
"""

from __future__ import annotations

from collections.abc import Iterable
from sys import getsizeof
from typing import Any

from ..message import Raw

MESSAGE = 384
"""Bytes of a message's Python objects: the tuple, the payload's object, the numbers, a topic of some 50 characters."""

# Bytes of an envelope beside its payload and topic, if it has nothing else. With large numbers it has some more: then
# it is only looked at more closely.
PLAIN_ENVELOPE = 24


class Weighed(tuple[Any, ...]):
    """A message as msgpack gives it, and behind that its weight."""

    __slots__ = ()


class WeighedRun(list[Raw]):
    """A run in which some are `Weighed`."""

    __slots__ = ()


def weighed(run: list[Raw]) -> list[Raw]:
    """The run with the weights of the messages that have something beside their payload, if any has."""
    if max(map(len, run)) < 8:
        return run
    return WeighedRun([_weighed(raw) if len(raw) > 7 and raw[7] else raw for raw in run])


def _weighed(raw: Raw) -> Raw:
    return Weighed((*raw[:8], len(raw[5]) + MESSAGE + _held(raw[7])))


def _held(meta: object) -> int:
    """Bytes of a value and all that it holds."""
    total, waiting = 0, [meta]
    while waiting:
        value = waiting.pop()
        total += getsizeof(value)
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, tuple | list):
            waiting += value
    return total


def weight_of(raw: Raw) -> int:
    """Of one message. Not of a mark: those have no weight."""
    return raw[8] if type(raw) is Weighed else len(raw[5]) + MESSAGE


def weight_of_all(messages: Iterable[Raw]) -> int:
    """Of several."""
    return sum([weight_of(raw) for raw in messages])
