"""Payloads as JSON, as the protocol's JSON subprotocol has them (protocol reference, Transport)."""

import base64
import json

from fanwire.protocol import Encoding, ProtocolError, unpack_data
from fanwire.protocol.json_values import for_json


def payload_as_json(payload: bytes, encoding: int) -> object:
    """What `json.dumps` can write of a payload.

    Returns:
        msgpack and JSON: the value, with numbers that JSON cannot say, or that its readers would take for others, as
        text (`for_json`); text: a string; raw bytes, and whatever else JSON cannot say (bytes within a map, keys that
        are not strings, or a payload that is not what its encoding says): `{"$bin": base64}` of the original bytes. A
        map whose only key begins with `$` gets one more `$`, so that the two can be told apart.
    """
    if encoding == Encoding.RAW:
        return _as_base64(payload)
    try:
        value = for_json(unpack_data(payload, encoding))
        json.dumps(value, allow_nan=False)
        return _escaped(value)
    except (ProtocolError, TypeError, ValueError, RecursionError, _NotJson):
        return _as_base64(payload)


class _NotJson(Exception):
    """A value that JSON has no word for, though `json.dumps` would find one."""


def _as_base64(payload: bytes) -> dict[str, str]:
    return {"$bin": base64.b64encode(payload).decode("ascii")}


def _escaped(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    if not isinstance(value, dict):
        return value
    if not all(isinstance(key, str) for key in value):
        raise _NotJson
    if len(value) == 1 and (key := next(iter(value))).startswith("$"):
        return {f"${key}": _escaped(value[key])}
    return {key: _escaped(item) for key, item in value.items()}
