"""What a subscriber must get that reads as slowly as it likes: a plain model of the policies, message by message.

It says what waits, what is on its way for good, what is lost and where, what is replaced, who lags, and when it is too
much. It does not know of chunks, lanes, lines or frames: how much of what waits has left the line it is told.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

import attrs

Key: TypeAlias = str | tuple[str, str]
Losses: TypeAlias = Counter[str]
"""How many of which topic."""


# Seconds between two warnings of a subscription.
WARN_EVERY = 1.0


@attrs.define(eq=False)
class Place:
    """One message, and what was lost right in front of it."""

    number: int
    topic: str
    key: Key | None
    """None: it cannot be replaced."""
    lost: Losses = attrs.field(factory=Counter)


@attrs.define(eq=False)
class Wanted:
    """What one subscription was granted."""

    on_slow: str
    queue: int


class Expected:
    """One subscription, from SUBSCRIBE to its end."""

    def __init__(self, route: int, wanted: Wanted) -> None:
        self.route = route
        self.wanted = wanted
        self.ever = {wanted.on_slow}
        """The policies that it has had."""
        self.line: list[Place] = []
        self.behind: Losses = Counter()
        """Lost behind all that waits."""
        self.sent: list[Place] = []
        """Out of the line, or written through: nothing can replace or drop it."""
        self.published = 0
        self.lost = 0
        self.replaced = 0
        self.lagging = False
        self.warnings: list[tuple[int, int]] = []
        """LAGGING: queued, limit."""
        self.backlog: tuple[int, int] | None = None
        self._told_at = -math.inf

    # ------------------------------------------------------------- publishing

    def write_through(self, run: list[Place]) -> None:
        """The socket is clear: all of it goes."""
        self.published += len(run)
        self._send(run)

    def wait(self, run: list[Place], now: float) -> bool:
        """The socket is not clear. False: that is too much."""
        if self.wanted.on_slow in ("disconnect", "unsubscribe"):
            if len(self.line) + len(run) > self.wanted.queue:
                return False
            self._append(run)
        elif self.wanted.on_slow == "drop_newest":
            for place in run:
                if len(self.line) < self.wanted.queue:
                    self._append([place])
                else:
                    self.behind[place.topic] += 1
                    self.lost += 1
        elif self.wanted.on_slow == "drop_oldest":
            for place in run:
                self._append([place])
                self._drop_to(self.wanted.queue)
        else:
            self._conflate(run)
        self.published += len(run)
        if not self.lagging:
            self._look_whether_it_lags(now)
        return True

    def _look_whether_it_lags(self, now: float) -> None:
        if len(self.line) * 4 > self.wanted.queue * 3 and self._begin_to_lag(now):
            self.warnings.append((len(self.line), self.wanted.queue))

    def _begin_to_lag(self, now: float) -> bool:
        """Whether it is long enough ago that it did the last time."""
        self.lagging = True
        tell = now >= self._told_at + WARN_EVERY
        self._told_at = now if tell else self._told_at
        return tell

    def _conflate(self, run: list[Place]) -> None:
        for place in run:
            waiting = next((each for each in self.line if each.key == place.key), None)
            if waiting is not None:
                waiting.number = place.number
                self.replaced += 1
            else:
                self._drop_to(self.wanted.queue - 1)
                self._append([place])

    def _append(self, run: Iterable[Place]) -> None:
        for place in run:
            place.lost, self.behind = self.behind, Counter()
            self.line.append(place)

    def _drop_to(self, most: int) -> None:
        while len(self.line) > most:
            first = self.line.pop(0)
            lost = first.lost + Counter([first.topic])
            if self.line:
                self.line[0].lost += lost
            else:
                self.behind += lost
            self.lost += 1

    def _send(self, run: list[Place]) -> None:
        for place in run:
            place.lost, self.behind = place.lost + self.behind, Counter()
            self.sent.append(place)

    # ---------------------------------------------------------------- reading

    def take(self, count: int) -> None:
        """So many have left the line."""
        behind, self.behind = self.behind, Counter()
        self._send(self.line[:count])
        del self.line[:count]
        self.behind = behind
        if count:
            self._look_whether_caught_up()

    def hear_backlog(self, queued: int, limit: int, now: float) -> None:
        """BACKLOG."""
        self.backlog = (queued, limit)
        if not self.lagging and queued * 4 > limit * 3:
            self._begin_to_lag(now)  # that is no news to the client
        else:
            self._look_whether_caught_up()

    def _look_whether_caught_up(self) -> None:
        client_lags = self.backlog is not None and self.backlog[0] * 2 >= self.backlog[1]
        if len(self.line) * 2 < self.wanted.queue and not client_lags:
            self.lagging = False

    # ---------------------------------------------------------------- changes

    def change(self, wanted: Wanted, now: float) -> None:
        """Subscribed to again."""
        if wanted.on_slow != self.wanted.on_slow:
            for place in self.line:
                place.key = None
        self.wanted = wanted
        self.ever.add(wanted.on_slow)
        if self.lagging:
            self._look_whether_caught_up()
        else:
            self._look_whether_it_lags(now)


def matching(pattern: str, topic: str) -> bool:
    """For the patterns of these tests."""
    return pattern in (topic, ">") or (pattern.endswith(".*") and topic.startswith(pattern[:-1]))
