"""What `fanwire pub` was given, as what the SDK publishes."""

import json
from typing import Literal

import attrs
import click

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
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"{where} is not UTF-8 text (byte {error.start}): use --raw to publish bytes as they are"
        ) from None
    return Payload(text, raw=True) if form == "text" else Payload(_json_value(text, where), raw=False)


def _json_value(text: str, where: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise click.UsageError(f"{where} is not JSON: {_position(error)}: {error.msg}") from None
    except _Constant as error:
        raise click.UsageError(f"{where} is not JSON: it has no {error}") from None
    except RecursionError:
        raise click.UsageError(f"{where} is nested too deeply") from None


def _position(error: json.JSONDecodeError) -> str:
    return f"line {error.lineno} column {error.colno}" if "\n" in error.doc else f"column {error.colno}"


class _Constant(Exception):
    """NaN or Infinity, which Python's parser takes and JSON does not have."""


def _no_constant(name: str) -> None:
    raise _Constant(name)
