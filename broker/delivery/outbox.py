"""One subscriber connection's way out: gather, write through, else wait in line.

Three places, in the order in which bytes pass through them:

* ``pending``, a plain list that publishes append to and the next sweep empties (`fanout` bounds it for all);
* if the socket takes everything at once, nothing else: the sweep writes and is done;
* else the lanes: answers (OK, ERROR, LAGGING), which may overtake, and the `Line`, a bounded trio channel of messages.
  A writer task, started when it is needed and gone when nothing waits, empties them as the socket allows.

What is put in line, and what is dropped when there are too many, each subscription's policy decides (`policies`).

Nothing here closes anything. Whoever is too slow is reported as a `SlowConsumer` verdict; the session acts on it.
Memory of one outbox: at most ``max_pending_bytes``, in which each entry of the line counts `ENTRY_BYTES` beside its
messages, and each key that is conflated what it takes; plus what one sweep gathered.

Someone lags before that is too much: when one of the four measures is past 75 % of its limit. Two of them are times,
and pass while nothing is published: the writer task looks at them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs
import trio

from fanwire.protocol import MAX_BATCH, Lagging, encode
from fanwire.protocol.frames import frame_header

from ..timing.turn import Turn
from ..topics.chunks import Chunk, ConflationKey, LossChunk
from .losses import MAX_BYTES as MAX_LOSS_BYTES
from .losses import MAX_TOTAL_BYTES as MAX_TOTAL_LOSS_BYTES
from .losses import Losses
from .policies import POLICIES
from .queue import ENTRY_BYTES, OWN_KEY_BYTES, PASSED, Line, size_of_key
from .subscription import Entry, Subscription

if TYPE_CHECKING:
    from fanwire.transport import FrameStream

    from ..settings.config import Config
    from ..telemetry.statistics import Counters
    from .subscription import Throttling

# A queue of one message passes 75 % with each message that waits, and falls below 50 % with each one sent. It is warned
# once a second at most, and so are the operators.
WARN_EVERY = 1.0

# Part of a measure's limit from which on a subscription lags, and below which it has to fall again to lag no more.
LAGS_FROM = 0.75
CAUGHT_UP_BELOW = 0.5

# The writer looks this often at most, in seconds, whether somebody lags by now; and tells of so many at once.
LOOK_EVERY = 0.25
PORTION = 100

# Entries that are thrown away between two looks at the clock: less than a millisecond. Of a subscription that is
# forgotten, at once: most have few, and a sweep may forget a thousand. And for each chunk that finds little room while
# some wait to be thrown away.
THROWN = 250
THROWN_AT_ONCE = 20
THROWN_FOR_ROOM = 250

# Bytes that one more key takes at most, with its entry, beside its message.
_MOST_OF_A_KEY = ENTRY_BYTES + OWN_KEY_BYTES + 255

# Entries of which is told apart of what topics they are.
TOLD_APART = 1000

# Bytes of a key that `max_rate` remembers: what one takes beside its text, and what one may take on average.
BUDGET, USUAL_BUDGET = 200, 300

# Frames to a lagging connection that conflates: what is in a frame can no longer be replaced by something newer.
CONFLATING_BATCH = 16 * 1024


@attrs.frozen
class SlowConsumer:
    """Why a subscriber is too slow, and how far behind it is (protocol.md, Delivery)."""

    measure: str
    """`queue`, `max_pending`, `stall_timeout` or `max_age`."""
    subscription: Subscription | None
    """The one that was over its `queue`; None: it is the connection that is too slow."""
    messages: int
    queued_bytes: int
    oldest_s: float

    @property
    def route(self) -> int | None:
        """The subscription's."""
        return self.subscription.route.number if self.subscription else None

    def detail(self) -> dict[str, object]:
        """The facts as GOODBYE and ERROR have them."""
        return {
            "measure": self.measure,
            "route": self.route,
            "queued": self.messages,
            "queued_bytes": self.queued_bytes,
            "oldest_ms": int(self.oldest_s * 1000),
            **({"limit": self.subscription.queue} if self.subscription else {}),
        }


class _OldKeys:
    """Keys by which nothing is conflated any more, freed some at a time."""

    def __init__(self, outbox: Outbox, keys: dict[ConflationKey, Entry]) -> None:
        self._outbox = outbox
        self._keys = keys

    def free(self, most: int) -> bool:
        """Free so many; whether none is left."""
        keys = self._keys
        for _ in range(min(most, len(keys))):
            self._outbox.key_bytes -= size_of_key(keys.popitem()[0])
        return not keys


