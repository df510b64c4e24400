"""Envelopes to bytes and back (protocol reference, Transport and Envelopes).

What comes from a peer is read in two steps, so that each kind of fault gets its own answer: `unpack` (in `unpacking`)
takes bounded msgpack values out of the bytes, or nobody can read on (`Malformed`); a table of shapes then makes
envelopes of them, or only that one envelope is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Final, TypeVar

import attrs

from .codes import MAX_ELEMENTS, MAX_MAP, MAX_NUMBER, EnvelopeType
from .envelopes import (
    Backlog,
    BrokerEnvelope,
    ClientEnvelope,
    Error,
    Fetch,
    Goodbye,
    Hello,
    Lagging,
    Lost,
    Message,
    Ok,
    Ping,
    Presence,
    PresenceEvent,
    Publish,
    Quiet,
    SnapshotEnd,
    Subscribe,
    Unsubscribe,
    Welcome,
)
from .errors import LocalProtocolError, RemoteProtocolError
from .fields import shown
from .options import given, known
from .packing import pack_elements
from .unpacking import Oversized, unpack


@attrs.frozen
class Rejected:
    """A request that cannot be understood; the connection lives on, and ``to_error()`` is the answer."""

    id: int
    """The request's, as far as it can be read; else 0."""
    code: str
    """One of `ERROR_CODES`: bad_envelope, unknown_type, bad_topic, bad_pattern, bad_option."""
    message: str
    detail: Mapping[str, Any] = attrs.field(factory=dict)
    """What it was about: ``about`` if the id is 0, ``option`` for bad_option."""

    def to_error(self) -> Error:
        """The ERROR to answer with."""
        return Error(self.id, self.code, self.message, self.detail)


@attrs.frozen
class _Shape:
    """How one envelope lies in its array, after the type code."""

    kind: EnvelopeType
    least: int  # elements that must be there; trailing ones after them are left out when empty
    most: int  # those that version 1 knows
    read: Callable[[Any], tuple[Any, ...]]  # the elements of an envelope
    build: Callable[..., Any]  # an envelope of the elements


_Envelope = TypeVar("_Envelope", bound=attrs.AttrsInstance)


def _plain(cls: type[_Envelope], **maps: Callable[[Any], Any]) -> _Shape:
    """The shape of a class whose fields are the elements. ``maps``: how to get those that are maps on the wire."""
    fields = attrs.fields(cls)
    getters = [maps.get(field.name, attrgetter(field.name)) for field in fields]
    names = [field.name for field in fields]
    read = attrgetter(*names) if not maps and len(names) > 1 else lambda envelope: tuple(g(envelope) for g in getters)
    least = sum(field.default is attrs.NOTHING for field in fields)
    return _Shape(cls.kind, least, len(fields), read, cls)  # type: ignore[attr-defined]


_HELLO: Final = ("token", "name", "agent", "client", "max_message")
_PRESENCE: Final = ("after",)
_FETCH: Final = ("offset", "since", "last", "limit")


def _build_hello(id: int, options: object) -> Hello:  # noqa: A002
    return Hello(id, **known(options, _HELLO, "HELLO"))


def _build_presence(id: int, pattern: str, options: object = None) -> Presence:  # noqa: A002
    return Presence(id, pattern, **known({} if options is None else options, _PRESENCE, "PRESENCE"))


def _build_fetch(id: int, topic: str, options: object) -> Fetch:  # noqa: A002
    return Fetch(id, topic, **known(options, _FETCH, "FETCH"))


_CLIENT_SHAPES: Final = (
    _Shape(EnvelopeType.HELLO, 2, 2, lambda hello: (hello.id, given(hello, _HELLO)), _build_hello),
    _plain(Subscribe, options=lambda subscribe: subscribe.options.to_map()),
    _plain(Unsubscribe),
    _plain(Publish, options=lambda publish: publish.options.to_map()),
    _Shape(EnvelopeType.PRESENCE, 2, 3, lambda ask: (ask.id, ask.pattern, given(ask, _PRESENCE)), _build_presence),
    _Shape(EnvelopeType.FETCH, 3, 3, lambda fetch: (fetch.id, fetch.topic, given(fetch, _FETCH)), _build_fetch),
    _plain(Ping),
    _plain(Backlog),
)
_BROKER_SHAPES: Final = (
    _plain(Welcome),
    attrs.evolve(_plain(Ok), least=2),
    _plain(Error),
    _plain(Message),
    _plain(Lost),
    _plain(PresenceEvent),
    _plain(Goodbye),
    _plain(Lagging),
    _plain(Quiet),
    _plain(SnapshotEnd),
)
_FROM_CLIENT: Final = {int(shape.kind): shape for shape in _CLIENT_SHAPES}
_FROM_BROKER: Final = {int(shape.kind): shape for shape in _BROKER_SHAPES}
_SHAPES: Final = {**_FROM_CLIENT, **_FROM_BROKER}


