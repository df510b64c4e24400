"""What comes in from one client: publishes over the fast road, everything else over `requests`, in the order sent.

All that one read of the socket held is handled at once, without a chance for anybody to get in between, so that it can
leave as one batch. Except when a client packs very many requests into a message: those are taken in portions.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgpack
import trio

from fanwire.protocol import Error, LocalProtocolError, Malformed, Publish, check_topic, decode_from_client
from fanwire.protocol.fastpath import Run, request_at, take_publishes

from . import endings
from .access import may
from .fanout import time_stamp
from .limits import too_fast, wait_ms, why
from .log import log_of
from .meter import LONGEST_PAUSE_S, MOST_OWED_S, TELL_EVERY_S
from .publishers import wait_for_subscribers
from .requests import check_publishable, forbidden, handle

if TYPE_CHECKING:
    from .buckets import Bucket
    from .meter import Meter
    from .routes import Topic
    from .session import Session

_pack = msgpack.Packer().pack

# Answers that a client has not read, in bytes, beyond which it is not read from: whoever asks must listen.
MAX_ANSWERS = 256 * 1024

# Requests handled before others get their turn. A message of 1 MiB can hold a million, of 2 to 8 µs each.
PORTION = 256

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

Hold = Callable[[], Coroutine[Any, Any, None]]


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

    __slots__ = ("_messages", "_pause", "_requests", "_session", "_waited", "_waiting", "holding")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._messages: list[bytes] = []  # not begun yet, while `_requests` is not exhausted
        self._requests: Iterator[object] | None = None
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
        fanout = self._session.hub.fanout
        sleeper = fanout.hold()
        try:
            if self._session.meter is None:
                return self._take_bounded(messages)
            before = self._session.hub.counters.published
            return self._charge(before, self._take_bounded(messages))
        except Exception:
            self._defect()
            return None
        finally:
            fanout.let_go(sleeper)

    def _defect(self) -> None:
        log_of(self._session).exception("defect: a client's message could not be handled")
        self._session.end(endings.internal())

    def _take_bounded(self, messages: list[bytes]) -> Hold | None:
        """As `_take`, up to the first message that has too many envelopes; that one is the connection's last."""
        session = self._session
        most = session.hub.config.max_envelopes
        if most is None or max(map(len, messages), default=0) <= most * SHORTEST:
            return self._take(messages)
        for index, data in enumerate(messages):
            if len(data) > most * SHORTEST and has_more(data, most):
                if index:
                    self._take(messages[:index])
                if session.ending is None:
                    session.hub.limits.refuse("max_envelopes", session=session.id, user=session.user)
                    session.end(endings.too_many_envelopes(most))
                return None
        return self._take(messages)

    def _take(self, messages: list[bytes]) -> Hold | None:
        session, index, count = self._session, 0, len(messages)
        while index < count:
            if session.ending is not None:
                return None
            at = 0
            if session.welcomed:
                index, at = self._take_publishes(messages, index)
            if index < count and session.welcomed and self._take_request(messages[index], at):
                index += 1
            elif index < count:
                self._requests = decode_from_client(messages[index], at)
                index += 1
                if not self._take_portion():
                    self._messages = messages[index:]
                    return self._go_on
        return self._hold if self._must_hold() else None

    # -------------------------------------------------------------- publishes

    def _take_publishes(self, messages: list[bytes], index: int) -> tuple[int, int]:
        runs: list[Run[Topic]] = []
        try:
            index, at = take_publishes(messages, index, self._session.registry.heads, self._learn, runs)
            if runs:
                self._publish(runs)
        except BaseException:
            for topic, *_ in runs:
                topic.tails = None  # else others' messages would be gathered into runs that nobody publishes
            raise
        return index, at

    def _learn(self, packed: bytes) -> Topic | None:
        """A topic that this client may publish on; what is wrong with others is said on the slow road."""
        permissions = self._session.permissions
        if permissions is not None and not permissions.may_publish_packed(packed):
            return None  # before the registry, the store or anybody else hears of it
        try:
            topic = self._session.registry.topic(packed)
            check_publishable(topic.name)
        except LocalProtocolError:
            return None
        return topic if topic.publisher_wait_s is None else None

    def _publish(self, runs: list[Run[Topic]]) -> None:
        fanout = self._session.hub.fanout
        fanout.source = self._session.outbox
        try:
            self._publish_all(runs, fanout.publish)
        finally:
            fanout.source = None

    def _publish_all(self, runs: list[Run[Topic]], publish: Callable[..., int]) -> None:
        permissions = self._session.permissions
        publishable = None if permissions is None else permissions.publishable
        stamp, now = time_stamp(), trio.current_time()
        meter = self._session.meter
        for topic, wide, tails, requests in runs:
            topic.tails = None
            if not tails:
                continue
            if publishable is not None and topic.name not in publishable and not self._may(topic, tails):
                self._refuse(topic.name, len(tails), requests)
                continue
            if requests and meter is not None:
                if (debt := meter.debt(now)) is not None:
                    too_fast(self._session, debt, requests)
                    continue
                meter.acknowledged += len(requests)
            reached = publish(topic, 7 if wide else 6, tails, stamp, now)
            if requests:
                kept = topic.kept
                first = kept.head + 1 - len(tails) if kept is not None and kept.has_history else None
                self._acknowledge(requests, reached, topic.lagging, first)

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
        """Handle some of the requests of one message; True when there are no more."""
        assert self._requests is not None
        try:
            for _ in range(PORTION):
                envelope = next(self._requests, None)
                if envelope is None or self._session.ending is not None:
                    self._requests = None
                    return True
                if type(envelope) is Publish and self._must_wait(envelope):
                    self._waiting = envelope
                    return False
                handle(self._session, envelope)
        except Malformed as error:
            self._requests = None
            self._session.end(endings.malformed(str(error)))
            return True
        except Exception:  # here too: `_go_on` comes by another way than `on_messages`
            self._requests = None
            self._defect()
            return True
        return False

    async def _go_on(self) -> None:
        """The rest of what was read, a portion at a time, as fast as the client reads its answers."""
        self.holding = True
        try:
            await self._go_on_to_the_end()
        finally:
            self.holding = False

    async def _go_on_to_the_end(self) -> None:
        hold: Hold | None = None
        while self._requests is not None:
            await trio.lowlevel.checkpoint()
            await self._hold()
            await self._wait_for_subscribers()
            before = self._session.hub.counters.published
            done = self._take_portion()
            if (slower := self._charge(before, None)) is not None:
                await slower()
            if done:
                rest, self._messages = self._messages, []
                hold = self.on_messages(rest)
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
            session.end(endings.rate_limited(why(bucket), owed, bucket.name))
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
        topic = self._session.registry.topic_named(envelope.topic)
        return topic if topic.publisher_wait_s is not None else None

    async def _wait_for_subscribers(self) -> None:
        """Let the publish that waits go in when nobody lags any more, or its time is up."""
        if (envelope := self._waiting) is None:
            return
        await wait_for_subscribers(self._session.hub, envelope.topic, lambda: self._session.ending is not None)
        assert self._requests is not None
        self._requests, self._waiting, self._waited = chain([envelope], self._requests), None, envelope

    def _must_hold(self) -> bool:
        return self._session.hub.fanout.full or self._session.outbox.answer_bytes > MAX_ANSWERS

    async def _hold(self) -> None:
        """Wait, instead of reading more, until others (or this client) have taken what this client caused."""
        await self._session.hub.fanout.swept()
        while self._session.outbox.answer_bytes > MAX_ANSWERS:
            await self._session.outbox.answers_taken()
