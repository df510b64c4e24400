"""What all queue groups share: a bound on what they remember, a clock for members that stall, and news of losses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import trio

from ..telemetry.log import log
from ..telemetry.text import shown
from ..timing.timers import Watched

if TYPE_CHECKING:
    from ..delivery.fanout import Fanout
    from ..telemetry.statistics import Counters
    from ..timing.timers import Watchdog

# Bytes that all groups together remember: what waits for a member, and what members have not finished. Beyond that
# messages are given out without a window, and are lost with the member that has them.
MOST_KEPT = 64 * 1024 * 1024

# How often groups are looked after, in seconds, and how many at a time: about 1 µs for each member.
EVERY_S = 1.0
PORTION = 500

# Groups whose losses are told in one look; the rest is told as one.
MOST_TOLD = 20


class Group(Protocol):
    """A queue group."""

    pattern: str
    group: str | None
    watched: bool
    """Whether the clock looks after it."""

    def look(self, now: float, fanout: Fanout) -> bool:
        """Look after it; whether that is to be done again."""


class GroupWatch(Watched):
    """One for each broker."""

    __slots__ = ("_busy", "_fanout", "_lost", "_release", "_watchdog", "_watching", "counters", "kept")

    def __init__(self) -> None:
        self._watchdog: Watchdog | None = None
        self.counters: Counters | None = None
        """The broker's."""
        self._watching = False
        self._busy: dict[Group, None] = {}
        self._lost: dict[tuple[str, str], int] = {}
        self.kept = 0
        """Bytes that groups remember."""

    def begin(self, counters: Counters, fanout: Fanout, watchdog: Watchdog, release: Callable[[Any], None]) -> None:
        """From now on look after groups.

        Args:
            counters: The broker's.
            fanout: Where members are written to.
            watchdog: The broker's clock.
            release: Forgets a route if nobody is left on it.
        """
        self.counters, self._fanout, self._watchdog, self._release = counters, fanout, watchdog, release

    @property
    def full(self) -> bool:
        """Whether no more should be remembered."""
        return self.kept >= MOST_KEPT

    def add(self, route: Group) -> None:
        """Look after a group until its `Group.look` says that this is not needed any more."""
        if self._watchdog is None:
            return
        self._busy[route] = None
        self._watch()

    def _watch(self) -> None:
        if not self._watching and self._watchdog is not None:
            self._watching = True
            self._watchdog.watch(self, trio.current_time() + EVERY_S)

    def lose(self, route: Group, count: int) -> None:
        """Messages of the group are lost: nobody is left who could have them."""
        if self.counters is None or not count:
            return
        lost = self.counters.lost
        lost["group"] = lost.get("group", 0) + count
        key = shown(route.pattern), shown(route.group or "")
        if key not in self._lost and len(self._lost) >= MOST_TOLD:
            key = "", ""
        self._lost[key] = self._lost.get(key, 0) + count
        self._watch()

    def look(self, now: float) -> float | None:
        """See `Watched`."""
        for route in list(islice(self._busy, PORTION)):
            del self._busy[route]
            if route.look(now, self._fanout):
                self._busy[route] = None  # behind the others
            else:
                route.watched = False
                self._release(route)
        lost, self._lost = self._lost, {}
        for (pattern, group), count in lost.items():
            log.warning("queue group lost messages", pattern=pattern, group=group, count=count)
        self._watching = bool(self._busy)
        return now + EVERY_S if self._watching else None
