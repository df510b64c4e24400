"""What one run of publishes becomes: MESSAGE envelopes in chunks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fanwire.broker.delivery.routes import Route, Topic
from fanwire.protocol import MAX_BATCH, Encoding, Message, decode_from_broker, encode

STAMP = (1_700_000_000_000_000).to_bytes(8, "big")


def _bin(payload: bytes) -> bytes:
    return b"\xc6" + len(payload).to_bytes(4) + payload


def test_a_message_is_encoded_as_the_codec_encodes_it() -> None:
    """Byte for byte the canonical envelope; without a topic where the pattern names it already."""
    topic = Topic("a.b")
    tails = [b"\xc4\x02hi\x03"]

    for route, name in ((Route(7, "a.b", wildcard=False), None), (Route(300, "a.*", wildcard=True), "a.b")):
        (chunk,) = route.chunks(topic, 7, tails, STAMP, 0.0)
        assert chunk.data == encode(Message(route.number, name, 0, 1_700_000_000_000_000, b"hi", Encoding.JSON))


sizes = st.integers(0, 300) | st.integers(30_000, 70_000)


@given(st.lists(sizes, min_size=1, max_size=12))
def test_chunks_hold_64_kib_or_one_message(sizes: list[int]) -> None:
    """Whatever the sizes: nothing lost, in order, counted, and no chunk over the limit but a single message."""
    payloads = [bytes([number]) * size for number, size in enumerate(sizes)]

    chunks = Route(1, "a", wildcard=False).chunks(Topic("a"), 6, [_bin(each) for each in payloads], STAMP, 2.0)

    assert [m.payload for c in chunks for m in decode_from_broker(c.data) if isinstance(m, Message)] == payloads
    assert [chunk.count for chunk in chunks] == [len(list(decode_from_broker(chunk.data))) for chunk in chunks]
    assert all(len(chunk.data) <= MAX_BATCH or chunk.count == 1 for chunk in chunks)
    assert {chunk.born for chunk in chunks} == {2.0}


def test_chunks_are_as_full_as_they_may_be() -> None:
    """A run that fits in two chunks does not take three."""
    route, topic = Route(1, "a", wildcard=False), Topic("a")
    (one,) = route.chunks(topic, 6, [_bin(b"x" * 100)], STAMP, 0.0)
    fit = MAX_BATCH // len(one.data)

    assert [c.count for c in route.chunks(topic, 6, [_bin(b"x" * 100)] * (2 * fit), STAMP, 0.0)] == [fit, fit]


offsets = st.integers(1, 700) | st.sampled_from([2**16 - 3, 2**32 - 700, 2**32 - 3, 2**32, 2**40])


@given(offsets, st.lists(st.integers(0, 300), min_size=1, max_size=20), st.integers(1, 40), st.booleans())
def test_messages_with_offsets_are_numbered_one_by_one(
    first: int, sizes: list[int], times: int, wildcard: bool
) -> None:
    """However many there are, whatever digits change on the way; and each can be cut out of its chunk."""
    payloads = [b"x" * size for size in sizes] * times
    route, topic = Route(1, "a.*" if wildcard else "a.b", wildcard=wildcard), Topic("a.b")

    chunks = route.chunks(topic, 6, [_bin(each) for each in payloads], STAMP, 2.0, first=first)

    messages = [m for c in chunks for m in decode_from_broker(c.data) if isinstance(m, Message)]
    assert [(m.offset, m.payload) for m in messages] == list(enumerate(payloads, first))
    assert all(len(chunk.data) <= MAX_BATCH for chunk in chunks)
    assert [route.first_offset(chunk) for chunk in chunks] == [
        next(iter(m.offset for m in decode_from_broker(c.data) if isinstance(m, Message))) for c in chunks
    ]
    parts = [chunk.part(each, 1) for chunk in chunks for each in range(chunk.count)]
    assert [next(iter(decode_from_broker(part))) for part in parts] == messages
