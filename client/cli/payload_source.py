"""What `fanwire pub` publishes: DATA, a file, or each line of standard input."""

import json

import click

from fanwire.protocol import Encoding


def packed(data: bytes, encoding: Encoding, *, where: str) -> bytes:
    """Check that data is what it is said to be.

    Args:
        data: a payload.
        encoding: RAW takes anything, TEXT valid UTF-8, JSON a JSON value.
        where: what to call the data in an error: "DATA", "line 3 of standard input".

    Raises:
        click.UsageError: it is not; the text says where.
    """
    if encoding == Encoding.RAW:
        return data
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"{where} is not UTF-8 text (byte {error.start}): use --raw to publish bytes as they are"
        ) from None
    if encoding == Encoding.JSON:
        _check_json(text, where)
    return data


def _check_json(text: str, where: str) -> None:
    try:
        json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise click.UsageError(f"{where} is not JSON: {_position(error)}: {error.msg}") from None
    except _Constant as error:
        raise click.UsageError(f"{where} is not JSON: {error} is no JSON number") from None
    except RecursionError:
        raise click.UsageError(f"{where} is nested too deeply") from None


def _position(error: json.JSONDecodeError) -> str:
    return f"line {error.lineno} column {error.colno}" if "\n" in error.doc else f"column {error.colno}"


class _Constant(Exception):
    """NaN or Infinity, which Python's parser takes and JSON does not have."""


def _no_constant(name: str) -> None:
    raise _Constant(name)
