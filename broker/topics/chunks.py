"""What is known of encoded messages on their way: how many, of which topic, since when."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    pass

ConflationKey: TypeAlias = str | tuple[str, str]
"""A topic, or a topic and the ``key`` of its message."""


class Layout(Protocol):
    """What lays messages out in bytes: a route."""

    number: int
    """The broker's for it."""

    def where_messages_end(self, topic: str, data: bytes, count: int) -> array[int]:
        """Where each of ``count`` messages ends in ``data``; the first number is 0."""


class Chunk:
    """What is known of some encoded envelopes beside their bytes: how many messages of which topic, since when.

    The bytes themselves travel alone (`Outbox.pending`): most are written at once, and then nobody asks for more. One
    of these is made for every run of publishes, so it is told little, and works the rest out when it has to wait.
    Shared by all subscribers of the route; nothing in it changes otherwise.
    """

    __slots__ = ("_ends", "_newest", "born", "count", "data", "route", "topic")
    _ends: array[int]
    _newest: Chunk

    def __init__(self, route: Layout, topic: str, data: bytes, count: int, born: float) -> None:
        self.route = route
        self.topic = topic
        self.data = data
        self.count = count
        """0: no messages, but what a `Limiter` has lost (`LossChunk`)."""
        self.born = born
        """On trio's clock."""

    @property
    def key(self) -> ConflationKey:
        """What its messages are conflated by."""
        return self.topic

    def born_again(self, now: float) -> Chunk:
        """The same, as one that was published ``now``. Shared ones stay as they are."""
        return Chunk(self.route, self.topic, self.data, self.count, now)

    def part(self, first: int, count: int) -> bytes:
        """``count`` messages from the ``first`` on (counted from 0)."""
        if self.count == 1:
            return self.data
        ends = self._where_messages_end()
        return self.data[ends[first] : ends[first + count]]

    def size_of(self, first: int, count: int) -> int:
        """The bytes of `part`."""
        if self.count == 1:
            return len(self.data)
        ends = self._where_messages_end()
        return ends[first + count] - ends[first]

    def newest(self) -> Chunk:
        """Its last message alone."""
        if self.count == 1:
            return self
        try:
            return self._newest
        except AttributeError:
            self._newest = Chunk(self.route, self.topic, self.part(self.count - 1, 1), 1, self.born)
            return self._newest

    def _where_messages_end(self) -> array[int]:
        try:
            return self._ends
        except AttributeError:
            self._ends = self.route.where_messages_end(self.topic, self.data, self.count)
            return self._ends


class KeyedChunk(Chunk):
    """One message that has a conflation key of its own within its topic."""

    __slots__ = ("message_key",)

    def __init__(self, route: Layout, topic: str, data: bytes, born: float, message_key: str) -> None:
        super().__init__(route, topic, data, 1, born)
        self.message_key = message_key

    def born_again(self, now: float) -> KeyedChunk:
        """See `Chunk`."""
        return KeyedChunk(self.route, self.topic, self.data, now, self.message_key)

    @property
    def key(self) -> ConflationKey:
        return self.topic, self.message_key


class LossChunk(Chunk):
    """LOST on its way: counts as no message, and stands in the line where the messages stood."""

    __slots__ = ("keys", "lost", "reason")

    def __init__(
        self,
        route: Layout,
        topic: str | None,
        data: bytes,
        lost: int,
        reason: str,
        born: float,
        keys: frozenset[ConflationKey] = frozenset(),
    ) -> None:
        super().__init__(route, topic or "", data, 0, born)
        self.lost = lost
        self.reason = reason
        self.keys = keys
        """Of which messages were lost: nothing newer of them may go in front of it."""
