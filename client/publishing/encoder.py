"""Encoding publishes: `[4, id, topic, payload, encoding?, options?]`, most of which is the same every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgpack

from fanwire.protocol import LocalProtocolError, PublishOptions, check_topic, pack
from fanwire.protocol.fields import bad_option, lone_surrogate, shown
from fanwire.protocol.packing import LEAST_UNREADABLE, check_maps
from fanwire.protocol.reserved import is_inbox

from ..checks import check_flag
from ..exchange.outgoing import Outgoing

# Topics whose encoded form is kept. A program that makes up more names than this pays some 2 us for each.
KEPT_TOPICS = 4096

_NO_ID = b"\x00"
_FOUR, _FIVE, _SIX = b"\x94\x04", b"\x95\x04", b"\x96\x04"  # arrays of 4, 5, 6 elements, the first of which is PUBLISH
_MSGPACK, _TEXT = b"\x01", b"\x02"
_BIN8 = tuple(bytes((0xC4, size)) for size in range(256))


PLAIN = PublishOptions()


class Publisher:
    """Turns topic and data into bytes and hands them to the outgoing side."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self._topics: dict[str, tuple[bytes, bytes, bytes]] = {}
        self._pack: Callable[[object], bytes] = msgpack.Packer(autoreset=True).pack
        self._add = outgoing.add

    def publish_nowait(
        self,
        topic: str,
        data: object,
        raw: bool,
        headers: Mapping[str, str] | None,
        key: str | None = None,
        retain: bool | None = None,
    ) -> None:
        """See `Client.publish_nowait`."""
        try:
            found = self._topics.get(topic) or self._encode_topic(topic)
        except TypeError:
            raise _no_topic(topic) from None
        if headers or raw or key is not None or retain is not None or self._outgoing.limit < 1024:
            self._add(self.encode(_NO_ID, topic, data, raw, options_of(headers, key, retain)))
            return
        try:
            packed = self._pack(data)
        except (TypeError, ValueError, OverflowError):
            packed = pack(data)  # knows what to say about it
        size = len(packed)
        if size < 256:
            self._add(b"".join((found[1], _BIN8[size], packed, _MSGPACK)))
        else:
            if size >= LEAST_UNREADABLE:
                check_maps(data, packed)
            self._add(self._checked(b"".join((found[1], self._pack(packed), _MSGPACK)), topic))

    def packed_number(self, number: int) -> bytes:
        """A request's number, as it stands in an envelope."""
        return self._pack(number)

    def encode(
        self,
        number: bytes,
        topic: str,
        data: object,
        raw: bool,
        given: PublishOptions = PLAIN,
    ) -> bytes:
        """The whole envelope, with request ``number`` (packed)."""
        found = self._found(topic)
        payload, encoding = self._payload(data, raw)
        if given is not PLAIN:
            options = self._pack(given.to_map())
            parts: tuple[bytes, ...] = (_SIX, number, found[2], payload, encoding or b"\x00", options)
        elif encoding:
            parts = (_FIVE, number, found[2], payload, encoding)
        elif number is _NO_ID:
            parts = (found[0], payload)
        else:
            parts = (_FOUR, number, found[2], payload)
        return self._checked(b"".join(parts), topic)

    def encode_request(
        self, topic: str, data: object, raw: bool, headers: Mapping[str, str] | None, reply_to: str
    ) -> bytes:
        """The whole envelope of a publish that wants replies (on a topic that the caller answers for)."""
        found = self._found(topic)
        payload, encoding = self._payload(data, raw)
        given = options_of(headers, None, None)
        options = {} if given is PLAIN else given.to_map()
        options["reply_to"] = reply_to
        parts = (_SIX, _NO_ID, found[2], payload, encoding or b"\x00", self._pack(options))
        return self._checked(b"".join(parts), topic)

    def encode_reply(self, topic: str, data: object, raw: bool, headers: Mapping[str, str] | None) -> bytes:
        """The whole envelope of a publish that wants no answer."""
        return self.encode(_NO_ID, topic, data, raw, options_of(headers, None, None))

    def _payload(self, data: Any, raw: bool) -> tuple[bytes, bytes]:
        if raw is False:
            return self._pack(pack(data)), _MSGPACK
        check_flag("raw", raw)
        if isinstance(data, str):
            try:
                return self._pack(data.encode()), _TEXT
            except UnicodeEncodeError as error:
                raise LocalProtocolError(f"data: {lone_surrogate(error)}", code="bad_option") from None
        if isinstance(data, (bytes, bytearray, memoryview)):
            return self._pack(bytes(data)), b""
        raise LocalProtocolError(
            f"raw=True sends bytes or str as they are, not {type(data).__name__}; leave it out and the data is packed",
            code="bad_option",
        )

    def _found(self, topic: str) -> tuple[bytes, bytes, bytes]:
        try:
            return self._topics.get(topic) or self._encode_topic(topic)
        except TypeError:
            raise _no_topic(topic) from None

    def _encode_topic(self, topic: str) -> tuple[bytes, bytes, bytes]:
        """Three beginnings of an envelope: raw without id, msgpack without id, and the topic alone."""
        packed = self._pack(check_topic(topic))
        found = (_FOUR + _NO_ID + packed, _FIVE + _NO_ID + packed, packed)
        if is_inbox(topic):  # every request has one of its own
            return found
        if len(self._topics) >= KEPT_TOPICS:
            del self._topics[next(iter(self._topics))]
        self._topics[topic] = found
        return found

    def _checked(self, envelope: bytes, topic: str) -> bytes:
        limit = self._outgoing.limit
        if len(envelope) > limit:
            raise LocalProtocolError(
                f"a message of {len(envelope)} bytes on {topic!r}; the broker takes {limit} at most", code="too_large"
            )
        return envelope


def _no_topic(topic: object) -> TypeError:
    return TypeError(f"topic is {shown(topic)}; it must be text")


def options_of(
    headers: Mapping[str, str] | None,
    key: str | None,
    retain: bool | None,
    msg_id: str | None = None,
    expect: int | None = None,
) -> PublishOptions:
    """What goes with a publish; `PLAIN` if that is nothing.

    Raises:
        LocalProtocolError: One is wrong.
    """
    if headers is not None and type(headers) is not dict:
        if not isinstance(headers, Mapping):
            raise bad_option("headers", f"option 'headers' is {shown(headers)}; it must be a map of text to text")
        headers = dict(headers)
    if not headers and key is None and retain is None and msg_id is None and expect is None:
        return PLAIN
    return PublishOptions(headers=headers or {}, key=key, retain=retain, msg_id=msg_id, expect=expect)
