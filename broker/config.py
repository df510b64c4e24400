"""Every limit and setting of a broker, in one frozen object that is passed whole.

Units stand in the names: ``_s`` seconds, ``_bytes``. Where a limit may be None, None means "no limit"; 0 is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from fanwire.protocol import DEFAULT_PORT

from .auth import Auth
from .rules import TopicRule

RESTART = {"restart": True}
"""Metadata of a field that cannot change while a broker runs."""

OF_PROGRAMS = {**RESTART, "of_programs": True}
"""And of one that makes sense only to who embeds a broker."""


def _rules(rules: Iterable[TopicRule]) -> tuple[TopicRule, ...]:
    return tuple(rules)  # `tuple` itself as a converter has no type that type checkers could read


def _positive(_instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and value <= 0:
        raise ValueError(f"{attribute.name} must be greater than 0, not {value!r} (None means: no limit)")


def _needed(instance: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is None:
        raise ValueError(f"{attribute.name} needs a value: without it memory would have no bound")
    _positive(instance, attribute, value)


def _not_negative(_instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if value < 0:
        raise ValueError(f"{attribute.name} must not be negative, but is {value!r}")


def _path(_instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    if not value.startswith("/"):
        raise ValueError(f"{attribute.name} must begin with '/', not {value!r}")


def _port(_instance: object, attribute: attrs.Attribute[Any], value: int) -> None:
    if not 0 <= value <= 65535:
        raise ValueError(f"{attribute.name} must be between 0 (any free one) and 65535, not {value!r}")


@attrs.frozen(kw_only=True)
class Config:
    """Settings of one `Broker`.

    The memory that subscribers can make the broker hold is bounded by
    ``max_connections × (max_pending_bytes + one sweep)``; see docs/architecture.md for the arithmetic.
    """

    listen: bool = attrs.field(default=True, metadata=OF_PROGRAMS)
    """Whether to open a port at all; without one the broker is reached by `Broker.open_stream`."""

    host: str = attrs.field(default="127.0.0.1", metadata=RESTART)
    """Address to listen on. Loopback by default: opening a broker to the network is a decision."""

    port: int = attrs.field(default=DEFAULT_PORT, validator=_port, metadata=RESTART)
    """TCP port; 0 takes any free one (`Broker.port` tells which)."""

    path: str = attrs.field(default="/", validator=_path, metadata=RESTART)
    """Request path of the WebSocket endpoint."""

    backlog: int = attrs.field(default=4096, validator=_needed, metadata=RESTART)
    """Connections that the kernel keeps until we accept them; 10,000 clients coming back at once need more than 128."""

    auth: Auth | None = None
    """Who may come in, and what they may do. None: everybody, and all but publishing on the broker's own topics."""

    max_connections: int | None = attrs.field(default=20_000, validator=_positive)
    """Clients at a time; one more is told `too_many` and closed with 4029."""

    max_subscriptions: int | None = attrs.field(default=1_000, validator=_positive)
    """Subscriptions of one connection; one more is answered `too_many`."""

    max_message_bytes: int = attrs.field(default=1024 * 1024, validator=_needed)
    """One WebSocket message from a client; a longer one is refused at its header, close 1009."""

    max_body_bytes: int = attrs.field(default=1024 * 1024, validator=_needed)
    """The body of one HTTP request; a longer one is answered 413."""

    queue: int = attrs.field(default=10_000, validator=_needed)
    """Messages that may wait for one subscription that asks for nothing else."""

    max_queue: int = attrs.field(default=100_000, validator=_needed)
    """The most a subscription may ask for. It is also the capacity of a connection's line, in entries."""

    max_pending_bytes: int | None = attrs.field(default=16 * 1024 * 1024, validator=_positive)
    """Bytes that may wait for one connection."""

    stall_timeout_s: float | None = attrs.field(default=10.0, validator=_positive)
    """Time without one byte taken by a socket for which something waits."""

    max_age_s: float | None = attrs.field(default=30.0, validator=_positive)
    """Age of the oldest message waiting for a connection: catches a reader of one byte a second."""

    conflating_buffer_bytes: int = attrs.field(default=64 * 1024, validator=_needed)
    """What the kernel should buffer for a connection that conflates (Linux doubles it for its own bookkeeping): what
    lies there can't be replaced by something newer. A quarter of it may be unsent. With less a batch of 64 KiB does not
    fit, and readers that keep up are conflated, too."""

    rules: tuple[TopicRule, ...] = attrs.field(default=(), converter=_rules)
    """What the operator caps, forces and allows, by topic and user."""

    max_stored_bytes: int = attrs.field(default=256 * 1024 * 1024, validator=_needed)
    """What all topics together may remember. Beyond that the oldest history of all goes first, then the last values
    that were replaced longest ago."""

    max_stored_topics: int = attrs.field(default=1_000_000, validator=_needed)
    """Topics that may remember anything; a publish on one more is answered `too_many`. About 400 bytes each."""

    report_interval_s: float | None = attrs.field(default=1.0, validator=_positive, metadata=RESTART)
    """How often `$sys.stats` and `$sys.connections` are published while somebody listens; None: only when somebody
    begins to."""

    presence_grace_s: float = attrs.field(default=5.0, validator=_needed)
    """How long a client whose connection has gone counts as present, where presence is told: who is back by then was
    never away."""

    ping_interval_s: float | None = attrs.field(default=25.0, validator=_positive)
    """Silence after which a client is pinged. Below 30 s, where the first NAT gateways forget a connection."""

    ping_timeout_s: float = attrs.field(default=10.0, validator=_needed)
    """How long a pinged client may show no sign of life before it is closed with 4010."""

    handshake_timeout_s: float = attrs.field(default=5.0, validator=_needed)
    """From accept to the answered handshake. trio-websocket alone holds a silent connection for 60 s."""

    require_hello: bool = False
    """Whether WELCOME waits for HELLO; without it anonymous clients are welcomed at once."""

    hello_timeout_s: float = attrs.field(default=5.0, validator=_needed)
    """From the handshake to HELLO, where HELLO is required, or a token that did not come earlier."""

    message_timeout_s: float = attrs.field(default=30.0, validator=_needed)
    """How long one message may take to come in: nobody needs that for 1 MiB but who sends it byte by byte."""

    http_request_timeout_s: float = attrs.field(default=30.0, validator=_needed)
    """How long the body of an HTTP request may take to come in, and to be answered; and the answer to be taken."""

    http_idle_timeout_s: float = attrs.field(default=60.0, validator=_needed)
    """How long an HTTP connection is kept open for another request. Longer than what load balancers pause between two
    looks at a broker's health."""

    linger_s: float = attrs.field(default=1.0, validator=_needed)
    """How long a client that is being closed may take to read why."""

    drain_delay_s: float = attrs.field(default=0.0, validator=_not_negative)
    """How long a broker that drains goes on as before, but says that it is not ready: until load balancers have seen
    it and send nobody any more."""

    drain_timeout_s: float = attrs.field(default=5.0, validator=_needed)
    """How long `Broker.drain` waits for what is queued to go out."""

    drain_spread_s: float = attrs.field(default=5.0, validator=_needed)
    """Within so long all clients are sent away, in small groups; and each is told to come back at a moment drawn from
    the same time, so that they do not all come at once."""

    server: str = "fanwire"
    """What WELCOME says the server is."""
