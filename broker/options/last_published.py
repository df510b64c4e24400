"""When something was last published on each topic of a route, for those who want to be told of silence.

A route has a `Pulse` only while somebody subscribed to it asks for a `heartbeat`. It stands among the route's takers,
so a publish on any other route does nothing for it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fanwire.protocol import matches

if TYPE_CHECKING:
    from ..delivery.routes import Route
    from ..store.interface import Store
    from ..topics.chunks import Chunk
    from ..topics.takers import Inlet

# Topics watched through wildcard patterns, of all patterns together: about 250 bytes each, so 25 MiB. (A pattern
# without wildcard has one topic; how many of those there are, the limits on connections and subscriptions say.)
MAX_WATCHED = 100_000

_KNOWN_BEFORE = -math.inf


class Room:
    """How many topics may still be watched. One for each broker."""

    __slots__ = ("left",)

    def __init__(self, left: int = MAX_WATCHED) -> None:
        self.left = left


class Seen:
    """One topic."""

    __slots__ = ("at", "topic")

    def __init__(self, topic: str, at: float) -> None:
        self.topic = topic
        self.at = at
        """When it was last published on, on trio's clock."""


class Pulse:
    """The topics of one route."""

    __slots__ = ("_by_name", "_known", "_known_end", "_room", "_route", "_store", "full", "seen", "watchers")

    def __init__(self, route: Route, store: Store, room: Room) -> None:
        self._route = route
        self._store = store
        self._room = room
        self._by_name: dict[str, Seen] = {}
        self._known, self._known_end = 0, len(store.topics) if route.wildcard else 0
        self.watchers = 0
        """Subscriptions that ask for a heartbeat."""
        self.seen: list[Seen] = []
        """All topics that are watched; it only grows."""
        self.full = False
        """Whether there was no room for a topic."""
        if not route.wildcard:
            self._add(route.pattern, _KNOWN_BEFORE)

    def offer(self, chunk: Chunk, now: float, source: Inlet | None) -> int:
        """See `Taker`: something was published. Never blocks, never fails, reaches nobody."""
        seen = self._by_name.get(chunk.topic)
        if seen is None:
            self._learn(chunk.topic, now)
        else:
            seen.at = now
        return 0

    def _learn(self, topic: str, at: float) -> None:
        if self._room.left <= 0:
            self.full = True
            return
        self._room.left -= 1
        self._add(topic, at)

    def _add(self, topic: str, at: float) -> None:
        self._by_name[topic] = seen = Seen(topic, at)
        self.seen.append(seen)

    def recall(self, most: int) -> int:
        """Take in the topics that the store knew before anybody watched, ``most`` at once.

        Returns:
            How many were looked at; less than ``most``: that was all.
        """
        looked = 0
        while self._known < self._known_end and looked < most:
            kept = self._store.topics[self._known]
            self._known += 1
            looked += 1
            remembered = kept.head or kept.last is not None
            if remembered and kept.name not in self._by_name and matches(self._route.pattern, kept.name):
                self._learn(kept.name, _KNOWN_BEFORE)
        return looked

    def close(self) -> None:
        """Nobody watches any more: others have the room."""
        if self._route.wildcard:
            self._room.left += len(self.seen)
