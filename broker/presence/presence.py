"""Presence: who is subscribed, for whoever asks and whoever watches (docs/protocol.md, Presence).

A member is gone when its client has had no connection on the pattern for a grace: who reconnects meanwhile was never
away. Nothing is noted where the operator has not turned presence on.

Watchers are told by a task of its own, never from inside a sweep or a request, and what they are told is a state: who
came and went in between is not mentioned. The events travel with the answers, so events and lists are in order with
each other. To a watcher that does not read nothing is sent until it does, then a LOST: it has to ask for the list.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgpack
import trio

from fanwire.protocol import EnvelopeType, Lost, encode, is_wildcard, patterns_overlap
from fanwire.protocol.reserved import watched

from ..settings.rules import TopicRule, presence_on
from ..timing.timers import Watched
from ..topics.pattern_tree import PatternTree
from .members import Members, client_of

if TYPE_CHECKING:
    from ..delivery.fanout import Fanout
    from ..delivery.outbox import Outbox
    from ..delivery.subscription import Subscription
    from ..settings.config import Config
    from ..timing.timers import Watchdog
    from .members import Member, Present

# Members that may yet come back. Beyond that the one that has been away for longest is gone.
MAX_AWAY = 100_000

# Answers that a watcher has not read, in bytes, beyond which it is told nothing more; and seconds between two looks at
# whether it has read half of them.
MAX_UNREAD = 128 * 1024
LOOK_S = 0.5

# Done in one turn before others get theirs: graces that end, and patterns compared or watchers told.
GRACES, PORTION = 500, 500
PAUSE_S = 0.005

_pack = msgpack.Packer().pack
_EVENT = int(EnvelopeType.PRESENCE_EVENT)


class Watch:
    """One subscription that is told of who comes and goes."""

    __slots__ = ("behind", "outbox", "pattern", "route")

    def __init__(self, subscription: Subscription, outbox: Outbox) -> None:
        self.route = subscription.route.number
        self.pattern = watched(subscription.route.pattern)
        self.outbox = outbox
        self.behind = False
        """Whether it was not told of something, since it does not read."""


def _about_presence(config: Config) -> tuple[TopicRule, ...]:
    return tuple(rule for rule in config.rules if rule.presence is not None)


class Presence(Watched):
    """One for each broker."""

    def __init__(self, config: Config, fanout: Fanout, watchdog: Watchdog) -> None:
        self._grace_s = config.presence_grace_s
        self._fanout = fanout
        self._watchdog = watchdog
        self._rules = _about_presence(config)
        self._members = Members()
        self._member_of: dict[Subscription, Member] = {}
        self._watch_of: dict[Subscription, Watch] = {}
        self._away: OrderedDict[Member, float] = OrderedDict()  # until when it may come back; the first ends first
        self._watches: dict[str, dict[Watch, None]] = {}  # by what they watch
        self._wildcards: PatternTree[str] = PatternTree()
        self._behind: dict[Watch, None] = {}
        self._changed: dict[Member, None] = {}
        self._woken = trio.Event()
        self._watch: int | None = None
        self._due = 0.0  # when the watchdog comes by

    # -------------------------------------------------------------- members

    def join(self, session: Present, subscription: Subscription) -> None:
        """A session has subscribed."""
        pattern = subscription.route.pattern
        if not self._rules or not presence_on(self._rules, pattern):
            return
        client = client_of(session)
        member = self._members.get(pattern, client)
        if member is None:
            member = self._members.add(pattern, client)
            self._note(member)
        self._away.pop(member, None)
        member.enter(subscription, session)
        self._member_of[subscription] = member

    def part(self, subscription: Subscription, *, sent_away: bool = False) -> None:
        """It is subscribed no more: nothing is told to it any more, either. Idempotent.

        Args:
            subscription: Which.
            sent_away: Whether the broker sends its client away; then that is not gone for the others.
        """
        self.watch(subscription, None)
        member = self._member_of.pop(subscription, None)
        if member is None:
            return
        member.leave(subscription)
        if member.subscriptions or sent_away:
            return
        due = trio.current_time() + self._grace_s
        self._away[member] = due
        if len(self._away) > MAX_AWAY:
            self._gone(self._away.popitem(last=False)[0])
        self._wake(due)

    def change(self, config: Config, everybody: Iterable[tuple[Present, Subscription]]) -> None:
        """Go by these settings from now on: who may no longer be seen is gone at once, also for those who watch.

        Args:
            config: The settings.
            everybody: Who is connected, with each subscription.
        """
        self._grace_s = config.presence_grace_s
        before, self._rules = self._rules, _about_presence(config)
        if self._rules == before:
            return
        for session, subscription in everybody:
            self._settle(session, subscription)
        for member in [each for each in self._away if not presence_on(self._rules, each.pattern)]:
            del self._away[member]
            self._gone(member)

    def _settle(self, session: Present, subscription: Subscription) -> None:
        member = self._member_of.get(subscription)
        if member is None:
            if not session.has_ended:
                self.join(session, subscription)
        elif not presence_on(self._rules, member.pattern):
            del self._member_of[subscription]
            member.leave(subscription)
            if not member.subscriptions:
                self._gone(member)

    def _gone(self, member: Member) -> None:
        self._members.remove(member)
        self._note(member)

    def page(self, pattern: str, after: int) -> dict[str, Any]:
        """The answer to PRESENCE."""
        members, more = self._members.page(pattern, after)
        return {"members": members, "next": more, "grace": self._grace_s}

    # ------------------------------------------------------------- watchers

    def watch(self, subscription: Subscription, outbox: Outbox | None) -> None:
        """From now on a subscription is told, or (None) is not."""
        watch = self._watch_of.get(subscription)
        if (watch is None) == (outbox is None):
            return
        if outbox is not None:
            watch = self._watch_of[subscription] = Watch(subscription, outbox)
            if watch.pattern not in self._watches:
                self._watches[watch.pattern] = {}
                if is_wildcard(watch.pattern):
                    self._wildcards.add(watch.pattern, watch.pattern)
            self._watches[watch.pattern][watch] = None
        elif watch is not None:
            del self._watch_of[subscription]
            watches = self._watches[watch.pattern]
            del watches[watch]
            self._behind.pop(watch, None)
            if not watches:
                del self._watches[watch.pattern]
                if is_wildcard(watch.pattern):
                    self._wildcards.remove(watch.pattern)

    def _note(self, member: Member) -> None:
        if not self._watches:
            member.told = member.present
        elif member.present or member.told:
            self._changed[member] = None
            self._woken.set()
        else:
            self._changed.pop(member, None)

    async def run(self) -> None:
        """Runs until cancelled; belongs to the broker."""
        while True:
            await self._woken.wait()
            self._woken = trio.Event()
            changed, self._changed = self._changed, {}
            work = 0
            for member in changed:
                if member.told == member.present:
                    continue
                member.told = member.present
                for pattern in self._candidates(member.pattern):
                    work = await _give_way(work + 1)
                    if patterns_overlap(pattern, member.pattern):
                        work = await self._tell(member, list(self._watches.get(pattern, ())), work)

    def _candidates(self, pattern: str) -> list[str]:
        """What is watched and may overlap."""
        if is_wildcard(pattern):
            return list(self._watches)
        return [pattern, *self._wildcards.match(pattern)]

    async def _tell(self, member: Member, watches: list[Watch], work: int) -> int:
        rest = (member.pattern, "join" if member.told else "leave", *member.shown(), member.client)
        events: dict[int, bytes] = {}  # by route
        for watch in watches:
            if watch.route not in events:
                # By hand: `encode(PresenceEvent(…))` takes several times as long, and there may be ten thousand.
                events[watch.route] = _pack((_EVENT, watch.route, *rest))
            self._send(watch, events[watch.route])
            work = await _give_way(work + 1)
        return work

    def _send(self, watch: Watch, event: bytes) -> None:
        if watch not in self._watches.get(watch.pattern, ()) or watch.behind:
            return
        if watch.outbox.answer_bytes <= MAX_UNREAD:
            self._fanout.answer(watch.outbox, event)
            return
        watch.behind = True
        self._behind[watch] = None
        self._wake(trio.current_time() + LOOK_S)

    # --------------------------------------------------------------- clocks

    def _wake(self, due: float) -> None:
        watchdog = self._watchdog
        if self._watch is not None:
            if self._due <= due:
                return
            watchdog.forget(self._watch)
        self._watch, self._due = watchdog.watch(self, due), due

    def look(self, now: float) -> float | None:
        """See `Watched`."""
        self._end_graces(now)
        self._look_who_reads()
        due = next(iter(self._away.values()), math.inf)
        if self._behind:
            due = min(due, now + LOOK_S)
        if due == math.inf:
            self._watch = None
            return None
        self._due = max(due, now + PAUSE_S)
        return self._due

    def _end_graces(self, now: float) -> None:
        for _ in range(GRACES):
            if not self._away or next(iter(self._away.values())) > now:
                return
            self._gone(self._away.popitem(last=False)[0])

    def _look_who_reads(self) -> None:
        """Who was not told of something, and has room again, is told that."""
        for watch in list(self._behind):
            if watch.outbox.answer_bytes <= MAX_UNREAD // 2:
                del self._behind[watch]
                watch.behind = False
                self._fanout.answer(watch.outbox, encode(Lost(watch.route, None, "presence", None)))


async def _give_way(work: int) -> int:
    """A checkpoint, once that much is done; how much is done since the last one."""
    if work < PORTION:
        return work
    await trio.lowlevel.checkpoint()
    return 0
