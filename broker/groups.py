"""Queue groups: each message goes to one member of the group, the one with the least to do.

What a member has to do: what waits for it in its line, what it was given since the last sweep, and what waits at the
client, as that has last said (BACKLOG). One that lags is asked only when all do, one that is full only when all are;
then its own policy says what becomes of the message. Among equals it goes round.

What a member was given stays with it: when it goes, what waited for it is lost to the group. To hand it on would need
an answer for each message, and even then it could have been done twice.
"""

from __future__ import annotations

from heapq import heapify, heapreplace
from typing import TYPE_CHECKING, TypeAlias

from .routes import Append, Chunk, Route

if TYPE_CHECKING:
    from .fanout import Fanout
    from .outbox import Outbox
    from .subscription import Subscription

Member: TypeAlias = "tuple[Outbox, Subscription]"

Rank: TypeAlias = tuple[bool, bool, int, int]
"""Whether it is full, whether it lags, how much it has to do, how many come before it. The least one is chosen."""


class GroupRoute(Route):
    """Everybody who subscribed to one pattern in one queue group. It is its own `Taker`: nobody else gets anything."""

    __slots__ = ("_given", "_members", "_sweeps", "_turn", "group")

    def __init__(self, number: int, pattern: str, wildcard: bool, group: str) -> None:
        super().__init__(number, pattern, wildcard)
        self.group = group
        self._members: list[Member] = []
        self._turn = 0  # which of them comes first among equals
        self._sweeps = -1  # the sweep since which `_given` counts
        self._given: dict[Subscription, int] = {}

    @property
    def behind(self) -> int:
        """See `Route`. The group is one subscriber: it lags when all members do."""
        return int(0 < len(self.outboxes) <= self.lagging)

    def audience(self, source: Outbox | None) -> int:
        """See `Route`: the whole group counts as one subscription."""
        return min(super().audience(source), 1)

    def appends(self) -> list[Append]:
        """See `Route`."""
        if self._appends is None:
            self._appends, self.direct = [], {}
            self._members = list(self.outboxes.items())
            self.takers = [self] if self._members else []
        return self._appends

    def _forget_lists(self) -> None:
        super()._forget_lists()
        self._members = []
        self._given.clear()

    # -------------------------------------------------------------- choosing

    def offer(self, chunk: Chunk, now: float, fanout: Fanout) -> int:
        """See `Taker`: the whole group counts as one subscription."""
        if self._sweeps != fanout.sweeps:
            self._sweeps = fanout.sweeps
            self._given.clear()
        members = self._members
        source = fanout.source
        if source is not None:
            members = [each for each in members if each[0] is not source or each[1].echo]
        if not members:
            return 0
        if chunk.count == 1 or len(members) == 1:
            self._give(self._least(members), chunk, now, fanout)
        else:
            self._spread(members, chunk, now, fanout)
        return 1

    def _rank(self, subscription: Subscription, turn: int) -> Rank:
        waiting = subscription.waiting + self._given.get(subscription, 0)
        at_client, room = subscription.backlog or (0, 1)
        full = waiting >= subscription.queue or at_client >= room
        return full, subscription.lagging, waiting + at_client, turn

    def _least(self, members: list[Member]) -> Member:
        """Who gets the next message. The first one with nothing to do will do: mostly nobody else is looked at."""
        first = self._turn % len(members)
        best, best_rank = first, None
        for turn in range(len(members)):
            at = (first + turn) % len(members)
            rank = self._rank(members[at][1], turn)
            if best_rank is None or rank < best_rank:
                best, best_rank = at, rank
                if rank < (False, False, 1):
                    break
        self._turn = best + 1
        return members[best]

    def _spread(self, members: list[Member], chunk: Chunk, now: float, fanout: Fanout) -> None:
        """A run: each message to who has the least to do by then, all that one member gets as one piece."""
        first = self._turn % len(members)
        members = members[first:] + members[:first]
        heap = [(self._rank(subscription, turn), turn) for turn, (_, subscription) in enumerate(members)]
        heapify(heap)
        shares: dict[int, list[int]] = {}
        for index in range(chunk.count):
            turn = heap[0][1]
            subscription = members[turn][1]
            shares.setdefault(turn, []).append(index)
            self._given[subscription] = self._given.get(subscription, 0) + 1
            heapreplace(heap, (self._rank(subscription, turn), turn))
        self._turn = first + turn + 1
        for turn, indexes in shares.items():
            data = b"".join([chunk.part(index, 1) for index in indexes])
            _hand(members[turn], Chunk(self, chunk.topic, data, len(indexes), chunk.born), now, fanout)

    def _give(self, member: Member, chunk: Chunk, now: float, fanout: Fanout) -> None:
        self._given[member[1]] = self._given.get(member[1], 0) + chunk.count
        _hand(member, chunk, now, fanout)


def _hand(member: Member, chunk: Chunk, now: float, fanout: Fanout) -> None:
    outbox, subscription = member
    if subscription.limiter is not None:
        subscription.limiter.offer(chunk, now, fanout)
    else:
        fanout.give(outbox, chunk)
