"""A subscription: a bounded buffer in this process, and the ways to take messages out of it."""

from __future__ import annotations

from collections.abc import Iterator
from operator import length_hint
from threading import get_ident
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING

import trio

from fanwire.protocol import PresenceEvent, SubscribeOptions, is_wildcard

from ..checkpoints import MESSAGES_A_CHECKPOINT, SECONDS_A_CHECKPOINT
from ..checks import check_count
from ..config import OnSlow, OnSlowReconnect
from ..errors import Closed, FanwireError, MessageTooLarge, SlowConsumer, StaleTopic
from ..message import TOO_LARGE, Message, Raw
from ..notices import LostMessages, Stale
from .buffer_options import BACKLOG_ABOVE, BACKLOG_BELOW, Ages, BufferOptions
from .granted import UNCHANGED, Granted, LaggingReport, OrUnchanged
from .marks import lost_of
from .position import Beginning
from .silence import Silence

if TYPE_CHECKING:
    from .wire_subscription import Feed
    from .wire_subscriptions import Feeds


class Subscription:
    """Use it as a context manager, then iterate over it, or over `batches`.

    ::

        async with client.subscribe("stocks.>") as subscription:
            async for message in subscription:
                ...

    Iterating passes a checkpoint (where other tasks run, and cancellation arrives) every 64 messages or every
    millisecond, whichever comes first, and whenever it has to wait.
    """

    def __init__(
        self,
        feeds: Feeds,
        pattern: str,
        wanted: SubscribeOptions,
        options: BufferOptions,
        beginning: Beginning,
        *,
        comes_back: OnSlowReconnect,
        silence: Silence | None = None,
    ) -> None:
        """Made by `Client.subscribe`."""
        self._feeds = feeds
        self._feed: Feed | None = None
        self._wanted = wanted
        self._beginning = beginning
        self._options = options
        self._silence = silence
        self._marked = options.report_loss or silence is not None
        self._buffer = options.new_buffer()
        self._topic = None if is_wildcard(pattern) else pattern
        self._arrived = trio.lowlevel.ParkingLot()
        self._completed = trio.lowlevel.ParkingLot()
        self._holds = False  # much of a replay waits: it may, and the reader waits for the handler
        self._may_hold = True
        self._ages = Ages()
        self._received = 0
        self._error: FanwireError | None = None
        self._passed_over: MessageTooLarge | None = None  # the last one
        self._failing: FanwireError | None = None  # what stands behind the batch that was given
        self._hand: Iterator[Raw] = iter(())
        self._give_way_at = 0.0
        self._crowded = False
        self.pattern = pattern
        """What is subscribed to."""
        self.comes_back = comes_back
        """What happens when the broker has ended it for its slowness."""
        self._long = options.long
        self.limit = options.buffer
        """Messages that may wait in this process."""
        self.giving_way = False
        """The handler is at its checkpoint: it would go on at once if the others let it."""
        self.lost = 0
        """Messages known to be lost to this subscription, at the broker or here. Replaced ones (conflation) are not
        lost."""
        self.gaps = 0
        """Times that an unknown number of messages was missed: the connection was away, the broker had ended the
        subscription for its slowness and it came back, or the broker could not count them."""

    @property
    def waiting(self) -> int:
        """Messages that have come and were not taken yet."""
        return len(self._buffer)

    @property
    def received(self) -> int:
        """Messages that have come, ever."""
        return self._received

    @property
    def replaying(self) -> bool:
        """Whether snapshot or replay are still coming in. (`Message.replayed` says so of one message.)"""
        return self._feed is not None and self._feed.replaying

    @property
    def recovered(self) -> bool | None:
        """Whether nothing is missing since the last break of the connection, or since the offsets that ``replay`` gave.

        None: there was no break, or what was missed is still coming in. Where it is False, `lost` and `gaps` have
        grown.
        """
        return self._feed.recovered if self._feed else None

    @property
    def epoch(self) -> str | None:
        """The life of the broker's store that `Message.offset` is of. Keep both to go on from there in another process:
        ``replay={"offset": offset, "epoch": epoch}``."""
        return self._feed.position.epoch if self._feed else None

    async def complete(self) -> None:
        """Wait until all of snapshot and replay has come in; at once if none was asked for.

        What comes waits for the handler meanwhile, so more than ``buffer`` messages need one that takes them.

        Raises:
            FanwireError: What ended the subscription.
            RuntimeError: It was not entered yet.
        """
        self.check_entered()
        assert self._feed
        await trio.lowlevel.checkpoint()
        while self._feed.route is None or self._feed.replaying:
            self.raise_if_ended()
            await self._completed.park()
        self.raise_if_ended()

    def tell_complete(self) -> None:
        """All of snapshot and replay has come in."""
        self._may_hold = True
        self._completed.unpark_all()

    @property
    def shared(self) -> bool:
        """Whether other subscriptions of this client have the same stream from the broker."""
        return self._feed is not None and len(self._feed.subscriptions) > 1

    # ------------------------------------------------------- what the broker says

    @property
    def granted(self) -> Granted | None:
        """What the broker granted, which may be less than was asked for; None before it has granted anything.

        Each yes of the broker brings it up to date: after `change`, and after a reconnect.
        """
        return self._feed.granted if self._feed else None

    @property
    def lagging(self) -> LaggingReport | None:
        """The broker's last warning that its queue for this subscription fills up; None if there was none.

        It comes once an episode, before the broker does what ``on_slow`` says: time to read more quickly, or to
        `change` to a lower rate. The broker does not say when the queue is empty again; so the warning stands until the
        next `change` was granted or the connection was made anew. ``received_s`` says how old it is.
        """
        return self._feed.lagging if self._feed else None

    async def change(
        self,
        *,
        on_slow: OnSlow | OrUnchanged = UNCHANGED,
        queue: int | OrUnchanged | None = UNCHANGED,
        max_rate: float | OrUnchanged | None = UNCHANGED,
    ) -> None:
        """Ask the broker to serve this subscription in another way from now on; returns once it has said yes.

        What is not named stays as it is, and so does what waits. All subscriptions of this client to the same pattern
        share one stream from the broker, so they change together. Without a connection the next one will ask for it.
        `granted` says what the broker made of it. If this is cancelled the change may come to pass all the same.

        Args:
            on_slow: As for `Client.subscribe`.
            queue: As for `Client.subscribe`.
            max_rate: As for `Client.subscribe`; None: as quickly as messages come.

        Raises:
            RequestFailed: The broker refused; all goes on as before.
            LocalProtocolError: An option is wrong; nothing was changed.
            FanwireError: The subscription has ended.
            RuntimeError: It was not entered yet.
        """
        self.check_entered()
        assert self._feed
        given = {"on_slow": on_slow, "queue": queue, "max_rate": max_rate}
        changes = {name: value for name, value in given.items() if value is not UNCHANGED}
        await self._feeds.change(self._feed, self, changes)

    # ------------------------------------------------------- beginning, ending

    async def __aenter__(self) -> Subscription:
        """Subscribe; returns once the broker has said yes.

        Raises:
            RequestFailed: It said no.
            LocalProtocolError: The client has the pattern already, with other options for the broker.
            FanwireError: There is no connection, and none will come.
        """
        self._feeds.home.check()
        if self._feed or self._error:
            raise RuntimeError("a subscription can be entered once; call client.subscribe(…) again")
        self._feed = await self._feeds.join(self, self._wanted, self._beginning)
        if self._silence:
            self._silence.begin(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._feeds.home.check()
        self.end(Closed(f"the subscription of {self.pattern!r} was closed"), at_once=True)
        if self._silence:
            self._silence.end()
        if self._feed:
            await self._feeds.leave(self._feed, self)

    def check_entered(self) -> None:
        """Raise RuntimeError if this was not entered yet, or the caller is in another thread than the client."""
        self._feeds.home.check()
        if self._feed is None:
            self.raise_if_ended()
            raise RuntimeError(
                f"{self.pattern!r} is subscribed to when it is entered: async with client.subscribe(…) as subscription:"
                " (serve, demand and watch_presence likewise)"
            )

    def raise_if_ended(self) -> None:
        """Raise what `end` was called with, if it was."""
        if self._error:
            raise self._error.with_traceback(None)

    def end(self, error: FanwireError, *, at_once: bool = False) -> None:
        """Nothing more comes. ``at_once``: what waits is thrown away; else it can be taken before ``error`` is
        raised."""
        if self._error is None:
            self._error = error
            if at_once:
                self._buffer.clear()
            self._arrived.unpark_all()
            self._completed.unpark_all()
            self._feeds.made_room()

    # ---------------------------------------------------------- the reader's side

    def receive(self, feed: Feed, run: list[Raw], size: int) -> None:
        """Take in messages of ``size`` bytes (see `weight`). Called by the reader; never waits."""
        if self._error:
            return
        buffer = self._buffer
        if self._may_hold and (feed.replaying or self._holds):
            buffer.append(run, size)
            self._hold_if_crowded()
            lost: int | None = 0
        else:
            lost = buffer.offer(run, size)
        if lost is None:
            self._feeds.too_slow(feed, self, self._facts(len(run), size))
            return
        self._received += len(run)
        self._ages.add(self._received, self._received - len(buffer))
        if lost:
            self.note_loss(LostMessages(lost, "buffer", self._topic))
        if self.is_long():
            self._feeds.note_long(self)
            if len(buffer) > self._options.buffer * BACKLOG_ABOVE and not self._crowded:
                self._set_crowded(feed, True)
        if self._arrived:
            self._arrived.unpark_all()

    def note_loss(self, lost: LostMessages) -> None:
        """Count it, and put it into the stream if asked for."""
        if lost.count is None:
            self.gaps += 1
        else:
            self.lost += lost.count
        if self._options.report_loss and not self._error:
            self._buffer.add_mark(lost)
            self._arrived.unpark_all()

    def note_too_large(self, lost: LostMessages, error: MessageTooLarge) -> None:
        """A message was larger than the client takes: that is raised, or told, in its place."""
        self.lost += 1
        if not self._error:
            self._passed_over = error
            self._marked = True
            self._buffer.add_mark(lost)
            self._arrived.unpark_all()

    def _hold_if_crowded(self) -> None:
        self._holds = True
        if self.holds():
            self._feeds.hold(self)

    def holds(self) -> bool:
        """Whether so much of a replay waits that the reader should wait for the handler."""
        options, buffer = self._options, self._buffer
        self._holds = (
            self._holds
            and self._error is None
            and (len(buffer) > 2 * self._long or buffer.size * 2 > options.buffer_bytes)
        )
        return self._holds

    def hold_no_more(self) -> None:
        """The handler was too slow for that: what does not fit has the consequences that ``on_full`` says."""
        self._holds = self._may_hold = False

    def note_stale(self, stale: Stale) -> None:
        """Nothing was published, or the connection is silent: put that into the stream, or end with it."""
        if self._silence is None or self._error:
            return
        self._silence.quiets += stale.connected
        if self._silence.raises:
            self.end(_stale_topic(stale))
        else:
            self._buffer.add_mark(stale)
            self._arrived.unpark_all()

    def note_presence(self, event: PresenceEvent) -> None:
        """Somebody came or went, which only a `PresenceWatch` has asked for."""

    def is_long(self) -> bool:
        """Whether so much waits that the reader should let the handler go on before it reads more, if it can."""
        return len(self._buffer) > self._long

    def _facts(self, more: int, size: int) -> SlowConsumer:
        queued, waiting, limit = len(self._buffer), self._buffer.size, self._options.buffer
        oldest_s = self._ages.oldest_s(self._received - queued)
        return SlowConsumer(
            f"the subscription of {self.pattern!r} was ended: {queued} messages ({waiting} bytes) waited in its buffer,"
            f" the oldest for {oldest_s:.3f} s, and {more} more ({size} bytes) did not fit (buffer={limit},"
            f" buffer_bytes={self._options.buffer_bytes}); handle messages more quickly, hand them to other tasks, make"
            " the buffer larger, or allow loss with on_full='drop_oldest' or 'conflate'",
            pattern=self.pattern,
            queued=queued,
            queued_bytes=waiting,
            oldest_s=oldest_s,
            limit=limit,
            at_broker=False,
            measure="buffer",
        )

    def _set_crowded(self, feed: Feed, crowded: bool) -> None:
        self._crowded = crowded
        self._feeds.crowded(feed, self, crowded, len(self._buffer), self._options.buffer)

    # --------------------------------------------------------- the handler's side

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Message:
        """The next message. With ``report_loss`` it may be a `LostMessages`, with ``heartbeat_s`` a `Stale`.

        Raises:
            SlowConsumer: Messages came more quickly than they were taken.
            ConnectionLost: The connection is gone for good.
            StaleTopic: Nothing came for ``heartbeat_s``, and ``on_stale`` is "raise".
            MessageTooLarge: A message was larger than ``max_message_bytes``, and was passed over; iterating goes on
                behind it. With ``report_loss`` that is a `LostMessages` with reason "too_large" instead.
            Closed: The subscription was left.
        """
        if perf_counter() < self._give_way_at:
            for raw in self._hand:
                return Message(raw, self._topic) if raw[0] == 19 else self._told(raw)  # type: ignore[return-value]
        while True:
            await self._wait()
            for raw in self._next_hand():
                return Message(raw, self._topic) if raw[0] == 19 else self._told(raw)  # type: ignore[return-value]

    def _next_hand(self) -> Iterator[Raw]:
        self._give_way_at = perf_counter() + SECONDS_A_CHECKPOINT
        if not length_hint(self._hand):
            self._hand = self._buffer.hand(MESSAGES_A_CHECKPOINT)
        return self._hand

    def batches(self, most: int = 4096) -> Batches:
        """Iterate over lists of messages instead: all that wait, ``most`` at a time. Passes a checkpoint for each
        list."""
        return Batches(self, most)

    async def next_batch(self, most: int) -> list[Message]:
        """What waits, up to ``most`` messages; waits for the first. Raises as `__anext__`."""
        if self._failing is not None:
            await trio.lowlevel.checkpoint()
            error, self._failing = self._failing, None
            raise error
        await self._wait()
        topic = self._topic
        if self._passed_over and not self._options.report_loss:
            return self._batch_up_to_error(most)
        batch = self._buffer.take_up_to(most)
        if self._marked:
            return [Message(raw, topic) if raw[0] == 19 else self._told(raw) for raw in batch]  # type: ignore[misc]
        return [Message(raw, topic) for raw in batch]

    def _batch_up_to_error(self, most: int) -> list[Message]:
        """As `next_batch`; an error that stands among the messages is raised after those before it were given."""
        batch: list[Message] = []
        while len(batch) < most and self._buffer:
            (raw,) = self._buffer.take_up_to(1)
            try:
                batch.append(Message(raw, self._topic) if raw[0] == 19 else self._told(raw))  # type: ignore[arg-type]
            except MessageTooLarge as error:
                if not batch:
                    raise
                self._failing = error
                break
        return batch

    def _told(self, raw: Raw) -> LostMessages | Stale | None:
        """What a mark tells. Raises `MessageTooLarge` if it tells that, and nobody wants to be told of losses."""
        mark = lost_of(raw)
        if isinstance(mark, LostMessages) and mark.reason == TOO_LARGE and not self._options.report_loss:
            assert self._passed_over
            raise self._passed_over.with_traceback(None)
        return mark

    async def _wait(self) -> None:
        """A checkpoint; then wait for something to take."""
        if self._feed is None or get_ident() != self._feeds.home.thread:
            self.check_entered()
        if self._crowded and self._feed and len(self._buffer) < self._options.buffer * BACKLOG_BELOW:
            self._set_crowded(self._feed, False)
        if self._holds:
            self._feeds.made_room()
        self.giving_way = True
        try:
            if self._buffer or self._error:  # else waiting is one
                await trio.lowlevel.checkpoint()
            while not self._buffer:
                self.raise_if_ended()
                await self._arrived.park()
        finally:
            self.giving_way = False


class Batches:
    """See `Subscription.batches`."""

    def __init__(self, subscription: Subscription, most: int) -> None:
        check_count("most", most)
        self._subscription = subscription
        self._most = most

    def __aiter__(self) -> Batches:
        return self

    async def __anext__(self) -> list[Message]:
        return await self._subscription.next_batch(self._most)


def _stale_topic(stale: Stale) -> StaleTopic:
    if stale.connected:
        return StaleTopic(f"nothing was published on {stale.topic!r} for {stale.silent_s:.3f} s", stale)
    return StaleTopic(
        f"nothing has come from the broker for {stale.silent_s:.3f} s, so nobody knows what was published on"
        f" {stale.pattern!r}: the connection is away, or hangs",
        stale,
    )
