"""The options of `fanwire serve`: one for each setting of `Config`, in one table."""

import difflib
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import attrs
import click

from fanwire.broker import Config, TopicRule
from fanwire.broker.settings.rule_text import (
    NO_LIMIT,
    RULE_FIELDS,
    number,
    read_rule,
    rule_value,
    size_of,
    whole,
    yes_or_no,
)
from fanwire.broker.settings.tls import CLIENT_CERTS, MIN_VERSIONS
from fanwire.protocol.ranges import range_of

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Value = TypeVar("_Value")


def bytes_of(value: str) -> int:
    """A size in bytes, such as 65536, 64KiB or 16MiB, for `type=`."""
    return _read(size_of, value)


def _read(read: Callable[[str], _Value], text: str) -> _Value:
    """What ``read`` makes of a text, with the error that click shows."""
    try:
        return read(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"FANWIRE_{name.upper()}"


def quoted(text: str) -> str:
    """As a TOML string."""
    return json.dumps(text, ensure_ascii=False)


def rule_of(value: str) -> TopicRule:
    """A rule, such as ``stocks.> user=legacy-* on_slow=conflate max_rate=10``, for `type=`."""
    return _read(read_rule, value)


_HISTORY = {"messages": "history", "seconds": "history_seconds", "bytes": "history_bytes"}


def rule_of_table(table: object) -> TopicRule:
    """A rule as a file has it: the same parts, with ``history`` as a number or as a table of three.

    Raises:
        ValueError: It is none; says why.
    """
    if not isinstance(table, dict) or not isinstance(table.get("pattern"), str):
        raise ValueError('a rule is a table with a pattern: pattern = "stocks.>"')
    parts = {name: value for name, value in table.items() if name != "pattern"}
    if isinstance(history := parts.get("history"), dict):
        del parts["history"]
        for name, value in history.items():
            if name not in _HISTORY:
                raise ValueError(f'unknown option "history.{name}"; history has {", ".join(_HISTORY)}')
            parts[_HISTORY[name]] = value
    fields: dict[str, Any] = {}
    for name, value in parts.items():
        if name not in RULE_FIELDS:
            raise ValueError(unknown(name, ["pattern", *RULE_FIELDS]))
        field, read = RULE_FIELDS[name]
        fields[field] = _rule_value(name, read, value)
    if not fields:
        raise ValueError("this rule says nothing about its topics; add for example max_rate = 10")
    return TopicRule(pattern=table["pattern"], **fields)


def _rule_value(name: str, read: Callable[[str], Any], value: object) -> Any:
    wanted = _WANTED.get(read, (int, float))
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise ValueError(f"{name} is {value!r}; it must be {' or '.join(_TYPES[each] for each in wanted)}")
    if isinstance(value, bool):
        return value
    try:
        return rule_value(name, str(value))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


_WANTED: dict[Callable[[str], Any], tuple[type, ...]] = {str: (str,), yes_or_no: (bool, str), size_of: (int, str)}
_TYPES = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def unknown(name: str, known: Iterable[str]) -> str:
    """What to say of an option that there is not."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(names)}"
    return f'unknown option "{name}" ({hint})'


def texts_of(value: str) -> tuple[str, ...]:
    """Texts with commas between them, for `type=`; "none" is an empty list."""
    if value.strip().lower() == "none":
        return ()
    return tuple(text.strip() for text in value.split(",") if text.strip())


# How a number is written; which numbers a setting takes, its `Range` in `Config` says.
_COUNT, _SECONDS = whole, number
_FIELDS = attrs.fields_dict(Config)


@attrs.frozen(slots=True)
class Setting:
    """An option for one field of `Config`."""

    field: str
    type: Callable[[str], Any]
    metavar: str
    help: str
    may_be_none: bool = False
    none: str = "no limit"
    """What None means."""
    multiple: bool = False

    @property
    def name(self) -> str:
        """`max_pending`: what it is called in a file."""
        return self.option[2:].replace("-", "_")

    @property
    def variable(self) -> str:
        """`FANWIRE_MAX_PENDING`."""
        return variable_of(self.name)

    def read(self, value: object) -> Any:
        """A value from a file. Raises ValueError or `click.BadParameter`."""
        if self.type is str and not isinstance(value, str):
            raise ValueError(f"{value!r} is not a text: write it in quotes")
        if self.type is texts_of and isinstance(value, list):
            return tuple(value)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{value!r} is no {self.metavar.lower()}")
        return self.parse(str(value))

    def parse(self, text: str) -> Any:
        """A value from the command line or the environment: read, and in its range.

        Raises:
            click.BadParameter: It is not; the text has the value and the range.
        """
        allowed = range_of(_FIELDS[self.field])
        if self.may_be_none and text.lower() in (NO_LIMIT if allowed is not None else ("none",)):
            return None
        value = _read(self.type, text)
        if allowed is not None and not allowed.allows(value):
            raise click.BadParameter(f"{text[:64]!r} is out of range: it must be {allowed}")
        return value

    def written(self, value: object) -> str:
        """The contrary, as TOML."""
        if isinstance(value, tuple):
            return f"[{', '.join(quoted(each) for each in value)}]"
        text = _written(value, self.metavar)
        return text if re.fullmatch(r"[0-9.]+", text) and self.type is not str else quoted(text)

    @property
    def option(self) -> str:
        """`--max-pending` for `max_pending_bytes`: the unit stands in the help. `--rule` for `rules`: one of
        several."""
        if self.multiple:
            return "--" + self.field.removesuffix("s")
        return "--" + self.field.removesuffix("_s").removesuffix("_bytes").replace("_", "-")

    def as_option(self) -> Callable[[_Command], _Command]:
        """The click option, with the default of `Config`."""
        if self.multiple:
            return click.option(
                self.option, self.field, type=self.type, metavar=self.metavar, multiple=True,
                help=f"{self.help}.  [default: no rules]",
            )  # fmt: skip
        help_text = f"{self.help} ('none': {self.none})" if self.may_be_none else self.help
        return click.option(
            self.option,
            self.field,
            type=self.parse,
            metavar=self.metavar,
            envvar=self.variable,
            default=_written(getattr(attrs.fields(Config), self.field).default, self.metavar),
            show_default=True,
            help=f"{help_text}.",
        )


SETTINGS = (
    Setting(
        "host", str, "ADDRESS",
        "Address to listen on, or a name; 0.0.0.0 stands for all addresses of IPv4, :: for all of IPv4 and IPv6",
        may_be_none=True, none="no TCP port",
    ),
    Setting("port", whole, "PORT", "TCP port to listen on; 0 takes any free one"),
    Setting("path", str, "PATH", "Request path of the WebSocket endpoint"),
    Setting("backlog", _COUNT, "N", "Connections that the kernel keeps until they are accepted"),
    Setting("unix_path", str, "FILE", "Unix socket to listen on, too", may_be_none=True, none="no Unix socket"),
    Setting("unix_mode", str, "MODE", "Who may connect to the Unix socket: permissions of its file, in octal"),
    Setting("admin_host", str, "ADDRESS", "Address of the operators' own port"),
    Setting(
        "admin_port", whole, "PORT",
        "A second TCP port, for HTTP: what is for operators is served on no other", may_be_none=True,
        none="no such port",
    ),
    Setting(
        "allowed_origins", texts_of, "ORIGINS",
        "Web pages that may connect: https://app.example, https://*.app.example, null or *, with commas between them."
        " Without a list: with a token any, without one those of the broker's own host",
    ),
    Setting(
        "trusted_proxies", texts_of, "NETWORKS",
        "Proxies whose word on a client's address counts (X-Forwarded-For, PROXY): 10.0.0.0/8, or unix, with commas"
        " between them",
    ),
    Setting("max_connections", _COUNT, "N", "Clients at a time", may_be_none=True),
    Setting(
        "max_connections_per_address", _COUNT, "N",
        "Clients at a time from one IPv4 address, or one IPv6 network of 64 bits", may_be_none=True,
    ),
    Setting("max_connections_per_user", _COUNT, "N", "Clients at a time of one user", may_be_none=True),
    Setting("max_opening", _COUNT, "N", "Clients at a time that are not welcomed yet", may_be_none=True),
    Setting("connect_rate", _COUNT, "N", "New connections a second from one address", may_be_none=True),
    Setting("auth_failures", _COUNT, "N", "Bad tokens a minute from one address", may_be_none=True),
    Setting(
        "unlimited_addresses", str, "NETWORKS",
        "Where the limits on addresses do not apply: proxies whose clients cannot be told apart", may_be_none=True,
        none="they apply everywhere",
    ),
    Setting("max_subscriptions", _COUNT, "N", "Subscriptions of one connection", may_be_none=True),
    Setting("max_total_subscriptions", _COUNT, "N", "Subscriptions of all connections", may_be_none=True),
    Setting("max_patterns", _COUNT, "N", "Different patterns that are subscribed to", may_be_none=True),
    Setting("max_message_bytes", bytes_of, "BYTES", "The longest WebSocket message a client may send"),
    Setting("max_body_bytes", bytes_of, "BYTES", "The longest body of an HTTP request"),
    Setting("max_envelopes", _COUNT, "N", "Requests in one WebSocket message", may_be_none=True),
    Setting("publish_rate", _COUNT, "N", "Messages a second that one connection may publish", may_be_none=True),
    Setting(
        "publish_volume_bytes", bytes_of, "BYTES", "Bytes a second that one connection may send", may_be_none=True
    ),
    Setting(
        "user_publish_rate", _COUNT, "N", "Messages a second that all connections of a user may publish",
        may_be_none=True,
    ),
    Setting(
        "user_publish_volume_bytes", bytes_of, "BYTES", "Bytes a second that all connections of a user may send",
        may_be_none=True,
    ),
    Setting(
        "idle_timeout_s", _SECONDS, "SECONDS",
        "A client that is subscribed to nothing and says nothing for so long is closed", may_be_none=True,
        none="never",
    ),
    Setting("queue", _COUNT, "N", "Messages that may wait for a subscription that asks for nothing else"),
    Setting(
        "queue_grace_s", _SECONDS, "SECONDS",
        "Age of the oldest waiting message from which on queue counts, for a subscription that asked for no queue",
        may_be_none=True, none="queue counts at once",
    ),
    Setting("max_queue", _COUNT, "N", "The most messages that a subscription may ask to have waiting"),
    Setting("max_pending_bytes", bytes_of, "BYTES", "Bytes that may wait for one connection", may_be_none=True),
    Setting(
        "max_total_pending_bytes", bytes_of, "BYTES", "Bytes that may wait for all connections", may_be_none=True
    ),
    Setting(
        "stall_timeout_s", _SECONDS, "SECONDS",
        "A client that takes not one byte for so long, though something waits for it, is dropped", may_be_none=True,
        none="never",
    ),
    Setting("max_age_s", _SECONDS, "SECONDS", "Age that the oldest waiting message may reach", may_be_none=True),
    Setting(
        "conflating_buffer_bytes", bytes_of, "BYTES",
        "What the kernel buffers for a connection that conflates: there nothing can be replaced by something newer",
    ),
    Setting(
        "rules", rule_of, "RULE",
        "What subscribers and publishers of some topics get, whatever they ask for: 'PATTERN user=GLOB on_slow=POLICY"
        " max_queue=N max_rate=N publisher_wait=SECONDS retain=yes|no history=N"
        " history_seconds=SECONDS history_bytes=BYTES presence=yes|no',"
        " all but the pattern optional. May be given several times",
        multiple=True,
    ),
    Setting("max_stored_bytes", bytes_of, "BYTES", "What all topics together may remember"),
    Setting("max_stored_topics", _COUNT, "N", "Topics that may remember anything"),
    Setting(
        "report_interval_s", _SECONDS, "SECONDS",
        "How often $sys.stats and $sys.connections are published while somebody listens", may_be_none=True,
        none="only when somebody begins to",
    ),
    Setting("presence_grace_s", _SECONDS, "SECONDS", "Time that a client has to come back before it counts as gone"),
    Setting(
        "ping_interval_s", _SECONDS, "SECONDS", "Silence after which a client is pinged", may_be_none=True, none="never"
    ),
    Setting("ping_timeout_s", _SECONDS, "SECONDS", "Time a pinged client has to show a sign of life"),
    Setting("handshake_timeout_s", _SECONDS, "SECONDS", "Time from the connection to the finished handshake"),
    Setting("hello_timeout_s", _SECONDS, "SECONDS", "Time from the handshake to HELLO, with --require-hello"),
    Setting("message_timeout_s", _SECONDS, "SECONDS", "Time that one message may take to come in"),
    Setting("http_request_timeout_s", _SECONDS, "SECONDS", "Time an HTTP request has to come in and be answered"),
    Setting("http_idle_timeout_s", _SECONDS, "SECONDS", "Time that an HTTP connection waits for another request"),
    Setting("linger_s", _SECONDS, "SECONDS", "Time a client that is being closed has to read why"),
    Setting(
        "drain_delay_s", _SECONDS, "SECONDS",
        "Time from SIGTERM until clients are sent away: load balancers see meanwhile that the broker is not ready",
    ),
    Setting("drain_timeout_s", _SECONDS, "SECONDS", "Time that queued messages have to go out at the end"),
    Setting(
        "drain_spread_s", _SECONDS, "SECONDS", "Time over which clients are sent away, in small groups, and come back"
    ),
)  # fmt: skip
"""Every setting of `Config` but `FLAGS`, `auth` (a file), `tls` (a section), `listen` and `server` (for programs)."""

FLAGS = {
    "require_hello": "Welcome a client only when it has sent HELLO",
    "proxy_protocol": "The trusted proxies begin each connection with a PROXY header of version 2",
    "insecure": "Listen on an address of the network though nobody must authenticate",
}
"""Settings that are either true or false."""

_TLS = {
    "cert": ("FILE", "Speak TLS with this certificate, as PEM, and those behind it", "no TLS"),
    "key": ("FILE", "The private key of the certificate, as PEM", "it is in the file of the certificate"),
    "client_ca": ("FILE", "Authorities whose client certificates are taken, as PEM", "no file"),
    "client_certs": ("|".join(CLIENT_CERTS), "Whether clients are asked for a certificate", "none"),
    "min_version": ("|".join(MIN_VERSIONS), "The oldest TLS that is spoken", "1.2"),
}
"""The section `tls`, piece by piece: what stands for the value, the help, and what holds without it."""


def _tls_options(command: _Command) -> _Command:
    for name, (metavar, text, default) in reversed(_TLS.items()):
        option = f"--tls-{name.replace('_', '-')}"
        command = click.option(
            option, f"tls_{name}", type=str, metavar=metavar, envvar=variable_of(f"tls_{name}"),
            help=f"{text}.  [default: {default}]",
        )(command)  # fmt: skip
    return command


def option_of(flag: str) -> str:
    """`--require-hello` for `require_hello`."""
    return f"--{flag.replace('_', '-')}"


def settings_options(command: _Command) -> _Command:
    """All of them, in the order of the table."""
    for name, text in reversed(FLAGS.items()):
        command = click.option(option_of(name), is_flag=True, envvar=variable_of(name), help=f"{text}.")(command)
    command = _tls_options(command)
    command = click.option(
        "--auth-file", "auth", type=str, envvar="FANWIRE_AUTH_FILE", metavar="FILE",
        help="Who may come in and what they may do, as TOML.  [default: no file; everybody may do everything]",
    )(command)  # fmt: skip
    for setting in reversed(SETTINGS):
        command = setting.as_option()(command)
    return command


def _written(default: object, metavar: str) -> str:
    """A default as one would write it on the command line, so that the help shows it like that."""
    if default is None:
        return "none"
    if isinstance(default, tuple):
        return ",".join(default) or "none"
    if metavar == "BYTES" and isinstance(default, int):
        for unit, size in (("MiB", 1024**2), ("KiB", 1024)):
            if default % size == 0:
                return f"{default // size}{unit}"
    return f"{default:g}" if isinstance(default, float) else f"{default}"
