"""Whatever the bytes: envelopes, refusals and Malformed, and nothing else; and what was encoded comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fanwire.protocol import (
    MAX_MIXED_MAP,
    MAX_NESTING,
    MAX_NUMBER,
    MAX_NUMBERED_ENTRIES,
    Encoding,
    LocalProtocolError,
    Malformed,
    Message,
    ProtocolError,
    Publish,
    PublishOptions,
    Rejected,
    RemoteProtocolError,
    Subscribe,
    SubscribeOptions,
    decode_from_broker,
    decode_from_client,
    encode,
    pack,
    unpack,
    unpack_data,
)
from tests.unit.protocol.golden import DECODERS, FROM_BROKER, FROM_CLIENT

VECTORS = [vector.packed for vector in (*FROM_CLIENT, *FROM_BROKER) if len(vector.packed) < 1000]

numbers = st.integers(0, MAX_NUMBER)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
scalars = st.none() | st.booleans() | st.integers(-(2**63), MAX_NUMBER) | st.floats() | texts | st.binary(max_size=40)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=4), max_leaves=20
)
# Anything msgpack can say, what we refuse included.
structures = st.recursive(
    scalars | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20)),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(scalars.filter(lambda key: key == key), inner, max_size=4)
    ),
    max_leaves=20,
)
envelope_like = st.builds(lambda kind, rest: [kind, *rest], st.integers(-1, 27), st.lists(values, max_size=8))
tokens = st.text(st.characters(exclude_characters=".*>", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1)
topics = st.lists(tokens, min_size=1, max_size=5).map(".".join).filter(lambda name: len(name.encode()) <= 255)
options = st.builds(
    PublishOptions,
    headers=st.dictionaries(texts, texts, max_size=3),
    key=st.none() | texts.filter(bool),
    reply_to=st.none() | topics,
    retain=st.none() | st.booleans(),
    msg_id=st.none() | texts.filter(bool),
    expect=st.none() | numbers,
)
subscribe_options = st.builds(
    SubscribeOptions,
    on_slow=st.sampled_from(["disconnect", "unsubscribe", "drop_oldest", "drop_newest", "conflate"]),
    queue=st.none() | st.integers(1, MAX_NUMBER),
    max_rate=st.none() | st.floats(0.001, 1_000_000),
    heartbeat=st.none() | st.integers(1, 10**6),
    snapshot=st.booleans(),
    replay=st.none()
    | st.fixed_dictionaries({"last": st.integers(1, MAX_NUMBER)})
    | st.fixed_dictionaries({"offsets": st.dictionaries(topics, numbers), "epoch": texts.filter(bool)}),
    echo=st.booleans(),
    presence=st.booleans(),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Golden bytes, joined, then cut, changed or put together anew."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(VECTORS), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data[: draw(st.integers(0, len(data)))])


hostile = st.one_of(
    st.binary(max_size=300),
    mutated(),
    st.lists(structures | envelope_like, max_size=4).map(lambda items: b"".join(map(msgpack.packb, items))),
)


def _error_of(call: Callable[[], object]) -> ProtocolError | None:
    """The ProtocolError that a call raises, if it does; any other exception fails the test."""
    try:
        call()
    except ProtocolError as error:
        return error
    return None


@pytest.mark.parametrize("sender", ["client", "broker"])
@given(data=hostile, start=st.integers(0, 4))
@example(data=b"\xdd\xff\xff\xff\xff" * 300, start=0)
@example(data=b"\x91" * 2000, start=1)
@example(data=b"\xd6\xff\x00\x00\x00\x00", start=0)
def test_any_bytes_end_in_a_protocol_error_or_in_none(sender: str, data: bytes, start: int) -> None:
    """Nothing that a peer sends raises anything but RemoteProtocolError, and every refusal can be answered."""
    read: list[Any] = []

    error = _error_of(lambda: read.extend(DECODERS[sender](data, start)))

    assert error is None or (isinstance(error, RemoteProtocolError) and str(error) != "")
    assert all(encode(item.to_error() if isinstance(item, Rejected) else item) for item in read)


@given(data=hostile)
def test_what_was_read_can_be_said_again(data: bytes) -> None:
    """Whatever form an envelope came in, its canonical form means the same."""
    read: list[Any] = []
    try:
        read.extend(item for item in decode_from_client(data) if not isinstance(item, Rejected))
    except Malformed:
        pass

    assert list(decode_from_client(b"".join(map(encode, read)))) == read


@given(before=mutated(), data=hostile)
def test_a_message_does_not_depend_on_the_one_before(before: bytes, data: bytes) -> None:
    """Another message, cut off or not, changes nothing in what a message means."""
    alone = _read(data)
    _read(before)

    assert repr(_read(data)) == repr(alone)  # by text: NaN is not equal to itself


@given(data=hostile, start=st.integers(1, 4))
def test_the_quick_and_the_thorough_way_read_the_same(data: bytes, start: int) -> None:
    """A message read from its first byte, which has a way of its own, and from within another are the same."""
    assert repr(_read(b"\xc0" * start + data, start)) == repr(_read(data))


def _read(data: bytes, start: int = 0) -> list[object]:
    read: list[object] = []
    try:
        read.extend(unpack(data, start))
    except Malformed:
        read.append(Malformed)
    return read


@given(items=st.lists(values, max_size=5))
def test_values_come_back_one_by_one(items: list[Any]) -> None:
    """Concatenated values are read as packed, since msgpack delimits itself."""
    assert repr(list(unpack(b"".join(map(msgpack.packb, items))))) == repr(items)


@given(items=st.lists(values, min_size=1, max_size=5), data=st.data())
def test_a_cut_is_noticed_wherever_it_is(items: list[Any], data: st.DataObject) -> None:
    """A message cut off within a value gives the whole ones before it, then Malformed; one cut between two is well."""
    packed = [msgpack.packb(item) for item in items]
    cut = data.draw(st.integers(0, sum(map(len, packed))))
    ends = [sum(map(len, packed[: index + 1])) for index in range(len(packed))]
    whole = sum(end <= cut for end in ends)

    expected: list[object] = [*items[:whole], *([] if cut in (0, *ends) else [Malformed])]

    assert repr(_read(b"".join(packed)[:cut])) == repr(expected)


@given(depth=st.integers(1, 40), maps=st.booleans())
def test_nesting_is_bounded_exactly(depth: int, maps: bool) -> None:
    """Sixteen levels are read, seventeen are not."""
    level, last = (b"\x81\xa1a", b"\x80") if maps else (b"\x91", b"\x90")

    accepted = _read(level * (depth - 1) + last) != [Malformed]

    assert accepted == (depth <= MAX_NESTING)


@given(id=numbers, topic=topics, payload=st.binary(max_size=300), encoding=st.sampled_from(Encoding), options=options)
def test_publishes_come_back(
    id: int,  # noqa: A002
    topic: str,
    payload: bytes,
    encoding: Encoding,
    options: PublishOptions,
) -> None:
    """What a client publishes is what the broker reads."""
    publish = Publish(id, topic, payload, encoding, options)

    assert list(decode_from_client(encode(publish))) == [publish]


@given(pattern=topics, options=subscribe_options)
def test_subscribes_come_back(pattern: str, options: SubscribeOptions) -> None:
    """What a client asks for is what the broker reads."""
    subscribe = Subscribe(1, pattern, options)

    assert list(decode_from_client(encode(subscribe))) == [subscribe]


@given(route=numbers, topic=st.none() | topics, offset=numbers, time=numbers, payload=st.binary(max_size=300))
def test_messages_come_back(route: int, topic: str | None, offset: int, time: int, payload: bytes) -> None:
    """What the broker delivers is what the client reads."""
    message = Message(route, topic, offset, time, payload)

    assert list(decode_from_broker(encode(message))) == [message]


@given(data=values)
def test_user_data_comes_back(data: Any) -> None:
    """What a user publishes is what the subscriber gets."""
    assert repr(unpack_data(pack(data), Encoding.MSGPACK)) == repr(data)


number_keys = st.integers(-(2**63), MAX_NUMBER) | st.floats(allow_nan=False)
keys_of_maps: st.SearchStrategy[Any] = (
    number_keys | st.none() | st.booleans() | st.text(max_size=3) | st.binary(max_size=3)
)
keys_of_maps |= st.tuples(number_keys, st.text(max_size=3)) | st.tuples(st.tuples(st.binary(max_size=2)))


@given(keys=st.lists(keys_of_maps, unique=True, max_size=MAX_MIXED_MAP))
def test_maps_with_any_keys_are_read(keys: list[Any]) -> None:
    """What packs is read, whatever keys it has; tuples stay tuples where they are keys."""
    data = {"book": {key: [number] for number, key in enumerate(keys)}}

    assert unpack_data(pack(data), Encoding.MSGPACK) == data


@given(
    sizes=st.lists(st.integers(0, MAX_NUMBERED_ENTRIES + 2), max_size=3),
    kind=st.sampled_from([int, float, str, bytes, lambda number: (number,)]),
)
@settings(max_examples=30)
def test_what_is_packed_is_read(sizes: list[int], kind: Any) -> None:
    """Large maps whose hashes could be made to collide are refused at both ends, by the same rule."""
    make = (lambda number: b"%d" % number) if kind is bytes else kind
    data = [dict.fromkeys(map(make, range(size))) for size in sizes]
    refusal = _error_of(lambda: pack(data))

    if refusal is None:
        assert unpack_data(pack(data), Encoding.MSGPACK) == data
    else:
        assert type(refusal) is LocalProtocolError
        error = _error_of(lambda: unpack_data(msgpack.packb(data), Encoding.MSGPACK))
        assert type(error) is RemoteProtocolError
        assert "keys that are" in str(error)


@given(payload=st.binary(max_size=200) | values.map(msgpack.packb), encoding=st.integers(-1, 5))
def test_any_payload_is_read_or_refused(payload: bytes, encoding: int) -> None:
    """A payload that is not what its encoding says raises RemoteProtocolError, and nothing else."""
    error = _error_of(lambda: unpack_data(payload, encoding))

    assert error is None or (type(error) is RemoteProtocolError and error.code == "malformed")


@given(value=st.recursive(structures | st.complex_numbers() | st.dates(), lambda inner: st.lists(inner), max_leaves=5))
def test_any_value_is_packed_or_refused(value: Any) -> None:
    """User data that msgpack cannot say raises LocalProtocolError, and nothing else."""
    error = _error_of(lambda: pack(value))

    assert error is None or (isinstance(error, LocalProtocolError) and str(error) != "")


@given(value=st.floats() | st.integers() | texts | st.booleans() | st.none())
def test_a_queue_is_a_positive_integer(value: Any) -> None:
    """Everything else is refused, and the refusal names the option."""
    wanted = value is None or (type(value) is int and 1 <= value <= MAX_NUMBER)
    error = _error_of(lambda: SubscribeOptions.from_map({"queue": value}))

    assert (error is None) == wanted
    assert error is None or (error.code == "bad_option" and "'queue'" in str(error))
