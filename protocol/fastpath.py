"""The quick way through the most frequent envelope: PUBLISH without options, one or many to a WebSocket message.

A MESSAGE ends with the very bytes that its PUBLISH ended with, ``payload`` and ``encoding`` (protocol.md, Delivery).
So the broker never unpacks a payload: it finds where the topic ends and where the envelope ends, and copies what lies
between.
Anything that is not exactly of that form is left to `codec`, which says what is wrong with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypeVar


class Gathering:
    """What `take_publishes` keeps at each topic while it gathers; a broker's topics derive from this."""

    __slots__ = ("in_order", "passing", "tails", "wide")

    def __init__(self) -> None:
        self.tails: list[bytes] | None = None
        """The topic's open run. Whoever takes the runs sets this to None again."""
        self.wide = False
        """Whether the tails of that run end with an encoding."""
        self.in_order = False
        """Whether the topic's messages must keep their place among those of other topics: someone gets several of them
        through one wildcard."""
        self.passing = False
        """Whether it is hardly ever published to again, so that there is no use in remembering it."""


T = TypeVar("T", bound=Gathering)


Run: TypeAlias = tuple[T, bool, list[bytes], list[int]]
"""Publishes to one topic that can be delivered together: the topic; whether the tails end with an encoding; the tails
(payload with its msgpack header, encoding), perhaps none; the request ids, one a tail, empty if no answer is wanted.
(A plain tuple: making a NamedTuple costs as much as all else that is done for a publish here.)"""

Heads = dict[bytes, tuple[T, bool]]
"""By the bytes of a PUBLISH with id 0 up to its payload: the topic, and whether an encoding follows the payload."""

_NO_ANSWERS: list[int] = []
_NO_PREFIX = b"\xff\xff"
_WITHOUT_ENCODING = 0x94
_WITH_ENCODING = 0x95
_WITH_OPTIONS = 0x96
_REPLY_TO = b"\x81\xa8reply_to"
_PUBLISH = 4
_ID_WIDTHS = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}


def take_publishes(  # noqa: C901 - one loop, see its first comment
    messages: list[bytes],
    index: int,
    heads: Heads[T],
    learn: Callable[[bytes], T | None],
    runs: list[Run[T]],
    at: int = 0,
    last: int = sys.maxsize,
    most: int = sys.maxsize,
) -> tuple[int, int, bool]:
    """Gather the publishes of ``messages[index:last]`` into ``runs``, up to the first envelope that is anything else.

    Messages of one topic stay in order. Those of different topics are gathered topic by topic, unless `in_order`.

    Args:
        messages: WebSocket messages.
        index: The first to look at.
        at: Where in that one to begin.
        last: The first not to look at.
        most: Look at about so many bytes of one message, and no more.
        heads: What was learnt before; more is added. The owner empties it when topics become stale.
        learn: Gives the topic of a msgpack-encoded name; None leaves the envelope to the codec.
        runs: Gets what is gathered. Afterwards set the topic's ``tails`` to None for each, before the next call.

    Returns:
        The index of the message with the next envelope, its position there, and whether that is to be left to the
        codec (else ``last`` or ``most`` was reached); ``(len(messages), 0, False)`` at the end.
    """
    # One loop over everything and not a function for each envelope: a call costs a third of what a publish does.
    prefix, repeated, width, wide, request = _NO_PREFIX, False, 0, False, 0
    add: Callable[[bytes], None] = _no_run
    for data in messages[index:last]:
        size = end = len(data)
        if size > most:
            end = min(size, at + most)
        while at < end:
            try:
                if repeated and data.startswith(prefix, at):  # as the two before: the usual case under load
                    tail = at + width
                else:
                    tail = at + 4 + (data[at + 3] & 0x1F)
                    start = data[at:tail]
                    known = heads.get(start)
                    if known is None and data[at + 3] == 0xD9:  # a topic of more than 31 bytes
                        tail = at + 5 + data[at + 4]
                        start = data[at:tail]
                        known = heads.get(start)
                    repeated, prefix = start == prefix, start
                    if known is not None:  # seen some time
                        topic, wide = known
                        width, request = tail - at, 0
                    else:
                        head = _head(data, at)
                        if head is None or (learnt := learn(head.topic)) is None:
                            return index, at, True
                        topic, (request, _, tail, wide) = learnt, head
                        prefix, width = (_NO_PREFIX, 0) if request else (data[at:tail], tail - at)
                        if width and not topic.passing:
                            heads[prefix] = topic, wide
                    if request:
                        add = _acknowledged_run(runs, topic, wide).append
                    else:
                        tails = topic.tails
                        if tails is None or topic.wide is not wide or topic.in_order:
                            tails = topic.tails = []
                            topic.wide = wide
                            runs.append((topic, wide, tails, _NO_ANSWERS))
                        add = tails.append
                kind = data[tail]
                if kind == 0xC4:
                    stop = tail + 2 + data[tail + 1]
                elif kind == 0xC5:
                    stop = tail + 3 + (data[tail + 1] << 8 | data[tail + 2])
                elif kind == 0xC6:
                    stop = tail + 5 + int.from_bytes(data[tail + 1 : tail + 5], "big")
                else:
                    return index, at, True
                if wide:
                    if not 1 <= data[stop] <= 3:
                        return index, at, True
                    stop += 1
            except IndexError:
                return index, at, True  # cut off
            if stop > size:
                return index, at, True
            add(data[tail:stop])
            if request:
                runs[-1][3].append(request)
            at = stop
        if at < size:
            return index, at, False
        index += 1
        at = 0
    return index, at, False


