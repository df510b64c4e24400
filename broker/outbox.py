"""One subscriber connection's way out: gather, write through, else queue in a bounded trio channel.

Three places, in the order in which bytes pass through them:

* ``pending``, a plain list that publishes append to and the next sweep empties (`fanout` bounds it for all);
* if the socket takes everything at once, nothing else: the sweep writes and is done;
* else the lanes: answers (OK, ERROR), which may overtake, and the channel of message chunks. A writer task, started
  when it is needed and gone when nothing waits, empties them as the socket allows.

A trio channel can neither be peeked into nor counted by messages, so the counts stand beside it: messages waiting for
each subscription, bytes waiting in all.

Nothing here closes anything. Whoever is too slow is reported as a `SlowConsumer` verdict; the session acts on it.
Memory of one outbox: at most ``max_pending_bytes``, plus what one sweep gathered, plus one frame being written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from fanwire.protocol import MAX_BATCH
from fanwire.protocol.frames import frame_header

from .routes import Chunk, Route

if TYPE_CHECKING:
    from fanwire.transport import FrameStream

    from .config import Config


@attrs.frozen
class SlowConsumer:
    """Why a subscriber is too slow, and how far behind it is (protocol.md, Delivery)."""

    measure: str
    """`queue`, `max_pending`, `stall_timeout` or `max_age`."""
    route: int | None
    """The subscription that was over its `queue`; None: it is the connection that is too slow."""
    messages: int
    queued_bytes: int
    oldest_s: float


class Subscription:
    """One connection on one route."""

    __slots__ = ("backlog", "queue", "route", "waiting")

    def __init__(self, route: Route, queue: int) -> None:
        self.route = route
        self.queue = queue
        self.waiting = 0
        """Messages in the channel."""
        self.backlog: tuple[int, int] | None = None
        """What the client last said of its own buffer: queued, limit (BACKLOG)."""


Waiting = tuple[Subscription, Chunk]


class Outbox:
    """What waits for one connection. Owned by its session; the registry and `fanout` know only this."""

    __slots__ = (
        "_answer_bytes",
        "_answers",
        "_asking",
        "_channel",
        "_config",
        "_head",
        "_moved",
        "_oldest",
        "_receive",
        "owner",
        "pending",
        "stream",
        "subscriptions",
        "waiting_bytes",
    )

    def __init__(self, owner: Owner, stream: FrameStream, config: Config) -> None:
        self.owner = owner
        self.stream = stream
        self.pending: list[bytes] = []
        self.subscriptions: dict[int, Subscription] = {}
        """By route number."""
        self.waiting_bytes = 0
        """In the lanes; what is half written comes on top."""
        self._config = config
        self._answers: list[bytes] = []
        self._answer_bytes = 0
        self._asking: trio.lowlevel.ParkingLot | None = None
        # Opened when the socket first lags: most never do, and a channel takes 2 KiB.
        self._channel: trio.MemorySendChannel[Waiting] | None = None
        self._receive: trio.MemoryReceiveChannel[Waiting] | None = None
        # The channel's first item, once somebody wanted to know its size or age: a channel can't be peeked into.
        self._head: Waiting | None = None
        self._oldest = 0.0
        self._moved = 0.0

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

    def queue_pending(self, chunks: list[Chunk | bytes]) -> SlowConsumer | None:
        """Move what was gathered into the lanes, because the socket is not clear.

        Args:
            chunks: What `pending` holds: messages with what is known of them, answers as bytes.

        Returns:
            A verdict when that is more than may wait. The lanes are as they are then; call `discard`.
        """
        if self.stream.close_sent:
            self.pending.clear()
            return None
        self.stream.queued = True
        self.stream.clear = False
        self.pending.clear()
        for chunk in chunks:
            if verdict := self._queue_answer(chunk) if isinstance(chunk, bytes) else self._queue(chunk):
                return verdict
        return None

    def _queue_answer(self, data: bytes) -> SlowConsumer | None:
        if self._over_bytes(len(data)):
            return self._verdict("max_pending", None)
        self._answers.append(data)
        self._answer_bytes += len(data)
        self.waiting_bytes += len(data)
        return None

    def _queue(self, chunk: Chunk) -> SlowConsumer | None:
        subscription = self.subscriptions.get(chunk.route.number)
        if subscription is None:
            return None  # unsubscribed since
        if self._over_bytes(len(chunk.data)):
            return self._verdict("max_pending", None)
        if subscription.waiting + chunk.count > subscription.queue:
            return self._verdict("queue", subscription)
        try:
            self._open_channel().send_nowait((subscription, chunk))
        except trio.WouldBlock:
            return self._verdict("queue", subscription)
        subscription.waiting += chunk.count
        self.waiting_bytes += len(chunk.data)
        return None

    def _over_bytes(self, more: int) -> bool:
        limit = self._config.max_pending_bytes
        return limit is not None and self.waiting_bytes + len(self.stream.left) + more > limit

    def _open_channel(self) -> trio.MemorySendChannel[Waiting]:
        if self._channel is None:
            self._channel, self._receive = trio.open_memory_channel[Waiting](self._config.max_queue)
        return self._channel

    def forget(self, subscription: Subscription) -> None:
        """It was unsubscribed: what waits of it in the channel is skipped when it comes out.

        Before calling this, flush what was gathered: `pending` does not know whose bytes it holds.
        """
        del self.subscriptions[subscription.route.number]

    def discard(self) -> None:
        """Throw away all that waits but the rest of a frame that is half written."""
        self.pending.clear()
        self._answers.clear()
        self._answer_bytes = self.waiting_bytes = 0
        self._channel = self._receive = self._head = None
        self._let_ask()
        for subscription in self.subscriptions.values():
            subscription.waiting = 0
        self.stream.keep_half_written()
        self.stream.queued = False
        self.stream.settle()

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
        while True:
            seen = stream.progress
            with trio.CancelScope(deadline=self._deadline()) as scope:
                async with stream.sending():
                    if not stream.left and not self._load():
                        break
                    await stream.push()
            if stream.progress != seen:
                self._moved = trio.current_time()
            elif scope.cancelled_caught:
                return self._too_late()
        stream.queued = False
        stream.settle()
        return None

    def _deadline(self) -> float:
        stall, age = self._config.stall_timeout_s, self._config.max_age_s
        return min(
            self._moved + stall if stall is not None else float("inf"),
            self._oldest + age if age is not None else float("inf"),
        )

    def _too_late(self) -> SlowConsumer:
        age = self._config.max_age_s
        too_old = age is not None and trio.current_time() >= self._oldest + age
        return self._verdict("max_age" if too_old else "stall_timeout", None)

    def _load(self) -> bool:
        """Make the next frame the stream's ``left``: answers, else messages, up to 64 KiB. False: nothing waits."""
        body = self._next_answers() or self._next_messages()
        if body:
            self.stream.left = frame_header(len(body)) + body
        return bool(body)

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
        self._oldest = first.born if first else trio.current_time()
        return body

    def _next_messages(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while (chunk := self._first()) and (not parts or size + len(chunk.data) <= MAX_BATCH):
            self._take_first()
            if not parts:
                self._oldest = chunk.born
            parts.append(chunk.data)
            size += len(chunk.data)
        return b"".join(parts)

    def _first(self) -> Chunk | None:
        """The first chunk in line; those that were unsubscribed are dropped on the way to it."""
        while True:
            if self._head is None:
                if self._receive is None:
                    return None
                try:
                    self._head = self._receive.receive_nowait()
                except trio.WouldBlock:
                    return None
            subscription, chunk = self._head
            if self.subscriptions.get(chunk.route.number) is subscription:
                return chunk
            self._take_first()

    def _take_first(self) -> None:
        assert self._head is not None
        subscription, chunk = self._head
        self._head = None
        self.waiting_bytes -= len(chunk.data)
        subscription.waiting -= chunk.count

    def _verdict(self, measure: str, subscription: Subscription | None) -> SlowConsumer:
        waiting = sum(each.waiting for each in self.subscriptions.values())
        oldest = max(0.0, trio.current_time() - self._oldest)
        number = subscription.route.number if subscription else None
        return SlowConsumer(measure, number, waiting, self.waiting_bytes + len(self.stream.left), oldest)


class Owner:
    """What an outbox's session must do when asked. Called from a sweep: none of it may block or raise."""

    __slots__ = ()

    def need_writer(self) -> None:
        """Something waits for the socket: see to it that `Outbox.write_out` runs."""
        raise NotImplementedError

    def too_slow(self, verdict: SlowConsumer) -> None:
        """Act on the verdict."""
        raise NotImplementedError

    def gone(self) -> None:
        """The socket is broken."""
        raise NotImplementedError
