"""`max_total_pending_bytes`: what waits for all connections together.

Looked at twice a second, and only while anybody's socket is behind: publishing counts nothing for it. A message that
waits for many subscribers of a pattern is in memory once. So what counts is the longest backlog of each pattern, and
each connection's own entries in line; that is worked out only when the plain sum is over the limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from ..timing.timers import Watched

if TYPE_CHECKING:
    from ..limits.refusals import Limits
    from ..settings.config import Config
    from ..timing.timers import Watchdog
    from .outbox import Outbox, SlowConsumer

EVERY_S = 0.5

# Disconnected in one look: each is a walk over all that are behind.
_PORTION = 20


class Behind(Protocol):
    """Whoever something may wait for."""

    id: str
    outbox: Outbox

    @property
    def has_ended(self) -> bool:
        """Whether it is about to go anyhow, and what waits with it."""

    def too_slow(self, verdict: SlowConsumer) -> None:
        """Disconnect it."""


class Pressure(Watched):
    """Looks after the sum. One for each broker."""

    __slots__ = ("_behind", "_config", "_refusals", "_watchdog", "_watching")

    def __init__(self, config: Config, watchdog: Watchdog, refusals: Limits) -> None:
        self._config = config
        self._watchdog = watchdog
        self._refusals = refusals
        self._behind: set[Behind] = set()
        self._watching = False

    def change(self, config: Config) -> None:
        """Go by these settings from now on."""
        self._config = config

    def add(self, session: Behind) -> None:
        """Something waits for this one's socket."""
        self._behind.add(session)
        if not self._watching:
            self._watching = True
            self._watchdog.watch(self, trio.current_time() + EVERY_S)

    def discard(self, session: Behind) -> None:
        """Nothing does any more."""
        self._behind.discard(session)

    def look(self, now: float) -> float | None:
        """See `Watched`: disconnect who has most, until the rest is within the limit."""
        limit = self._config.max_total_pending_bytes
        if not self._behind:
            self._watching = False
            return None
        if limit is not None:
            for _ in range(_PORTION):
                if self._sum() <= limit or self._shared() <= limit:
                    return now + EVERY_S
                self._disconnect(max(self._waiting(), key=_size))
        return now + EVERY_S

    @property
    def waiting_bytes(self) -> int:
        """What waits for all, shared or not."""
        return self._sum()

    def _waiting(self) -> list[Behind]:
        return [session for session in self._behind if not session.has_ended]

    def _sum(self) -> int:
        return sum([_size(session) for session in self._waiting()])

    def _shared(self) -> int:
        """About what is in memory."""
        longest: dict[int, float] = {}
        other = 0.0
        for session in self._waiting():
            own = session.outbox.own_bytes
            size = _size(session) - own
            other += own
            subscriptions = [each for each in session.outbox.subscriptions.values() if each.waiting]
            messages = sum([each.waiting for each in subscriptions])
            if not messages:
                other += size
            for each in subscriptions:
                part, number = size * each.waiting / messages, each.route.number
                if part > longest.get(number, 0.0):
                    longest[number] = part
        return int(other + sum(longest.values()))

    def _disconnect(self, session: Behind) -> None:
        self._refusals.refuse("max_total_pending", session=session.id, queued_bytes=_size(session))
        session.too_slow(session.outbox.verdict("max_total_pending", None))


def _size(session: Behind) -> int:
    return session.outbox.all_bytes
