"""Reads tests/vectors; its README says what the files hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from fanwire.protocol import BrokerEnvelope, ClientEnvelope, EnvelopeType, codec

VECTORS = Path(__file__).parents[2] / "vectors"
CLASSES: dict[str, Any] = {cls.kind.name: cls for cls in (*ClientEnvelope.__args__, *BrokerEnvelope.__args__)}


def joined(pieces: str | list[Any]) -> bytes:
    """The bytes that hexadecimal, or an array of pieces of it, stands for."""
    if isinstance(pieces, str):
        return bytes.fromhex(pieces)
    return b"".join(joined(piece) if isinstance(piece, str) else joined(piece[0]) * piece[1] for piece in pieces)


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return joined(value["$hex"]) if "$hex" in value else {key: _value(item) for key, item in value.items()}
    return [_value(item) for item in value] if isinstance(value, list) else value


def envelope(described: dict[str, Any]) -> Any:
    """The envelope that an object of the files describes."""
    fields = {key: _value(item) for key, item in described.items() if key != "type"}
    return CLASSES[described["type"]](**fields)


@attrs.frozen
class Vector:
    """An envelope and its canonical bytes."""

    name: str
    envelope: Any
    packed: bytes


@attrs.frozen
class Exchange:
    """A message and what its receiver makes of it."""

    name: str
    sender: str
    packed: bytes
    outcome: list[Any]


def vectors(file: str) -> list[Vector]:
    """Those of client.json or broker.json."""
    rows = json.loads((VECTORS / file).read_text())
    return [
        Vector(f"{row['envelope']['type']}: {row['name']}", envelope(row["envelope"]), joined(row["bytes"]))
        for row in rows
    ]


def exchanges(file: str) -> list[Exchange]:
    """Those of lenient.json or refused.json; envelopes are made, everything else stays as written."""
    rows = json.loads((VECTORS / file).read_text())
    return [
        Exchange(
            f"{row['from']}: {row['name']}",
            row["from"],
            joined(row["bytes"]),
            [envelope(item) if "type" in item else item for item in row["outcome"]],
        )
        for row in rows
    ]


FROM_CLIENT = vectors("client.json")
FROM_BROKER = vectors("broker.json")
ALL_TYPES = list(EnvelopeType)
DECODERS: dict[str, Any] = {"client": codec.decode_from_client, "broker": codec.decode_from_broker}
