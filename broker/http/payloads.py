"""Payloads in JSON and back: as a value where its encoding is one that JSON can say, else as ``{"$bin": base64}``.

So that no other payload is taken for that, one that is a map whose only key begins with ``$`` has one more ``$`` there.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import msgpack

from fanwire.protocol import Encoding, RemoteProtocolError, pack, unpack_data
from fanwire.protocol.json_values import for_json

from .answers import HttpError, as_json

# Longer ones are not looked into: 64 KiB of the smallest values take some milliseconds of everybody's time.
MAX_DECODED = 64 * 1024

MAX_DEPTH = 100
"""Arrays and maps within one another."""

BYTE_ORDER_MARK = "\ufeff".encode()
"""What some programs write in front of UTF-8. It is no part of the data (RFC 8259 section 8.1)."""

_BIN = "$bin"
NAMES = {encoding.name.lower(): encoding for encoding in Encoding}


def shown(payload: bytes, encoding: int) -> Any:
    """What JSON says of a payload."""
    try:
        return _escaped(_value(payload, encoding))
    except (ValueError, TypeError, RecursionError, RemoteProtocolError):
        return {_BIN: base64.b64encode(payload).decode("ascii")}


def _value(payload: bytes, encoding: int) -> Any:
    if encoding == Encoding.RAW or len(payload) > MAX_DECODED:
        raise ValueError("not looked into")
    value = unpack_data(payload, encoding)
    if encoding == Encoding.MSGPACK:
        msgpack.unpackb(payload, strict_map_key=True)  # JSON would make texts of keys that are numbers
    if _too_deep(value):
        raise ValueError("not looked into")
    value = for_json(value)
    as_json(value)
    return value


def _too_deep(value: Any) -> bool:
    """By levels and not by recursion, of which an answer needs some more."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = (
            [
                item
                for container in level
                for item in (container.values() if isinstance(container, dict) else container)
                if isinstance(item, list | dict)
            ]
            if isinstance(level[0], list | dict)
            else []
        )
        if not level:
            return False
    return True


def _escaped(value: Any) -> Any:
    return {f"${key}": value[key] for key in value} if _looks_escaped(value) else value


def _looks_escaped(value: Any) -> bool:
    return type(value) is dict and len(value) == 1 and next(iter(value)).startswith("$")


def read(value: Any, name: Any) -> tuple[bytes, Encoding]:
    """The payload that a JSON value stands for.

    Args:
        value: What came.
        name: The encoding it is to have; None: JSON, or raw for bytes.

    Raises:
        HttpError: It stands for none (`bad_option`).
    """
    if name is not None and (not isinstance(name, str) or name not in NAMES):
        raise _bad("encoding", f"the encoding is one of {', '.join(NAMES)}")
    if _looks_escaped(value) and not next(iter(value)).startswith("$$"):
        return _bytes(value), NAMES[name or "raw"]
    if _looks_escaped(value):
        value = {key[1:]: item for key, item in value.items()}
    encoding = NAMES[name or "json"]
    return _packed(value, encoding), encoding


def _bytes(value: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(value[_BIN], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise _bad("payload", f'a map whose only key begins with $ is {{"{_BIN}": BASE64}}') from None


def _packed(value: Any, encoding: Encoding) -> bytes:
    if encoding is Encoding.MSGPACK:
        try:
            return pack(value)
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise _bad("payload", "msgpack cannot say this") from None
    if encoding is Encoding.JSON:
        try:
            return as_json(value).rstrip(b"\n")
        except (ValueError, RecursionError):  # 1e999 is infinity to the parser
            raise _bad("payload", "it has a number that is too large, or is nested too deeply") from None
    if encoding is Encoding.TEXT and isinstance(value, str):
        return value.encode()
    raise _bad("payload", f"for the encoding {encoding.name.lower()} it must be {_WANTED[encoding]}")


_WANTED = {Encoding.TEXT: "a text", Encoding.RAW: f'{{"{_BIN}": BASE64}}'}


def _bad(option: str, text: str) -> HttpError:
    return HttpError("bad_option", text, {"option": option})


def parsed(text: bytes, what: str = "this") -> Any:
    """JSON that came, with no text that UTF-8 could not say. Raises `HttpError` (`malformed`) that says ``what``."""
    try:
        value = json.loads(text.decode(), parse_constant=_no_constant)
        if b"\\ud" in text or b"\\uD" in text:  # perhaps half a pair of surrogates
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise HttpError("malformed", f"{what} is no JSON: {error}") from None
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
