"""``max_rate``: of each key at most so many messages a second, the newest held until it may go.

A key may be sent again one interval after it was sent. All keys of a subscription share one interval, so the keys in
the order in which they were sent are also in the order in which they may be sent again: one queue, no heap, and one
entry at the broker's watchdog. A key that nothing was published on for an interval is forgotten: sending it at once is
what its budget allows.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..delivery.losses import MAX_TOPICS
from ..delivery.outbox import BUDGET, THROWN_AT_ONCE, TOLD_APART
from ..delivery.policies import MOST_DROPPED, SHED
from ..delivery.queue import ENTRY_BYTES
from ..timing.timers import Watched

if TYPE_CHECKING:
    from ..delivery.fanout import Fanout
    from ..delivery.losses import Losses
    from ..delivery.outbox import Outbox
    from ..delivery.subscription import Subscription
    from ..timing.timers import Watchdog
    from ..topics.chunks import Chunk, ConflationKey
    from ..topics.takers import Inlet

# What is due within so many seconds goes out together: a subscriber of ten thousand symbols would otherwise be written
# to ten thousand times a second. Nothing goes early; what is held comes so much later at most.
SLACK = 0.005

# Keys released at once before others get their turn: each takes about a microsecond.
PORTION = 1_000


def _size_of(key: ConflationKey) -> int:
    """Bytes that a key takes while it is remembered."""
    return BUDGET + (len(key) if isinstance(key, str) else len(key[0]) + len(key[1]))


class Limiter(Watched):
    """One subscription's budget. Sits between the publish and the outbox."""

    __slots__ = (
        "_budget_bytes",
        "_closed",
        "_fanout",
        "_held",
        "_interval",
        "_losses",
        "_lost",
        "_opened",
        "_outbox",
        "_recent",
        "_sent",
        "_subscription",
        "_watch",
        "_watchdog",
    )

    def __init__(self, subscription: Subscription, outbox: Outbox, fanout: Fanout, watchdog: Watchdog) -> None:
        self._subscription = subscription
        self._outbox = outbox
        self._fanout = fanout
        self._watchdog = watchdog
        self._watch: int | None = None
        self._closed = False
        self._opened: Callable[[], None] | None = None  # while what is held goes because there is no limit any more
        assert subscription.max_rate is not None
        self._interval = 1 / subscription.max_rate
        self._budget_bytes = 0  # of those
        self._recent: set[ConflationKey] = set()  # sent within the last interval
        self._sent: deque[tuple[float, ConflationKey]] = deque()  # the same keys, and when they were sent
        self._held: OrderedDict[ConflationKey, Chunk] = OrderedDict()  # of some of them: what goes next
        self._losses: Losses | None = None
        self._lost: set[ConflationKey] = set()  # keys of those losses: nothing newer may go in front of them

    def offer(self, chunk: Chunk, now: float, source: Inlet | None) -> int:
        """See `Taker`: its newest message goes at once, or is held. Never blocks, never fails."""
        subscription, outbox = self._subscription, self._outbox
        if source is outbox and not subscription.echo:
            return 0
        if not self._closed:
            self._take(chunk, now)
        return 1

    def _take(self, chunk: Chunk, now: float) -> None:
        subscription, outbox = self._subscription, self._outbox
        newest = chunk.newest()
        key = newest.key
        if self._opened is not None:
            self._give_behind_held(chunk, key, now)
            return
        outbox.count_replaced(subscription, chunk.count - 1)
        entry = subscription.newest.get(key)
        if entry is not None and key not in self._held and key not in self._lost:
            outbox.replace(entry, newest)  # one was sent and still waits for the socket: this one goes in its place
            outbox.check_bytes()
        elif key in self._recent:
            self._hold(newest, key)
        else:
            self._send(newest, key, now)

    def _hold(self, newest: Chunk, key: ConflationKey) -> None:
        before = self._held.get(key)
        if before is not None:
            self._outbox.count_replaced(self._subscription, 1)
            self._outbox.held_bytes -= len(before.data) + ENTRY_BYTES
        else:
            if len(self._held) >= self._subscription.queue:
                self._make_room()
            self._subscription.held += 1
        self._held[key] = newest
        self._outbox.held_bytes += len(newest.data) + ENTRY_BYTES
        self._outbox.check_bytes()

    def _make_room(self) -> None:
        """As many keys are held as may wait. Where ``queue`` counts only when somebody is late that is nothing yet:
        being held is no sign of slowness. Only bytes are, and then there may be very many keys."""
        excess = len(self._held) + 1 - self._subscription.queue
        if self._subscription.grace_s is not None:
            excess = min(excess, SHED) if self._outbox.is_crowded() else 0
        excess = min(excess, MOST_DROPPED)
        for _ in range(excess):
            self._lose_oldest()

    def _lose_oldest(self) -> None:
        """More keys are held than may wait: the one that was held first goes."""
        key = next(iter(self._held))
        held = self._release(key)
        assert held is not None
        self._outbox.count_lost(self._subscription, 1)
        self._losses = self._losses or self._outbox.new_losses("keys")
        self._outbox.note_loss(self._losses, held.topic, 1)
        self._lost.add(key)
        if len(self._lost) >= MAX_TOPICS:
            self._tell_losses(held.born)

    def _send(self, newest: Chunk, key: ConflationKey, now: float) -> None:
        self._tell_losses(now)
        self._fanout.give(self._outbox, newest)
        self._recent.add(key)
        self._sent.append((now, key))
        size = _size_of(key)
        self._budget_bytes += size
        if self._outbox.note_budget(size):
            self._forget_first_budget(now)
        if self._watch is None and self._sent:
            self._watch = self._watchdog.watch(self, self._sent[0][0] + self._interval)

    def _forget_first_budget(self, now: float) -> None:
        """The connection has too many. The key that was sent first goes at once when there is something new."""
        _, key = self._sent.popleft()
        self._forget(key)
        if (held := self._release(key)) is not None:
            self._give_held(held, now)

    def _forget(self, key: ConflationKey) -> None:
        self._recent.discard(key)
        size = _size_of(key)
        self._budget_bytes -= size
        self._outbox.forget_budgets(1, size)

    def _release(self, key: ConflationKey) -> Chunk | None:
        held = self._held.pop(key, None)
        if held is not None:
            self._subscription.held -= 1
            self._outbox.held_bytes -= len(held.data) + ENTRY_BYTES
        return held

    def _give_held(self, held: Chunk, now: float) -> None:
        """It waits for the socket from now on: how long it was held says nothing of the subscriber's slowness."""
        self._fanout.give(self._outbox, held.born_again(now))

    def _give_behind_held(self, chunk: Chunk, key: ConflationKey, now: float) -> None:
        """There is no limit any more, but something of its key may still be held."""
        if (held := self._release(key)) is not None:
            self._give_held(held, now)
        self._fanout.give(self._outbox, chunk)

    def _tell_losses(self, now: float) -> None:
        if self._losses is not None:
            for loss in self._losses.chunks(self._subscription.route, now, frozenset(self._lost)):
                self._fanout.give(self._outbox, loss)
            self._forget_losses()

    def _forget_losses(self) -> None:
        if self._losses is not None:
            self._outbox.count_loss_bytes(-self._losses.size)
            self._losses = None
            self._lost.clear()

    def unsent(self) -> set[str | None]:
        """Topics of which something is held, or lost and not told yet; None among them: maybe any."""
        if len(self._held) > TOLD_APART:
            return {None}
        topics: set[str | None] = {chunk.topic for chunk in self._held.values()}
        return topics | self._losses.topics() if self._losses is not None else topics

    def look(self, now: float) -> float | None:
        """See `Watched`: release what is due."""
        if self._opened is not None:
            if self.let_go(now):
                return now + SLACK
            self._watch = None
            self._opened()
            return None
        self._tell_losses(now)
        sent, interval = self._sent, self._interval
        for _ in range(PORTION):
            if not sent or sent[0][0] + interval > now:
                break
            _, key = sent.popleft()
            held = self._release(key)
            if held is None:
                self._forget(key)
            else:
                self._give_held(held, now)
                sent.append((now, key))
        if sent:
            return max(sent[0][0] + interval, now + SLACK)
        self._watch = None
        return None

    def change(self, max_rate: float, now: float) -> None:
        """Another rate from now on, also for what is held."""
        self._interval, self._opened = 1 / max_rate, None
        if self._watch is not None:
            self._watchdog.forget(self._watch)
            self._watch = self._watchdog.watch(self, max(now, self._sent[0][0] + self._interval))

    def open(self, now: float, opened: Callable[[], None]) -> None:
        """No limit any more: all that is held goes, some of it now. ``opened`` is called when nothing is held, now or
        later: then this one is of no use."""
        if not self.let_go(now):
            opened()
            return
        self._opened = opened
        if self._watch is not None:
            self._watchdog.forget(self._watch)
        self._watch = self._watchdog.watch(self, now + SLACK)

    def let_go(self, now: float) -> bool:
        """Some of what is held goes, whatever the limit; whether there is more."""
        self._tell_losses(now)
        for _ in range(min(PORTION, len(self._sent))):
            _, key = self._sent.popleft()
            self._forget(key)
            if (held := self._release(key)) is not None:
                self._give_held(held, now)
        return bool(self._held)

    def close(self) -> None:
        """Nobody wants what is held. Idempotent; `offer` does nothing any more.

        Very many keys are freed later, by the outbox: until then what was held counts as held."""
        if self._closed:
            return
        self._closed = True
        self._subscription.held = 0
        self._forget_losses()
        if self._watch is not None:
            self._watchdog.forget(self._watch)
            self._watch = None
        if not self.free(THROWN_AT_ONCE):
            self._outbox.note_closed(self)

    def free(self, most: int) -> bool:
        """Free so many keys of one that is closed; whether none is left."""
        sent, held, outbox = self._sent, self._held, self._outbox
        for _ in range(min(most, len(sent))):
            _, key = sent.popleft()
            self._forget(key)
            if (chunk := held.pop(key, None)) is not None:  # all that are held were sent before
                outbox.held_bytes -= len(chunk.data) + ENTRY_BYTES
        return not sent
