"""What a subscriber gets. Decoded as late as possible: many are only counted, forwarded or looked at by topic."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from fanwire.protocol import unpack_data
from fanwire.protocol.errors import ProtocolError
from fanwire.protocol.fields import is_topic

from .answer_fields import headers_of
from .errors import Undecodable

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
