"""Queue groups: this client's share of the work, handed out among its own subscriptions.

To the broker the subscriptions of one client to the same pattern and group are one member. What comes goes to one of
them: to the one for which the least waits.

The broker gives a member no more than its window, and wants to hear what was finished (BACKLOG with ``taken``). A
message is finished when its handler comes back for the next one. That is said at once while handlers take their time,
and for `MOST_UNSAID` messages together, or after `SOON_S`, when they are fast: a quick handler costs an envelope now
and then. While a handler is at work for long the client says every `ALIVE_S` that it lives, so that the broker does not
give the work to another member.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import trio

from fanwire.protocol import SubscribeOptions

from ..errors import MessageTooLarge
from ..exchange.answers import Result
from ..message import Raw
from ..notices import LostMessages
from .position import Asked, Beginning
from .subscription import Subscription
from .weight import WeighedRun, weight_of_all
from .wire_subscription import Feed

if TYPE_CHECKING:
    from .wire_subscriptions import Feeds

# Finished messages that the broker need not hear of at once, and for how long, in seconds.
MOST_UNSAID = 16
SOON_S = 0.005

# The first messages of a connection are told at once: so the broker learns soon how fast this member is.
EAGER = 64

# How often a client says that it lives while its handlers are at work, in seconds. The broker waits for three times as
# long.
ALIVE_S = 10.0

_MESSAGE = 19

_log = logging.getLogger("fanwire.client")


class GroupFeed(Feed):
    """What the broker sends for one pattern and group."""

    acknowledges = True
    _turn = 0  # who comes first among equals
    _run: list[Raw] | None = None  # that is being handed out
    _shares: dict[Worker, list[Raw]]

    def __init__(self, feeds: Feeds, pattern: str, wanted: SubscribeOptions, beginning: Beginning) -> None:
        super().__init__(pattern, wanted, beginning)
        self._feeds = feeds
        self._kept_in: tuple[object, object] = (None, None)  # the route, and the life of the broker that it belongs to
        self._received = 0  # messages, over the present connection
        self._said = 0  # how many of them the broker knows to be finished
        self._said_at = 0.0
        self._soon = _Timer(self, self._say_news)
        self._alive = _Timer(self, self._say_that_it_lives)

    # ------------------------------------------------------ beginning, ending

    def begin(self, route: int, agreed: SubscribeOptions, asked: Asked | None, result: Result) -> bool:
        """See `Feed`. With a new connection counting begins anew."""
        anew, home = self.route is None, (route, result.get("epoch"))
        if anew:
            # The broker has kept the group, so another member gets, or has got, what was not finished here.
            handed_over = home == self._kept_in
            for worker in self._workers:
                worker.begin_anew(drop=handed_over)
            self._kept_in, self._received, self._said, self._said_at = home, 0, 0, trio.current_time()
        return super().begin(route, agreed, asked, result)

    @property
    def _workers(self) -> list[Worker]:
        return cast(list[Worker], self.subscriptions)

    def lose(self, lost: LostMessages) -> None:
        """See `Feed`. What the broker has given to others is not lost: what waits here is theirs now."""
        if lost.reason != "handed_over":
            super().lose(lost)
            return
        dropped = sum([worker.drop_waiting() for worker in self._workers])
        _log.warning(
            "the broker has given %s messages of %r to other members of the group %r, for nothing was finished here;"
            " %d that waited are dropped",
            lost.count, self.pattern, self.wanted.group, dropped,
        )  # fmt: skip

    # ------------------------------------------------------------ handing out

    def receive(self, run: list[Raw], columns: list[tuple[Any, ...]], wire: int = 1 << 62) -> None:
        """See `Feed`. Each message goes to one subscription: they ask for their `share`."""
        self._received += len(run)
        if not self._alive.set:
            self._alive.start(ALIVE_S)
        try:
            super().receive(run, columns, wire)
        finally:
            self._run, self._shares = None, {}

    def _tell_too_large(self, lost: LostMessages, error: MessageTooLarge) -> None:
        """See `Feed`. It was for one of them, and nothing is left to do about it: it is finished."""
        self._received += 1
        for subscription in self.subscriptions[:1]:
            subscription.note_too_large(lost, error)
        self.came_back()

    def share(self, worker: Worker, run: list[Raw]) -> list[Raw]:
        """What of ``run`` is for this one."""
        if self._run is not run:
            workers = self._workers
            self._run, self._shares = run, {worker: run} if len(workers) == 1 else self._divide(run, workers)
        return self._shares.get(worker, [])

    def _divide(self, run: list[Raw], workers: list[Worker]) -> dict[Worker, list[Raw]]:
        first = self._turn % len(workers)
        order = workers[first:] + workers[:first]
        shares: dict[Worker, list[Raw]] = {worker: [] for worker in order}

        def burden(worker: Worker) -> tuple[int, bool]:
            return worker.waiting + len(shares[worker]), not worker.giving_way

        for raw in run:
            worker = min(order, key=burden)  # the first of equals
            shares[worker].append(raw)
            order.remove(worker)
            order.append(worker)
        self._turn = workers.index(order[-1]) + 1
        return shares

    def leave(self, worker: Worker) -> None:
        """A subscription is left. The others of this client get what waits for it; else the broker gives it to others.

        What it has finished is told before the broker hears that the last one has left.
        """
        others = [each for each in self._workers if each is not worker]
        if others and (rest := worker.take_waiting()):
            for other, share in self._divide(rest, others).items():
                if share:
                    other.take_in(self, share)
            worker.forget()
        if self._said < self._taken():
            self.say()

    # ------------------------------------------------------------- finishing

    def _taken(self) -> int:
        """Messages of the present connection that are finished."""
        return self._received - sum([worker.unfinished for worker in self._workers])

    @property
    def waiting(self) -> int:
        """Messages that wait in all buffers together."""
        return sum([one.waiting for one in self.subscriptions])

    @property
    def limit(self) -> int:
        """How many may."""
        return sum([one.limit for one in self.subscriptions])

    def came_back(self) -> None:
        """A handler has finished what it had: say so now, or soon."""
        taken = self._taken()
        unsaid = taken - self._said
        if unsaid <= 0:
            return
        if unsaid >= MOST_UNSAID or taken <= EAGER or trio.current_time() >= self._said_at + SOON_S:
            self.say()
        elif not self._soon.set:
            self._soon.start(SOON_S)

    def _say_news(self) -> None:
        if self._said < self._taken():
            self.say()

    def _say_that_it_lives(self) -> None:
        if self._taken() < self._received:
            self.say()
            self._alive.start(ALIVE_S)

    def say(self) -> None:
        """Tell the broker how much waits and how much is finished."""
        if self.route is not None:
            self._said, self._said_at = max(self._said, self._taken()), trio.current_time()
            self._feeds.acknowledge(self.route, self.waiting, self.limit, self._said)

    def crowded(self, subscription: Subscription, crowded: bool) -> bool:
        """See `Feed`: it says so by itself."""
        return False

    def backlog(self) -> tuple[int, int] | None:
        """See `Feed`: a new connection hears of it with the first that is finished."""
        return None

    def start(self, timer: _Timer, seconds: float) -> None:
        """Have a timer expire."""
        self._feeds.deadlines.add(trio.current_time() + seconds, timer)

    def done(self) -> None:
        """A timer has expired."""
        self._feeds.deadlines.done()


class _Timer:
    """Expires once after each `start`."""

    over = False
    """See `Expiring`."""

    def __init__(self, feed: GroupFeed, then: Any) -> None:
        self._feed = feed
        self._then = then
        self.set = False
        """Whether it runs."""

    def start(self, seconds: float) -> None:
        """Expire after so many seconds. Not while it runs."""
        self.set = True
        self._feed.start(self, seconds)

    def expire(self) -> None:
        """See `Expiring`."""
        self.set = False
        self._feed.done()
        if self._feed.route is not None and self._feed.subscriptions:
            self._then()


class Worker(Subscription):
    """A subscription in a queue group."""

    _finished = 0  # of those received
    _old = 0  # of those received, what came over an earlier connection
    _batching = False  # whether the handler took a batch last

    @property
    def unfinished(self) -> int:
        """Messages of the present connection that wait, or that the handler had when it last came back."""
        return self._received - max(self._finished, self._old)

    def begin_anew(self, *, drop: bool) -> None:
        """A new connection begins; ``drop``: others have what waits."""
        if drop:
            self.drop_waiting()
        self._old = self._received

    def drop_waiting(self) -> int:
        """Others have what waits. Returns how many messages that were."""
        dropped = len(self._buffer)
        self._buffer.clear()
        self._finished += dropped
        return dropped

    def forget(self) -> None:
        """Others of this client have what was not finished here."""
        self._old = self._received

    def take_waiting(self) -> list[Raw]:
        """Take out the messages that wait; they are not finished."""
        return [raw for raw in self._buffer.take_up_to(len(self._buffer)) if raw[0] == _MESSAGE]

    def take_in(self, feed: GroupFeed, share: list[Raw]) -> None:
        """Messages that were another subscription's."""
        super().receive(feed, WeighedRun(share), weight_of_all(share))

    def receive(self, feed: Feed, run: list[Raw], size: int) -> None:
        """See `Subscription`."""
        share = cast(GroupFeed, feed).share(self, run)
        if share:
            if share is not run:  # of what carries its weight, or not
                share, size = WeighedRun(share), weight_of_all(share)
            super().receive(feed, share, size)

    def _set_crowded(self, feed: Feed, crowded: bool) -> None:
        self._crowded = crowded
        cast(GroupFeed, feed).say()

    async def _wait(self) -> None:
        if self._feed:
            self._finished = self._received - len(self._buffer)
            cast(GroupFeed, self._feed).came_back()
        self._batching = False
        await super()._wait()

    async def next_batch(self, most: int) -> list[Any]:
        """See `Subscription`."""
        batch = await super().next_batch(most)
        self._batching = True
        return batch

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if self._feed and self in self._feed.subscriptions:
            feed = cast(GroupFeed, self._feed)
            handed = self._received - len(self._buffer) - self._finished
            if error is None or len(feed.subscriptions) > 1:
                self._finished += handed
            elif handed and not self._batching:
                self._finished += handed - 1  # it is the last one that has failed
            feed.leave(self)
        await super().__aexit__(kind, error, traceback)
