"""What the broker says, handed to whom it concerns: synchronously, from the task that reads.

Messages of one route mostly come in runs, and a whole read is often a single run: it is looked at by columns, in C, and
handed on as one list.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import msgpack
import trio

from fanwire.protocol import (
    Error,
    Goodbye,
    Lagging,
    Lost,
    Malformed,
    PresenceEvent,
    ProtocolError,
    Quiet,
    SnapshotEnd,
    Welcome,
    decode_from_broker,
)
from fanwire.protocol.fields import is_topic, shown
from fanwire.protocol.frames import Fault, TooLarge

from ..answer_fields import unsigned_of
from ..errors import MessageTooLarge, RequestFailed
from ..exchange.answers import Requests
from ..message import Raw
from ..notices import LostMessages
from ..subscribing.wire_subscriptions import Feeds
from .decoding import Decoder, strictly

_MESSAGE, _OK = 19, 17

# How long the reader lets a handler with a long buffer go on before it reads again, in seconds. The broker and its
# pings wait that long at most; a handler that is slow all the time meets the bound of its own buffer.
MOST_GIVING_WAY = 0.05

# How long, in seconds, it waits for a handler to take what a snapshot or replay has brought, after each read. That may
# be more than fits into the handler's buffer. The broker's own patience (`stall_timeout`) is twice as long.
MOST_HOLDING = 5.0

# One read may hold 256 KiB. So much of it is taken in at once before handlers that have much to do get their turn: a
# burst need not fit into a subscription's buffer as long as its handler is quick.
PART_BYTES = 16 * 1024

# Bytes of an envelope that tells something about messages. The longest that version 1 needs has a topic and two names.
MOST_TOLD = 4096
_TOLD = (Lost, Lagging, PresenceEvent, Quiet, SnapshotEnd)

# Error codes whose first occurrence is logged, and characters of each.
MOST_CODES = 64

# Where it is not known in how many bytes messages came.
ANY_SIZE = 1 << 62

_log = logging.getLogger("fanwire.client")


def _part(messages: Iterator[bytes]) -> list[bytes]:
    """The next few messages; none when there are no more."""
    part: list[bytes] = []
    size = 0
    for message in messages:
        part.append(message)
        size += len(message)
        if size >= PART_BYTES:
            break
    return part


class Receiver:
    """The incoming side of one connection."""

    def __init__(self, requests: Requests, feeds: Feeds, on_fault: Callable[[], None], limit: int) -> None:
        """Nothing has come yet.

        Args:
            requests: Who waits for answers.
            feeds: Who waits for messages.
            on_fault: Called once, when ``fault`` is set: the connection has to be closed.
            limit: Bytes that a message may have.
        """
        self._limit = limit
        self._requests = requests
        self._feeds = feeds
        self._on_fault = on_fault
        self._decoder = Decoder()
        self._logged: set[str] = set()
        self.welcome: Welcome | None = None
        self.welcomed = trio.Event()
        self.goodbye: Goodbye | None = None
        self.fault: Fault | None = None
        """Why the broker cannot be understood, if it cannot: close code and reason."""
        self.rejected = 0
        """Errors that answered no request: mostly publishes without acknowledgement that were refused."""

    def on_messages(self, messages: list[bytes]) -> Callable[[], Coroutine[Any, Any, None]] | None:
        """Take in WebSocket messages, in order. What is returned is to be awaited before more is read."""
        rest = iter(messages)
        return partial(self._give_way, rest) if self._take_in(rest) else None

    def _take_in(self, messages: Iterator[bytes]) -> bool:
        """Take in ``messages`` until a handler should have its turn; return whether that is so."""
        while part := _part(messages):
            self._take_in_part(part)
            if self._feeds.should_give_way() or self._feeds.holding():
                return True
        return False

    def _take_in_part(self, messages: list[bytes]) -> None:
        if self.fault:
            return
        try:
            self._receive(messages)
        except Malformed as error:
            self._refuse(1007, str(error))
        except (ProtocolError, TypeError, ValueError, OverflowError) as error:
            self._refuse(1002, str(error))
        except Exception as error:  # a defect of ours: it ends this connection, not the program
            _log.exception("a defect of the client: it does not understand what the broker sent")
            self._refuse(1002, f"{type(error).__name__}: {error}")

    def _receive(self, messages: list[bytes]) -> None:
        values = self._decoder.decode(messages)
        if values is not None:
            self._handle(values, sum(map(len, messages)))
            return
        for value in strictly(messages):
            self._handle([value], ANY_SIZE)

    def _refuse(self, code: int, reason: str) -> None:
        self.fault = Fault(code, f"the broker sent what is not in the protocol: {reason}")
        self._on_fault()

    def on_too_large(self, large: TooLarge) -> None:
        """A message that is larger than may be was passed over: tell whom it was for."""
        if self.fault or self._tell_too_large(large):
            return
        self._refuse(
            1009, f"a message of {large.size} bytes, and no publish or answer; max_message_bytes is {self._limit}"
        )

    def _tell_too_large(self, large: TooLarge) -> bool:
        """Whether it could be told."""
        unpacker = msgpack.Unpacker()
        unpacker.feed(large.beginning)
        try:
            unpacker.read_array_header()
            kind, number = unpacker.unpack(), unsigned_of(unpacker.unpack())
            if number is None:
                return False
            if kind == _OK:
                error = MessageTooLarge(f"the answer of {large.size} bytes", topic=None, offset=None, limit=self._limit)
                return self._requests.gave_up(number, error)
            topic, offset = unpacker.unpack(), unsigned_of(unpacker.unpack())
        except (ValueError, TypeError, msgpack.UnpackException):
            return False
        if kind != _MESSAGE or offset is None or not (topic is None or is_topic(topic)):
            return False
        if feed := self._feeds.by_route.get(number):
            feed.too_large(topic, offset, large.size, self._limit)
        return True

    async def _give_way(self, messages: Iterator[bytes]) -> None:
        """Let handlers go on, take in more, and so on until nothing is left of ``messages``."""
        more, patience = True, trio.current_time() + MOST_HOLDING
        while more:
            deadline = trio.current_time() + MOST_GIVING_WAY
            while self._feeds.should_give_way() and trio.current_time() < deadline:
                await trio.lowlevel.checkpoint()
            await self._feeds.make_room(patience)
            more = self._take_in(messages)

    # --------------------------------------------------------------- values

    def _handle(self, values: list[Any], wire: int) -> None:
        """Take in values that came in so many bytes."""
        if not values:
            return
        columns = list(zip(*values, strict=False))  # TypeError: a number, say, which is no envelope
        if len(columns) > 5 and columns[0].count(_MESSAGE) == len(values):
            routes = columns[1]
            if routes.count(routes[0]) == len(routes):
                self._deliver(routes[0], values, columns, wire)
                return
        self._handle_mixed(values)

    def _handle_mixed(self, values: list[Any]) -> None:
        run: list[Raw] = []
        route: object = None
        for value in values:
            if type(value) is tuple and len(value) > 5 and value[0] == _MESSAGE:
                if value[1] != route and run:
                    self._deliver(route, run)
                    run = []
                route = value[1]
                run.append(value)
                continue
            if run:
                self._deliver(route, run)
                run = []
            self._handle_other(value)
        if run:
            self._deliver(route, run)

    def _deliver(
        self, route: Any, run: list[Raw], columns: list[tuple[Any, ...]] | None = None, wire: int = ANY_SIZE
    ) -> None:
        feed = self._feeds.by_route.get(route)
        if feed:  # else it was sent before the broker knew that we left
            feed.receive(run, columns or list(zip(*run, strict=False)), wire)

    def _handle_other(self, value: Any) -> None:
        if type(value) is tuple and len(value) > 1 and value[0] == _OK and type(value[1]) is int:
            result = value[2] if len(value) > 2 else {}
            if type(result) is dict:
                self._requests.answered(value[1], result)
                return
        # Rare ones: packing them again is cheaper than a second way to check them.
        packed = msgpack.packb(value)
        for envelope in decode_from_broker(packed):
            if len(packed) > MOST_TOLD and isinstance(envelope, _TOLD):
                raise ValueError(f"{envelope.kind.name} of {len(packed)} bytes; {MOST_TOLD} is the most")
            self._handle_envelope(envelope)

    def _handle_envelope(self, envelope: object) -> None:
        match envelope:
            case Error():
                self._error(envelope)
            case Welcome():
                self.welcome = envelope
                self.welcomed.set()
            case Goodbye():
                self.goodbye = envelope
            case Lost():
                lost = LostMessages(envelope.count, envelope.reason, envelope.topic, envelope.first, envelope.last)
                self._feeds.lose(envelope.route, lost)
            case Lagging():
                self._feeds.lag(envelope.route, envelope.queued, envelope.limit, envelope.oldest_ms)
            case SnapshotEnd():
                self._feeds.complete(envelope.route)
            case Quiet():
                self._feeds.quiet(envelope.route, envelope.topic, envelope.silent_ms, envelope.offset)
            case PresenceEvent():
                self._feeds.present(envelope)
            case _:
                pass  # of a later version, or never asked for

    def _error(self, error: Error) -> None:
        if error.id:
            self._requests.failed(error.id, RequestFailed(error.code, error.message, error.detail))
        elif error.code == "epoch_changed":
            self._feeds.renew(error.detail.get("epoch"))
        elif error.detail.get("about") == "BACKLOG":
            pass  # a broker that does not want to know
        elif error.detail.get("slowed") is True:
            self._log_once("the broker slows this connection", error)  # and has taken what was published
        elif not (
            self._feeds.request_failed(error.detail, error.code, error.message)
            or self._feeds.route_failed(error.detail, error.code, error.message)
        ):
            self.rejected += unsigned_of(error.detail.get("count")) or 1
            self._log_once("the broker refused what needs no answer", error)

    def _log_once(self, what: str, error: Error) -> None:
        # Once a connection: there may be 100,000 a second. A broker does not have more codes than that.
        if error.code not in self._logged and len(self._logged) < MOST_CODES:
            self._logged.add(error.code[:MOST_CODES])
            _log.warning("%s: %s (%s) %s", what, error.message[:500], error.code[:MOST_CODES], shown(error.detail))
