"""Queue groups: this client's share of the work, handed out among its own subscriptions.

To the broker the subscriptions of one client to the same pattern and group are one member. What comes goes to one of
them: to the one for which the least waits. The broker is told how much waits here earlier and more often than of other
subscriptions: it chooses by that, and what was given to a member that is busy stays there.
"""

from __future__ import annotations

from typing import Any, cast

from .feed import Feed
from .message import Raw
from .subscription import Subscription


class GroupFeed(Feed):
    """What the broker sends for one pattern and group."""

    _told = 0  # what the broker was last told to wait here
    _turn = 0  # who comes first among equals
    _run: list[Raw] | None = None  # that is being handed out
    _shares: dict[Worker, list[Raw]]

    # ------------------------------------------------------------ handing out

    def receive(self, run: list[Raw], columns: list[tuple[Any, ...]]) -> None:
        """See `Feed`. Each message goes to one subscription: they ask for their `share`."""
        try:
            super().receive(run, columns)
        finally:
            self._run, self._shares = None, {}

    def share(self, worker: Worker, run: list[Raw]) -> list[Raw]:
        """What of ``run`` is for this one."""
        if self._run is not run:
            self._run, self._shares = run, {worker: run} if len(self.subscriptions) == 1 else self._divide(run)
        return self._shares.get(worker, [])

    def _divide(self, run: list[Raw]) -> dict[Worker, list[Raw]]:
        workers = cast(list[Worker], self.subscriptions)
        first = self._turn % len(workers)
        workers = workers[first:] + workers[:first]
        shares: dict[Worker, list[Raw]] = {worker: [] for worker in workers}

        def burden(worker: Worker) -> tuple[int, bool]:
            return worker.waiting + len(shares[worker]), not worker.giving_way

        for raw in run:
            worker = min(workers, key=burden)  # the first of equals
            shares[worker].append(raw)
            workers.remove(worker)
            workers.append(worker)
        self._turn = self.subscriptions.index(workers[-1]) + 1
        return shares

    # --------------------------------------------------------------- backlog

    @property
    def waiting(self) -> int:
        """Messages that wait in all buffers together."""
        return sum([one.waiting for one in self.subscriptions])

    @property
    def limit(self) -> int:
        """How many may."""
        return sum([one.limit for one in self.subscriptions])

    def crowded(self, subscription: Subscription, crowded: bool) -> bool:
        """See `Feed`: whether the broker should hear how much waits. More than one message for each subscription, and
        then twice as much, or half, each time; and at 75 %, from where on it counts as lagging."""
        if not crowded:
            return False  # it leaves; the others tell what is left
        told, waiting, limit = self._told, self.waiting, self.limit
        if waiting > told:
            news = waiting >= max(2 * told, len(self.subscriptions) + 1) or waiting * 4 > limit * 3 >= told * 4
        else:
            news = waiting * 2 < told
        if news:
            self._told = waiting
        return news

    def backlog(self) -> tuple[int, int] | None:
        """See `Feed`: what a new connection has to hear of."""
        self._told = self.waiting
        return (self._told, self.limit) if self._told else None


class Worker(Subscription):
    """A subscription in a queue group."""

    def receive(self, feed: Feed, run: list[Raw], size: int) -> None:
        """See `Subscription`."""
        feed = cast(GroupFeed, feed)
        share = feed.share(self, run)
        if share:
            super().receive(feed, share, size if share is run else sum([len(raw[5]) for raw in share]))
            self._tell(feed)

    def _tell(self, feed: GroupFeed) -> None:
        if feed.subscriptions:
            self._feeds.crowded(feed, self, True, feed.waiting, feed.limit)

    def _set_crowded(self, feed: Feed, crowded: bool) -> None:
        """What waits was told already."""

    async def _wait(self) -> None:
        if self._feed:
            self._tell(cast(GroupFeed, self._feed))
        await super()._wait()

    async def __aexit__(self, *error: Any) -> None:
        await super().__aexit__(*error)
        if self._feed:
            self._tell(cast(GroupFeed, self._feed))
