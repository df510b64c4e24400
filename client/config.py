"""All settings of a client in one frozen object, units in the names."""

from __future__ import annotations

import difflib
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Self, TypeAlias, TypedDict, get_args

import trio
from attrs import Attribute, field, frozen

from fanwire.protocol import Replay
from fanwire.protocol.codes import MAX_BATCH

from .checks import check_count, check_flag, check_seconds, check_text, check_word

OnOutage: TypeAlias = Literal["wait", "raise"]
OnFull: TypeAlias = Literal["disconnect", "drop_oldest", "drop_newest", "conflate"]
OnSlow: TypeAlias = Literal["disconnect", "unsubscribe", "drop_oldest", "drop_newest", "conflate"]
OnSlowReconnect: TypeAlias = Literal["raise", "conflate", "resume"]
OnStale: TypeAlias = Literal["yield", "raise"]
OpenStream: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]
TokenSource: TypeAlias = Callable[[], str | Awaitable[str]]
"""Gives a token that is good now."""


def check_token(token: object) -> str:
    """Return a token as it is, if it can be one: it goes into an HTTP header.

    Raises:
        ValueError: It is no text, or has other characters than visible ASCII. Does not say what it is.
    """
    if not isinstance(token, str) or not token or not token.isascii() or any(c <= " " or c == "\x7f" for c in token):
        raise ValueError("a token is a text of visible ASCII characters without spaces")
    return token


def _seconds(_instance: object, attribute: Attribute[Any], value: object) -> None:
    check_seconds(attribute.name, value)


def _seconds_or_endless(_instance: object, attribute: Attribute[Any], value: object) -> None:
    check_seconds(attribute.name, value, endless=True)


def count(_instance: object, attribute: Attribute[Any], value: object) -> None:
    """A validator in attrs' sense: see `check_count`."""
    check_count(attribute.name, value)


def flag(_instance: object, attribute: Attribute[Any], value: object) -> None:
    """A validator in attrs' sense: see `check_flag`."""
    check_flag(attribute.name, value)


def _outage(_instance: object, attribute: Attribute[Any], value: object) -> None:
    check_word(attribute.name, value, get_args(OnOutage))


def _text_or_none(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        check_text(attribute.name, value)


def _function(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if not callable(value):
        raise TypeError(f"{attribute.name} is {value!r:.60}; it must be a function")


def _function_or_none(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        _function(instance, attribute, value)


def _context_or_none(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, ssl.SSLContext):
        raise TypeError(f"{attribute.name} is {value!r:.60}; it must be an ssl.SSLContext")


def _token(_instance: object, _attribute: Attribute[Any], value: object) -> None:
    if value is not None and not callable(value):
        check_token(value)


@frozen(kw_only=True)
class Options:
    """How a client behaves. `connect` takes each of these by its name."""

    name: str | None = field(default=None, validator=_text_or_none)
    """Shown in the broker's statistics and logs."""

    token: str | TokenSource | None = field(default=None, repr=False, validator=_token)
    """Who we are, sent as ``Authorization: Bearer …``; or a function, async or not, that gives a token which is good
    now: it is called for each connection, and before the token expires, to go on without a new connection."""

    ssl_context: ssl.SSLContext | None = field(default=None, validator=_context_or_none)
    """For ``wss://``. None: the system's certificate authorities."""

    open_stream: OpenStream | None = field(default=None, validator=_function_or_none)
    """Opens the byte stream instead of TCP or TLS to the URL's host, for example `Broker.open_stream`."""

    connect_timeout_s: float = field(default=10.0, validator=_seconds_or_endless)
    """For all of it: name look-up, TCP, TLS, handshake, WELCOME. Over a bad mobile network each takes a second or
    two."""

    close_timeout_s: float = field(default=2.0, validator=_seconds)
    """For sending what is left and for the closing handshake each; after that the connection is cut."""

    ping_interval_s: float = field(default=20.0, validator=_seconds_or_endless)
    """Silence from the broker after which it is pinged. The broker pings every 25 s, so this is for brokers that do
    not."""

    ping_timeout_s: float = field(default=10.0, validator=_seconds_or_endless)
    """Silence after a ping of ours after which the connection counts as lost."""

    reconnect: bool = field(default=True, validator=flag)
    """Whether a lost connection is made anew."""

    reconnect_base_s: float = field(default=0.25, validator=_seconds)
    """The first wait is anything up to this; each further one up to twice as much as the one before."""

    reconnect_most_s: float = field(default=5.0, validator=_seconds)
    """No wait is longer, unless the broker asks for it: however long it was away, all clients are back some six seconds
    after it is."""

    stable_after_s: float = field(default=10.0, validator=_seconds_or_endless)
    """A connection that lived this long was a good one: the next wait is a first one again."""

    on_outage: OnOutage = field(default="wait", validator=_outage)
    """What publishes do while there is no connection: wait in the bounded buffer, or raise `ConnectionLost`."""

    outgoing_messages: int = field(default=65_536, validator=count)
    """Published messages that may wait to be sent. 65,536 small ones are some 15 MiB of Python objects."""

    outgoing_bytes: int = field(default=16 * 1024 * 1024, validator=count)
    """Bytes of them. A single larger message is taken when nothing else waits."""

    max_message_bytes: int = field(default=16 * 1024 * 1024, validator=count)
    """The largest message taken from the broker, in bytes: bounds what a broken one can make us keep. A larger one is
    passed over, and raises `MessageTooLarge` in its subscription. Brokers send messages as large as their own
    ``max_message`` (1 MiB by default) allows. Smaller ones travel together, up to 64 KiB, which are always taken."""

    draw: Callable[[], float] = field(default=random.random, repr=False, validator=_function)
    """Uniform in [0, 1): the jitter. Replaced in tests."""

    @property
    def most_taken(self) -> int:
        """Bytes that a WebSocket message from the broker may have."""
        return max(self.max_message_bytes, MAX_BATCH)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """The options with these settings.

        Raises:
            ValueError: One is wrong.
            TypeError: One has the wrong type, or there is none of that name.
        """
        for name in settings:
            if name not in Settings.__annotations__:
                near = difflib.get_close_matches(name, Settings.__annotations__, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(Settings.__annotations__)}"
                raise TypeError(f"fanwire.connect has no setting {name!r}; {hint}")
        return cls(**settings)


class SubscriptionSettings(TypedDict, total=False):
    """The keyword arguments of `Client.subscribe`, for the types of those who pass them on."""

    queue: int | None
    on_slow: OnSlow
    max_rate: float | None
    group: str | None
    echo: bool
    snapshot: bool
    replay: Replay | Mapping[str, Any] | None
    recover: bool
    on_slow_reconnect: OnSlowReconnect
    buffer: int
    buffer_bytes: int
    on_full: OnFull
    report_loss: bool
    heartbeat_s: float | None
    on_stale: OnStale


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
