"""docs/protocol.md says what the code does."""

import ast
import json
import re
from typing import Any

import msgpack
import pytest

from fanwire.broker.network.handshake import MAX_HEAD
from fanwire.protocol import (
    CLOSE_CODES,
    ERROR_CODES,
    MAX_BATCH,
    MAX_MAP,
    MAX_NAME_BYTES,
    MAX_NESTING,
    EnvelopeType,
    PublishOptions,
    SubscribeOptions,
    matches,
)
from fanwire.protocol.frames import MAX_FRAGMENTS

from .pages import ROOT, Block, blocks_of
from .tables import code_in, rows_of

PAGE = ROOT / "docs" / "protocol.md"
TEXT = PAGE.read_text(encoding="utf-8")
WIRE = [block for block in blocks_of(PAGE) if block.language == "wire"]
LATER = ("token",)


def _vectors() -> set[str]:
    folder = ROOT / "tests" / "vectors"
    read = [json.loads((folder / name).read_text(encoding="utf-8")) for name in ("client.json", "broker.json")]
    return {vector["bytes"] for vectors in read for vector in vectors if isinstance(vector["bytes"], str)}


@pytest.mark.parametrize("block", WIRE, ids=str)
def test_bytes_are_those_of_the_envelope_above_them(block: Block) -> None:
    """An example is msgpack of what it says, and one of the golden vectors."""
    envelope, written = block.lines

    data = bytes.fromhex(written)

    assert msgpack.packb(ast.literal_eval(envelope)) == data
    assert data.hex() in _vectors()


def test_every_envelope_has_its_row() -> None:
    """Type codes and names are those of the table in the code."""
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) `\[(\d+), ", TEXT, re.MULTILINE)

    assert [(int(code), name) for code, name, _ in rows] == [(kind.value, kind.name) for kind in EnvelopeType]
    assert all(code == again for code, _, again in rows)


def test_every_close_code_has_its_row() -> None:
    """Numbers, names, and whether to come back, are those of the table in the code."""
    rows = rows_of(PAGE, "Close codes")

    assert [(int(number), name, again == "yes") for number, name, _, again in rows] == [
        (code.number, code.name, code.reconnect) for code in CLOSE_CODES.values()
    ]


def test_every_error_code_has_its_row() -> None:
    """None is missing, none made up."""
    assert {name for row in rows_of(PAGE, "Error codes") for name in code_in(row[0])} == set(ERROR_CODES)


@pytest.mark.parametrize(("heading", "options"), [("Subscribe options", SubscribeOptions())])
def test_every_subscribe_option_has_its_row(heading: str, options: Any) -> None:
    """In the order of the class."""
    assert [name for row in rows_of(PAGE, heading) for name in code_in(row[0])] == list(options.__slots__[:-1])


def test_every_publish_option_has_its_row() -> None:
    """In the order of the class."""
    named = re.findall(r"^\| `(\w+)` \| (?:map|text|topic|bool|integer)", TEXT, re.MULTILINE)

    assert named == list(PublishOptions.__slots__[:-1])  # type: ignore[attr-defined]


def test_patterns_match_as_the_table_says() -> None:
    """Both columns hold against the reference."""
    rows = [row for row in rows_of(PAGE, "Topics and patterns") if row[0].startswith("`")]

    assert len(rows) == 5
    for pattern, yes, no in rows:
        (wanted,) = code_in(pattern)
        assert all(matches(wanted, topic) for topic in code_in(yes))
        assert not any(matches(wanted, topic) for topic in code_in(no))


@pytest.mark.parametrize(
    "number", [MAX_BATCH, MAX_NAME_BYTES, MAX_FRAGMENTS, MAX_NESTING, MAX_MAP, f"{MAX_HEAD // 1024} KiB"], ids=str
)
def test_limits_stand_in_the_text(number: int | str) -> None:
    """The numbers of the code are the numbers of the page."""
    assert re.search(rf"\b{number:,}\b" if isinstance(number, int) else number, TEXT)
