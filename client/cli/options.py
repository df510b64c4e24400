"""Options that several commands share, so that they are called and explained alike."""

import logging
import math
import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fanwire.client.config import check_token
from fanwire.client.url import DEFAULT_URL, parse_url
from fanwire.protocol import LocalProtocolError, check_pattern, check_topic, foreign_wildcards
from fanwire.protocol.ranges import SECONDS

from .command import BadVariable
from .output import note_warning

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _Positive(click.FloatRange):
    """A finite number greater than 0, at most as many seconds as a year has. NaN passes all comparisons of click's."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number that a text says. Raises `click.BadParameter`."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


POSITIVE = _Positive(min=0, min_open=True, max=SECONDS.most)


def broker_url(value: str) -> str:
    """A broker's address, for `type=`.

    Raises:
        click.BadParameter: it is none; the text says why.
    """
    try:
        parse_url(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def topic(value: str) -> str:
    """A topic, checked as the broker would, for `type=`."""
    return _checked(check_topic, value)


def pattern(value: str) -> str:
    """A pattern, checked as the broker would, for `type=`. One with wildcards of another system is told, and taken."""
    hint = foreign_wildcards(_checked(check_pattern, value))
    if hint is not None:
        logging.getLogger("fanwire.client.patterns").disabled = True  # it would say the same again
        note_warning(hint)
    return value


def _checked(check: Callable[[str], str], value: str) -> str:
    try:
        return check(value)
    except LocalProtocolError as error:
        raise click.BadParameter(str(error)) from None


def url_option(command: _Command) -> _Command:
    """`--url`, or FANWIRE_URL, or the broker on this machine."""
    return click.option(
        "--url",
        type=broker_url,
        metavar="URL",
        envvar="FANWIRE_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        help="The broker's address.",
    )(command)


def environment_token() -> str | None:
    """The token of FANWIRE_TOKEN. No option has one: others can see the arguments of a command."""
    token = os.environ.get("FANWIRE_TOKEN")
    try:
        return check_token(token) if token else None
    except ValueError as error:
        raise BadVariable(f"FANWIRE_TOKEN: {error}") from None


def seconds_option(help_text: str) -> Callable[[_Command], _Command]:
    """`--seconds`: stop after so long."""
    return click.option("--seconds", type=POSITIVE, metavar="S", help=help_text)


def max_rate_option(command: _Command) -> _Command:
    """`--max-rate`: the broker holds back what comes too soon."""
    return click.option(
        "--max-rate",
        type=POSITIVE,
        metavar="N",
        help="Messages a second of each topic at most, always the newest.",
    )(command)


def plain_option(command: _Command) -> _Command:
    """`--plain`: text that a program can read."""
    return click.option(
        "--plain", is_flag=True, help="Plain text instead of a live table (also when the output is no terminal)."
    )(command)
