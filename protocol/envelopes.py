"""Everything that the two sides say to each other, one frozen class each (protocol reference, Envelopes).

The fields stand in the order of the wire; those with a default may be left out there. A constructor refuses what must
not be sent, with LocalProtocolError: `codec` turns that into the sender's fault when it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, TypeAlias

import attrs

from .codes import PRESENCE_CHANGES, Encoding, EnvelopeType
from .errors import LocalProtocolError
from .fields import (
    OPTION,
    Key,
    Validator,
    bad_option,
    encoding,
    flag,
    mapping,
    moment,
    one_of,
    or_none,
    payload,
    positive,
    positive_number,
    request_id,
    short_word,
    shown,
    text,
    text_map,
    to_encoding,
    to_flag,
    to_map,
    to_number,
    unsigned,
)
from .options import PLAIN_PUBLISH, PLAIN_SUBSCRIBE, PublishOptions, SubscribeOptions, given
from .topics import check_pattern, check_topic, is_wildcard


def _topic(instance: Any, field: attrs.Attribute[str], value: Any) -> None:
    text(instance, field, value)
    check_topic(value)


def _pattern(instance: Any, field: attrs.Attribute[str], value: Any) -> None:
    text(instance, field, value)
    check_pattern(value)


def _to_subscribe_options(value: Any) -> SubscribeOptions:
    if value is None:
        return PLAIN_SUBSCRIBE
    return value if isinstance(value, SubscribeOptions) else SubscribeOptions.from_map(value)


def _to_publish_options(value: Any) -> PublishOptions:
    if value is None:
        return PLAIN_PUBLISH
    return value if isinstance(value, PublishOptions) else PublishOptions.from_map(value)


# ---------------------------------------------------------------- client to broker


@attrs.frozen
class Hello:
    """Who I am. The first envelope, if it comes at all; later, to renew the token."""

    kind: ClassVar = EnvelopeType.HELLO
    id: int = attrs.field(validator=unsigned)
    token: str | None = attrs.field(default=None, validator=or_none(text), metadata=OPTION, repr=False)
    name: str | None = attrs.field(default=None, validator=or_none(text), metadata=OPTION)
    agent: str | None = attrs.field(default=None, validator=or_none(text), metadata=OPTION)
    client: str | None = attrs.field(default=None, validator=or_none(short_word), metadata=OPTION)
    max_message: int | None = attrs.field(default=None, validator=or_none(positive), metadata=OPTION)


@attrs.frozen
class Subscribe:
    """Send me what is published on the topics that match. OK carries the route."""

    kind: ClassVar = EnvelopeType.SUBSCRIBE
    id: int = attrs.field(validator=request_id)
    pattern: str = attrs.field(validator=_pattern)
    options: SubscribeOptions = attrs.field(default=PLAIN_SUBSCRIBE, converter=_to_subscribe_options)
    acknowledges: bool = attrs.field(default=False, converter=to_flag, validator=flag)
    """In a queue group: whether BACKLOG says what is finished."""

    def __attrs_post_init__(self) -> None:
        replay = self.options.replay
        if replay is not None and replay.offset is not None and is_wildcard(self.pattern):
            raise bad_option("replay", f"{self.pattern!r} has many topics: replay from offsets, not from one offset")


@attrs.frozen
class Unsubscribe:
    """Nothing more of that route."""

    kind: ClassVar = EnvelopeType.UNSUBSCRIBE
    id: int = attrs.field(validator=unsigned)
    route: int = attrs.field(validator=unsigned)


@attrs.frozen
class Publish:
    """A message for everyone who is subscribed to the topic."""

    kind: ClassVar = EnvelopeType.PUBLISH
    id: int = attrs.field(validator=unsigned)
    topic: str = attrs.field(validator=_topic)
    payload: bytes = attrs.field(validator=payload)
    encoding: Encoding = attrs.field(default=Encoding.RAW, converter=to_encoding, validator=encoding)
    options: PublishOptions = attrs.field(default=PLAIN_PUBLISH, converter=_to_publish_options)


@attrs.frozen
class Presence:
    """Who is subscribed? A page of them, from behind what ``next`` of the page before says."""

    kind: ClassVar = EnvelopeType.PRESENCE
    id: int = attrs.field(validator=request_id)
    pattern: str = attrs.field(validator=_pattern)
    after: int | None = attrs.field(default=None, validator=or_none(unsigned), metadata=OPTION)


@attrs.frozen
class Fetch:
    """A page of a topic's history, without subscribing: after ``offset``, from ``since`` on, or the ``last`` ones."""

    kind: ClassVar = EnvelopeType.FETCH
    id: int = attrs.field(validator=request_id)
    topic: str = attrs.field(validator=_topic)
    offset: int | None = attrs.field(default=None, validator=or_none(unsigned), metadata=OPTION)
    since: int | None = attrs.field(default=None, validator=or_none(moment), metadata=OPTION)
    last: int | None = attrs.field(default=None, validator=or_none(positive), metadata=OPTION)
    limit: int | None = attrs.field(default=None, validator=or_none(positive), metadata=OPTION)

    def __attrs_post_init__(self) -> None:
        ways = list(given(self, ("offset", "since", "last")))
        if len(ways) > 1:
            raise bad_option(ways[1], f"FETCH begins in one way: {ways[0]!r} or {ways[1]!r}, not both")


