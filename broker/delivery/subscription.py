"""One connection on one route: what it was granted, what waits for it, what it has lost."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..topics.takers import Taker
from .hands import Hand

if TYPE_CHECKING:
    from ..topics.chunks import ConflationKey
    from ..topics.routes import Route
    from .losses import Losses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..topics.chunks import Chunk, ConflationKey
    from .losses import Losses


class Entry:
    """Some messages of one subscription, waiting: ``count`` of a chunk's, from its ``first`` on."""

    __slots__ = ("chunk", "count", "first", "lost", "size", "subscription")

    def __init__(self, subscription: Subscription, chunk: Chunk) -> None:
        self.subscription = subscription
        self.chunk = chunk
        self.first = 0
        self.count = chunk.count
        """0: dead."""
        self.size = len(chunk.data)
        """Bytes of what remains of it."""
        self.lost: Losses | None = None
        """To be told before it."""

    def data(self) -> bytes:
        """The envelopes."""
        chunk = self.chunk
        return chunk.data if self.count == chunk.count else chunk.part(self.first, self.count)

    def kill(self) -> None:
        """Nothing of it is sent: it stays in line until it comes out, but holds no messages."""
        self.count = 0
        del self.chunk

    def cut(self, first: int, count: int) -> int:
        """Keep only ``count`` of its messages, from the ``first`` that it has; return how many bytes went."""
        before = self.size
        self.first += first
        self.count = count
        self.size = self.chunk.size_of(self.first, count) if count else 0
        return before - self.size


class Holder(Taker, Protocol):
    """Stands between what is published and a subscription's outbox."""

    def close(self) -> None:
        """Nobody wants what it holds. Idempotent."""


class Throttling(Holder, Protocol):
    """Lets through so many messages a second."""

    def change(self, max_rate: float, now: float) -> None:
        """Another rate from now on, also for what is held."""

    def open(self, now: float, opened: Callable[[], None]) -> None:
        """No limit any more: all that is held goes, some of it now. ``opened`` is called when nothing is held, now or
        later: then this one is of no use."""

    def let_go(self, now: float) -> bool:
        """Some of what is held goes, whatever the limit; whether there is more."""

    def unsent(self) -> set[str | None]:
        """Topics of which something is held, or lost and not told yet; None among them: maybe any."""

    def free(self, most: int) -> bool:
        """It is closed: free so many of its keys; whether all of them are free now."""


class Subscription:
    """Plain data; `Outbox` and `Limiter` keep it."""

    __slots__ = (
        "back",
        "backlog",
        "before_lagging",
        "echo",
        "entries",
        "front",
        "grace_s",
        "hand",
        "held",
        "lagging",
        "lagging_since",
        "limiter",
        "lost",
        "max_rate",
        "newest",
        "on_slow",
        "queue",
        "replaced",
        "replaying",
        "route",
        "waiting",
        "warned",
        "warned_at",
    )

    def __init__(
        self,
        route: Route[Any, Any],
        queue: int,
        on_slow: str = "disconnect",
        max_rate: float | None = None,
        *,
        grace_s: float | None = None,
        echo: bool = True,
    ) -> None:
        self.route = route
        self.queue = queue
        """Messages that may wait; conflating: keys."""
        self.grace_s = grace_s
        """How old the oldest of them must be before `queue` counts, in seconds; None: it counts at once."""
        self.on_slow = on_slow
        self.max_rate = max_rate
        self.echo = echo
        """Whether it gets what its own connection publishes."""
        self.limiter: Throttling | None = None
        """While there is a `max_rate`."""
        self.replaying: Holder | None = None
        """Until it is live."""
        self.waiting = 0
        """Messages in the line; conflating: keys."""
        self.held = 0
        """Keys whose newest message `max_rate` holds back."""
        self.entries: deque[Entry] = deque()
        """What waits of it, as it stands in the connection's line."""
        self.newest: dict[ConflationKey, Entry] = {}
        """Conflating: where the newest message of each key waits."""
        if route.group is not None:
            self.hand = Hand()
            """What a member of a queue group has to do."""
        self.front: Losses | None = None
        """To be told before the first of `entries`."""
        self.back: Losses | None = None
        """To be told after the last of them."""
        self.lost = 0
        """Messages, ever: dropped by its policy."""
        self.replaced = 0
        """Messages, ever: conflated, or passed over by its rate. Not lost: a newer one came in their place."""
        self.lagging = False
        """Whether it passed 75 % of what may wait, here or at the client, and is not below 50 % again."""
        self.lagging_since = 0.0
        """On trio's clock."""
        self.before_lagging = (0, 0)
        """`lost` and `replaced` at that moment."""
        self.warned = False
        """Whether its client, the log and the operators were told that it lags."""
        self.warned_at = -math.inf
        """When they last were, on trio's clock."""
        self.backlog: tuple[int, int] | None = None
        """What the client last said of its own buffer: queued, limit (BACKLOG)."""

    def age_s(self, now: float) -> float:
        """Age of the oldest message in line at ``now`` (trio's clock), in seconds; 0 when none is."""
        return now - self.entries[0].chunk.born if self.entries else 0.0

    @property
    def taker(self) -> Holder | None:
        """Who stands before the outbox, if somebody does."""
        return self.replaying or self.limiter

    @property
    def client_lags(self) -> bool:
        """Whether the client's own buffer is what makes it lag."""
        return self.backlog is not None and self.backlog[0] * 2 >= self.backlog[1]
