"""What `fanwire pub` was given, as what the SDK publishes."""

import json
import math
from typing import Literal

import attrs
import click

from .text import NotText, read_text

Form = Literal["text", "json", "raw"]


@attrs.frozen(slots=True)
class Payload:
    """The first arguments of the SDK's `publish`, behind the topic."""

    data: object
    raw: bool
    """Send text or bytes as they are; else the value is packed."""


def read_payload(data: bytes, form: Form, *, where: str) -> Payload:
    """Make of bytes what they are said to be.

    Args:
        data: from the command line, a file or a line.
        form: `raw` takes anything, `text` valid UTF-8, `json` a JSON value.
        where: what to call the data in an error: "DATA", "line 3 of standard input".

    Raises:
        click.UsageError: they are not; the text says where.
    """
    if form == "raw":
        return Payload(data, raw=True)
    try:
        text = read_text(data)
    except NotText as error:
        raise click.UsageError(f"{where} {error}, or use --raw to publish bytes as they are") from None
    return Payload(text, raw=True) if form == "text" else Payload(_json_value(text, where), raw=False)


def _json_value(text: str, where: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise click.UsageError(f"{where} is not JSON: {_position(error)}: {error.msg}") from None
    except _Constant as error:
        raise click.UsageError(f"{where} is not JSON: it has no {error}") from None
    except _TooLarge as error:
        raise click.UsageError(f"{where} has the number {error!s:.40}, which is too large; write it as text") from None
    except RecursionError:
        raise click.UsageError(f"{where} is nested too deeply") from None


def _position(error: json.JSONDecodeError) -> str:
    return f"line {error.lineno} column {error.colno}" if "\n" in error.doc else f"column {error.colno}"


class _Constant(Exception):
    """NaN or Infinity, which Python's parser takes and JSON does not have."""


def _finite(digits: str) -> float:
    """A number of JSON. One that is too large would become Infinity, which JSON does not have."""
    number = float(digits)
    if math.isinf(number):
        raise _TooLarge(digits)
    return number


class _TooLarge(Exception):
    """A number beyond those of 64-bit floating point."""


def _no_constant(name: str) -> None:
    raise _Constant(name)
