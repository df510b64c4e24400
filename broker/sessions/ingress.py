"""What comes in from one client: publishes over the fast road, everything else over `handlers`, in the order sent.

All that one read of the socket held is handled at once, without a chance for anybody to get in between, so that it can
leave as one batch. Unless it takes longer than a turn (`turn`): then the others have theirs, and the rest goes on after
that. Meanwhile nothing more is read from the client, so its order is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgpack
import trio

from fanwire.protocol import Error, LocalProtocolError, Malformed, Publish, Subscribe, check_topic, decode_from_client
from fanwire.protocol.fastpath import Heads, Run, request_at, take_publishes
from fanwire.protocol.reserved import INBOX, RESERVED

from ..limits.publish_meter import LONGEST_PAUSE_S, MOST_OWED_S, TELL_EVERY_S
from ..limits.refusals import wait_ms, why
from ..requests.asker import wait_for_subscribers
from ..telemetry.log import log_of
from ..timing import turn
from ..timing.clock import time_stamp
from . import disconnects
from .authentication import may
from .handlers import forbidden, handle

if TYPE_CHECKING:
    from ..delivery.routes import Registry, Topic
    from ..limits.publish_meter import Meter
    from ..limits.token_bucket import Bucket
    from .session import Session

_pack = msgpack.Packer().pack

# Answers that a client has not read, in bytes, beyond which it is not read from: whoever asks must listen.
MAX_ANSWERS = 256 * 1024

# A read's publishes are gathered for so long, in seconds, before they are given out: what is gathered together is
# grouped by topic, which is worth more than anything else where topics are many.
# A usual read takes less than half of it.
GATHER_S = 0.002

# Bytes of them between two looks at the clock. Some publishes take thirty times what usual ones do (answered, one topic
# after the other), so a read begins with few, and goes on with many when those took less than `QUICK_S`.
FIRST_SLICE = 2 * 1024
MOST_SLICE = 64 * 1024
QUICK_S = 0.0001

# Runs of publishes given out between two looks at the clock: on a topic of 20,000 subscribers each takes a millisecond.
RUNS = 8

# Answers to PUBLISH that go out as one piece: each is at most 50 bytes, together they stay under `MAX_BATCH`.
MAX_ACKNOWLEDGED = 1_000

# Of a MESSAGE with all it can have: meta is the last.
MOST_ELEMENTS = 8

# Answer to PUBLISH, around the number of subscribers.
_OK = b"\x93\x11"
_OFFSET = b"\x83\xa6offset"
_SUBSCRIBERS = b"\xabsubscribers"
_LAGGING = b"\xa7lagging"

# Bytes that an envelope has at least: a message of less than so many times the limit need not be counted.
SHORTEST = 3

_RESERVED, _INBOX = RESERVED.encode(), INBOX.encode()

Hold = Callable[[], Coroutine[Any, Any, None]]


def _close(runs: list[Run[Topic]]) -> None:
    """Nothing is gathered into these runs any more."""
    for topic, *_ in runs:
        topic.tails = None  # else others' messages would be gathered into runs that nobody publishes


def has_more(data: bytes, most: int) -> bool:
    """Whether a message has more than ``most`` envelopes, as far as it is msgpack."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    try:
        for _ in range(most + 1):
            unpacker.skip()
    except (msgpack.UnpackException, ValueError):  # the end, or what is no msgpack
        return False
    return True