def request_at(data: bytes, at: int) -> Asking | None:
    """The PUBLISH that begins at ``at``, if it wants replies and nothing else: id 0, an encoding, no other option.

    What it ends with is what its MESSAGE ends with, here too: options and meta call ``reply_to`` alike.
    """
    try:
        if data[at] != _WITH_OPTIONS or data[at + 1] != _PUBLISH or data[at + 2]:
            return None
        kind = data[at + 3]
        if 0xA0 < kind <= 0xBF:
            tail = at + 4 + (kind & 0x1F)
        elif kind == 0xD9:
            tail = at + 5 + data[at + 4]
        else:
            return None
        kind = data[tail]
        if kind == 0xC4:
            stop = tail + 2 + data[tail + 1]
        elif kind == 0xC5:
            stop = tail + 3 + (data[tail + 1] << 8 | data[tail + 2])
        else:
            return None
        name = stop + 1 + len(_REPLY_TO)
        if data[stop] > 3 or not data.startswith(_REPLY_TO, stop + 1) or data[name] != 0xD9:
            return None
        stop = name + 2 + data[name + 1]
    except IndexError:
        return None  # cut off
    if stop > len(data):
        return None
    return Asking(data[at + 3 : tail], data[tail:stop], data[name + 2 : stop], stop)


class Asking(NamedTuple):
    """See `request_at`."""

    topic: bytes
    """msgpack."""
    tail: bytes
    """Payload, encoding, and the map with ``reply_to``."""
    reply_to: bytes
    """The topic's name; nobody has looked yet whether it is one."""
    stop: int
    """Where the next envelope begins."""


def _no_run(tail: bytes) -> None:
    raise AssertionError("a tail belongs to a run")


class _Head(NamedTuple):
    request: int
    topic: bytes
    tail: int
    wide: bool


def _head(data: bytes, at: int) -> _Head | None:
    """The beginning of a PUBLISH, up to its payload; None: something else."""
    first = data[at]
    if first not in (_WITHOUT_ENCODING, _WITH_ENCODING) or data[at + 1] != _PUBLISH:
        return None
    request, topic = data[at + 2], at + 3
    if request > 0x7F:
        size = _ID_WIDTHS.get(request)
        if size is None:
            return None
        request, topic = int.from_bytes(data[topic : topic + size], "big"), topic + size
    kind = data[topic]
    if 0xA0 < kind <= 0xBF:
        tail = topic + 1 + (kind & 0x1F)
    elif kind == 0xD9:
        tail = topic + 2 + data[topic + 1]
    else:
        return None
    return _Head(request, data[topic:tail], tail, first == _WITH_ENCODING)


def _acknowledged_run(runs: list[Run[T]], topic: T, wide: bool) -> list[bytes]:
    """The tails of the last run if it is of the same kind, else of a new one: answers keep the order of requests."""
    if runs:
        last_topic, last_wide, tails, requests = runs[-1]
        if requests and last_topic is topic and last_wide is wide:
            return tails
    topic.tails = None  # what comes without id afterwards must not go into a run before this one
    tails = []
    runs.append((topic, wide, tails, []))
    return tails
