"""The golden byte vectors of tests/vectors hold in both directions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from fanwire.protocol import ERROR_CODES, Malformed, Rejected, RemoteProtocolError, encode
from tests.unit.protocol.golden import ALL_TYPES, DECODERS, FROM_BROKER, FROM_CLIENT, Exchange, Vector, exchanges

ENVELOPES = [*FROM_CLIENT, *FROM_BROKER]
MESSAGES = [*exchanges("lenient.json"), *exchanges("refused.json")]


def _name(row: Vector | Exchange) -> str:
    return row.name


def _outcome(sender: str, packed: bytes, start: int = 0) -> Iterator[Any]:
    """What a receiver makes of a message, as the files write it."""
    try:
        for item in DECODERS[sender](packed, start):
            yield {"refused": item.code, "id": item.id} if isinstance(item, Rejected) else item
    except Malformed:
        yield {"malformed": True}
    except RemoteProtocolError as error:
        yield {"refused": error.code}


@pytest.mark.parametrize("vector", ENVELOPES, ids=_name)
def test_encoding_gives_the_documented_bytes(vector: Vector) -> None:
    """Every envelope has exactly one form on the wire, and it is the one in the file."""
    assert encode(vector.envelope).hex() == vector.packed.hex()


@pytest.mark.parametrize(
    ("sender", "vector"),
    [("client", vector) for vector in FROM_CLIENT] + [("broker", vector) for vector in FROM_BROKER],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_decoding_gives_the_envelope_back(sender: str, vector: Vector) -> None:
    """What one side packed, the other reads as the same envelope."""
    assert list(DECODERS[sender](vector.packed)) == [vector.envelope]


@pytest.mark.parametrize(("sender", "vectors"), [("client", FROM_CLIENT), ("broker", FROM_BROKER)])
def test_all_envelopes_in_one_message_come_in_order(sender: str, vectors: list[Vector]) -> None:
    """A receiver does not care how many envelopes one message has."""
    message = b"".join(vector.packed for vector in vectors)

    assert list(DECODERS[sender](message)) == [vector.envelope for vector in vectors]


@pytest.mark.parametrize("message", MESSAGES, ids=_name)
def test_odd_and_faulty_messages_end_as_documented(message: Exchange) -> None:
    """Each message gives the envelopes, refusals and end that the file names, in this order."""
    assert list(_outcome(message.sender, message.packed)) == message.outcome


@pytest.mark.parametrize("message", MESSAGES, ids=_name)
def test_a_message_reads_the_same_from_within_a_larger_one(message: Exchange) -> None:
    """Decoding from a start position gives what stands from there on."""
    before = b"\x92\x07\x01"

    assert list(_outcome(message.sender, before + message.packed, len(before))) == message.outcome


def test_every_envelope_has_several_vectors() -> None:
    """No envelope of the protocol is left out: three vectors each at least."""
    counted = Counter(vector.envelope.kind for vector in ENVELOPES)

    assert {kind for kind in ALL_TYPES if counted[kind] < 3} == set()


def test_vectors_have_names_of_their_own() -> None:
    """A vector can be named in a report."""
    names = Counter([row.name for row in ENVELOPES] + [row.name for row in MESSAGES])

    assert [name for name, count in names.items() if count > 1] == []


def test_refusals_name_codes_of_the_table() -> None:
    """The files use no error code that the protocol does not have."""
    codes = {item["refused"] for row in MESSAGES for item in row.outcome if type(item) is dict and "refused" in item}

    assert codes - set(ERROR_CODES) == set()
