"""Silence that the broker cannot tell of, because it is the connection that is silent: the client's own clock.

The broker tells of topics that are silent (QUIET). It cannot when the connection is away, or hangs. So one task of a
client looks, as often as its subscriptions have heartbeats, whether there is a connection, and whether anything comes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, get_args

import trio

from fanwire.protocol import is_wildcard

from ..checks import check_word
from ..config import OnStale
from ..notices import Stale

if TYPE_CHECKING:
    from .subscription import Subscription

# As often as a broker tells of silence at most.
SHORTEST_S = 0.1

# A hair of a heartbeat: sums of floats come out a bit too small sometimes.
_HAIR = 1e-6


class Connected(Protocol):
    """What has to be known of the connection: `Link`."""

    lost_at: float
    """When the last one ended, on trio's clock."""

    def heard(self) -> tuple[object, int] | None:
        """The connection, and how many bytes have come over it; None: there is none."""

    def holding(self) -> bool:
        """Whether nothing is read from it at the moment: a handler has to take its replay first."""


class Clock:
    """One for each client. Its `run` belongs to `connect`."""

    def __init__(self, link: Connected) -> None:
        self.link = link
        self._watched: dict[Silence, None] = {}
        self._woken = trio.Event()
        self._scope = trio.CancelScope()

    def watch(self, silence: Silence) -> None:
        """Look at it from now on."""
        self._watched[silence] = None
        self._woken.set()

    def forget(self, silence: Silence) -> None:
        """The contrary. Idempotent."""
        self._watched.pop(silence, None)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Runs until `stop`."""
        with self._scope:
            while True:
                now = trio.current_time()
                due = min([silence.look(now) for silence in tuple(self._watched)], default=math.inf)
                self._woken = trio.Event()
                with trio.CancelScope(deadline=due):
                    await self._woken.wait()

    def stop(self) -> None:
        """End `run`."""
        self._scope.cancel()


class Silence:
    """One subscription's wish to be told of it, and what it was told."""

    def __init__(self, clock: Clock, heartbeat_s: float, on_stale: OnStale) -> None:
        check_word("on_stale", on_stale, get_args(OnStale))
        self.raises = on_stale == "raise"
        """Whether it ends the subscription."""
        self.quiets = 0
        """QUIETs that have come from the broker."""
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._subscription: Subscription | None = None
        self._heard: tuple[object, int] | None = None  # at the last look
        self._before = 0  # messages and QUIETs that had come when this connection began
        self._since = 0.0  # when something was heard
        self._told = 0  # heartbeats of silence since
        self._due = 0.0  # when the next look should be

    def begin(self, subscription: Subscription) -> None:
        """It was subscribed to."""
        granted = subscription.granted and subscription.granted.heartbeat_s
        self._heartbeat_s = max(self._heartbeat_s, granted or 0, SHORTEST_S)
        self._subscription = subscription
        self._since = self._due = trio.current_time()
        self._clock.watch(self)

    def end(self) -> None:
        """It was left. Idempotent."""
        self._clock.forget(self)

    def look(self, now: float) -> float:
        """Tell what is due; return when to look again."""
        assert self._subscription is not None
        interval = self._heartbeat_s
        grace = self._listen(self._subscription, now)
        count = max(0, int((now - self._since - grace) / interval + _HAIR))
        if count > self._told:
            self._told = count
            pattern = self._subscription.pattern
            topic = None if is_wildcard(pattern) else pattern
            self._subscription.note_stale(Stale(topic, pattern, now - self._since, 0, connected=False))
        self._due = min(self._since + grace + (count + 1) * interval, now + interval)
        return self._due

    def _listen(self, subscription: Subscription, now: float) -> float:
        """Bring `_since` up to date; return how long nothing may come, in seconds, before heartbeats count.

        A connection that is away is silent at once. One that hangs shows it when not even a QUIET comes. Those may be
        late, so that is one heartbeat more; and none comes while the broker holds a message back for its rate.
        """
        heard, before = self._clock.link.heard(), self._heard
        self._heard = heard
        if heard is None:
            if before is not None and not self._told:
                self._since = self._clock.link.lost_at
            return 0.0
        arrived = subscription.received + self.quiets
        if before is None or before[0] is not heard[0]:
            self._before = arrived
        # A broker that knows no topic of a wildcard need not say anything.
        expected = arrived != self._before or not is_wildcard(subscription.pattern)
        # This program did not read what came meanwhile.
        slept = now > self._due + self._heartbeat_s / 2 or self._clock.link.holding()
        if heard != before or not expected or slept:
            self._since, self._told = now, 0
        rate = subscription.granted and subscription.granted.max_rate
        return self._heartbeat_s + (1 / rate if rate else 0)
