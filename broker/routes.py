"""Routes: one number, one encoding for everybody who subscribed to the same pattern (protocol.md, Routes).

A publish becomes a `Chunk` of its route, bytes that every subscriber of the route gets as they are.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

import msgpack

from fanwire.protocol import MAX_BATCH
from fanwire.protocol.fastpath import Gathering

if TYPE_CHECKING:
    from .limiter import Limiter
    from .outbox import Outbox
    from .subscription import Subscription

Append: TypeAlias = Callable[[bytes], None]

ConflationKey: TypeAlias = str | tuple[str, str]
"""A topic, or a topic and the ``key`` of its message."""

_pack = msgpack.Packer().pack

_MESSAGE = b"\x13"
_NIL = b"\xc0"
_NO_OFFSET_AND_UINT64 = b"\x00\xcf"

_ARRAYS = [bytes((0x90 | size,)) for size in range(16)]


class Chunk:
    """What is known of some encoded envelopes beside their bytes: how many messages of which topic, since when.

    The bytes themselves travel alone (`Outbox.pending`): most are written at once, and then nobody asks for more.
    Shared by all subscribers of the route, so nothing in it changes but what is worked out when it is first needed.
    """

    __slots__ = ("_ends", "_head", "_newest", "_tails", "born", "count", "data", "message_key", "route", "topic")

    def __init__(
        self,
        route: Route,
        topic: str,
        data: bytes,
        head: bytes,
        tails: list[bytes],
        born: float,
        message_key: str | None = None,
    ) -> None:
        self.route = route
        self.topic = topic
        self.data = data
        self.count = len(tails)
        """0: no messages, but what a `Limiter` has lost (`LossChunk`)."""
        self.born = born
        """On trio's clock."""
        self.message_key = message_key
        """The ``key`` of its (single) message."""
        self._head = head
        self._tails = tails
        self._ends: array[int] | None = None
        self._newest: Chunk | None = None

    @property
    def key(self) -> ConflationKey:
        """What its messages are conflated by."""
        return self.topic if self.message_key is None else (self.topic, self.message_key)

    def settle(self) -> None:
        """It has to wait: remember where its messages end, and not the pieces that they were made of."""
        if self._tails:
            if self.count > 1:
                head = len(self._head)
                self._ends = array("I", accumulate([head + len(tail) for tail in self._tails], initial=0))
            self._tails = _NO_TAILS

    def part(self, first: int, count: int) -> bytes:
        """``count`` messages from the ``first`` on (counted from 0). Only after `settle`."""
        if self._ends is None:
            return self.data
        return self.data[self._ends[first] : self._ends[first + count]]

    def size_of(self, first: int, count: int) -> int:
        """The bytes of `part`."""
        return len(self.data) if self._ends is None else self._ends[first + count] - self._ends[first]

    def newest(self) -> Chunk:
        """Its last message alone."""
        if self.count == 1:
            return self
        if self._newest is None:
            self.settle()
            data = self.part(self.count - 1, 1)
            self._newest = Chunk(self.route, self.topic, data, b"", [data], self.born, self.message_key)
        return self._newest


class LossChunk(Chunk):
    """LOST on its way: counts as no message, and stands in the line where the messages stood."""

    __slots__ = ("lost", "reason")

    def __init__(self, route: Route, topic: str | None, data: bytes, lost: int, reason: str, born: float) -> None:
        super().__init__(route, topic or "", data, b"", _NO_TAILS, born)
        self.lost = lost
        self.reason = reason


_NO_TAILS: list[bytes] = []


class Topic(Gathering):
    """A topic's name and the routes that match it. `Registry` owns these and keeps them fresh."""

    __slots__ = ("fresh", "name", "packed", "publisher_wait_s", "routes")

    def __init__(self, name: str, publisher_wait_s: float | None = None) -> None:
        super().__init__()
        self.name = name
        self.publisher_wait_s = publisher_wait_s
        """How long a publish may wait while a subscriber lags; None: not at all."""
        self.packed: bytes = _pack(name)
        self.routes: list[Route] = []
        self.fresh = -1
        """The registry's version that `routes` belongs to."""

    @property
    def lagging(self) -> int:
        """How many of its subscriptions lag."""
        return sum([route.lagging for route in self.routes])


class Route:
    """Everybody who subscribed to one pattern."""

    __slots__ = (
        "_appends",
        "_prefix",
        "direct",
        "gathered_in",
        "lagging",
        "limiters",
        "number",
        "outboxes",
        "pattern",
        "wildcard",
    )

    def __init__(self, number: int, pattern: str, wildcard: bool) -> None:
        self.number = number
        self.pattern = pattern
        self.wildcard = wildcard
        self.outboxes: dict[Outbox, Subscription] = {}
        self.direct: list[Outbox] = []
        """Those who get what is published as it comes."""
        self.limiters: list[Limiter] = []
        """Of those who get it at a rate of their own."""
        self.gathered_in = -1
        """The sweep that `direct` are noted for already."""
        self.lagging = 0
        """How many of the subscriptions lag."""
        self._appends: list[Append] | None = None
        self._prefix: bytes = _MESSAGE + _pack(number)

    def add(self, outbox: Outbox, subscription: Subscription) -> None:
        """From now on messages go to this outbox too; if they did, it may have got (or lost) a limiter."""
        self.outboxes[outbox] = subscription
        self._forget_lists()

    def remove(self, outbox: Outbox) -> None:
        """The contrary; what waits in the outbox is the outbox's business."""
        del self.outboxes[outbox]
        self._forget_lists()

    def _forget_lists(self) -> None:
        self.gathered_in, self._appends = -1, None

    def appends(self) -> list[Append]:
        """``pending.append`` of each outbox in `direct`, bound once: the loop over a thousand subscribers runs over
        these. Brings `direct` and `limiters` up to date."""
        if self._appends is None:
            self.direct = [outbox for outbox, each in self.outboxes.items() if each.limiter is None]
            self.limiters = [each.limiter for each in self.outboxes.values() if each.limiter is not None]
            self._appends = [outbox.pending.append for outbox in self.direct]
        return self._appends

    def chunks(
        self, topic: Topic, elements: int, tails: list[bytes], stamp: bytes, born: float, key: str | None = None
    ) -> list[Chunk]:
        """MESSAGE envelopes of one run of publishes, cut into chunks of at most 64 KiB (or one message).

        Args:
            topic: Where they were published.
            elements: Of a MESSAGE: six, seven with an encoding, eight with meta.
            tails: Payload (with its msgpack header), encoding and meta of each.
            stamp: The time, eight bytes: microseconds since 1970.
            born: The time on trio's clock, in seconds.
            key: The conflation key within the topic, if there is one (then there is one message).
        """
        name = topic.packed if self.wildcard else _NIL
        head = b"".join((_ARRAYS[elements], self._prefix, name, _NO_OFFSET_AND_UINT64, stamp))
        data = head + head.join(tails)
        if len(data) <= MAX_BATCH or len(tails) == 1:
            return [Chunk(self, topic.name, data, head, tails, born, key)]
        return [Chunk(self, topic.name, head + head.join(part), head, part, born) for part in _parts(tails, len(head))]


def _parts(tails: list[bytes], head: int) -> Iterator[list[bytes]]:
    """Cut a long run so that each part is at most `MAX_BATCH` bytes of envelopes."""
    part: list[bytes] = []
    room = MAX_BATCH
    for tail in tails:
        size = head + len(tail)
        if part and size > room:
            yield part
            part, room = [], MAX_BATCH
        part.append(tail)
        room -= size
    yield part
