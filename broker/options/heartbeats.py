"""``heartbeat``: QUIET for each topic on which nothing was published for that long (docs/protocol.md, Silence).

Nothing is noted for QUIETs that were sent: when the next one is due follows from when the topic was last published on
(`Pulse`), so a look at a subscription walks over its topics and does sums. All subscriptions stand in one heap, by when
they need a look, and share one entry at the broker's watchdog and what may be done in one turn.

QUIETs travel with the answers, which overtake messages. So one is left out while a message of its topic waits for the
same subscriber; the next one comes a heartbeat later.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING

import msgpack

from fanwire.protocol import MAX_BATCH, EnvelopeType, Error, encode

from ..timing.timers import Watched
from .last_published import MAX_WATCHED, Pulse, Room

if TYPE_CHECKING:
    from ..delivery.fanout import Fanout
    from ..delivery.outbox import Outbox
    from ..delivery.routes import Route
    from ..delivery.subscription import Subscription
    from ..store.interface import Store
    from ..timing.timers import Watchdog
    from .last_published import Seen

_pack = msgpack.Packer().pack
_QUIET = int(EnvelopeType.QUIET)

# What one turn may do, before others get theirs: topics looked at (half a microsecond each), and what else costs as
# much as so many. When more is due the turns follow each other with this pause, so silence never takes more than a
# quarter of the broker's time: it is told later instead.
TURN = 3_000
PAUSE_S = 0.005
_RECALLED, _TOLD = 3, 10

# A subscription of many topics is looked at so many times in a heartbeat at most; so a QUIET may be late by a part of
# it. One with a single topic is looked at exactly when it is due.
LOOKS = 8

# A hair of a heartbeat: sums of floats come out a bit too small sometimes.
_HAIR = 1e-6

# When there is nothing to do for a while because its client does not read, or is not live yet.
WAIT_S = 1.0

# Entries of the heap that may be dead beside as many as are alive.
_SLACK = 256


class Heartbeat:
    """One subscription's wish to be told of silence."""

    __slots__ = (
        "_at",
        "_beats",
        "_looked",
        "_looking",
        "_next",
        "_outbox",
        "_since",
        "_subscription",
        "_told_full",
        "_unsent",
        "closed",
        "interval",
        "pulse",
    )

    def __init__(
        self, beats: Heartbeats, subscription: Subscription, outbox: Outbox, pulse: Pulse, interval: float, now: float
    ) -> None:
        self._beats = beats
        self._subscription = subscription
        self._outbox = outbox
        self.pulse = pulse
        self.interval = interval
        """In seconds."""
        self.closed = False
        self._told_full = False
        self._since = now  # silence before this does not count
        self._looked = now  # up to when all topics have been looked at
        self._looking = now  # the same for the look that is under way
        self._at = 0  # the topic it is at
        self._next = now  # when the next topic is due, as far as it has come
        self._unsent: set[str | None] | None = None  # topics of which something waits, while a turn lasts

    def close(self) -> None:
        """Nobody wants to be told any more. It may stay in the heap for long, so it lets go of everything."""
        self.closed = True
        del self._subscription, self._outbox, self.pulse

    def look(self, now: float) -> float:
        """Tell what is due; return when to look again: ``now`` if there is more to do than this turn allows."""
        self._beats.left -= 1
        if self._subscription.replaying is not None:
            return now + self._wait_s  # not live yet
        if not self._recall():
            return now
        if self.pulse.full and not self._told_full:
            self._tell_full()
        again = self._walk(now)
        self._unsent = None
        return again

    def _recall(self) -> bool:
        most = max(1, self._beats.left // _RECALLED)
        looked = self.pulse.recall(most)
        self._beats.left -= looked * _RECALLED
        return looked < most

    def _walk(self, now: float) -> float:
        """Look at the topics from where the last turn ended."""
        seen, interval = self.pulse.seen, self.interval
        if not self._at:
            self._looking = now
            self._next = now + interval  # when those are due at the earliest that are published on from now on
        while self._at < len(seen):
            if self._beats.left <= 0:
                return now
            self._beats.left -= 1
            topic = seen[self._at]
            since = topic.at if topic.at > self._since else self._since
            due = since + interval
            if due <= self._looking + interval * _HAIR:
                count = self._count(since, self._looking)
                if count > self._count(since, self._looked) and not self._may_tell(topic, now - since):
                    return now + self._wait_s
                due = since + (count + 1) * interval
            if due < self._next:
                self._next = due
            self._at += 1
        self._looked, self._at = self._looking, 0
        return self._next if len(seen) <= 1 else max(self._next, now + interval / LOOKS)

    def _may_tell(self, topic: Seen, silent_s: float) -> bool:
        """Tell of it, unless something of it waits. False: this is not the time to tell of anything."""
        if self._outbox.answer_bytes > MAX_BATCH:
            return False  # it does not read even those that it has got
        if self._unsent is None:
            self._beats.fanout.flush(self._outbox)  # that may be the end of the subscription
            if self.closed:
                return False
            self._beats.left -= len(self._subscription.entries) // 4
            self._unsent = self._outbox.unsent(self._subscription)
        if self._unsent.isdisjoint((topic.topic, None)):
            self._tell(topic, silent_s)
        return True

    @property
    def _wait_s(self) -> float:
        return min(self.interval / LOOKS, WAIT_S)

    def _count(self, since: float, until: float) -> int:
        """How many heartbeats of silence there are between."""
        return max(0, int((until - since) / self.interval + _HAIR))

    def _tell(self, topic: Seen, silent_s: float) -> None:
        kept = self._beats.store.find(topic.topic)
        number = self._subscription.route.number
        # By hand: `encode(Quiet(…))` takes 15 µs, and there may be ten thousand.
        quiet = _pack((_QUIET, number, topic.topic, round(silent_s * 1000), 0 if kept is None else kept.head))
        self._beats.fanout.answer(self._outbox, quiet)
        self._beats.left -= _TOLD

    def _tell_full(self) -> None:
        self._told_full = True
        pattern = self._subscription.route.pattern
        text = f"{pattern}: no QUIET for topics beyond {MAX_WATCHED:,} that are watched for everybody; the others go on"
        detail = {"about": "SUBSCRIBE", "option": "heartbeat", "pattern": pattern}
        self._beats.fanout.answer(self._outbox, encode(Error(0, "too_many", text, detail)))


class Heartbeats(Watched):
    """All of them. One for each broker."""

    def __init__(self, fanout: Fanout, store: Store, watchdog: Watchdog) -> None:
        self.fanout = fanout
        self.store = store
        self.left = 0
        """Of `TURN`, in the turn that is under way."""
        self._room = Room()
        self._watchdog = watchdog
        self._watch: int | None = None
        self._due = 0.0  # when the watchdog comes by
        self._heap: list[tuple[float, int, Heartbeat]] = []
        self._numbers = itertools.count()
        self._alive = 0
        self._of: dict[Subscription, Heartbeat] = {}
        self._pulse_of: dict[Route, Pulse] = {}

    def set(self, subscription: Subscription, outbox: Outbox, interval: float | None, now: float) -> None:
        """From ``now`` on a subscription has this heartbeat, or none. One that it has already goes on as it is."""
        before = self._of.get(subscription)
        if before is not None:
            if before.interval == interval:
                return
            self.stop(subscription)
        if interval is None:
            return
        route = subscription.route
        pulse = self._pulse_of.get(route)
        if pulse is None:
            pulse = self._pulse_of[route] = Pulse(route, self.store, self._room)
            route.watch(pulse)
        pulse.watchers += 1
        heartbeat = self._of[subscription] = Heartbeat(self, subscription, outbox, pulse, interval, now)
        self._alive += 1
        self._push(heartbeat, now if route.wildcard else now + interval)
        self._wake()

    def stop(self, subscription: Subscription) -> None:
        """A subscription has no heartbeat any more. Idempotent."""
        heartbeat = self._of.pop(subscription, None)
        if heartbeat is None:
            return
        pulse = heartbeat.pulse
        heartbeat.close()
        pulse.watchers -= 1
        if not pulse.watchers:
            pulse.close()
            del self._pulse_of[subscription.route]
            subscription.route.watch(None)
        self._alive -= 1
        if len(self._heap) > 2 * self._alive + _SLACK:
            self._heap = [entry for entry in self._heap if not entry[2].closed]
            heapq.heapify(self._heap)

    def _push(self, heartbeat: Heartbeat, due: float) -> None:
        heapq.heappush(self._heap, (due, next(self._numbers), heartbeat))

    def _wake(self) -> None:
        due = self._heap[0][0]
        if self._watch is not None:
            if self._due <= due:
                return
            self._watchdog.forget(self._watch)
        self._watch, self._due = self._watchdog.watch(self, due), due

    def look(self, now: float) -> float | None:
        """See `Watched`."""
        self.left = TURN
        while self._heap and self._heap[0][0] <= now and self.left > 0:
            heartbeat = heapq.heappop(self._heap)[2]
            again = now if heartbeat.closed else heartbeat.look(now)
            if not heartbeat.closed:
                self._push(heartbeat, again)
        if not self._heap:
            self._watch = None
            return None
        due = self._heap[0][0]
        self._due = due if due > now else now + PAUSE_S
        return self._due
