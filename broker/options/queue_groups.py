"""Queue groups: each message goes to one member of the group, the one with the least to do.

What a member has to do, if its client says what it has finished (BACKLOG with ``taken``): what it was given and has not
finished. It is given no more than its window (`hands`); the rest waits here, in the group's own queue, for whoever has
room first. What a member has not finished when it ends, or stalls, goes back to the head of that queue.

Of a client that does not say so: what waits for it in its line, what it was given since the last sweep, and what waits
at the client, as that has last said. It has no window, and what it was given is lost with it.

A member that lags is asked only when all do, one that is full only when all are; then its own policy says what becomes
of the message. Among equals it goes round.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING, TypeAlias

from fanwire.protocol import Lost, encode

from ..delivery.hands import LEAST, MOST_BYTES, NOTHING, OVERHEAD, Held
from ..delivery.losses import Losses
from ..delivery.routes import Route
from ..topics.chunks import Chunk, LossChunk
from ..topics.routes import Append
from ..topics.takers import Inlet
from .group_watch import MOST_KEPT, GroupWatch

if TYPE_CHECKING:
    from ..delivery.fanout import Fanout
    from ..delivery.outbox import Outbox
    from ..delivery.subscription import Subscription

Member: TypeAlias = "tuple[Outbox, Subscription]"

Rank: TypeAlias = tuple[bool, bool, bool, int, int]
"""Whether it has no room, is full, lags; how much it has to do, how many come before it. The least one is chosen."""

# Members that are looked at for one message, unless none of them will do.
MOST_LOOKED_AT = 8

# A member that has something to do, and of which nothing was heard for so long, has stalled; so has one that says all
# the time that messages wait for a handler which finishes nothing. In seconds.
STALL_S = 30.0

# How often a message is handed over at most: a message that ends each worker must not end all of them.
MOST_TIMES = 3

# How long messages wait for a group without members, in seconds: a worker that comes back finds them.
LINGER_S = 30.0

# Messages that are moved at once, beside twice as many as have come, when too much waits.
_SOME = 64

# Messages that may wait for each member that asked for no ``queue``: so many small ones are a burst, no slowness.
UNASKED = 100_000

# A member that has finished something within this time, in seconds, is given what does not fit any more.
MOVED_S = 1.0

# Added to the number of lagging members while the group's own queue is nearly full, so that the group lags as a whole.
_ALL = 1 << 40


class GroupRoute(Route):
    """Everybody who subscribed to one pattern in one queue group. It is its own `Taker`: nobody else gets anything."""

    __slots__ = (
        "_capacity",
        "_crowded",
        "_fanout",
        "_fanout",
        "_given",
        "_members",
        "_most",
        "_queue",
        "_sweeps",
        "_turn",
        "_until",
        "_watch",
        "group",
        "waiting",
        "watched",
    )

    def __init__(
        self, number: int, pattern: str, wildcard: bool, group: str, fanout: Fanout, watch: GroupWatch | None = None
    ) -> None:
        super().__init__(number, pattern, wildcard)
        self.group = group
        self.waiting = 0
        """Messages in the group's own queue: no member has room for them."""
        self.watched = False
        """Whether the clock looks after it."""
        self._fanout = fanout
        self._watch = watch or GroupWatch()
        self._members: list[Member] = []
        self._capacity = 0  # messages of which three quarters are many: what may wait for each member
        self._most = 0  # messages that may wait
        self._turn = 0  # which of them comes first among equals
        self._sweeps = -1  # the sweep since which `_given` counts
        self._given: dict[Subscription, int] = {}
        self._queue = NOTHING
        self._crowded = False
        self._until = 0.0

    @property
    def behind(self) -> int:
        """See `Route`. The group is one subscriber: it lags when all members do, or its own queue is nearly full."""
        return int(0 < len(self.outboxes) <= self.lagging)

    def audience(self, source: Outbox | None) -> int:
        """See `Route`: the whole group counts as one subscription."""
        return min(super().audience(source), 1)

    @property
    def lingers(self) -> bool:
        """Whether it goes on without members for a while: messages wait for one."""
        return bool(self._queue)

    def appends(self) -> list[Append]:
        """See `Route`."""
        if self._appends is None:
            self._appends, self.direct = [], {}
            self._members = list(self.outboxes.items())
            self._capacity = sum([each.queue for each in self.outboxes.values()])
            self._most = sum([_most(each) for each in self.outboxes.values()])
            # Also while it lingers: what is published is offered to somebody, or nobody would forget it.
            self.takers = [self] if self._members or self._queue else []
        return self._appends

    def _forget_lists(self) -> None:
        super()._forget_lists()
        self._members = []
        self._given.clear()

    # -------------------------------------------------------------- choosing

    def offer(self, chunk: Chunk, now: float, source: Inlet | None) -> int:
        """See `Taker`: the whole group counts as one subscription."""
        fanout = self._fanout
        if self._sweeps != fanout.sweeps:
            self._sweeps = fanout.sweeps
            self._given.clear()
        self.appends()  # somebody may have left since the publish began
        members = self._members
        if not members:
            return 0
        if self._silent and source is not None:
            members = [each for each in members if each[0] is not source or each[1].echo]
            if len(members) < len(self._members):
                # For these members only, so it does not wait with what is for all.
                self._deal(deque([Held(chunk, chunk.count, now)]), members, now, fanout, anyway=True)
                return int(bool(members))
        if not self._queue and (chunk.count == 1 or len(members) == 1):
            member = self._least(members)
            hand = member[1].hand
            if not hand.windowed or hand.room >= chunk.count:
                hand.given += chunk.count
                if not hand.windowed:
                    self._given[member[1]] = self._given.get(member[1], 0) + chunk.count
                self._give(member, chunk, now, fanout)
                return 1
        waited = bool(self._queue)
        self._wait(Held(chunk, chunk.count, now, len(chunk.data) + OVERHEAD))
        if not waited:  # else nobody has room: whoever gets some gets what waits, too
            self.deal(now, fanout)
        if self._queue:
            self._bound(2 * chunk.count + _SOME, now, fanout)
        return 1

    def _rank(self, subscription: Subscription, turn: int) -> Rank:
        hand = subscription.hand
        if hand.windowed:
            to_do, full = hand.given - hand.taken, subscription.waiting >= subscription.queue
            closed = to_do >= hand.window or hand.stalled or (hand.size >= MOST_BYTES and to_do >= LEAST)
            return closed, full, subscription.lagging, to_do, turn
        waiting = subscription.waiting + self._given.get(subscription, 0)
        at_client, room = subscription.backlog or (0, 1)
        full = waiting >= subscription.queue or at_client >= room
        return False, full, subscription.lagging, waiting + at_client, turn

    def _least(self, members: list[Member]) -> Member:
        """Who gets the next message. The first one with nothing to do will do: mostly nobody else is looked at."""
        count = len(members)
        first = self._turn % count
        best, best_rank = first, None
        for turn in range(count):
            at = (first + turn) % count
            rank = self._rank(members[at][1], turn)
            if best_rank is None or rank < best_rank:
                best, best_rank = at, rank
            if best_rank < (False, False, False, 1) or (turn >= MOST_LOOKED_AT and best_rank < (False, False, True)):
                break
        self._turn = best + 1
        return members[best]

    # --------------------------------------------------------------- dealing

    def deal(self, now: float, fanout: Fanout) -> None:
        """Give members what waits, as far as they have room. Synchronous; ends nobody."""
        if self._queue:
            self.appends()
            self.waiting -= self._deal(self._queue, self._members, now, fanout)
            self._look_whether_crowded(fanout)

    def _deal(
        self, queue: deque[Held], members: list[Member], now: float, fanout: Fanout, *, anyway: bool = False
    ) -> int:
        """Give members what is in ``queue``: each message to the one with the least to do by then, all that one member
        gets of a run as one piece.

        Args:
            queue: What waits; what was given is taken out.
            members: Who may have it.
            now: The time on trio's clock.
            fanout: The broker's.
            anyway: Whether members get it that have no room.

        Returns:
            How many messages were given.
        """
        if not members:
            return 0
        first = self._turn % len(members)
        members = members[first:] + members[:first]
        heap = [(self._rank(subscription, turn), turn) for turn, (_, subscription) in enumerate(members)]
        if not anyway:
            heap = [each for each in heap if not each[0][0]]
        heapify(heap)
        portions: dict[int, _Portion] = {}
        given = turn = 0
        while queue and heap:
            held = queue[0]
            width, at, end = held.width, held.first, held.first + held.count
            parts: dict[int, list[tuple[int, int]]] = {}
            while at < end and heap:
                (closed, full, lags, to_do, _), turn = heap[0]
                if turn not in parts:
                    portion = portions.get(turn)
                    if portion is None:
                        portion = portions[turn] = _Portion()
                        self._settle(members[turn][1], portion, anyway=anyway)
                    parts[turn] = portion.begin(held)
                portion = portions[turn]
                count = 1 if len(heap) > 1 else min(end - at, portion.left)
                parts[turn].append((at, count))
                at += count
                portion.left -= count
                portion.room -= count * width
                if portion.left and portion.room > 0:
                    heapreplace(heap, ((closed, full, lags, to_do + count, turn), turn))
                    continue
                self._settle(members[turn][1], portion, anyway=anyway)
                rank = self._rank(members[turn][1], turn)
                if rank[0] and not anyway:
                    heappop(heap)
                else:
                    heapreplace(heap, (rank, turn))
            given += at - held.first
            self._shorten(queue, at - held.first)
        self._turn = first + turn + 1
        for turn, portion in portions.items():
            self._settle(members[turn][1], portion, anyway=anyway)
            members[turn][1].hand.size -= portion.size
            for share in portion.shares:
                self._give_share(members[turn], share, now, fanout)
        return given

    def _settle(self, subscription: Subscription, portion: _Portion, *, anyway: bool) -> None:
        """Count what a portion got, and find out how much more it may get until the member's rank has to be looked at.

        Of the rank only what there is to do changes with each message; all else costs too much to be looked at then.
        """
        hand = subscription.hand
        count, size = portion.got()
        hand.given += count
        hand.size += size
        if not hand.windowed:
            self._given[subscription] = given = self._given.get(subscription, 0) + count
            left = subscription.queue - subscription.waiting - given
            portion.may_have(left if left > 0 else _ALL, _ALL)
        elif anyway:
            portion.may_have(_ALL, _ALL)
        else:
            portion.may_have(hand.room, MOST_BYTES - hand.size)

    def _shorten(self, queue: deque[Held], count: int) -> None:
        """So many of the first in ``queue`` are given, or lost."""
        held = queue[0]
        held.first += count
        held.count -= count
        if not held.count:
            queue.popleft()
            self._watch.kept -= held.size

    def _give_share(self, member: Member, share: _Share, now: float, fanout: Fanout) -> None:
        chunk, times = share.chunk, share.times
        if times:
            for at, count in share.parts:
                for index in range(at, at + count):
                    self._give(member, self.handed_over(chunk, index), now, fanout, times)
        elif share.parts == [(0, chunk.count)]:
            self._give(member, chunk, now, fanout)
        else:
            data = b"".join([chunk.part(at, count) for at, count in share.parts])
            count = sum([count for _, count in share.parts])
            self._give(member, Chunk(self, chunk.topic, data, count, chunk.born), now, fanout)

    def _give(self, member: Member, chunk: Chunk, now: float, fanout: Fanout, times: int = 0) -> None:
        """Give a member what `Hand.given` counts already."""
        outbox, subscription = member
        hand = subscription.hand
        if hand.windowed:
            size = len(chunk.data) + OVERHEAD
            if self._watch.kept >= MOST_KEPT:
                hand.hold(Held(None, chunk.count, now))
            else:
                self._watch.kept += size
                hand.hold(Held(chunk, chunk.count, now, size, times=times))
            if not self.watched:
                self.watched = True
                self._watch.add(self)
        if subscription.limiter is not None:
            subscription.limiter.offer(chunk, now, None)
        else:
            fanout.give(outbox, chunk)

    # ------------------------------------------------------- the group's queue

    def _wait(self, held: Held) -> None:
        """Put messages at the end of the group's own queue."""
        if self._queue is NOTHING:
            self._queue = deque()
        self._queue.append(held)
        self.waiting += held.count
        self._watch.kept += held.size

    def _bound(self, most: int, now: float, fanout: Fanout) -> None:
        """See to it that not too much waits, but move no more than ``most`` messages.

        The oldest ones go to members without room, whose own queues and policies count then. Where all members let
        messages be dropped, they are dropped.
        """
        over = min(most, self.waiting if self._watch.full else self.waiting - self._most)
        if over > 0:
            members = [each for each in self._members if each[1].on_slow not in ("drop_oldest", "drop_newest")]
            if members:
                moving = [each for each in members if now - each[1].hand.moved < MOVED_S]
                self._deal(self._cut(over), moving or members, now, fanout, anyway=True)
            else:
                self._drop(over, now, fanout)
        self._look_whether_crowded(fanout)

    def _cut(self, count: int) -> deque[Held]:
        """Take so many messages from the head of the queue."""
        part: deque[Held] = deque()
        while count:
            held = self._queue[0]
            some = min(count, held.count)
            part.append(Held(held.chunk, some, held.at, first=held.first, times=held.times))
            self._shorten(self._queue, some)
            self.waiting -= some
            count -= some
        return part

    def _drop(self, count: int, now: float, fanout: Fanout) -> None:
        """Drop messages that wait, by the policy of the member that has the least to do; it is told."""
        outbox, subscription = self._least(self._members)
        losses = Losses("queue")
        if subscription.on_slow == "drop_oldest":
            for held in self._cut(count):
                losses.note(_topic(held), held.count)
        else:
            rest = count
            while rest:
                held = self._queue[-1]
                some = min(rest, held.count)
                losses.note(_topic(held), some)
                held.count -= some
                self.waiting -= some
                rest -= some
                if not held.count:
                    self._queue.pop()
                    self._watch.kept -= held.size
        outbox.count_lost(subscription, count)
        for loss in losses.chunks(self, now, frozenset()):
            fanout.give(outbox, loss)

    def _look_whether_crowded(self, fanout: Fanout) -> None:
        """Whether the group lags as a whole: from three quarters of what may wait on, until it is less than half."""
        if not self._crowded and self.waiting * 4 > (capacity := self._capacity) * 3 and capacity:
            self._crowded = True
            self.lagging += _ALL
        elif self._crowded and self.waiting * 2 < self._capacity:
            self._crowded = False
            self.lagging -= _ALL
            fanout.note_caught_up()

    # ------------------------------------------------- what members have finished

    def finished(self, outbox: Outbox, taken: int, queued: int, limit: int, now: float, fanout: Fanout) -> None:
        """A member's client says what it has finished.

        Args:
            outbox: The member's.
            taken: Messages that it has finished since its SUBSCRIBE, in all.
            queued: Messages that it has and nobody has begun.
            limit: How many of these it may have.
            now: The time on trio's clock.
            fanout: The broker's.
        """
        subscription = self.outboxes.get(outbox)
        if subscription is None or not (hand := subscription.hand).windowed:
            return
        hand.queued = queued
        self._watch.kept -= hand.finish(taken, min(subscription.queue, limit), now)
        if self._queue:  # the others have no room
            self.waiting -= self._deal(self._queue, [(outbox, subscription)], now, fanout)
            self._look_whether_crowded(fanout)

    def settle(self, subscription: Subscription, acknowledges: bool, now: float) -> None:
        """A member has its options, or others than before.

        Args:
            subscription: The member's.
            acknowledges: Whether its client has just begun to say what it has finished.
            now: The time on trio's clock.
        """
        hand = subscription.hand
        if subscription.on_slow == "conflate" or subscription.max_rate is not None:
            self._watch.kept -= hand.end()  # not all that it is given reaches it, so nothing can be counted
        elif acknowledges and not hand.given:
            hand.begin(now)

    def note_lost(self, subscription: Subscription, count: int) -> None:
        """A member's own policy has dropped messages that it was given."""
        if subscription.hand.windowed:
            self._watch.kept -= subscription.hand.lose(count)

    # ---------------------------------------------------------- handing over

    def part(self, outbox: Outbox, now: float, fanout: Fanout, *, kindly: bool) -> None:
        """A member goes: others get what it has not finished. Call `Registry.release` afterwards.

        Args:
            outbox: The member's.
            now: The time on trio's clock.
            fanout: The broker's.
            kindly: It still gets what it was given, and its part of what waits: the broker ends.
        """
        subscription = self.outboxes[outbox]
        hand = subscription.hand
        back: list[Held] = []
        if kindly:
            self._give_part(outbox, subscription, now, fanout)
        elif hand.windowed:
            back = hand.give_up()
        self._watch.kept -= hand.end()
        self.remove(outbox)
        self._until = now + LINGER_S
        self._put_back(back)
        self.deal(now, fanout)
        if self._queue and not self.watched:
            self.watched = True
            self._watch.add(self)

    def _give_part(self, outbox: Outbox, subscription: Subscription, now: float, fanout: Fanout) -> None:
        part = self._cut(self.waiting // len(self.outboxes))
        self._deal(part, [(outbox, subscription)], now, fanout, anyway=True)

    def _put_back(self, back: list[Held]) -> None:
        """At the head of the queue: it is older than all that waits."""
        if not back:
            return
        if self._queue is NOTHING:
            self._queue = deque()
        for held in reversed(back):
            held.times += 1
            if held.chunk is None or held.times > MOST_TIMES:
                self._watch.kept -= held.size
                self._watch.lose(self, held.count)
            else:
                self._queue.appendleft(held)
                self.waiting += held.count

    def look(self, now: float, fanout: Fanout) -> bool:
        """Hand over what stalled members have. Called about once a second.

        Returns:
            Whether to look again.
        """
        if not self.outboxes:
            if self._queue and now < self._until:
                return True
            self.clear()
            return False
        if len(self.outboxes) > 1:
            for outbox, subscription in list(self.outboxes.items()):
                if subscription.hand.held and not subscription.hand.stalled:
                    self._look_at(outbox, subscription, now, fanout)
        self.deal(now, fanout)
        return bool(self._queue) or any(each.hand.held for each in self.outboxes.values())

    def _look_at(self, outbox: Outbox, subscription: Subscription, now: float, fanout: Fanout) -> None:
        hand = subscription.hand
        if now - hand.heard >= STALL_S:
            begun = 0
        elif hand.queued and now - hand.moved >= STALL_S:
            begun = max(0, hand.unfinished - hand.queued)
        else:
            return
        if all(each is subscription or each.hand.stalled for each in self.outboxes.values()):
            return  # who should have it?
        back = hand.give_up(begun)
        hand.stalled = True
        count = sum([held.count for held in back])
        loss = encode(Lost(self.number, count, "handed_over", None))
        fanout.give(outbox, LossChunk(self, None, loss, count, "handed_over", now))
        self._put_back(back)
        self.deal(now, fanout)

    def clear(self) -> None:
        """What waits is lost."""
        self._watch.kept -= sum([held.size for held in self._queue])
        self._watch.lose(self, self.waiting)
        self._queue, self.waiting = NOTHING, 0
        self._forget_lists()


def _most(subscription: Subscription) -> int:
    """Messages that may wait for the group because of this member."""
    return subscription.queue if subscription.grace_s is None else max(subscription.queue, UNASKED)


def _topic(held: Held) -> str:
    assert held.chunk is not None
    return held.chunk.topic


class _Share:
    """What one member gets of some messages that lie together."""

    __slots__ = ("chunk", "parts", "times")

    def __init__(self, held: Held) -> None:
        assert held.chunk is not None
        self.chunk = held.chunk
        self.times = held.times
        self.parts: list[tuple[int, int]] = []
        """The first, and how many."""


class _Portion:
    """What one member gets when messages are dealt."""

    __slots__ = ("_left", "_room", "left", "room", "shares", "size")

    def __init__(self) -> None:
        self.shares: list[_Share] = []
        self.left = self.room = self._left = self._room = 0
        """Messages and bytes until the member's rank has to be looked at."""
        self.size = 0
        """Bytes that are counted in `Hand.size` in place of the messages, until these are given."""

    def begin(self, held: Held) -> list[tuple[int, int]]:
        """Some messages of ``held`` are to come. Returns the list for them."""
        self.shares.append(_Share(held))
        return self.shares[-1].parts

    def got(self) -> tuple[int, int]:
        """Messages and bytes since `may_have`."""
        size = self._room - self.room
        self.size += size
        return self._left - self.left, size

    def may_have(self, left: int, room: int) -> None:
        """So many messages and bytes until the member's rank has to be looked at."""
        self.left, self.room = self._left, self._room = left, room
