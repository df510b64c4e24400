"""The tables, the names and the tree of errors."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fanwire.protocol
from fanwire.protocol import (
    CLOSE_CODES,
    ERROR_CODES,
    EnvelopeType,
    LocalProtocolError,
    Malformed,
    ProtocolError,
    RemoteProtocolError,
    may_reconnect,
)
from tests.unit.protocol.golden import CLASSES

FOLDER = Path(__file__).parents[3] / "protocol"


def test_every_type_code_has_a_class() -> None:
    """And every class the code of its name."""
    assert set(CLASSES) == {kind.name for kind in EnvelopeType}


def test_tables_are_keyed_by_what_their_rows_say() -> None:
    """A row is found under its own name or number, and has a sentence."""
    assert [row.name for row in ERROR_CODES.values()] == list(ERROR_CODES)
    assert [row.number for row in CLOSE_CODES.values()] == list(CLOSE_CODES)
    meanings = [row.meaning for row in ERROR_CODES.values()] + [row.meaning for row in CLOSE_CODES.values()]
    assert all(meaning.endswith(".") for meaning in meanings)


@pytest.mark.parametrize(
    ("code", "expected"),
    [(1000, False), (1001, True), (1006, True), (4001, False), (4003, False), (4008, True), (4777, True), (None, True)],
)
def test_who_may_reconnect(code: int | None, expected: bool) -> None:
    """Nobody whose next attempt must end like this one; everyone whose network broke."""
    assert may_reconnect(code) is expected


def test_whose_fault_it_is() -> None:
    """Ours is a ValueError as well; Malformed is the peer's."""
    assert LocalProtocolError.__mro__[1:3] == (ProtocolError, ValueError)
    assert Malformed.__mro__[1:3] == (RemoteProtocolError, ProtocolError)
    assert (Malformed("x").code, LocalProtocolError("x", code="bad_topic").code) == ("malformed", "bad_topic")


def test_codes_raised_are_in_the_table() -> None:
    """No error has a code that the protocol does not know."""
    used = {
        keyword.value.value
        for path in FOLDER.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant)
    }

    assert used
    assert used - set(ERROR_CODES) == set()


def test_public_names_are_exported_and_sorted_by_module() -> None:
    """What `__init__` lists is all that the package shows, each as itself."""
    body = ast.parse((FOLDER / "__init__.py").read_text()).body[1:]
    names = [alias for node in body if isinstance(node, ast.ImportFrom) for alias in node.names]

    assert all(alias.name == alias.asname for alias in names)
    assert all(hasattr(fanwire.protocol, alias.name) for alias in names)
    assert {name for cls in CLASSES.values() for name in [cls.__name__]} <= {alias.name for alias in names}
