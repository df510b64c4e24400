"""What one member of a queue group has been given and has not finished, as far as its client says (BACKLOG, ``taken``).

A client that does not say it is given messages as any subscriber is. A client that does is given no more than its
window, and what it has not finished is remembered, so that another member can have it.

The window follows the member's speed: as many messages as it finishes in `GOOD_S`, at least `LEAST` and at most `MOST`.
It doubles with each round trip while messages are finished sooner than that, and shrinks when they take longer. So jobs
of a second do not wait behind one another, and a fast member does not wait for the network.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..topics.chunks import Chunk

# One message that is worked on, and one in hand.
LEAST = 2

# At 10 ms to a client and back, 1,024 messages on the way are 100,000 a second.
MOST = 1_024

# Bytes in hand at most, unless these are no more than `LEAST` messages.
MOST_BYTES = 1024 * 1024

# What a member has in hand should take so long, in seconds.
GOOD_S = 0.25

# A remembered message costs about so many bytes beside its own.
OVERHEAD = 200


class Held:
    """Some messages of a chunk: those that a member was given, or those that wait for one."""

    __slots__ = ("at", "chunk", "count", "first", "size", "times")

    def __init__(self, chunk: Chunk | None, count: int, at: float, size: int = 0, *, first: int = 0, times: int = 0):
        self.chunk = chunk
        """None: not remembered, so nobody else can have them."""
        self.first = first
        """The first of the chunk's messages that is meant."""
        self.count = count
        self.at = at
        """When they were given, or began to wait, on trio's clock."""
        self.size = size
        """Bytes that were charged for remembering them."""
        self.times = times
        """How often they were handed over to another member."""

    @property
    def width(self) -> int:
        """Bytes of one of the messages, about."""
        return 0 if self.chunk is None else len(self.chunk.data) // self.chunk.count


# Never changed: most members have nothing, and an empty deque takes 600 bytes.
NOTHING: deque[Held] = deque()


class Hand:
    """What one member has. `GroupRoute` keeps it."""

    __slots__ = ("given", "heard", "held", "lost", "moved", "queued", "size", "stalled", "taken", "window", "windowed")

    def __init__(self) -> None:
        self.windowed = False
        """Whether the client says what it has finished."""
        self.given = 0
        """Messages, ever."""
        self.taken = 0
        """Messages that are finished, ever, and `lost` ones."""
        self.lost = 0
        """Messages that never reached the client: its own policy dropped them."""
        self.window = LEAST
        self.held = NOTHING
        """All that is not finished, oldest first."""
        self.size = 0
        """Bytes of that."""
        self.queued = 0
        """How many of the messages that it has nobody had begun, as the client last said."""
        self.heard = 0.0
        """When the client last said something of this, on trio's clock."""
        self.moved = 0.0
        """When something was last finished, or given while there was nothing to do."""
        self.stalled = False
        """Whether what it held was handed over: it gets nothing until it has finished something."""

    @property
    def unfinished(self) -> int:
        """Messages that were given and are not finished."""
        return self.given - self.taken

    @property
    def room(self) -> int:
        """How many more messages it may have."""
        unfinished = self.given - self.taken
        if self.stalled or (self.size >= MOST_BYTES and unfinished >= LEAST):
            return 0
        return max(0, self.window - unfinished)

    def begin(self, now: float) -> None:
        """The client says what it has finished. Call this before anything is given to it."""
        self.windowed = True
        self.heard = self.moved = now

    def hold(self, held: Held) -> None:
        """It was given these; `given` counts them already."""
        if not self.held:
            self.heard = self.moved = held.at
            if self.held is NOTHING:
                self.held = deque()
        self.held.append(held)
        self.size += held.size

    def finish(self, taken: int, most: int, now: float) -> int:
        """The client has finished ``taken`` messages in all. Adapt the window, at most to ``most``.

        Returns:
            Bytes that need not be remembered any more.
        """
        self.heard = now
        unfinished = self.unfinished
        done = min(taken + self.lost - self.taken, unfinished)
        if done <= 0:
            return 0
        took = now - self.held[0].at if self.held else 0.0
        self.moved, self.stalled = now, False
        if took > GOOD_S:
            self.window = max(LEAST, int(self.window * GOOD_S / took))
        elif unfinished * 2 >= self.window:
            self.window = max(LEAST, min(self.window + done, most, MOST))
        return self._take(done)

    def lose(self, count: int) -> int:
        """So many messages will not reach the client. Returns bytes as `finish` does."""
        count = min(count, self.unfinished)
        self.lost += count
        return self._take(count)

    def _take(self, done: int) -> int:
        self.taken += done
        freed = 0
        while done and self.held:
            first = self.held[0]
            if first.count > done:
                first.first += done
                first.count -= done
                break
            done -= first.count
            freed += first.size
            self.held.popleft()
        self.size -= freed
        return freed

    def give_up(self, keep: int = 0) -> list[Held]:
        """Others shall have what it holds, but for the first ``keep`` messages. Here it stays unfinished.

        Returns:
            What others shall have, with what was charged for it.
        """
        stays: deque[Held] = deque()
        goes: list[Held] = []
        for held in self.held:
            here = min(keep, held.count)
            keep -= here
            size = 0 if here < held.count else held.size
            if here:
                stays.append(Held(held.chunk, here, held.at, size, first=held.first, times=held.times))
            if here < held.count:
                first, more = held.first + here, held.count - here
                goes.append(Held(held.chunk, more, held.at, held.size, first=first, times=held.times))
                stays.append(Held(None, more, held.at))
        self.held = stays
        self.size -= sum([held.size for held in goes])
        return goes

    def end(self) -> int:
        """Nothing counts any more: the client's options have changed, or it is gone. Returns bytes as `finish` does."""
        freed, self.size = self.size, 0
        self.held, self.windowed, self.stalled = NOTHING, False, False
        return freed
