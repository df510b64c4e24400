"""What a subscriber gets. Decoded as late as possible: many are only counted, forwarded or looked at by topic."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from fanwire.protocol import unpack_data
from fanwire.protocol.errors import ProtocolError
from fanwire.protocol.fields import is_topic

from .errors import Undecodable
from .exchange.answer_fields import headers_of

# A MESSAGE envelope as msgpack gives it: [19, route, topic, offset, time, payload, encoding?, meta?]
# (docs/protocol.md).
Raw: TypeAlias = tuple[Any, ...]

# Stands in the place of the route, which nobody needs any more, in what came from snapshot or replay.
REPLAYED = -1

# The reason of a `LostMessages` for a message that was larger than the client takes.
TOO_LARGE = "too_large"

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Message:
    """One message of a subscription."""

    __slots__ = ("_data", "_raw", "_topic")
    _data: Any

    def __init__(self, raw: Raw, topic: str | None) -> None:
        """Made by subscriptions. ``topic``: the subscription's when it has no wildcard, else None."""
        # `_data` is set when it is first asked for.
        self._raw = raw
        self._topic = topic

    @property
    def topic(self) -> str:
        """Where it was published."""
        return self._topic or self._raw[2]

    @property
    def payload(self) -> bytes:
        """The bytes as published; see `encoding`."""
        return self._raw[5]  # type: ignore[no-any-return]

    @property
    def encoding(self) -> int:
        """What `payload` holds: 0 raw bytes, 1 msgpack, 2 UTF-8 text, 3 JSON."""
        raw = self._raw
        return raw[6] if len(raw) > 6 else 0

    @property
    def data(self) -> Any:
        """The value that was published, decoded when first asked for and kept.

        Raises:
            Undecodable: The payload is not what its encoding says.
        """
        try:
            return self._data
        except AttributeError:
            self._data = decoded = self._decode()
            return decoded

    def _decode(self) -> object:
        try:
            return unpack_data(self.payload, self.encoding)
        except (ProtocolError, ValueError) as error:
            raise Undecodable(f"message on {self.topic!r}, encoding {self.encoding}: {error}") from error

    @property
    def offset(self) -> int:
        """1, 2, 3 … within the topic where the broker keeps its history, else 0."""
        return self._raw[3]  # type: ignore[no-any-return]

    @property
    def time(self) -> int:
        """When the broker took it in: microseconds since 1970."""
        return self._raw[4]  # type: ignore[no-any-return]

    @property
    def replayed(self) -> bool:
        """Whether it came before the end of the subscription's snapshot and replay."""
        return bool(self._raw[1] == REPLAYED)

    @property
    def retained(self) -> bool:
        """Whether it is a last value, published before there was a subscription."""
        return self._meta().get("retained") is True

    @property
    def redelivered(self) -> bool:
        """Whether another member of the queue group was given it before, and did not finish it. It may have been
        handled."""
        return self._meta().get("redelivered") is True

    @property
    def headers(self) -> Mapping[str, str]:
        """What the publisher added."""
        return headers_of(self._meta()) or _NO_HEADERS

    @property
    def key(self) -> str | None:
        """What conflation tells it apart by within the topic, if the publisher gave it a key."""
        key = self._meta().get("key")
        return key if isinstance(key, str) else None

    @property
    def reply_to(self) -> str | None:
        """Where its publisher waits for an answer, if it does; see `Client.serve`."""
        topic = self._meta().get("reply_to")
        return topic if is_topic(topic) else None

    def _meta(self) -> Mapping[str, Any]:
        raw = self._raw
        return raw[7] if len(raw) > 7 and isinstance(raw[7], dict) else _NO_HEADERS

    def __repr__(self) -> str:
        start = self.payload[:40]
        return f"Message(topic={self.topic!r}, payload={start!r}, encoding={self.encoding}, offset={self.offset})"


class LostMessages:
    """Stands in the stream where messages are missing, in subscriptions with ``report_loss=True``."""

    __slots__ = ("count", "first", "last", "reason", "topic")

    def __init__(
        self, count: int | None, reason: str, topic: str | None, first: int | None = None, last: int | None = None
    ) -> None:
        """Made by subscriptions.

        Args:
            count: How many are missing; None if that is not known.
            reason: The broker's ("queue": its queue for us was full, "keys": that held more keys than it may when
                conflating, "evicted" …), "buffer" (the handler was too slow), "too_large" (larger than
                ``max_message_bytes``), "reconnect" (the connection was away) or
                "slow_consumer" (the broker had ended the subscription for its slowness, and it came back).
            topic: Of which topic; None: of any.
            first: The offset of the first that is missing, where the topic keeps history; else None.
            last: The offset of the last one.
        """
        self.count = count
        self.reason = reason
        self.topic = topic
        self.first = first
        self.last = last

    def __repr__(self) -> str:
        offsets = "" if self.first is None else f", first={self.first}, last={self.last}"
        return f"LostMessages(count={self.count}, reason={self.reason!r}, topic={self.topic!r}{offsets})"


class Stale:
    """Stands in the stream of a subscription with ``heartbeat_s`` where nothing has come for that long."""

    __slots__ = ("connected", "offset", "pattern", "silent_s", "topic")

    def __init__(self, topic: str | None, pattern: str, silent_s: float, offset: int, *, connected: bool) -> None:
        """Made by subscriptions.

        Args:
            topic: Which topic is silent; None: any that matches (the connection is away, or very many are silent).
            pattern: The subscription's.
            silent_s: For how long, in seconds; at least since the subscription began.
            offset: Of the last message of the topic, where it keeps history; else 0.
            connected: Whether the broker said so: then nothing was published. Else nothing is known, because it is the
                connection that is silent.
        """
        self.topic = topic
        self.pattern = pattern
        self.silent_s = silent_s
        self.offset = offset
        self.connected = connected

    def __repr__(self) -> str:
        return (
            f"Stale(topic={self.topic!r}, pattern={self.pattern!r}, silent_s={self.silent_s:.3f},"
            f" offset={self.offset}, connected={self.connected})"
        )


Mark: TypeAlias = LostMessages | Stale
"""What stands in a stream among messages, and is none."""
