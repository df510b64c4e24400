"""Options that several commands share, so that they are called and explained alike."""

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from fanwire.protocol import DEFAULT_PORT, LocalProtocolError, check_pattern, check_topic

DEFAULT_URL = f"ws://127.0.0.1:{DEFAULT_PORT}/"

_Command = TypeVar("_Command", bound=Callable[..., Any])
POSITIVE = click.FloatRange(min=0, min_open=True)


class _Url(click.ParamType):
    """A WebSocket URL."""

    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
        except ValueError:  # the port is no number, or too large
            usable = False
        if not usable:
            self.fail(f"{value!r} is no WebSocket URL: it looks like {DEFAULT_URL}", param, ctx)
        return value


class _Name(click.ParamType):
    """A topic or a pattern, checked as the broker would."""

    def __init__(self, name: str, check: Callable[[str], str]) -> None:
        self.name = name
        self._check = check

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return self._check(value)
        except LocalProtocolError as error:
            self.fail(str(error), param, ctx)


TOPIC = _Name("topic", check_topic)
PATTERN = _Name("pattern", check_pattern)


def url_option(command: _Command) -> _Command:
    """`--url`, or FANWIRE_URL, or the broker on this machine."""
    return click.option(
        "--url",
        type=_Url(),
        envvar="FANWIRE_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        help="The broker's address.",
    )(command)


def seconds_option(help_text: str) -> Callable[[_Command], _Command]:
    """`--seconds`: stop after so long."""
    return click.option("--seconds", type=POSITIVE, metavar="S", help=help_text)


def plain_option(command: _Command) -> _Command:
    """`--plain`: text that a program can read."""
    return click.option(
        "--plain", is_flag=True, help="Plain text instead of a live table (also when the output is no terminal)."
    )(command)