class Outbox:
    """What waits for one connection. Owned by its session; the registry and `fanout` know only this."""

    __slots__ = (
        "_answer_bytes",
        "_answers",
        "_asking",
        "_closed",
        "_config",
        "_counters",
        "_gone",
        "_idle",
        "_lagging_bytes",
        "_late_at",
        "_line",
        "_looked",
        "_lossy",
        "_most_bytes",
        "_moved",
        "_oldest",
        "_told",
        "budget_bytes",
        "budgets",
        "conflating",
        "held_bytes",
        "key_bytes",
        "leaving",
        "loss_bytes",
        "most_waited",
        "owner",
        "pending",
        "stream",
        "subscriptions",
        "waiting_bytes",
    )

    def __init__(self, owner: Owner, stream: FrameStream, config: Config, counters: Counters) -> None:
        self.owner = owner
        self.stream = stream
        self.pending: list[bytes] = []
        self.subscriptions: dict[int, Subscription] = {}
        """By route number."""
        self.leaving = False
        """Whether its session ends: nothing of it counts as lagging any more, though what waits may still go out."""
        self.conflating = False
        """Whether one of the subscriptions conflates: then little may be where nothing can replace it any more."""
        self.waiting_bytes = 0
        """In the lanes; what is half written comes on top."""
        self.held_bytes = 0
        """Held back by `max_rate`."""
        self.key_bytes = 0
        """Of the keys that are conflated, of all subscriptions: what they take beside their entries."""
        self.budgets = self.budget_bytes = 0
        """Keys that `max_rate` remembers having sent, of all subscriptions, and the memory for them."""
        self.loss_bytes = 0
        """Of what was lost and is yet to be told, of all subscriptions."""
        self.most_waited = 0
        """Messages of one subscription in line, at most, since the socket was last clear."""
        self._config = config
        self._counters = counters
        limit = config.max_pending_bytes
        self._most_bytes = math.inf if limit is None else limit
        self._lagging_bytes = self._most_bytes * LAGS_FROM
        self._answers: list[bytes] = []
        self._answer_bytes = 0
        self._asking: trio.lowlevel.ParkingLot | None = None
        self._line = Line(limit)
        self._closed: list[Throttling | _OldKeys] = []  # with keys that are yet to be freed
        self._gone: dict[Subscription, None] = {}  # unsubscribed, and some of what waited is yet to be thrown away
        # LOST whose place in line has been reached, and the route of each.
        self._told: deque[tuple[int, bytes]] | None = None
        self._lossy: dict[Subscription, None] | None = None  # those with a loss behind all that waits of them
        self._idle = True
        self._oldest = 0.0
        self._moved = 0.0
        self._late_at = math.inf  # when stall or age pass their 75 %, if nothing moves
        self._looked = 0.0

    # -------------------------------------------------------------- answers

    @property
    def answer_bytes(self) -> int:
        """Answers that the client has not read: beyond some it is not read from either."""
        return self._answer_bytes

    async def answers_taken(self) -> None:
        """Wait until some of the answers went out, or were thrown away."""
        if self._asking is None:
            self._asking = trio.lowlevel.ParkingLot()
        await self._asking.park()

    def _let_ask(self) -> None:
        if self._asking is not None:
            self._asking.unpark_all()

    def _queue_answer(self, data: bytes) -> SlowConsumer | None:
        if self._over_bytes(len(data)):
            return self.verdict("max_pending", None)
        self._answers.append(data)
        self._answer_bytes += len(data)
        self.waiting_bytes += len(data)
        return None

    # ------------------------------------------------------- getting in line

    def queue_pending(self, chunks: list[Chunk | bytes]) -> list[SlowConsumer]:
        """Put what was gathered in the lanes, because the socket is not clear.

        Args:
            chunks: What `pending` held: messages with what is known of them, answers as bytes.

        Returns:
            Verdicts. After one about the connection, or a subscription that asked to be disconnected, nothing more was
            queued: call `discard`. A subscription that asked to be unsubscribed is out already.
        """
        if self.stream.close_sent:
            return []
        if self._idle:
            self._oldest = self._moved = trio.current_time()
            self._late_at = self._next_late()
        self.stream.queued = True
        self.stream.clear = False
        verdicts = []
        for chunk in chunks:
            verdict = self._queue_answer(chunk) if isinstance(chunk, bytes) else self._queue(chunk)
            if verdict is not None:
                verdicts.append(verdict)
                if verdict.subscription is None or verdict.subscription.on_slow != "unsubscribe":
                    break
        return verdicts

    def _queue(self, chunk: Chunk) -> SlowConsumer | None:
        subscription = self.subscriptions.get(chunk.route.number)
        if subscription is None:
            return None  # unsubscribed since
        if not chunk.count:
            assert isinstance(chunk, LossChunk)
            self._lose_behind(subscription, chunk.topic or None, chunk.lost, chunk.reason)
            for key in chunk.keys:  # what waits of them is in front of the loss, and stays as it is
                if subscription.newest.pop(key, None) is not None:
                    self.key_bytes -= size_of_key(key)
            return None
        on_slow = subscription.on_slow
        more = 0 if on_slow == "conflate" else len(chunk.data) + ENTRY_BYTES
        # As `behind_bytes`, spelled out: this is for each chunk that waits.
        kept = self.held_bytes + self.key_bytes + len(self.stream.left) + more
        behind = self.waiting_bytes + self._line.length * ENTRY_BYTES + kept
        if behind > self._most_bytes:
            if not self._throw_some(THROWN_FOR_ROOM) or self._over_bytes(more):  # of those that are gone
                return self.verdict("max_pending", None)
            behind = self.behind_bytes + more
        if not POLICIES[on_slow](self, subscription, chunk):
            verdict = self.verdict("queue", subscription)
            if on_slow == "unsubscribe":
                self.forget(subscription)
            return verdict
        waiting = subscription.waiting
        if waiting > self.most_waited:
            self.most_waited = waiting
        if not subscription.lagging and (
            (waiting > subscription.queue * LAGS_FROM and self._fills_up(subscription, chunk.born))
            or behind > self._lagging_bytes
            or chunk.born > self._late_at
        ):
            self._begin_to_lag(subscription, tell_client=True)
        if not more and behind + len(chunk.data) + _MOST_OF_A_KEY > self._most_bytes and self._over_bytes(0):
            return self.verdict("max_pending", None)
        return None

    def _over_bytes(self, more: int) -> bool:
        return self.behind_bytes + more > self._most_bytes

    @property
    def behind_bytes(self) -> int:
        """What `max_pending` bounds: what waits, is held or half written, and the entries of the line. And what losses
        that are yet to be told take beyond their own bound: even without topics there are too many places, then."""
        many = self.loss_bytes - MAX_LOSS_BYTES if self.loss_bytes > MAX_LOSS_BYTES else 0
        return self.waiting_bytes + self.held_bytes + len(self.stream.left) + self._lined_bytes + many

    @property
    def _lined_bytes(self) -> int:
        """What the entries of the line take beside their messages, and the keys of some."""
        return self._line.length * ENTRY_BYTES + self.key_bytes

    @property
    def all_bytes(self) -> int:
        """`behind_bytes`, and all of the losses that are yet to be told."""
        return self.behind_bytes + min(self.loss_bytes, MAX_LOSS_BYTES)

    @property
    def own_bytes(self) -> int:
        """What of them is in memory for this connection alone: messages are shared with whoever else waits for them."""
        return self._lined_bytes + self.loss_bytes

    @property
    def crowded(self) -> bool:
        """Whether `behind_bytes` are past 75 % of what they may be."""
        return self.behind_bytes > self._lagging_bytes

    def is_crowded(self) -> bool:
        """The same, for who would have somebody pay for it: what is thrown away in any case makes room first."""
        return self.crowded and (not self._throw_some(THROWN_FOR_ROOM) or self.crowded)

    def check_bytes(self) -> None:
        """More is held: is that too much?"""
        if self._over_bytes(0):
            self.owner.too_slow(self.verdict("max_pending", None))

    def may_wait(self, size: int) -> bool:
        """Whether so many bytes more may wait."""
        return not self._over_bytes(size)

    def note_budget(self, size: int) -> bool:
        """One more, of so many bytes; whether that is too much: as many may be remembered as entries of the line."""
        self.budgets += 1
        self.budget_bytes += size
        most = self._config.max_queue
        return self.budgets > most or self.budget_bytes > most * USUAL_BUDGET

    def forget_budgets(self, count: int, size: int) -> None:
        """So many fewer, of so many bytes together."""
        self.budgets -= count
        self.budget_bytes -= size

    # ------------------------------------------- what policies do (see there)

    def put(self, entry: Entry) -> None:
        """Put an entry at the end of the line."""
        self._line.put(entry)
        subscription = entry.subscription
        if subscription.back is not None:
            entry.lost, subscription.back = subscription.back, None
            assert self._lossy is not None
            del self._lossy[subscription]
        subscription.entries.append(entry)
        subscription.waiting += entry.count
        self.waiting_bytes += entry.size

    def put_key(self, entry: Entry, key: ConflationKey) -> None:
        """Put an entry at the end of the line; what is newer of its key goes in its place."""
        entry.subscription.newest[key] = entry
        self.key_bytes += size_of_key(key)
        self.put(entry)

    def replace(self, entry: Entry, newest: Chunk) -> None:
        """Something newer goes in the place of what waits."""
        self.count_replaced(entry.subscription, 1)
        size = len(newest.data)
        self.waiting_bytes += size - entry.size
        entry.chunk, entry.size = newest, size

    def drop_first(self, subscription: Subscription, count: int, reason: str) -> None:
        """Drop ``count`` messages of the first entry (it has as many)."""
        entry = subscription.entries[0]
        if entry.lost is not None:
            front = self._front(subscription, reason)
            before = front.size + entry.lost.size
            front.merge(entry.lost, coarse=self._coarse)
            self.count_loss_bytes(front.size - before)
            entry.lost = None
        self.lose_first(subscription, entry.chunk, count, reason)
        self.waiting_bytes -= entry.cut(count, entry.count - count)
        subscription.waiting -= count
        if not entry.count:
            subscription.entries.popleft()
            self._forget_newest(entry)
            entry.kill()
            self._line.note_dead()

    def lose_first(self, subscription: Subscription, chunk: Chunk, count: int, reason: str) -> None:
        """Messages are lost in front of all that waits of the subscription."""
        self.note_loss(self._front(subscription, reason), chunk.topic, count)
        self.count_lost(subscription, count)
        subscription.route.note_lost(subscription, count)

    def lose_last(self, subscription: Subscription, chunk: Chunk, count: int, reason: str) -> None:
        """Messages are lost behind all that waits of the subscription."""
        self._lose_behind(subscription, chunk.topic, count, reason)
        self.count_lost(subscription, count)
        subscription.route.note_lost(subscription, count)

    def _lose_behind(self, subscription: Subscription, topic: str | None, count: int, reason: str) -> None:
        if subscription.back is None:
            subscription.back = self.new_losses(reason)
            self._lossy = self._lossy if self._lossy is not None else {}
            self._lossy[subscription] = None
        self.note_loss(subscription.back, topic, count)

    def _front(self, subscription: Subscription, reason: str) -> Losses:
        if subscription.front is None:
            subscription.front = self.new_losses(reason)
        return subscription.front

    # The bytes of all losses that are not told yet are counted here and for the broker: none is made, grows or goes
    # without that.

    def new_losses(self, reason: str) -> Losses:
        """A place at which messages are lost."""
        losses = Losses(reason)
        self.count_loss_bytes(losses.size)
        return losses

    def note_loss(self, losses: Losses, topic: str | None, count: int) -> None:
        """Messages are lost at a place; their topic is not noted if too much is noted already."""
        before = losses.size
        losses.note(None if self._coarse else topic, count)
        self.count_loss_bytes(losses.size - before)

    @property
    def _coarse(self) -> bool:
        return self.loss_bytes > MAX_LOSS_BYTES or self._counters.loss_bytes > MAX_TOTAL_LOSS_BYTES

    def count_loss_bytes(self, more: int) -> None:
        """Losses that are not told yet take so many bytes more (or less)."""
        self.loss_bytes += more
        self._counters.loss_bytes += more

    def count_lost(self, subscription: Subscription, count: int) -> None:
        """They were dropped."""
        subscription.lost += count
        lost = self._counters.lost
        lost[subscription.on_slow] = lost.get(subscription.on_slow, 0) + count

    def count_replaced(self, subscription: Subscription, count: int) -> None:
        """They were passed over for newer ones."""
        subscription.replaced += count
        self._counters.replaced += count

    def _forget_newest(self, entry: Entry) -> None:
        newest = entry.subscription.newest
        if newest and newest.get(key := entry.chunk.key) is entry:
            del newest[key]
            self.key_bytes -= size_of_key(key)
            if not newest:
                newest.clear()  # it would keep room for as many as it ever had

    def unsent(self, subscription: Subscription) -> set[str | None]:
        """Topics of which messages wait or are held, or a loss is not told yet; None among them: maybe any.

        Before calling this, flush what was gathered.
        """
        entries = subscription.entries
        if len(entries) > TOLD_APART:
            return {None}
        topics: set[str | None] = {entry.chunk.topic for entry in entries}
        if subscription.lost:
            for losses in (subscription.front, subscription.back, *[entry.lost for entry in entries]):
                topics |= losses.topics() if losses is not None else set()
            if self._told:
                topics.add(None)
        if subscription.limiter is not None:
            topics |= subscription.limiter.unsent()
        return topics

    # ---------------------------------------------------------------- lagging

    def note_change(self, subscription: Subscription) -> None:
        """It has another queue, or another grace."""
        now = trio.current_time()
        if subscription.lagging:
            self._look_whether_caught_up(subscription, now)
        elif subscription.waiting and self._begins_to_lag(subscription, now):
            self._begin_to_lag(subscription, tell_client=True)

    def note_backlog(self, subscription: Subscription) -> None:
        """The client told how much waits in its own buffer."""
        assert subscription.backlog is not None
        queued, limit = subscription.backlog
        if not subscription.lagging and queued * 4 > limit * 3:
            self._begin_to_lag(subscription, tell_client=False)
        else:
            self._look_whether_caught_up(subscription, trio.current_time())

    def _begins_to_lag(self, subscription: Subscription, now: float) -> bool:
        """Whether one of the four measures is past 75 % at ``now``."""
        return self._fills_up(subscription, now) or now > self._late_at or self.crowded

    @staticmethod
    def _fills_up(subscription: Subscription, now: float) -> bool:
        if subscription.waiting <= subscription.queue * LAGS_FROM:
            return False
        grace_s = subscription.grace_s
        return grace_s is None or subscription.age_s(now) > grace_s * LAGS_FROM

    def nearest(self, now: float, subscriptions: Iterable[Subscription]) -> tuple[float, str]:
        """Which measure is nearest to its limit, and which part of that it is at: of these subscriptions, or of the
        connection.

        Where ``queue`` counts only after a grace, both must be over: so it is the lesser of the two that tells.
        """
        shares = [(0.0, "")]
        for each in subscriptions:
            share = each.waiting / each.queue
            shares.append((share if each.grace_s is None else min(share, each.age_s(now) / each.grace_s), "queue"))
        config, behind = self._config, self.behind_bytes
        if config.max_pending_bytes is not None and behind:
            shares.append((behind / config.max_pending_bytes, "max_pending"))
        if not self._nothing_waits():
            shares.append(((now - self._oldest) / (config.max_age_s or math.inf), "max_age"))
            shares.append(((now - self._moved) / (config.stall_timeout_s or math.inf), "stall_timeout"))
        return max(shares)

    def _begin_to_lag(self, subscription: Subscription, *, tell_client: bool) -> None:
        """Tell of it: once an episode, and once in `WARN_EVERY` seconds."""
        if self.leaving:
            return  # nobody waits for a client that leaves
        now = trio.current_time()
        subscription.lagging = True
        subscription.route.lagging += 1
        self._counters.lagging += 1
        subscription.warned = now >= subscription.warned_at + WARN_EVERY
        if subscription.warned:
            subscription.warned_at = subscription.lagging_since = now
            subscription.before_lagging = (subscription.lost, subscription.replaced)
            self.owner.lagging(subscription)
            if tell_client:
                self._warn(subscription)

    def _warn(self, subscription: Subscription) -> None:
        oldest_ms = int(self.oldest_s() * 1000)
        warning = Lagging(subscription.route.number, subscription.waiting, subscription.queue, oldest_ms)
        self._queue_answer(encode(warning))  # if even that is too much, the verdict comes with the next message

    def _look_whether_caught_up(self, subscription: Subscription, now: float) -> None:
        waiting = subscription.waiting
        if not subscription.lagging or subscription.client_lags:
            return
        if subscription.grace_s is None and waiting >= subscription.queue * CAUGHT_UP_BELOW:
            return
        if not waiting or self.nearest(now, (subscription,))[0] < CAUGHT_UP_BELOW:
            self.clear_lagging(subscription)
            self.owner.caught_up(subscription)

    def clear_lagging(self, subscription: Subscription) -> None:
        """It lags no more, or is gone. Idempotent."""
        if subscription.lagging:
            subscription.lagging = False
            subscription.route.lagging -= 1
            self._counters.lagging -= 1

    # -------------------------------------------------------------- leaving

    def forget(self, subscription: Subscription) -> None:
        """It was unsubscribed: nothing of it that waits is sent any more. Idempotent.

        Of very much that waits only some is thrown away now. The rest is still in memory, and counts, until `clear`
        comes by; nothing of it is sent.

        Before calling this, flush what was gathered: `pending` does not know whose bytes it holds.
        """
        if self.subscriptions.get(subscription.route.number) is not subscription:
            return
        number = subscription.route.number
        del self.subscriptions[number]
        self._gone[subscription] = None
        self._throw_entries(subscription, THROWN_AT_ONCE)
        self._let_go_of(subscription)
        if self._told:
            self.count_loss_bytes(-sum([len(envelope) for route, envelope in self._told if route == number]))
            self._told = deque([told for told in self._told if told[0] != number])
        self.clear_lagging(subscription)
        if self._gone or self._line.refill(0):
            self.owner.need_clearing()

    def _let_go_of(self, subscription: Subscription) -> None:
        """All of a subscription goes but its entries."""
        subscription.waiting = 0
        self._forget_losses(subscription.front)
        self._forget_losses(subscription.back)
        subscription.front = subscription.back = None
        if self._lossy:
            self._lossy.pop(subscription, None)
        if subscription.limiter is not None:
            subscription.limiter.close()
        if subscription.replaying is not None:
            subscription.replaying.close()
        subscription.limiter = subscription.replaying = None  # both know the subscription, too, and the outbox

    def _throw_entries(self, subscription: Subscription, most: int) -> int:
        """Of one that is gone: the newest first, since the writer comes from the other side. How many were there."""
        entries = subscription.entries
        count = min(most, len(entries))
        for _ in range(count):
            self._throw(entries.pop())
        if not entries:
            subscription.newest.clear()
            del self._gone[subscription]
        if count:
            self._line.note_dead(count)
        return count

    def _throw(self, entry: Entry) -> None:
        self.waiting_bytes -= entry.size
        self._forget_losses(entry.lost)
        entry.lost = None
        self._forget_newest(entry)
        entry.kill()

    def _throw_some(self, most: int) -> int:
        """Of those that are gone, so many entries at most; how many it were."""
        left = most
        while left and self._gone:
            left -= self._throw_entries(next(iter(self._gone)), left)
        return most - left

    async def clear(self) -> None:
        """Throw away what waited of those that are gone, a turn at a time. Cancelled, it leaves all as it should be."""
        turn = Turn()
        while self._throw_some(THROWN) or self._free_keys() or self._line.refill(THROWN):
            await turn.pause()

    def note_closed(self, limiter: Throttling) -> None:
        """It is of no use any more, and remembers very many keys."""
        self._closed.append(limiter)
        self.owner.need_clearing()

    def forget_keys(self, subscription: Subscription) -> None:
        """Nothing newer goes in the place of what waits of it. Very many keys are freed later, and count until then."""
        if subscription.newest:
            keys, subscription.newest = _OldKeys(self, subscription.newest), {}
            if not keys.free(THROWN):
                self._closed.append(keys)
                self.owner.need_clearing()

    def _free_keys(self) -> bool:
        """Free some of those keys; whether there were any."""
        if not self._closed:
            return False
        if self._closed[-1].free(THROWN):
            self._closed.pop()
        return True

    def _pass_over(self, entry: Entry | None) -> Entry | None:
        """From ``entry`` on, which is the first in line, the first one of a subscription that is not gone. None: there
        is none, or more are to be passed over than may be in this step."""
        line = self._line
        while entry is not None and entry.subscription in self._gone:
            if not line.may_pass:
                return None
            line.may_pass -= 1
            subscription = entry.subscription
            line.head = None
            subscription.entries.popleft()
            self._throw(entry)
            if not subscription.entries:
                del self._gone[subscription]
            entry = line.first()
        return entry

    def _first(self) -> Entry | None:
        """The first in line that is to be sent. None while the line has a length: ask again in another step."""
        self._line.may_pass = PASSED
        entry = self._line.first()
        return self._pass_over(entry) if self._gone else entry

    def _forget_losses(self, losses: Losses | None) -> None:
        if losses is not None:
            self.count_loss_bytes(-losses.size)

    async def throw_away(self) -> None:
        """Throw away the messages that wait, some at a time: hundreds of thousands at once would hold everybody up.

        Before calling this, see to it that nothing can be put in line any more. Cancelled, it leaves the rest to
        `discard` or `close`.
        """
        line = self._line
        while self._free_keys():
            await trio.lowlevel.checkpoint()
        while line.first() or line.length:
            for _ in range(THROWN):
                if (entry := self._first()) is None:
                    break
                line.head = None
                subscription = entry.subscription
                subscription.entries.popleft()
                subscription.waiting -= entry.count
                self._throw(entry)
            await trio.lowlevel.checkpoint()

    def discard(self) -> None:
        """Throw away all that waits but the rest of a frame that is half written."""
        self._throw_away()
        self.stream.keep_half_written()
        self.stream.queued = False
        self.stream.settle()

    def close(self) -> None:
        """The stream is closed. What waited is free now, although entries and subscriptions know each other."""
        self._throw_away()
        self.subscriptions.clear()
        self.stream.left = b""

    def _throw_away(self) -> None:
        self.pending.clear()
        self._answers.clear()
        self._told = None
        self._let_ask()
        for subscription in [*self.subscriptions.values(), *self._gone]:
            self._gone[subscription] = None
            self._throw_entries(subscription, len(subscription.entries))
            self._let_go_of(subscription)
            self.clear_lagging(subscription)
        while self._free_keys():
            pass
        self._answer_bytes = self.waiting_bytes = 0
        self.count_loss_bytes(-self.loss_bytes)
        self._line = Line(self._config.max_pending_bytes)

    # ------------------------------------------------------------ the writer

    async def write_out(self) -> SlowConsumer | None:
        """Write as the socket allows, until nothing waits or a measure of slowness says stop.

        Returns:
            None when all has gone; else the verdict.

        Raises:
            trio.BrokenResourceError: The peer is gone.
            trio.ClosedResourceError: We closed the stream.
        """
        stream = self.stream
        self._moved = self._oldest = trio.current_time()
        self._idle = False
        try:
            while True:
                seen = stream.progress
                ends, look = self._deadline(), self.next_look()
                # Where a write that is cancelled breaks the stream (TLS), the session looks who lags.
                with trio.CancelScope(deadline=min(ends, look) if stream.direct else ends) as scope:
                    async with stream.sending():
                        if not stream.left and not self._anything():
                            break
                        await stream.push(self._load)  # loaded when the socket is ready: until then it can be replaced
                if stream.progress != seen:
                    self._moved = trio.current_time()
                elif scope.cancelled_caught:
                    if trio.current_time() >= self._deadline():
                        return self._too_late()
                    self.look_who_lags()
        finally:
            self._idle = True
            self._counters.observe_depth(self.most_waited)
            self.most_waited = 0
        stream.queued = False
        stream.settle()
        return None

    def _anything(self) -> bool:
        return bool(self._answers or self._first() or self._line.length or self._told or self._lossy)

    def _deadline(self) -> float:
        stall, age = self._config.stall_timeout_s, self._config.max_age_s
        if not self.stream.left:
            if first := self._first():
                self._oldest = first.chunk.born
            elif self._line.length:
                self._oldest = trio.current_time()  # those in front are gone; who stands behind them is not known yet
        return min(
            self._moved + stall if stall is not None else math.inf,
            self._oldest + age if age is not None else math.inf,
        )

    def _next_late(self) -> float:
        """When stall or age pass 75 % of their limits, if nothing moves."""
        stall, age = self._config.stall_timeout_s, self._config.max_age_s
        return min(
            self._moved + stall * LAGS_FROM if stall is not None else math.inf,
            self._oldest + age * LAGS_FROM if age is not None else math.inf,
        )

    def next_look(self) -> float:
        """When `look_who_lags` is due next, on trio's clock: somebody may begin to lag though nothing is published."""
        self._late_at = self._next_late()
        due = self._late_at if self._late_at > self._looked else math.inf
        if (grace := self._config.queue_grace_s) is not None:
            # Each subscription has an oldest message of its own: while one has many waiting, look more often.
            many = self.most_waited > self._config.queue * LAGS_FROM
            due = min(due, max(self._oldest, self._looked) + grace * (0.2 if many else LAGS_FROM))
        return max(due, self._looked + LOOK_EVERY)

    def look_who_lags(self) -> None:
        """Tell of those who lag by now. To be called only where `write_out` cannot do so (a stream not ``direct``)."""
        now, told = trio.current_time(), 0
        self._looked = now
        soon = now + 0.001  # else rounding would decide whether the moment has come
        for subscription in self.subscriptions.values():
            if subscription.waiting and not subscription.lagging and self._begins_to_lag(subscription, soon):
                self._begin_to_lag(subscription, tell_client=True)
                told += 1
                if told == PORTION:
                    self._looked = -math.inf  # the others at once, but not before whoever else has something to do
                    return

    def _too_late(self) -> SlowConsumer:
        age = self._config.max_age_s
        too_old = age is not None and trio.current_time() >= self._oldest + age
        return self.verdict("max_age" if too_old else "stall_timeout", None)

    def _load(self) -> None:
        """Make the next frame the stream's ``left``: answers, else messages, up to 64 KiB."""
        self._moved = trio.current_time()  # for the socket has taken all that was left
        body = self._next_answers() or self._next_messages(CONFLATING_BATCH if self.conflating else MAX_BATCH)
        if body:
            self.stream.left = frame_header(len(body)) + body

    def _next_answers(self) -> bytes:
        answers = self._answers
        count = size = 0
        while count < len(answers) and (not count or size + len(answers[count]) <= MAX_BATCH):
            size += len(answers[count])
            count += 1
        if not count:
            return b""
        body = b"".join(answers[:count])
        del answers[:count]
        self._answer_bytes -= size
        self.waiting_bytes -= size
        self._let_ask()
        first = self._first()  # who is overtaken does not get younger
        self._oldest = first.chunk.born if first else trio.current_time()
        return body

    def _next_messages(self, most: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        line, gone = self._line, self._gone
        line.may_pass = PASSED
        while True:
            entry = line.first()
            if gone:
                entry = self._pass_over(entry)
            if entry is None:
                if line.length:
                    return b"".join(parts)  # many are dead in front: they are passed over in more than one step
                self._tell_all()
            elif entry.lost is not None or entry.subscription.front is not None:
                self._tell_before(entry)
            while self._told:
                if parts and size + len(self._told[0][1]) > most:
                    return b"".join(parts)
                parts.append(self._told.popleft()[1])
                size += len(parts[-1])
                self.count_loss_bytes(-len(parts[-1]))
            if entry is None or (parts and size + entry.size > most):
                return b"".join(parts)
            if not parts:
                self._oldest = entry.chunk.born
            size += entry.size
            chunk = entry.chunk
            parts.append(chunk.data if entry.count == chunk.count else entry.data())
            self._take(entry)

    def _take(self, entry: Entry) -> None:
        self._line.head = None
        subscription = entry.subscription
        subscription.entries.popleft()
        self.waiting_bytes -= entry.size
        subscription.waiting -= entry.count
        if subscription.newest:
            self._forget_newest(entry)
        if subscription.back is not None and not subscription.entries:
            self._tell(subscription, subscription.back)
            subscription.back = None
            assert self._lossy is not None
            del self._lossy[subscription]
        if subscription.lagging:
            self._look_whether_caught_up(subscription, self._moved)

    def _tell_before(self, entry: Entry) -> None:
        self._tell(entry.subscription, entry.subscription.front, entry.lost)
        entry.subscription.front = entry.lost = None

    def _tell_all(self) -> None:
        """Nothing waits any more: what was lost behind it has its place here."""
        for subscription in self._lossy or ():
            self._tell(subscription, subscription.front, subscription.back)
            subscription.front = subscription.back = None
        self._lossy = None

    def _tell(self, subscription: Subscription, *places: Losses | None) -> None:
        """Places that have come to lie side by side are one."""
        losses, *later = [place for place in places if place is not None]
        size = losses.size
        for place in later:
            size += place.size
            losses.merge(place)
        self._told = self._told if self._told is not None else deque()
        number = subscription.route.number
        envelopes = losses.envelopes(number)
        self.count_loss_bytes(sum(map(len, envelopes)) - size)
        self._told += [(number, envelope) for envelope in envelopes]

    # ------------------------------------------------------------ how far behind

    def _nothing_waits(self) -> bool:
        return self.stream.clear or (self._idle and not self.stream.queued)

    def oldest_s(self) -> float:
        """Age of the oldest message that waits, in seconds; 0 when nothing does."""
        if self._nothing_waits():
            return 0.0
        return max(0.0, trio.current_time() - self._oldest)

    def verdict(self, measure: str, subscription: Subscription | None) -> SlowConsumer:
        """How things stand, as a verdict."""
        if subscription is None:
            waiting = sum(each.waiting for each in self.subscriptions.values())
            return SlowConsumer(measure, None, waiting, self.all_bytes, self.oldest_s())
        size = sum([entry.size for entry in subscription.entries])
        return SlowConsumer(measure, subscription, subscription.waiting, size, subscription.age_s(trio.current_time()))


class Owner:
    """What an outbox's session must do when asked. Called from a sweep: none of it may block or raise."""

    __slots__ = ()

    def need_writer(self) -> None:
        """Something waits for the socket: see to it that `Outbox.write_out` runs."""
        raise NotImplementedError

    def need_clearing(self) -> None:
        """Something of subscriptions or limiters that are gone is still in memory: let `Outbox.clear` run."""
        raise NotImplementedError

    def too_slow(self, verdict: SlowConsumer) -> None:
        """Act on the verdict."""
        raise NotImplementedError

    def lagging(self, subscription: Subscription) -> None:
        """A measure of it passed 75 % of its limit. Not called again within `WARN_EVERY` seconds."""
        raise NotImplementedError

    def caught_up(self, subscription: Subscription) -> None:
        """It lagged, and fell below 50 %. Whether anybody was told that it did: `Subscription.warned`."""
        raise NotImplementedError

    def gone(self) -> None:
        """The socket is broken."""
        raise NotImplementedError
