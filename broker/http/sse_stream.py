"""A topic, or a pattern, as a stream of Server-Sent Events that a browser reads without a library."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING

import trio

from fanwire.protocol import (
    ON_SLOW,
    Error,
    Goodbye,
    LocalProtocolError,
    Ok,
    Subscribe,
    SubscribeOptions,
    check_pattern,
)
from fanwire.protocol.fields import LONGEST_HEARTBEAT_S
from fanwire.protocol.ranges import RATE
from fanwire.protocol.reserved import tells_of_the_broker

from ..network.admission import TurnedAway
from ..sessions.authentication import may
from ..sessions.handlers import forbidden
from ..timing.turn import Turn
from .answers import STATUS_OF, HttpError, Stream
from .endpoints import Parameter
from .history import failed
from .schemas import EVENT_ID, MOMENT
from .session_in_memory import Attached
from .sse_events import KEEP_ALIVE, MEDIA_TYPE, Events, Place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from fanwire.protocol import BrokerEnvelope

    from ..sessions.hub import Hub
    from .answers import Outlet
    from .request import Request

PARAMETERS = (
    Parameter("snapshot", "whether to begin with the last value of each topic", type="boolean"),
    Parameter("last", "or with so many of the newest messages of each topic", type="integer", least=1),
    Parameter("since", "or with all since then: microseconds since 1970", type="integer", schema=MOMENT),
    Parameter("policy", "what becomes of a slow reader (on_slow)", choices=ON_SLOW),
    Parameter("queue", "messages that may wait", type="integer", least=1),
    Parameter("max_rate", "messages per second and topic at most", type="number", least=RATE.least, most=RATE.most),
    Parameter(
        "heartbeat",
        "seconds of silence on a topic after which quiet is told",
        type="number",
        least=0.001,
        most=LONGEST_HEARTBEAT_S,
    ),
    Parameter("last_event_id", "go on behind this event; the header Last-Event-ID counts more", schema=EVENT_ID),
)

BEGINNINGS = ("last", "since")

_UNBUFFERED = {"X-Accel-Buffering": "no"}  # nginx would wait until it has some KiB
_SUBSCRIBE = 2  # the request's number


async def stream(_hub: Hub, request: Request) -> Stream:
    """What is published from now on, and what is asked for before that."""
    pattern, query = request.path["pattern"], request.query
    text = request.headers.get("last-event-id") or query.get("last_event_id", "")
    try:
        check_pattern(pattern)
        place = Place.read(text, pattern) if text else None
        subscribe = Subscribe(_SUBSCRIBE, pattern, _options(query, place))
    except LocalProtocolError as error:
        raise failed(error) from None
    if (not pattern.startswith("$") or tells_of_the_broker(pattern)) and not may(request.caller, "subscribe", pattern):
        raise failed(forbidden("subscribe", pattern))  # what is the broker's own the session judges
    flow = _Flow(request, subscribe, place)
    return Stream(MEDIA_TYPE, flow.run, _UNBUFFERED)


def _options(query: Mapping[str, Any], place: Place | None) -> SubscribeOptions:
    options: dict[str, Any] = {name: query[name] for name in ("queue", "max_rate", "heartbeat") if name in query}
    if "policy" in query:
        options["on_slow"] = query["policy"]
    if place is not None:
        return SubscribeOptions(**options, replay=place.replay)
    asked = {name: query[name] for name in ("last", "since") if name in query}
    return SubscribeOptions(**options, snapshot=query.get("snapshot", False), replay=asked or None)


class _Flow:
    """From one session to one client."""

    def __init__(self, request: Request, subscribe: Subscribe, place: Place | None) -> None:
        self._attached = Attached(request.caller, request.headers.get("user-agent", ""))
        self._linger_s = request.caller.config.linger_s
        self._subscribe = subscribe
        options = subscribe.options
        replaying = options.snapshot or options.replay is not None
        self._events = Events(subscribe.pattern, place, replaying=replaying)
        self._acknowledged = 0
        self._begun = False
        self._told = False

    async def run(self, outlet: Outlet) -> None:
        """See `Stream.body`.

        Raises:
            HttpError: There is no subscription.
            trio.BrokenResourceError: The client did not take the end.
        """
        refusal: HttpError | None = None
        broken = False
        outlet.hand_over()
        async with trio.open_nursery() as nursery:
            # No exception passes a nursery that has tasks: the exception, trio's frames and the tasks' Cancelled would
            # form a circle, and until the collector came by the circle would keep all that the session had.
            try:
                self._attached.vouch()
                nursery.start_soon(self._serve, nursery.cancel_scope)
                await self._attached.open(self._subscribe)
                await self._pass_on(outlet)
            except TurnedAway:
                refusal = HttpError("rate_limited", "too many connections from there").with_header("Retry-After", "1")
            except HttpError as error:
                refusal = error
                nursery.cancel_scope.cancel()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                broken = True
                nursery.cancel_scope.cancel()
        if refusal is not None:
            try:
                raise refusal
            finally:
                del refusal  # an exception knows this frame: another circle if this frame knew the exception
        if broken or nursery.cancel_scope.cancelled_caught:
            raise trio.BrokenResourceError("the client takes nothing any more")
        if not self._begun:
            raise HttpError("unavailable", "the session ended before it began")

    async def _serve(self, scope: trio.CancelScope) -> None:
        """The session. When it has ended, the client gets a moment for what it has yet to be told."""
        await self._attached.run()
        scope.deadline = trio.current_time() + self._linger_s

    async def _pass_on(self, outlet: Outlet) -> None:
        while (received := await self._attached.receive()) is not None:
            await self._tell_all(outlet, received.envelopes)
            pinged = received.pinged
            del received  # while there is nothing to pass on, nothing of what was is kept
            if pinged:
                await self._show_life(outlet)

    async def _tell_all(self, outlet: Outlet, envelopes: Sequence[BrokerEnvelope]) -> None:
        """Each event is JSON of its own: what takes longer than a turn goes on in another one."""
        turn, events = Turn(), list[bytes]()
        for envelope in envelopes:
            events.append(self._event_of(envelope))
            if turn.over:
                await self._tell(outlet, events)
                events = []
                await turn.pause()
        await self._tell(outlet, events)

    async def _tell(self, outlet: Outlet, events: list[bytes]) -> None:
        if data := b"".join(events):
            if not self._told:
                self._told = True
                self._buffer_little(outlet)
            await outlet.send(data)
        if self._events.dropped:
            await self._attached.close()

    def _event_of(self, envelope: BrokerEnvelope) -> bytes:
        if self._begun:
            return self._events.of(envelope)
        if isinstance(envelope, Ok) and envelope.id == _SUBSCRIBE:
            self._begun = True
            return self._events.subscribed(envelope, self._attached.session.id)
        if isinstance(envelope, Error):
            raise HttpError(_known(envelope.code), envelope.message, envelope.detail)
        if isinstance(envelope, Goodbye):
            raise _turned_away(envelope)
        return b""  # WELCOME, and OK to HELLO

    def _buffer_little(self, outlet: Outlet) -> None:
        outbox = getattr(self._attached.session, "outbox", None)
        if outbox is not None and outbox.conflating:
            outlet.buffer_little(self._attached.session.config.conflating_buffer_bytes)

    async def _show_life(self, outlet: Outlet) -> None:
        """A comment; the session hears of life only if the client's machine took what it was sent before.

        What is written into the kernel's buffer says nothing: nobody answers there.
        """
        acknowledged, waiting = outlet.acknowledged()
        alive = not waiting or acknowledged > self._acknowledged
        self._acknowledged = acknowledged
        await outlet.send(KEEP_ALIVE)
        if alive:
            await self._attached.pong()


def _known(code: str) -> str:
    """A code that has a status."""
    return code if code in STATUS_OF else "unavailable"


def _turned_away(goodbye: Goodbye) -> HttpError:
    """The session was ended before it was subscribed to anything."""
    code = _known(goodbye.code)
    status = HTTPStatus.SERVICE_UNAVAILABLE if code == "too_many" else None
    refusal = HttpError(code, goodbye.message, goodbye.detail, status=status)
    return refusal.with_header("Retry-After", str(math.ceil(goodbye.retry_after_ms / 1000)))
