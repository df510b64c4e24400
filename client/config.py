"""All settings of a client in one frozen object, units in the names."""

from __future__ import annotations

import random
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias, TypedDict

import trio
from attrs import Attribute, field, frozen, validators

from .tokens import TokenSource, check_token

OnOutage: TypeAlias = Literal["wait", "raise"]
OnFull: TypeAlias = Literal["disconnect", "drop_oldest", "drop_newest", "conflate"]
OnSlow: TypeAlias = Literal["disconnect", "unsubscribe", "drop_oldest", "drop_newest", "conflate"]
OnSlowReconnect: TypeAlias = Literal["raise", "conflate", "resume"]
OnStale: TypeAlias = Literal["yield", "raise"]
OpenStream: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]

_positive: Any = validators.gt(0)


def _token(_instance: object, _attribute: Attribute[Any], value: object) -> None:
    if value is not None and not callable(value):
        check_token(value)


@frozen(kw_only=True)
class Options:
    """How a client behaves. `connect` takes each of these by its name."""

    name: str | None = None
    """Shown in the broker's statistics and logs."""

    token: str | TokenSource | None = field(default=None, repr=False, validator=_token)
    """Who we are, sent as ``Authorization: Bearer …``; or a function, async or not, that gives a token which is good
    now: it is called for each connection, and before the token expires, to go on without a new connection."""

    ssl_context: ssl.SSLContext | None = None
    """For ``wss://``. None: the system's certificate authorities."""

    open_stream: OpenStream | None = None
    """Opens the byte stream instead of TCP or TLS to the URL's host, for example `Broker.open_stream`."""

    connect_timeout_s: float = field(default=10.0, validator=_positive)
    """For all of it: name look-up, TCP, TLS, handshake, WELCOME. Over a bad mobile network each takes a second or
    two."""

    close_timeout_s: float = field(default=2.0, validator=_positive)
    """For sending what is left and for the closing handshake each; after that the connection is cut."""

    ping_interval_s: float = field(default=20.0, validator=_positive)
    """Silence from the broker after which it is pinged. The broker pings every 25 s, so this is for brokers that do
    not."""

    ping_timeout_s: float = field(default=10.0, validator=_positive)
    """Silence after a ping of ours after which the connection counts as lost."""

    reconnect: bool = True
    """Whether a lost connection is made anew."""

    reconnect_base_s: float = field(default=0.25, validator=_positive)
    """The first wait is anything up to this; each further one up to twice as much as the one before."""

    reconnect_most_s: float = field(default=5.0, validator=_positive)
    """No wait is longer, unless the broker asks for it: however long it was away, all clients are back some six seconds
    after it is."""

    stable_after_s: float = field(default=10.0, validator=_positive)
    """A connection that lived this long was a good one: the next wait is a first one again."""

    on_outage: OnOutage = field(default="wait", validator=validators.in_(("wait", "raise")))
    """What publishes do while there is no connection: wait in the bounded buffer, or raise `ConnectionLost`."""

    outgoing_messages: int = field(default=65_536, validator=_positive)
    """Published messages that may wait to be sent. 65,536 small ones are some 15 MiB of Python objects."""

    outgoing_bytes: int = field(default=16 * 1024 * 1024, validator=_positive)
    """Bytes of them. A single larger message is taken when nothing else waits."""

    max_message_bytes: int = field(default=16 * 1024 * 1024, validator=_positive)
    """The largest WebSocket message taken from the broker: bounds what a broken one can make us keep. Brokers send 64
    KiB
    at most, or one envelope, which is as large as the broker's own ``max_message`` (1 MiB by default) allows."""

    draw: Callable[[], float] = field(default=random.random, repr=False)
    """Uniform in [0, 1): the jitter. Replaced in tests."""


class Settings(TypedDict, total=False):
    """The fields of `Options`, for the types of `connect`'s keyword arguments."""

    name: str | None
    token: str | TokenSource | None
    ssl_context: ssl.SSLContext | None
    open_stream: OpenStream | None
    connect_timeout_s: float
    close_timeout_s: float
    ping_interval_s: float
    ping_timeout_s: float
    reconnect: bool
    reconnect_base_s: float
    reconnect_most_s: float
    stable_after_s: float
    on_outage: OnOutage
    outgoing_messages: int
    outgoing_bytes: int
    max_message_bytes: int
    draw: Callable[[], float]
