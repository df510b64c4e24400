"""What a subscriber gets. Decoded as late as possible: many are only counted, forwarded or looked at by topic."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from fanwire.protocol import unpack_data
from fanwire.protocol.errors import ProtocolError

from .errors import Undecodable

# A MESSAGE envelope as msgpack gives it: [19, route, topic, offset, time, payload, encoding?, meta?]
# (docs/protocol.md).
Raw: TypeAlias = tuple[Any, ...]

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
    def headers(self) -> Mapping[str, str]:
        """What the publisher added."""
        return self._meta().get("headers") or _NO_HEADERS

    def _meta(self) -> Mapping[str, Any]:
        raw = self._raw
        return raw[7] if len(raw) > 7 and isinstance(raw[7], dict) else _NO_HEADERS

    def __repr__(self) -> str:
        start = self.payload[:40]
        return f"Message(topic={self.topic!r}, payload={start!r}, encoding={self.encoding}, offset={self.offset})"


class LostMessages:
    """Stands in the stream where messages are missing, in subscriptions with ``report_loss=True``."""

    __slots__ = ("count", "reason", "topic")

    def __init__(self, count: int | None, reason: str, topic: str | None) -> None:
        """Made by subscriptions.

        Args:
            count: How many are missing; None if that is not known.
            reason: The broker's ("queue", "evicted" …), "buffer" (this process was too slow) or "reconnect".
            topic: Of which topic; None: of any.
        """
        self.count = count
        self.reason = reason
        self.topic = topic

    def __repr__(self) -> str:
        return f"LostMessages(count={self.count}, reason={self.reason!r}, topic={self.topic!r})"


_MARK = -1


def mark_of(lost: LostMessages) -> Raw:
    """``lost`` in the shape of a message, to wait in a buffer among messages."""
    return (_MARK, 0, lost.topic, 0, 0, b"", lost)


def merged(mark: Raw, later: Raw) -> Raw | None:
    """One mark for two adjoining losses of the same kind, else None."""
    first, second = lost_of(mark), lost_of(later)
    if first is None or second is None or (first.reason, first.topic) != (second.reason, second.topic):
        return None
    if first.count is None or second.count is None:
        return None
    return mark_of(LostMessages(first.count + second.count, first.reason, first.topic))


def lost_here(mark: Raw) -> bool:
    """Whether it marks what this process was too slow for, not what the broker has lost."""
    lost = lost_of(mark)
    return lost is not None and lost.reason == "buffer"


def is_mark(raw: Raw) -> bool:
    """Whether it is from `mark_of`."""
    return bool(raw[0] == _MARK)


def lost_of(raw: Raw) -> LostMessages | None:
    """The opposite of `mark_of`; None for a message."""
    return raw[6] if raw[0] == _MARK else None
