"""Server-Sent Events: envelopes of one subscription as text, and the id from which a reconnect goes on.

An id is ``EPOCH:OFFSET`` for a topic, and ``EPOCH:@TIME`` for a pattern with wildcards, whose topics each count by
themselves. What is sent again after the latter is what was published in the same microsecond.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs

from fanwire.protocol import (
    BrokerEnvelope,
    Error,
    Goodbye,
    Lagging,
    Lost,
    Message,
    Ok,
    PresenceEvent,
    Quiet,
    Replay,
    SnapshotEnd,
    is_wildcard,
)
from fanwire.protocol.fields import FIRST_US, LAST_US

from .answers import HttpError, as_json
from .history import message_map

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MEDIA_TYPE = "text/event-stream"

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: it keeps proxies from closing what seems idle, and shows whether the client still takes anything."""

# What EventSource waits before it connects again, as long as no goodbye says otherwise.
RETRY_MS = 3000

_GRANTED = ("epoch", "offset", "queue", "queue_grace", "max_rate", "on_slow", "heartbeat")
_ENDS = ("slow_consumer", "forbidden")  # ERRORs with id 0 that are the end of a subscription
_id_of = re.compile(r"([A-Za-z0-9_-]{1,64}):(@?)([0-9]{1,18})").fullmatch


@attrs.frozen
class Place:
    """What an id says."""

    epoch: str
    number: int
    is_time: bool

    @classmethod
    def read(cls, text: str, pattern: str) -> Place:
        """Raises `HttpError` (`bad_option`) if it is none of ours, or of another stream."""
        found = _id_of(text)
        if found is None or (not found[2] and is_wildcard(pattern)):
            raise HttpError("bad_option", "this is no id of an event of such a stream", {"option": "last_event_id"})
        return cls(found[1], int(found[3]), bool(found[2]))

    @property
    def replay(self) -> Replay:
        """What is wanted of the history."""
        if not self.is_time:
            return Replay(offset=self.number, epoch=self.epoch)
        # A time that no clock of today says (an id that somebody made up, a clock that was not set): all that is kept.
        return Replay(since=self.number if FIRST_US <= self.number <= LAST_US else 0)


def event(kind: str, data: Mapping[str, Any], id_: str | None = None, retry_ms: int | None = None) -> bytes:
    """One event; its data is one line."""
    lines = [f"event: {kind}\n"]
    if retry_ms is not None:
        lines.append(f"retry: {retry_ms}\n")
    if id_ is not None:
        lines.append(f"id: {id_}\n")
    return b"".join(("".join(lines).encode(), b"data: ", as_json(data), b"\n"))


class Events:
    """Makes them. One for each stream."""

    def __init__(self, pattern: str, place: Place | None, *, replaying: bool) -> None:
        """``place``: from where it goes on; ``replaying``: whether something comes before what is live."""
        self._pattern = pattern
        self._wildcard = is_wildcard(pattern)
        self._place = place
        self._replaying = replaying
        self._numbered = False
        self._epoch = ""
        self._time = 0
        self.dropped = False
        """Whether the session lives on without the subscription."""

    # ---------------------------------------------------------- its beginning

    def subscribed(self, ok: Ok, session: str) -> bytes:
        """The first event, and what was lost since the last one of the stream before."""
        result = ok.result
        self._epoch, self._time = result["epoch"], result["time"]
        # Who conflates may get messages in another order than they were published in, and is not told of all.
        self._numbered = result["on_slow"] != "conflate" and (self._wildcard or result["history"])
        known = {name: result[name] for name in _GRANTED}
        place = self._place
        moved = place is not None and place.is_time and place.epoch != self._epoch
        recovered = result["recovered"] and not moved and (place is None or result["history"])
        data = {"session": session, "pattern": self._pattern, "recovered": recovered, **known}
        begun = event("subscribed", data, None if self._replaying else self._id(result["offset"]), RETRY_MS)
        return begun + (event("lost", _lost(Lost(0, None, "restart", None))) if moved else b"")

    def _id(self, offset: int) -> str | None:
        if not self._numbered:
            return None
        return f"{self._epoch}:@{self._time}" if self._wildcard else f"{self._epoch}:{offset}"

    # ------------------------------------------------------------ what follows

    def of(self, envelope: BrokerEnvelope) -> bytes:
        """The event that an envelope is; nothing: it is none."""
        make = _EVENT_OF.get(type(envelope))
        return b"" if make is None else make(self, envelope)

    def _message(self, message: Message) -> bytes:
        topic = self._pattern if message.topic is None else message.topic
        parts = message_map(message.offset, message.time, message.payload, message.encoding, dict(message.meta))
        self._time = max(self._time, message.time)
        # While topics are replayed one after the other, a time says nothing of those that are still to come.
        id_ = self._id(message.offset) if message.offset and not (self._wildcard and self._replaying) else None
        return event("message", {"topic": topic, **parts}, id_)

    def _lost(self, lost: Lost) -> bytes:
        return event("lost", _lost(lost, None if self._wildcard else self._pattern))

    def _snapshot_end(self, end: SnapshotEnd) -> bytes:
        self._replaying = False
        return event("snapshot_end", {"count": end.count}, self._id(0) if self._wildcard else None)

    def _quiet(self, quiet: Quiet) -> bytes:
        data = {"topic": quiet.topic, "silent_ms": quiet.silent_ms, "offset": quiet.offset}
        return event("quiet", data)

    def _lagging(self, lagging: Lagging) -> bytes:
        return event("lagging", {name: getattr(lagging, name) for name in ("queued", "limit", "oldest_ms")})

    def _presence(self, change: PresenceEvent) -> bytes:
        names = ("topic", "change", "session", "name", "client")
        return event("presence", {name: getattr(change, name) for name in names})

    def _goodbye(self, goodbye: Goodbye) -> bytes:
        data = {"code": goodbye.code, "message": goodbye.message, "retry_after_ms": goodbye.retry_after_ms}
        return event("goodbye", {**data, "detail": dict(goodbye.detail)}, retry_ms=goodbye.retry_after_ms)

    def _error(self, error: Error) -> bytes:
        data = {"code": error.code, "message": error.message, "detail": dict(error.detail)}
        if error.code in _ENDS:
            self.dropped = True
            return event("goodbye", {**data, "retry_after_ms": RETRY_MS})
        return event("problem", data)


def _lost(lost: Lost, topic: str | None = None) -> dict[str, Any]:
    facts = {"count": lost.count, "reason": lost.reason, "topic": lost.topic or topic}
    return facts if lost.first is None else {**facts, "first": lost.first, "last": lost.last}


_EVENT_OF: dict[type, Callable[[Events, Any], bytes]] = {
    Message: Events._message,
    Lost: Events._lost,
    SnapshotEnd: Events._snapshot_end,
    Quiet: Events._quiet,
    Lagging: Events._lagging,
    PresenceEvent: Events._presence,
    Goodbye: Events._goodbye,
    Error: Events._error,
}

EVENTS = ("subscribed", "message", "lost", "snapshot_end", "quiet", "lagging", "presence", "problem", "goodbye")