@attrs.frozen
class Ping:
    """Are you there? Answered with OK."""

    kind: ClassVar = EnvelopeType.PING
    id: int = attrs.field(validator=unsigned)


@attrs.frozen
class Backlog:
    """My own buffer of that route holds ``queued`` of at most ``limit`` messages."""

    kind: ClassVar = EnvelopeType.BACKLOG
    id: int = attrs.field(validator=unsigned)
    route: int = attrs.field(validator=unsigned)
    queued: int = attrs.field(validator=unsigned)
    limit: int = attrs.field(validator=unsigned)
    taken: int = attrs.field(default=0, converter=to_number, validator=unsigned)
    """Messages of the route that are finished, ever: of a member of a queue group that acknowledges."""


# ---------------------------------------------------------------- broker to client

_GREETING: Final[tuple[tuple[Key, Validator], ...]] = (
    (Key("session"), text),
    (Key("server"), text),
    (Key("version"), positive),
    (Key("max_message"), or_none(positive)),
    (Key("max_batch"), positive),
    (Key("ping_interval"), or_none(positive_number)),
)


def _greeting(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    mapping(instance, field, value)
    for key, validate in _GREETING:
        if key.name not in value:
            raise LocalProtocolError(f"WELCOME: {key.name} is missing")
        validate(instance, key, value[key.name])


@attrs.frozen
class Welcome:
    """The first envelope of every connection. A client ignores the keys of the greeting that it does not know."""

    kind: ClassVar = EnvelopeType.WELCOME
    greeting: Mapping[str, Any] = attrs.field(validator=_greeting)

    @property
    def session(self) -> str:
        """The broker's name for this connection."""
        return str(self.greeting["session"])

    @property
    def server(self) -> str:
        """What the broker is: "fanwire/0.1.0"."""
        return str(self.greeting["server"])

    @property
    def version(self) -> int:
        """The protocol's version."""
        return int(self.greeting["version"])

    @property
    def max_message(self) -> int | None:
        """Bytes that one WebSocket message to the broker may have; None: no limit."""
        value: int | None = self.greeting["max_message"]
        return value

    @property
    def max_batch(self) -> int:
        """Bytes of envelopes that one WebSocket message from the broker has, unless a single one is larger."""
        return int(self.greeting["max_batch"])

    @property
    def ping_interval(self) -> float | None:
        """Seconds between the broker's WebSocket pings; None: it does not ping."""
        value: float | None = self.greeting["ping_interval"]
        return value


@attrs.frozen
class Ok:
    """The request was done."""

    kind: ClassVar = EnvelopeType.OK
    id: int = attrs.field(validator=request_id)
    result: Mapping[str, Any] = attrs.field(factory=dict, validator=mapping)


@attrs.frozen
class Error:
    """The request was not done; with id 0, something else went wrong."""

    kind: ClassVar = EnvelopeType.ERROR
    id: int = attrs.field(validator=unsigned)
    code: str = attrs.field(validator=text)
    message: str = attrs.field(validator=text)
    detail: Mapping[str, Any] = attrs.field(factory=dict, converter=to_map, validator=mapping)


_META: Final[dict[str, tuple[Key, Validator]]] = {
    key.name: (key, validate)
    for key, validate in (
        (Key("headers"), text_map),
        (Key("key"), text),
        (Key("reply_to"), text),
        (Key("retained"), flag),
    )
}


def _meta(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if value == {} and type(value) is dict:  # nearly always
        return
    mapping(instance, field, value)
    for name, item in value.items():
        if known := _META.get(name):
            key, validate = known
            validate(instance, key, item)


@attrs.frozen
class Message:
    """What was published. Known keys of ``meta``: headers, key, reply_to, retained."""

    kind: ClassVar = EnvelopeType.MESSAGE
    route: int = attrs.field(validator=unsigned)
    topic: str | None = attrs.field(validator=or_none(text))
    offset: int = attrs.field(validator=unsigned)
    time: int = attrs.field(validator=unsigned)
    payload: bytes = attrs.field(validator=payload)
    encoding: Encoding = attrs.field(default=Encoding.RAW, converter=to_encoding, validator=encoding)
    meta: Mapping[str, Any] = attrs.field(factory=dict, converter=to_map, validator=_meta)


@attrs.frozen
class Lost:
    """This subscriber missed ``count`` messages (None: nobody knows how many)."""

    kind: ClassVar = EnvelopeType.LOST
    route: int = attrs.field(validator=unsigned)
    count: int | None = attrs.field(validator=or_none(positive))
    reason: str = attrs.field(validator=text)
    topic: str | None = attrs.field(validator=or_none(text))
    first: int | None = attrs.field(default=None, validator=or_none(positive))
    last: int | None = attrs.field(default=None, validator=or_none(positive))

    def __attrs_post_init__(self) -> None:
        if (self.first is None) != (self.last is None):
            raise LocalProtocolError("LOST: first and last come together or not at all")
        if self.first is not None and self.last is not None and self.first > self.last:
            raise LocalProtocolError(f"LOST: first is {shown(self.first)}, after last, which is {shown(self.last)}")


@attrs.frozen
class PresenceEvent:
    """A subscriber of ``topic``, its own pattern, came or went. ``client`` stays the same over its reconnects."""

    kind: ClassVar = EnvelopeType.PRESENCE_EVENT
    route: int = attrs.field(validator=unsigned)
    topic: str = attrs.field(validator=text)
    change: str = attrs.field(validator=one_of(PRESENCE_CHANGES))
    session: str = attrs.field(validator=text)
    name: str | None = attrs.field(validator=or_none(text))
    client: str = attrs.field(default="", validator=text)


@attrs.frozen
class Goodbye:
    """The last envelope before the broker closes. Come back after ``retry_after_ms`` milliseconds."""

    kind: ClassVar = EnvelopeType.GOODBYE
    code: str = attrs.field(validator=text)
    message: str = attrs.field(validator=text)
    retry_after_ms: int = attrs.field(validator=unsigned)
    detail: Mapping[str, Any] = attrs.field(factory=dict, converter=to_map, validator=mapping)


@attrs.frozen
class Lagging:
    """A warning before the limit: ``queued`` of at most ``limit`` messages wait, the oldest for ``oldest_ms``."""

    kind: ClassVar = EnvelopeType.LAGGING
    route: int = attrs.field(validator=unsigned)
    queued: int = attrs.field(validator=unsigned)
    limit: int = attrs.field(validator=unsigned)
    oldest_ms: int = attrs.field(validator=unsigned)


@attrs.frozen
class Quiet:
    """Nothing was published on the topic for ``silent_ms`` milliseconds; its head is ``offset``."""

    kind: ClassVar = EnvelopeType.QUIET
    route: int = attrs.field(validator=unsigned)
    topic: str = attrs.field(validator=text)
    silent_ms: int = attrs.field(validator=unsigned)
    offset: int = attrs.field(validator=unsigned)


@attrs.frozen
class SnapshotEnd:
    """All ``count`` messages of snapshot and replay have been sent; live follows."""

    kind: ClassVar = EnvelopeType.SNAPSHOT_END
    route: int = attrs.field(validator=unsigned)
    count: int = attrs.field(validator=unsigned)


ClientEnvelope: TypeAlias = Hello | Subscribe | Unsubscribe | Publish | Presence | Fetch | Ping | Backlog
"""What a client may say."""
BrokerEnvelope: TypeAlias = (
    Welcome | Ok | Error | Message | Lost | PresenceEvent | Goodbye | Lagging | Quiet | SnapshotEnd
)
"""What a broker may say."""
