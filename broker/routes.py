"""Routes: one number, one encoding for everybody who subscribed to the same pattern (protocol.md, Routes).

A publish becomes a `Chunk` of its route, bytes that every subscriber of the route gets as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import msgpack

from fanwire.protocol import MAX_BATCH
from fanwire.protocol.fastpath import Gathering

if TYPE_CHECKING:
    from .outbox import Outbox

Append: TypeAlias = Callable[[bytes], None]

_pack = msgpack.Packer().pack

_MESSAGE = b"\x13"
_NIL = b"\xc0"
_NO_OFFSET_AND_UINT64 = b"\x00\xcf"

_ARRAYS = [bytes((0x90 | size,)) for size in range(16)]


class Chunk:
    """What is known of some encoded envelopes beside their bytes: how many messages of which route, since when.

    ``born`` is on trio's clock. The bytes themselves travel alone (`Outbox.pending`): most are written at once, and
    then nobody asks for more.
    """

    __slots__ = ("born", "count", "data", "route")

    def __init__(self, route: Route, data: bytes, count: int, born: float) -> None:
        self.route = route
        self.data = data
        self.count = count
        self.born = born


class Topic(Gathering):
    """A topic's name and the routes that match it. `Registry` owns these and keeps them fresh."""

    __slots__ = ("fresh", "name", "packed", "routes")

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.packed: bytes = _pack(name)
        self.routes: list[Route] = []
        self.fresh = -1
        """The registry's version that `routes` belongs to."""


class Route:
    """Everybody who subscribed to one pattern."""

    __slots__ = ("_appends", "_prefix", "gathered_in", "number", "outboxes", "pattern", "wildcard")

    def __init__(self, number: int, pattern: str, wildcard: bool) -> None:
        self.number = number
        self.pattern = pattern
        self.wildcard = wildcard
        self.outboxes: dict[Outbox, None] = {}
        self.gathered_in = -1
        """The sweep that all outboxes are noted for already."""
        self._appends: list[Append] | None = None
        self._prefix: bytes = _MESSAGE + _pack(number)

    def add(self, outbox: Outbox) -> None:
        """From now on messages go to this outbox too."""
        self.outboxes[outbox] = None
        self.gathered_in, self._appends = -1, None

    def remove(self, outbox: Outbox) -> None:
        """The contrary; what waits in the outbox is the outbox's business."""
        del self.outboxes[outbox]
        self._appends = None

    def appends(self) -> list[Append]:
        """Each outbox's ``pending.append``, bound once: the loop over a thousand subscribers runs over these."""
        if self._appends is None:
            self._appends = [outbox.pending.append for outbox in self.outboxes]
        return self._appends

    def chunks(self, topic: Topic, elements: int, tails: list[bytes], stamp: bytes, born: float) -> list[Chunk]:
        """MESSAGE envelopes of one run of publishes, cut into chunks of at most 64 KiB (or one message).

        Args:
            topic: Where they were published.
            elements: Of a MESSAGE: six, seven with an encoding, eight with meta.
            tails: Payload (with its msgpack header), encoding and meta of each.
            stamp: The time, eight bytes: microseconds since 1970.
            born: The time on trio's clock, in seconds.
        """
        name = topic.packed if self.wildcard else _NIL
        head = b"".join((_ARRAYS[elements], self._prefix, name, _NO_OFFSET_AND_UINT64, stamp))
        data = head + head.join(tails)
        if len(data) <= MAX_BATCH or len(tails) == 1:
            return [Chunk(self, data, len(tails), born)]
        return [Chunk(self, head + head.join(part), len(part), born) for part in _parts(tails, len(head))]


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
