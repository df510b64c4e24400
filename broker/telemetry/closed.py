"""The last connections that ended, and why: for whoever asks what became of a client."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator

import attrs

# Kept: 1,000 × at most about 1.5 KiB (four texts of 64 characters, and the few numbers of a slow consumer's facts).
KEPT = 1_000

# Of those that had never been welcomed: strangers, however many, must not push out what became of clients. Short-lived
# as they are, each that is kept also keeps CPython from giving back the memory that they all had.
KEPT_STRANGERS = 100


@attrs.frozen
class ClosedConnection:
    """One of them."""

    session: str
    """The broker's name for it (`session` in WELCOME)."""
    name: str
    """As the client called itself in HELLO."""
    user: str | None
    """The user whose token it had presented; None: anonymous, or the broker did not ask."""
    address: str
    """Its IP address, as far as that was known; "unix" or "memory" for other ways in."""
    code: int
    """The close code; 1006: the connection was lost."""
    reason: str
    """In words."""
    closed_time_us: int
    """When: microseconds since 1970."""
    lasted_s: float
    """How long it had lived, in seconds."""
    lost: int
    """Messages that its subscriptions' policies dropped."""
    replaced: int
    """Messages that were conflated, or passed over by its rate."""
    facts: dict[str, object]
    """A slow consumer: what GOODBYE had in its detail."""


class ClosedConnections:
    """A ring of the last ones, and another one of those that had never been welcomed."""

    def __init__(self) -> None:
        self._clients: deque[ClosedConnection] = deque(maxlen=KEPT)
        self._strangers: deque[ClosedConnection] = deque(maxlen=KEPT_STRANGERS)

    def add(self, closed: ClosedConnection, *, stranger: bool) -> None:
        """A connection that had been entered has ended.

        Args:
            closed: What there is to say of it.
            stranger: Whether it had never been welcomed.
        """
        (self._strangers if stranger else self._clients).append(closed)

    def newest_first(self) -> Iterator[ClosedConnection]:
        """All that are kept."""
        rings = (reversed(self._clients), reversed(self._strangers))
        return heapq.merge(*rings, key=lambda each: each.closed_time_us, reverse=True)
