"""Every number and name that stands for something on the wire, each in one table with one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final, TypeVar

import attrs

SUBPROTOCOL: Final = "fanwire.v1"
"""The WebSocket subprotocol: binary messages of one or more msgpack envelopes."""
VERSION: Final = 1
"""The protocol's version, as WELCOME tells it."""
REFUSAL_HEADER: Final = "Fanwire-Refusal"
"""The header of a refused handshake that says that the broker itself has answered, and not a proxy before it."""
DEFAULT_PORT: Final = 9473
"""WIRE on a telephone's keys."""
MAX_BATCH: Final = 65536
"""Bytes of envelopes in one WebSocket message to a client, unless a single envelope is larger.

It bounds what a foreign client must take at once, and how long control waits behind data.
"""
MAX_MAP: Final = 16_384
"""Entries of a map in an envelope, such as offsets and headers."""

MAX_NESTING: Final = 16
"""Arrays and maps within each other that one envelope may have, its own array counted.

The deepest that version 1 needs is 4 (SUBSCRIBE, options, ``replay``, ``offsets``).
"""
MAX_ELEMENTS: Final = 80_000
"""Values that one envelope of a client may consist of, at all levels; an entry of a map is two.

What nobody needs costs most: a megabyte of empty maps takes half a second to read. A SUBSCRIBE with the offsets of
10,000 topics has 20,000.
"""
MAX_NUMBER: Final = 2**64 - 1
"""The largest unsigned integer that msgpack can say; so the bound of every id, route, offset and count."""


class EnvelopeType(IntEnum):
    """An envelope's first element. Below 16: client to broker; from 16 on: broker to client."""

    HELLO = 1
    SUBSCRIBE = 2
    UNSUBSCRIBE = 3
    PUBLISH = 4
    PRESENCE = 5
    FETCH = 6
    PING = 7
    BACKLOG = 8
    WELCOME = 16
    OK = 17
    ERROR = 18
    MESSAGE = 19
    LOST = 20
    PRESENCE_EVENT = 21
    GOODBYE = 22
    LAGGING = 23
    QUIET = 24
    SNAPSHOT_END = 25


class Encoding(IntEnum):
    """What a payload's bytes are. The broker never looks; publisher and subscribers do."""

    RAW = 0
    MSGPACK = 1
    TEXT = 2
    JSON = 3


ON_SLOW: Final = ("disconnect", "unsubscribe", "drop_oldest", "drop_newest", "conflate")
"""What may become of a subscriber whose bounded queue is full; the first is the default."""
LOST_REASONS: Final = ("queue", "evicted", "keys", "backplane", "restart", "presence")
"""Why messages (the last one: PRESENCE_EVENTs) did not reach a subscriber. A later broker may know more of them."""
PRESENCE_CHANGES: Final = ("join", "leave")


@attrs.frozen
class ErrorCode:
    """One of the strings that ERROR and GOODBYE carry."""

    name: str
    meaning: str


@attrs.frozen
class CloseCode:
    """One of the numbers that a WebSocket close frame carries."""

    number: int
    name: str
    meaning: str
    reconnect: bool
    """May a client come back with what it came with? If not, it would be closed again for the same reason."""


_Row = TypeVar("_Row")
_Key = TypeVar("_Key")


def _table(rows: Iterable[tuple[_Key, _Row]]) -> Mapping[_Key, _Row]:
    return MappingProxyType(dict(rows))


ERROR_CODES: Final = _table(
    (name, ErrorCode(name, meaning))
    for name, meaning in (
        ("malformed", "Bytes that are no msgpack, are cut off, or break a decoding limit; the connection ends."),
        ("bad_envelope", "Well-formed msgpack of the wrong shape."),
        ("epoch_changed", "The broker's store began anew: offsets begin at 1 again."),
        ("bad_topic", "The name cannot be a topic."),
        ("bad_pattern", "The name cannot be a pattern."),
        ("bad_option", "An option is unknown, has a wrong value, or cannot be had."),
        ("unknown_type", "The envelope's type code is not known here, or not served yet."),
        ("unknown_route", "The connection is not subscribed to that route."),
        ("too_large", "The message is larger than the broker takes."),
        ("too_many", "A limit in number is reached: subscriptions, open requests, connections."),
        ("rate_limited", "More was asked for in a time than is allowed."),
        ("unauthenticated", "The broker must know first who you are."),
        ("forbidden", "You may not do that."),
        ("expired", "The token was good once."),
        ("no_responders", "Nobody is subscribed to the topic of a request that wants a reply."),
        ("conflict", "The topic's head is not the offset that `expect` names."),
        ("not_kept", "The topic has no history."),
        ("unavailable", "The store or the backplane is down; try again later."),
        ("slow_consumer", "The subscriber did not take its messages fast enough."),
        ("shutting_down", "The broker ends; come back after `retry_after_ms`."),
        ("internal", "A defect of the broker; its log has the rest."),
    )
)
"""All error codes of version 1, by name. A client must bear others: a later broker may know more."""

CLOSE_CODES: Final = _table(
    (number, CloseCode(number, name, meaning, reconnect))
    for number, name, meaning, reconnect in (
        (1000, "normal", "Both were done.", False),
        (1001, "going_away", "The broker drains: another one, or the next one, takes over.", True),
        (1002, "protocol_error", "A frame broke the rules of WebSocket.", False),
        (1003, "unsupported_data", "Text where binary messages are spoken, or the contrary.", False),
        (1006, "abnormal", "The connection ended without a close frame; never sent.", True),
        (1007, "invalid_data", "A message that is no msgpack, or text that is no UTF-8.", False),
        (1008, "policy_violation", "A message was begun and not finished within its deadline.", True),
        (1009, "message_too_big", "A message larger than `max_message`.", False),
        (1011, "internal_error", "A defect of the broker.", True),
        (4001, "unauthenticated", "No token, a bad one, or one that has expired: get a new one first.", False),
        (4003, "forbidden", "The user may not connect.", False),
        (4008, "slow_consumer", "What waited for this client passed one of its bounds.", True),
        (4009, "rate_limited", "The client kept on asking for more than is allowed.", True),
        (4010, "idle", "No sign of life after a ping.", True),
        (4029, "too_many_connections", "The broker, or the user, has as many connections as allowed.", True),
    )
)
"""All close codes that Fanwire uses, by number."""


def may_reconnect(close_code: int | None) -> bool:
    """Whether a client that was closed with this code may try again with what it came with.

    Codes that are not in the table, and None (no close frame came), answer yes: a network that breaks looks like that.
    """
    row = CLOSE_CODES.get(close_code) if close_code is not None else None
    return row is None or row.reconnect
