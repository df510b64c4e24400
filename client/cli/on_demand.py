"""Which topics of a feed anybody wants at the moment."""

from collections.abc import Callable, Iterable

import trio

from fanwire.client import Client
from fanwire.protocol import matches


class OnDemand:
    """Follows the broker's demand. Until that has said something nothing is wanted."""

    def __init__(self, pattern: str, topics: Iterable[str], say: Callable[[str], None]) -> None:
        """``pattern``: one that matches all ``topics``."""
        self._pattern = pattern
        self._say = say
        self._topics = frozenset(topics)
        self._patterns: set[str] = set()
        self._wanted: frozenset[str] = frozenset()

    def wants(self, topic: str) -> bool:
        """Whether anybody is subscribed to it."""
        return topic in self._wanted

    async def follow(self, client: Client, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep up to date until cancelled, and say so when the first topic is wanted, or the last one no more."""
        async with client.demand(self._pattern) as demand:
            task_status.started()
            async for pattern, wanted in demand:
                self._note(pattern, wanted)

    def _note(self, pattern: str, wanted: bool) -> None:
        if wanted:
            self._patterns.add(pattern)
        else:
            self._patterns.discard(pattern)
        before = self._wanted
        self._wanted = frozenset(t for t in self._topics if any(matches(each, t) for each in self._patterns))
        if bool(before) != bool(self._wanted):
            self._say("somebody is subscribed: publishing" if self._wanted else "nobody is subscribed: pausing")