def encode(envelope: ClientEnvelope | BrokerEnvelope) -> bytes:
    """The one canonical form: smallest msgpack, trailing empty elements left out, option keys in documented order.

    Raises:
        LocalProtocolError: A map in it holds what msgpack cannot say.
    """
    shape = _SHAPES[envelope.kind]
    elements = [int(shape.kind), *shape.read(envelope)]
    while len(elements) > shape.least + 1 and not elements[-1]:
        elements.pop()
    return pack_elements(elements)


def decode_from_client(data: bytes, start: int = 0) -> Iterator[ClientEnvelope | Rejected]:
    """The envelopes of one message of a client, in their order; a request that is wrong comes as `Rejected`.

    Args:
        data: One whole WebSocket message.
        start: Where its first envelope to be read begins.

    Raises:
        Malformed: After everything that stands before the fault. Answer, close with 1007, and read no more.
    """
    for value in unpack(data, start, MAX_ELEMENTS):
        if isinstance(value, Oversized):
            yield _rejected(value.head, LocalProtocolError(_OVERSIZED))
        elif type(value) is not list or not value or type(value[0]) is not int:
            yield _rejected(value, LocalProtocolError(_NO_ENVELOPE + shown(value)))
        elif shape := _FROM_CLIENT.get(value[0]):
            try:
                yield _build(shape, value)
            except LocalProtocolError as error:
                yield _rejected(value, error)
        else:
            yield _rejected(value, LocalProtocolError(_unknown(value[0]), code="unknown_type"))


def decode_from_broker(data: bytes, start: int = 0) -> Iterator[BrokerEnvelope]:
    """The envelopes of one message of a broker, in their order, without those of types that version 1 does not know.

    Raises:
        Malformed: Bytes that are no envelopes; after everything that stands before them.
        RemoteProtocolError: An envelope of the wrong shape (``bad_envelope``); likewise.
    """
    for value in unpack(data, start):
        if isinstance(value, Oversized):
            raise RemoteProtocolError(_OVERSIZED)
        if type(value) is not list or not value or type(value[0]) is not int:
            raise RemoteProtocolError(_NO_ENVELOPE + shown(value))
        if shape := _FROM_BROKER.get(value[0]):
            try:
                yield _build(shape, value)
            except LocalProtocolError as error:
                raise RemoteProtocolError(str(error)) from None


_OVERSIZED: Final = (
    f"it has more than {MAX_ELEMENTS:,} values, or a map of more than {MAX_MAP:,} entries; send fewer at a time"
)
_NO_ENVELOPE: Final = "an envelope is an array that begins with a type code, not "


def _build(shape: _Shape, value: list[Any]) -> Any:
    elements = value[1 : shape.most + 1]
    if len(elements) < shape.least:
        raise LocalProtocolError(f"{shape.kind.name} needs {shape.least} elements after its type, has {len(elements)}")
    return shape.build(*elements)


def _unknown(code: int) -> str:
    if shape := _FROM_BROKER.get(code):
        return f"{shape.kind.name} ({code}) is for the broker to say"
    return f"there is no envelope of type {code}"


def _rejected(value: object, error: LocalProtocolError) -> Rejected:
    """The refusal of a value, with whatever can be read of it."""
    request = _request_id(value)
    detail: dict[str, Any] = {} if request else {"about": _about(value)}
    if error.option is not None:
        detail["option"] = error.option
    return Rejected(request, error.code, str(error), detail)


def _request_id(value: object) -> int:
    """Every request has its id in second place, those of later versions too; what a broker says has none there."""
    if type(value) is not list or len(value) < 2 or type(value[0]) is not int or value[0] in _FROM_BROKER:
        return 0
    request = value[1]
    return request if type(request) is int and 0 < request <= MAX_NUMBER else 0


def _about(value: object) -> str:
    """What an answer without an id names instead."""
    if type(value) is not list or not value or type(value[0]) is not int:
        return "no envelope"
    shape = _SHAPES.get(value[0])
    return shape.kind.name if shape else f"type {value[0]}"
