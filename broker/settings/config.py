"""Every limit and setting of a broker, in one frozen object that is passed whole.

Units stand in the names: ``_s`` seconds, ``_bytes``. Where a limit may be None, None means "no limit"; 0 is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import attrs

from fanwire.protocol import DEFAULT_PORT
from fanwire.protocol.ranges import BYTES, COUNT, MESSAGE_BYTES, SECONDS, Range

from .auth import Auth
from .networks import Proxies, networks_of
from .origins import check_allowed
from .rule_text import read_rule
from .rules import TopicRule
from .tls import Tls

if TYPE_CHECKING:
    pass

RESTART = {"restart": True}
"""Metadata of a field that cannot change while a broker runs."""

OF_PROGRAMS = {**RESTART, "of_programs": True}
"""And of one that makes sense only to who embeds a broker."""


PORT = Range(0, 65_535, whole=True)
"""A TCP port; 0 stands for any free one."""
BACKLOG = Range(1, 65_535, whole=True)
"""Connections that the kernel keeps: more than it takes as a number would be refused by it."""
DELAY = Range(0, SECONDS.most)
"""A pause that may be left out."""


def _rules(rules: Iterable[TopicRule | str]) -> tuple[TopicRule, ...]:
    if isinstance(rules, str):
        raise ValueError(f"rules is a list of rules, not the text {rules!r}: put it in brackets")
    return tuple(rule if isinstance(rule, TopicRule) else read_rule(rule) for rule in rules)


def _networks(_instance: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    try:
        networks_of(value)
    except ValueError as error:
        raise ValueError(f"{attribute.name}: {error}; write networks like '10.0.0.0/8, ::1'") from None


def _path(_instance: object, attribute: attrs.Attribute[Any], value: str) -> None:
    if not value.startswith("/"):
        raise ValueError(f"{attribute.name} must begin with '/', not {value!r}")


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise ValueError(f"a list of texts is needed, not {values!r}")
    texts = tuple(values)
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"a list of texts is needed, and {text!r} is not a text")
    return texts


def _origins(_instance: object, _attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    for text in value:
        check_allowed(text)


def _proxies(_instance: object, _attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    Proxies(value)


def _mode(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not re.fullmatch("0?[0-7]{3}", value):
        raise ValueError(f"{attribute.name} must be three octal digits, such as 0660, not {value!r}")


@attrs.frozen(kw_only=True)
class Config:
    """Settings of one `Broker`.

    The memory that subscribers can make the broker hold is bounded by
    ``max_connections × (max_pending_bytes + one sweep)``; see docs/architecture.md for the arithmetic.
    """

    listen: bool = attrs.field(default=True, metadata=OF_PROGRAMS)
    """Whether to open a port at all; without one the broker is reached by `Broker.open_stream`."""

    host: str | None = attrs.field(default="127.0.0.1", metadata=RESTART)
    """Address to listen on. Loopback by default: opening a broker to the network is a decision. None: no TCP port."""

    port: int = attrs.field(default=DEFAULT_PORT, validator=PORT, metadata=RESTART)
    """TCP port; 0 takes any free one (`Broker.port` tells which)."""

    path: str = attrs.field(default="/", validator=_path, metadata=RESTART)
    """Request path of the WebSocket endpoint."""

    backlog: int = attrs.field(default=4096, validator=BACKLOG, metadata=RESTART)
    """Connections that the kernel keeps until we accept them; 10,000 clients coming back at once need more than 128."""

    unix_path: str | None = attrs.field(default=None, metadata=RESTART)
    """Unix socket to listen on, beside TCP or instead of it."""

    unix_mode: str = attrs.field(default="0660", validator=_mode, metadata=RESTART)
    """Who may connect to it: the permissions of its file, in octal."""

    admin_host: str = attrs.field(default="127.0.0.1", metadata=RESTART)
    """Address of the operators' own port."""

    admin_port: int | None = attrs.field(default=None, validator=PORT.or_none, metadata=RESTART)
    """A second TCP port, for HTTP only, on which everything is served; what is for operators is then served on no
    other. 0 takes any free one (`Broker.admin_port`); None: there is none."""

    tls: Tls | None = None
    """What TLS is spoken with, on TCP. None: none is."""

    insecure: bool = attrs.field(default=False, metadata=RESTART)
    """Whether the broker may listen on an address of the network though nobody must authenticate."""

    auth: Auth | None = None
    """Who may come in, and what they may do. None: everybody, and all but publishing on the broker's own topics."""

    allowed_origins: tuple[str, ...] = attrs.field(default=(), converter=_texts, validator=_origins)
    """Web pages that may connect: origins such as https://app.example, https://*.app.example, null, or * for all.
    Empty: with a token any page may, without one only those of the very host that they connect to."""

    trusted_proxies: tuple[str, ...] = attrs.field(default=(), converter=_texts, validator=_proxies)
    """Networks of proxies whose word on a client's address counts, such as 10.0.0.0/8; unix: whoever comes through the
    Unix socket."""

    proxy_protocol: bool = False
    """Whether the trusted proxies begin each connection with a header of the PROXY protocol, version 2."""

    max_connections: int | None = attrs.field(default=20_000, validator=COUNT.or_none)
    """Clients at a time; one more is told `too_many` and closed with 4029. Who has yet to say HELLO does not count."""

    max_connections_per_address: int | None = attrs.field(default=1_000, validator=COUNT.or_none)
    """Connections of one IPv4 address, or one IPv6 network of 64 bits; one more is closed before it is read from."""

    max_connections_per_user: int | None = attrs.field(default=1_000, validator=COUNT.or_none)
    """Connections of one user, where the broker asks who one is; one more is told `too_many` and closed with 4029."""

    max_opening: int | None = attrs.field(default=2_000, validator=COUNT.or_none)
    """Connections that are not welcomed yet: in their handshake, or before a HELLO that is needed. When one more comes,
    the one that came first goes."""

    connect_rate: int | None = attrs.field(default=100, validator=COUNT.or_none)
    """New connections of one address a second, and ten seconds' worth at once; others are closed before they are read
    from."""

    auth_failures: int | None = attrs.field(default=20, validator=COUNT.or_none)
    """Tokens of one address a minute that are not accepted; then it is not let in until one more could be."""

    unlimited_addresses: str | None = attrs.field(default="127.0.0.0/8, ::1", validator=_networks)
    """Networks to which the three limits on addresses do not apply. Put proxies here whose clients cannot be told
    apart."""

    max_subscriptions: int | None = attrs.field(default=1_000, validator=COUNT.or_none)
    """Subscriptions of one connection; one more is answered `too_many`."""

    max_total_subscriptions: int | None = attrs.field(default=1_000_000, validator=COUNT.or_none)
    """Subscriptions of all connections; one more is answered `too_many`. About 1 KiB each."""

    max_patterns: int | None = attrs.field(default=250_000, validator=COUNT.or_none)
    """Different patterns (and queue groups) subscribed to at a time; one more is answered `too_many`."""

    max_message_bytes: int = attrs.field(default=1024 * 1024, validator=MESSAGE_BYTES)
    """One WebSocket message from a client; a longer one is refused at its header, close 1009."""

    max_body_bytes: int = attrs.field(default=1024 * 1024, validator=MESSAGE_BYTES)
    """The body of one HTTP request; a longer one is answered 413."""
    max_envelopes: int | None = attrs.field(default=32_768, validator=COUNT.or_none)
    """Requests in one WebSocket message; one with more is not looked at, close 1009."""

    publish_rate: int | None = attrs.field(default=None, validator=COUNT.or_none)
    """Messages that one connection may publish a second, and a second's worth at once. Beyond it those that want an
    answer get ERROR `rate_limited`; the others are let in, and the connection is not read from for a while."""

    publish_volume_bytes: int | None = attrs.field(default=None, validator=BYTES.or_none)
    """Bytes that one connection may send a second, likewise; framing and all else that it says counts."""

    user_publish_rate: int | None = attrs.field(default=None, validator=COUNT.or_none)
    """Messages a second of all connections of a user together, where the broker asks who one is."""

    user_publish_volume_bytes: int | None = attrs.field(default=None, validator=BYTES.or_none)
    """Bytes a second of all connections of a user together."""

    idle_timeout_s: float | None = attrs.field(default=None, validator=SECONDS.or_none)
    """How long a client may stay that is subscribed to nothing and says nothing; then it is closed with 4010."""

    queue: int = attrs.field(default=10_000, validator=COUNT)
    """Messages that may wait for a subscription that asks for no ``queue`` itself. They are counted only once the
    oldest of them is older than ``queue_grace_s``: a burst of a few hundred thousand messages is not slowness."""

    queue_grace_s: float | None = attrs.field(default=5.0, validator=SECONDS.or_none)
    """How old the oldest waiting message of a subscription must be before ``queue`` counts. None: it counts at once. A
    subscription that asks for a ``queue`` has no such grace, and none where a rule's ``max_queue`` caps it."""

    max_queue: int = attrs.field(default=100_000, validator=COUNT)
    """The largest ``queue`` that a subscription may ask for. A connection also remembers so many keys that ``max_rate``
    has sent, about 200 bytes each."""

    max_pending_bytes: int | None = attrs.field(default=64 * 1024 * 1024, validator=BYTES.or_none)
    """Memory that may wait for one connection: its messages, 180 bytes for each entry of its line (a run of messages of
    one topic), and what conflated keys take. 64 MiB hold a burst of 200,000 messages of 128 bytes, which are 67 MB if
    each has an entry of its own."""

    max_total_pending_bytes: int | None = attrs.field(default=1024 * 1024 * 1024, validator=BYTES.or_none)
    """Bytes that may wait for all connections, shared messages counted once; beyond it who has most is disconnected."""

    stall_timeout_s: float | None = attrs.field(default=10.0, validator=SECONDS.or_none)
    """Time without one byte taken by a socket for which something waits."""

    max_age_s: float | None = attrs.field(default=30.0, validator=SECONDS.or_none)
    """Age of the oldest message waiting for a connection: catches a reader of one byte a second."""

    conflating_buffer_bytes: int = attrs.field(default=64 * 1024, validator=MESSAGE_BYTES)
    """What the kernel should buffer for a connection that conflates (Linux doubles it for its own bookkeeping): what
    lies there can't be replaced by something newer. A quarter of it may be unsent. With less a batch of 64 KiB does not
    fit, and readers that keep up are conflated, too."""

    rules: tuple[TopicRule, ...] = attrs.field(default=(), converter=_rules)
    """What the operator caps, forces and allows, by topic and user: `TopicRule` objects, or texts as on the command
    line, such as ``"stocks.> max_rate=10"``."""

    max_stored_bytes: int = attrs.field(default=256 * 1024 * 1024, validator=BYTES)
    """What all topics together may remember. Beyond that the oldest history of all goes first, then the last values
    that were replaced longest ago."""

    max_stored_topics: int = attrs.field(default=1_000_000, validator=COUNT)
    """Topics that may remember anything; a publish on one more is answered `too_many`. One that remembers
    nothing any more takes 350 bytes; the others count in `max_stored_bytes`."""

    report_interval_s: float | None = attrs.field(default=1.0, validator=SECONDS.or_none, metadata=RESTART)
    """How often `$sys.stats` and `$sys.connections` are published while somebody listens; None: only when somebody
    begins to."""

    presence_grace_s: float = attrs.field(default=5.0, validator=SECONDS)
    """How long a client whose connection has gone counts as present, where presence is told: who is back by then was
    never away."""

    ping_interval_s: float | None = attrs.field(default=25.0, validator=SECONDS.or_none)
    """Silence after which a client is pinged. Below 30 s, where the first NAT gateways forget a connection."""

    ping_timeout_s: float = attrs.field(default=10.0, validator=SECONDS)
    """How long a pinged client may show no sign of life before it is closed with 4010."""

    handshake_timeout_s: float = attrs.field(default=5.0, validator=SECONDS)
    """From accept to the answered handshake. trio-websocket alone holds a silent connection for 60 s."""

    require_hello: bool = False
    """Whether WELCOME waits for HELLO; without it anonymous clients are welcomed at once."""

    hello_timeout_s: float = attrs.field(default=5.0, validator=SECONDS)
    """From the handshake to HELLO, where HELLO is required, or a token that did not come earlier."""

    message_timeout_s: float = attrs.field(default=30.0, validator=SECONDS)
    """How long one message may take to come in: nobody needs that for 1 MiB but who sends it byte by byte."""

    http_request_timeout_s: float = attrs.field(default=30.0, validator=SECONDS)
    """How long the body of an HTTP request may take to come in, and to be answered; and the answer to be taken."""

    http_idle_timeout_s: float = attrs.field(default=60.0, validator=SECONDS)
    """How long an HTTP connection is kept open for another request. Longer than what load balancers pause between two
    looks at a broker's health."""

    linger_s: float = attrs.field(default=1.0, validator=SECONDS)
    """How long a client that is being closed may take to read why."""

    drain_delay_s: float = attrs.field(default=0.0, validator=DELAY)
    """How long a broker that drains goes on as before, but says that it is not ready: until load balancers have seen
    it and send nobody any more."""

    drain_timeout_s: float = attrs.field(default=5.0, validator=SECONDS)
    """How long `Broker.drain` waits for what is queued to go out."""

    drain_spread_s: float = attrs.field(default=5.0, validator=SECONDS)
    """Within so long all clients are sent away, in small groups; and each is told to come back at a moment drawn from
    the same time, so that they do not all come at once."""

    server: str = "fanwire"
    """What WELCOME says the server is."""

    def __attrs_post_init__(self) -> None:
        if self.listen and self.host is None and self.unix_path is None:
            raise ValueError("host is none and there is no unix_path: nobody could connect")
        if self.proxy_protocol and not self.trusted_proxies:
            raise ValueError("proxy_protocol is on, but no proxy is trusted: say in trusted_proxies who may speak it")
        if self.auth is not None and self.auth.certificate_user is not None and not self.asks_for_certificates:
            raise ValueError(
                "auth.certificate_user says where users stand in client certificates, but nobody is asked for one: set"
                " client_ca and client_certs in [tls]"
            )

    @property
    def asks_for_certificates(self) -> bool:
        """Whether clients may show certificates."""
        return self.tls is not None and self.tls.client_certs != "none"


# What changes for who is connected.
_FOR_ALL = ("rules", "queue", "max_subscriptions")


def for_those_there(old: Config, new: Config) -> Config:
    """Of the new settings what counts for a connection that began with other ones."""
    return attrs.evolve(old, **{name: getattr(new, name) for name in _FOR_ALL})