class Ingress:
    """Handles the messages of one session. `on_messages` is the handler of its `FrameStream`."""

    __slots__ = (
        "_at",
        "_heads",
        "_largest",
        "_later",
        "_messages",
        "_pause",
        "_published",
        "_requests",
        "_runs",
        "_session",
        "_share",
        "_stopped",
        "_too_many",
        "_turn_ends",
        "_waited",
        "_waiting",
        "_work",
        "holding",
    )

    def __init__(self, session: Session) -> None:
        self._session = session
        # What is left of a read when its turn is over, in the order in which it goes on.
        self._runs: list[Run[Topic]] = []  # gathered, and not given out yet
        self._requests: Iterator[object] | None = None  # of the message that is under way
        self._messages: list[bytes] = []  # behind these
        self._at = 0  # where in the first of these messages
        self._largest = 1  # bytes of the largest message of the read
        self._later: list[bytes] = []  # not even looked at how many envelopes they have
        self._too_many = False  # the message behind all these has too many, and is the connection's last
        self._turn_ends = 0.0  # by `turn.clock`; 0: nobody has looked yet in this turn
        self._share = 0.0  # how long this turn may last, if it is not the first one of a read
        self._stopped = False  # `_learn` has had `take_publishes` return, before a publish that is not odd at all
        self._heads: Heads[Topic] = {}  # those that `take_publishes` goes by
        self._work = 0  # of the registry, as far as it has been seen
        self._published = 0  # by all, when this turn began
        self._pause: trio.CancelScope | None = None
        self._waiting: Publish | None = None  # for lagging subscribers: see `_must_wait`
        self._waited: Publish | None = None  # has done so, and goes in now
        self.holding = False
        """Whether it is us who do not read from the client at the moment."""

    def on_messages(self, messages: list[bytes]) -> Hold | None:
        """Handle whole messages, in order.

        Returns:
            What to await before reading more from this client, if anything.
        """
        if self._session.meter is None:
            return self._take_in(messages)
        before = self._session.hub.counters.published
        return self._charge(before, self._take_in(messages))

    def _take_in(self, messages: list[bytes]) -> Hold | None:
        """Handle what was read, or (without any messages) go on with what is left of that, for one turn."""
        fanout = self._session.hub.fanout
        sleeper = fanout.hold()
        self._turn_ends = 0.0
        self._published = self._session.hub.counters.published
        try:
            return self._take_bounded(messages) if messages else self._take_rest()
        except Exception:
            self._forget_rest()
            self._defect()
            return None
        finally:
            fanout.let_go(sleeper)

    def _defect(self) -> None:
        log_of(self._session).exception("defect: a client's message could not be handled")
        self._session.end(disconnects.internal())

    def _take_bounded(self, messages: list[bytes]) -> Hold | None:
        """As `_take`, up to the first message that has too many envelopes; that one is the connection's last."""
        most = self._session.hub.config.max_envelopes
        self._largest = max(map(len, messages), default=0) or 1
        if most is None or self._largest <= most * SHORTEST:
            return self._take(messages)
        index = next(index for index, data in enumerate(messages) if len(data) > most * SHORTEST)
        if has_more(messages[index], most):
            self._too_many = True
            return self._take(messages[:index])
        self._later = messages[index + 1 :]  # to look takes milliseconds, too
        return self._take(messages[: index + 1])

    def _take(self, messages: list[bytes], index: int = 0, at: int = 0) -> Hold | None:
        session, count = self._session, len(messages)
        while index < count and session.ending is None:
            other = True
            if session.welcomed:
                index, at, other = self._take_publishes(messages, index, at)
            if other and not self._runs:
                if not (session.welcomed and self._take_request(messages[index], at)):
                    self._requests = decode_from_client(messages[index], at)
                index, at = index + 1, 0
                if self._requests is not None and not self._take_portion():
                    return self._leave(messages[index:], at)
            if self._runs or (index < count and self._must_pause()):
                return self._leave(messages[index:], at)
        return self._end_of_read()

    def _leave(self, messages: list[bytes], at: int) -> Hold:
        """The turn is over: the rest waits for the next one."""
        self._messages, self._at = messages, at
        return self._go_on

    def _take_rest(self) -> Hold | None:
        if self._session.ending is not None:
            return self._end_of_read()
        if self._runs and not self._publish(self._runs, again=True):
            return self._go_on
        if self._requests is not None and not self._take_portion():
            return self._go_on
        if not self._messages:
            later, self._later = self._later, []
            return self._take_bounded(later)
        messages, at = self._messages, self._at
        self._messages, self._at = [], 0
        return self._take(messages, 0, at)

    def _end_of_read(self) -> Hold | None:
        """All is taken in but what `_take_bounded` has left for another turn."""
        if self._session.ending is not None:
            self._forget_rest()
            return None
        if self._later:
            return self._go_on
        if self._too_many:
            self._refuse_message()
            return None
        return self._hold if self._must_hold() else None

    def _refuse_message(self) -> None:
        session, most = self._session, self._session.hub.config.max_envelopes
        session.hub.limits.refuse("max_envelopes", session=session.id, user=session.user)
        session.end(disconnects.too_many_envelopes(most or 0))

    def _forget_rest(self) -> None:
        """Nothing that the client has sent is listened to any more."""
        self._runs, self._requests, self._messages, self._at, self._later = [], None, [], 0, []

    def _must_pause(self) -> bool:
        """Whether this turn is over, or more is gathered than may be."""
        return self._is_late() or self._has_filled()

    def _is_late(self) -> bool:
        """Whether this turn is over. It begins when somebody asks for the first time: most reads hold little."""
        now = turn.clock()
        if not self._turn_ends:
            self._turn_ends = now + self._share if self.holding else turn.first_end(now)
        return now >= self._turn_ends

    # -------------------------------------------------------------- publishes

    def _take_publishes(self, messages: list[bytes], index: int, at: int) -> tuple[int, int, bool]:
        """Publish what comes next, as far as it is publishes.

        Returns:
            As `take_publishes`. What was gathered and not given out in this turn is in `_runs`.
        """
        registry = self._session.registry
        runs: list[Run[Topic]] = []
        self._heads, self._work = registry.heads, registry.work
        try:
            index, at, other = self._gather(messages, index, at, runs)
            if runs:
                self._publish(runs)
        except BaseException:
            _close(runs)
            raise
        if self._stopped:
            self._stopped = other = False
        return index, at, other

    def _gather(self, messages: list[bytes], index: int, at: int, runs: list[Run[Topic]]) -> tuple[int, int, bool]:
        """As `take_publishes`, for as long as `GATHER_S`."""
        count, heads, learn = len(messages), self._heads, self._learn
        size, largest = FIRST_SLICE, self._largest
        long = (count - index) * largest > size
        began = looked = turn.clock() if long else 0.0
        while True:
            last = index + (size // largest or 1)
            index, at, other = take_publishes(messages, index, heads, learn, runs, at, last, size)
            if index == count or other:
                return index, at, other
            now = turn.clock()
            if now - began >= GATHER_S:
                return index, at, other
            size = MOST_SLICE if now - looked < QUICK_S else FIRST_SLICE
            looked = now

    def _learn(self, packed: bytes) -> Topic | None:
        """A topic that this client may publish on; what is wrong with others is said on the slow road."""
        permissions = self._session.permissions
        if permissions is not None and not permissions.may_publish_packed(packed):
            return None  # before the registry, the store or anybody else hears of it
        name = packed[1 + (packed[0] == 0xD9) :]
        if name.startswith(_RESERVED) and not name.startswith(_INBOX):
            return None  # the broker's own: nothing of it is remembered for this client
        registry = self._session.registry
        try:
            topic = registry.topic(packed)
        except LocalProtocolError:
            return None
        if registry.work != self._work and self._has_changed(registry):
            return None
        return topic if topic.publisher_wait_s is None else None

    def _has_changed(self, registry: Registry) -> bool:
        """A topic had to be matched with the patterns. Whether to give out what was gathered, before this publish."""
        self._work = registry.work
        # All topics were forgotten: those gathered are others than those of the same names from now on.
        self._stopped = registry.heads is not self._heads or self._is_late()
        return self._stopped

    def _publish(self, runs: list[Run[Topic]], *, again: bool = False) -> bool:
        """Give runs out, as far as there is time; False: the rest is in `_runs`.

        Args:
            runs: What was gathered.
            again: Whether that was in an earlier turn: the registry may have others for these topics by now.
        """
        fanout = self._session.hub.fanout
        stamp, now = time_stamp(), trio.current_time()
        for start in range(0, len(runs), RUNS):
            if start and (self._is_late() or (fanout.full and self._has_filled())):
                self._runs = runs[start:]
                _close(self._runs)
                return False
            some = runs[start : start + RUNS]
            self._publish_all(self._fresh(some) if again else some, fanout.publish, stamp, now)
        self._runs = []
        return True

    def _fresh(self, runs: list[Run[Topic]]) -> list[Run[Topic]]:
        registry, fresh = self._session.registry, []
        for topic, wide, tails, requests in runs:
            with suppress(LocalProtocolError):  # it was one, so nothing is wrong with its name
                topic = registry.topic(topic.packed)
            fresh.append((topic, wide, tails, requests))
        return fresh

    def _publish_all(self, runs: list[Run[Topic]], publish: Callable[..., int], stamp: bytes, now: float) -> None:
        permissions = self._session.permissions
        publishable = None if permissions is None else permissions.publishable
        meter, source = self._session.meter, self._session.outbox
        for topic, wide, tails, requests in runs:
            topic.tails = None
            if not tails:
                continue
            if publishable is not None and topic.name not in publishable and not self._may(topic, tails):
                self._refuse(topic.name, len(tails), requests)
                continue
            if requests and meter is not None:
                if (debt := meter.debt(now)) is not None:
                    self._refuse_too_fast(debt, requests)
                    continue
                meter.acknowledged += len(requests)
            reached = publish(topic, 7 if wide else 6, tails, stamp, now, None, None, source)
            if requests:
                kept = topic.kept
                first = kept.head + 1 - len(tails) if kept is not None and kept.has_history else None
                self._acknowledge(requests, reached, topic.lagging, first)

    def _refuse_too_fast(self, bucket: Bucket, requests: list[int]) -> None:
        """Say so to publishes that want an answer."""
        session = self._session
        session.hub.limits.refuse(bucket.name, len(requests), session=session.id, user=session.user)
        detail = {"limit": bucket.name, "retry_after_ms": wait_ms(bucket)}
        for request in requests:
            session.reject(Error(request, "rate_limited", why(bucket), detail))

    def _may(self, topic: Topic, tails: list[bytes]) -> bool:
        """Others may publish there: else it would not be known on the fast road."""
        return may(self._session, "publish", topic.name, len(tails))

    def _refuse(self, topic: str, count: int, requests: list[int]) -> None:
        """Say that a run was refused: to each request, or once for all that want no answer."""
        error = forbidden("publish", topic)
        for request in requests:
            self._session.reject(Error(request, error.code, str(error)))
        if not requests:
            self._session.reject(Error(0, error.code, str(error), {"about": "PUBLISH", "topic": topic, "count": count}))

    def _take_request(self, data: bytes, at: int) -> bool:
        """Publish the last envelope of a message if it is one that wants replies, of the usual form."""
        asking = request_at(data, at)
        if asking is None or asking.stop != len(data) or (topic := self._learn(asking.topic)) is None:
            return False
        try:
            reply_to = check_topic(asking.reply_to.decode())
        except ValueError:
            return False
        permissions = self._session.permissions
        if permissions is not None and not permissions.may_publish(reply_to):
            return False
        if not any(route.outboxes for route in topic.routes):
            return False
        self._session.publish(topic, MOST_ELEMENTS, asking.tail)
        return True

    def _acknowledge(self, requests: list[int], reached: int, lagging: int, first: int | None) -> None:
        rest = b"".join((_SUBSCRIBERS, _pack(reached), _LAGGING, _pack(lagging)))
        if first is not None:
            self._acknowledge_numbered(requests, rest, first)
            return
        result = _OFFSET + b"\x00" + rest
        for start in range(0, len(requests), MAX_ACKNOWLEDGED):
            part = requests[start : start + MAX_ACKNOWLEDGED]
            self._session.answer(b"".join([piece for request in part for piece in (_OK, _pack(request), result)]))

    def _acknowledge_numbered(self, requests: list[int], rest: bytes, first: int) -> None:
        answers = [
            b"".join((_OK, _pack(request), _OFFSET, _pack(offset), rest))
            for offset, request in enumerate(requests, first)
        ]
        for start in range(0, len(answers), MAX_ACKNOWLEDGED):
            self._session.answer(b"".join(answers[start : start + MAX_ACKNOWLEDGED]))

    # ----------------------------------------------------------- other requests

    def _take_portion(self) -> bool:
        """Handle the requests of one message for as long as the turn lasts; True when there are no more."""
        assert self._requests is not None
        session = self._session
        self._is_late()  # the turn begins now, and not with the first request's end
        try:
            for envelope in self._requests:
                if session.ending is not None:
                    break
                if type(envelope) is Publish and self._must_wait(envelope):
                    self._waiting = envelope
                    return False
                if type(envelope) is Subscribe and session.hub.fanout.spreading:
                    self._requests = chain([envelope], self._requests)  # it would get what was published before it
                    return False
                handle(session, envelope)
                if self._is_late():
                    return False
        except Malformed as error:
            session.end(disconnects.malformed(str(error)))
        except Exception:
            self._defect()
        self._requests = None
        return True

    async def _go_on(self) -> None:
        """The rest of what was read, a turn at a time, as fast as the client reads its answers."""
        self.holding = True
        try:
            await self._go_on_to_the_end()
        finally:
            self.holding = False

    async def _go_on_to_the_end(self) -> None:
        hold: Hold | None = self._go_on
        while hold == self._go_on:
            self._share = await turn.next_turn()
            while self._must_hold():  # those who were held go on one after the other, too
                await self._hold()
                self._share = await turn.next_turn()
            await self._wait_for_subscribers()
            before = self._session.hub.counters.published
            hold = self._take_in([])
            if (slower := self._charge(before, None)) is not None:
                await slower()
        if hold is not None:
            await hold()

    # ---------------------------------------------------------------- too fast

    def _charge(self, before: int, hold: Hold | None) -> Hold | None:
        """Charge the session for what it has published since the broker had taken in ``before`` messages.

        Returns:
            What to await before reading more: ``hold``, and a pause if more was published than it may.
        """
        session = self._session
        meter, received = session.meter, session.stream.bytes_received
        if meter is None or not meter.due(session.hub.counters.published - before, received):
            return hold
        now = trio.current_time()
        bucket = meter.settle(received, now)
        if bucket is None or session.ending is not None:
            return hold
        owed = bucket.owed_s(now)
        if owed > MOST_OWED_S:
            session.hub.limits.refuse(bucket.name, session=session.id, user=session.user)
            session.end(disconnects.rate_limited(why(bucket), owed, bucket.name))
            return None
        self._note_slowed(meter, bucket, now)
        return partial(self._slow_down, hold, owed)

    def _note_slowed(self, meter: Meter, bucket: Bucket, now: float) -> None:
        session = self._session
        session.hub.counters.publishers_slowed += 1
        if now >= meter.told_at + TELL_EVERY_S:
            meter.told_at = now
            session.hub.limits.refuse(bucket.name, session=session.id, user=session.user)
            detail = {"about": "PUBLISH", "slowed": True, "limit": bucket.name, "retry_after_ms": wait_ms(bucket)}
            session.reject(Error(0, "rate_limited", f"{why(bucket)}, so it is not read from for a while", detail))

    async def _slow_down(self, hold: Hold | None, owed_s: float) -> None:
        """Do not read from the client until it has paid."""
        if hold is not None:
            await hold()
        holding, self.holding = self.holding, True
        try:
            with trio.move_on_after(min(owed_s, LONGEST_PAUSE_S)) as self._pause:
                if self._session.ending is None:
                    await trio.sleep_forever()
        finally:
            self.holding, self._pause = holding, None
        self._session.stream.read_little()

    def resume(self) -> None:
        """The session ends: there is no more use in waiting."""
        if self._pause is not None:
            self._pause.cancel()

    # ----------------------------------------------------------------- holding

    def _must_wait(self, envelope: Publish) -> bool:
        """Whether a publish has to wait for subscribers: only where the operator says so for its topic."""
        topic = None if envelope is self._waited else self._topic_to_wait_for(envelope)
        return topic is not None and topic.lagging > 0

    def _topic_to_wait_for(self, envelope: Publish) -> Topic | None:
        session = self._session
        if not (session.hub.registry.publishers_wait and session.welcomed):
            return None
        if session.permissions is not None and not session.permissions.may_publish(envelope.topic):
            return None
        topic = session.registry.look_up(envelope.topic)  # what refuses a topic refuses it when it is published on
        return topic if topic.publisher_wait_s is not None else None

    async def _wait_for_subscribers(self) -> None:
        """Let the publish that waits go in when nobody lags any more, or its time is up."""
        if (envelope := self._waiting) is None:
            return
        await wait_for_subscribers(self._session.hub, envelope.topic, lambda: self._session.ending is not None)
        assert self._requests is not None
        self._requests, self._waiting, self._waited = chain([envelope], self._requests), None, envelope

    def _must_hold(self) -> bool:
        return self._has_filled() or self._session.outbox.answer_bytes > MAX_ANSWERS

    def _has_filled(self) -> bool:
        """Whether more is gathered than may be, and some of it is this client's: others are read from all the same."""
        hub = self._session.hub
        return hub.fanout.full and hub.counters.published != self._published

    async def _hold(self) -> None:
        """Wait, instead of reading more, until others (or this client) have taken what this client caused."""
        if self._messages or self._runs or self._requests is not None or self._has_filled():
            await self._session.hub.fanout.swept()
        while self._session.outbox.answer_bytes > MAX_ANSWERS:
            await self._session.outbox.answers_taken()
