"""What one envelope may consist of is bounded, whatever it is made of."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanwire.protocol import Publish, decode_from_client
from fanwire.protocol.codec import Rejected
from fanwire.protocol.codes import MAX_MAP
from fanwire.protocol.unpacking import _has_more, unpack

_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300)
    | st.builds(
        msgpack.ExtType, st.integers(0, 127), st.sampled_from([b"x" * size for size in (1, 2, 3, 4, 8, 16, 300)])
    )
)
_values = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20)
)


def _count(value: Any) -> int:
    if isinstance(value, list):
        return 1 + sum(map(_count, value))
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(_count, value.values()))
    return 1


@given(_values, st.binary(max_size=3), st.integers(-3, 3))
def test_elements_are_counted_as_they_lie_in_the_bytes(value: object, before: bytes, more: int) -> None:
    """Of every type that msgpack has; keys of maps are elements, too."""
    data = before + msgpack.packb(value) + b"\x93"
    most = max(0, _count(value) + more)

    assert _has_more(data, len(before), most) is (_count(value) > most)


@pytest.mark.parametrize("filling", [1, [], {}, {"a": {"b": []}}, "", None])
def test_a_value_of_very_many_elements_is_refused_before_it_is_made(filling: object) -> None:
    """That envelope alone is refused, by its number; what stands around it is read."""
    bomb = msgpack.packb([4, 300, "a", b"", 0, {"headers": [filling] * 500_000}])
    first, refused, last = decode_from_client(
        msgpack.packb([4, 7, "a", b"x"]) + bomb + msgpack.packb([4, 8, "a", b"x"])
    )

    assert [type(each) for each in (first, last)] == [Publish, Publish]
    assert isinstance(refused, Rejected)
    assert (refused.id, refused.code) == (300, "bad_envelope")
    assert "80,000" in refused.message


@pytest.mark.parametrize("value", [[[]] * 90_000, [4, [[]] * 90_000], {"a": [[]] * 90_000}, [[4, 1]] + [0] * 90_000])
def test_what_is_no_envelope_and_too_large_has_no_number(value: object) -> None:
    """Nothing of its first elements is made, either, unless they are short."""
    (refused,) = decode_from_client(msgpack.packb(value))

    assert isinstance(refused, Rejected)
    assert refused.id == 0


def test_what_is_large_and_no_bomb_is_read() -> None:
    """A megabyte of payload, as many headers as there may be, very many envelopes in one message."""
    headers = {f"h{number}": "v" for number in range(MAX_MAP)}
    large = msgpack.packb([4, 1, "a", bytes(800_000), 0, {"headers": headers}])
    small = msgpack.packb([4, 2, "a", b"x"]) * 30_000

    envelopes = list(decode_from_client(large + small))
    assert [type(each) for each in envelopes] == [Publish] * 30_001
    assert list(unpack(small, 0, 10)) == [[4, 2, "a", b"x"]] * 30_000
