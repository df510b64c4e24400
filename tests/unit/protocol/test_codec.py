"""What decoding costs, what refusals say, and what encoding refuses."""

from __future__ import annotations

import datetime
import gc
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest

from fanwire.protocol import (
    MAX_MAP,
    Backlog,
    Encoding,
    Error,
    Hello,
    LocalProtocolError,
    Malformed,
    Ok,
    Publish,
    PublishOptions,
    Rejected,
    RemoteProtocolError,
    Subscribe,
    decode_from_broker,
    decode_from_client,
    encode,
    pack,
    unpack,
    unpack_data,
)

KIB = 1024
BOMBS = {
    "arrays of 4 G elements": b"\xdd\xff\xff\xff\xff" * 1000,
    "arrays of as many elements as there are bytes": b"\xdd\x00\x00\x13\x80" * 1000,
    "arrays of 64 elements": b"\xdc\x00\x40" * 1000,
    "maps of 4 G pairs": b"\xdf\xff\xff\xff\xff" * 1000,
    "maps of as many pairs as there are bytes": b"\xdf\x00\x00\x08\x00\xa1a" * 1000,
    "levels": b"\x91" * 100_000,
    "levels, all of them there": b"\x91" * 1000 + b"\x90",
    "a bin of 4 GiB": b"\xc6\xff\xff\xff\xff",
}


def _any(value: Any) -> Any:
    """A value that the type checker would not let pass."""
    return value


def _peak(call: Callable[[], object]) -> int:
    """Bytes allocated at most during a call that ends with a RemoteProtocolError."""
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("before", [b"", b"\x92\x07\x01"], ids=["alone", "after an envelope"])
def test_bombs_allocate_little(bomb: bytes, before: bytes) -> None:
    """What is announced or nested allocates no more than 64 elements for each of 1,024 levels, 8 bytes each."""
    assert _peak(lambda: list(unpack(before + bomb))) < 2 * 64 * KIB * 8 + 4 * len(bomb)


# A user's data may be nested as deep as msgpack goes.
@pytest.mark.parametrize("name", sorted(BOMBS.keys() - {"levels, all of them there"}))
def test_bombs_in_payloads_allocate_little(name: str) -> None:
    """A subscriber's memory is not at the mercy of a publisher: 1,024 elements for each of 1,024 levels at most."""
    bomb = BOMBS[name]

    assert _peak(lambda: unpack_data(bomb, Encoding.MSGPACK)) < KIB * KIB * 8 + 4 * len(bomb)


LEAKS = {
    "cut off": b"\x92\x92\x92\xc4\x30" + b"x" * 48,
    "no msgpack": b"\x92\x92\x92\xc4\x30" + b"x" * 48 + b"\xc1",
    "no UTF-8": b"\x92\x92\x92\xa1\xff",
    "a key twice": b"\x92\x92\x82\xa1a\x92\x01\x02\xa1a\x01",
    "a number as key": b"\x92\x92\x82\xa1a\x92\x01\x02\x05\x01",
    "an extension": b"\x92\x92\x92\x01\xd4\x05\x00",
    "too many elements for the quick way": b"\x92\x92\xdc\x00\x41" + b"\x01" * 0x41 + b"\xc1",
}


@pytest.mark.parametrize("data", LEAKS.values(), ids=LEAKS)
@pytest.mark.parametrize("read", [lambda data: list(unpack(data)), lambda data: unpack_data(data, 1)])
def test_refused_bytes_leave_nothing_behind(read: Callable[[bytes], object], data: bytes) -> None:
    """Faulty messages take no memory with them (msgpack before 1.2.1 keeps what lay within, 56 bytes at the least)."""
    messages = 4000
    _read_all(read, data, 10)  # What is made once, by whoever runs first, is no leak.
    tracemalloc.start()
    try:
        _read_all(read, data, messages)
        gc.collect()
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert left < messages * 16


def _read_all(read: Callable[[bytes], object], data: bytes, times: int) -> None:
    for _ in range(times):
        with suppress(RemoteProtocolError):
            read(data)


def test_decoding_a_small_message_allocates_little() -> None:
    """Not msgpack's usual megabyte of buffer; an Unpacker's stack of 1,024 levels, 41 KiB, is what it takes."""
    message = encode(Backlog(1, 2, 3, 4)) * 2
    list(decode_from_client(message))
    tracemalloc.start()
    try:
        list(decode_from_client(message))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 64 * KIB


def test_what_stands_before_the_fault_is_handled_first() -> None:
    """Envelopes are given out one by one, before anything later is looked at."""
    envelopes = decode_from_client(encode(Backlog(1, 2, 3, 4)) + b"\xc1")

    assert next(envelopes) == Backlog(1, 2, 3, 4)
    with pytest.raises(Malformed, match="at byte 6: 0xC1 is no msgpack"):
        next(envelopes)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x92\x07", "at byte 0: the message ends, 2 bytes into a value"),
        (b"\x92\x07\x01\x92\x07", "at byte 3: the message ends, 2 bytes into a value"),
        (b"\x91" * 17 + b"\x90", "at byte 0: nested more than 16 deep"),
        (b"\x91" * 2000, "at byte 0: nested more than 16 deep"),
        (b"\x91\xa1\xff", "at byte 0: text is not UTF-8: invalid start byte"),
        (b"\x82\xa1a\x01\xa1a\x02", "at byte 0: a map has the key 'a' twice"),
        (b"\x81\xc4\x01a\x02", "at byte 0: a map has a key that is no text"),
        (b"\xd4\x05\x00", "at byte 0: extension types are not taken"),
        (b"\xc7\x00\x05", "at byte 0: extension type 5 is not taken"),
    ],
)
def test_malformed_says_what_and_where(data: bytes, message: str) -> None:
    """With the position in the message, for whoever debugs a client."""
    with pytest.raises(Malformed) as caught:
        list(decode_from_client(data))

    assert (caught.value.code, str(caught.value)) == ("malformed", message)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            [2, 0, "a"],
            Rejected(
                0,
                "bad_envelope",
                "SUBSCRIBE: id is 0; it must be a request number from 1 on, since its answer is needed",
                {"about": "SUBSCRIBE"},
            ),
        ),
        ([7], Rejected(0, "bad_envelope", "PING needs 1 elements after its type, has 0", {"about": "PING"})),
        ([99, 4], Rejected(4, "unknown_type", "there is no envelope of type 99")),
        ([99], Rejected(0, "unknown_type", "there is no envelope of type 99", {"about": "type 99"})),
        ([17, 4, {}], Rejected(0, "unknown_type", "OK (17) is for the broker to say", {"about": "OK"})),
        (
            [4, 0, "a", b"", 0, {"ky": "k"}],
            Rejected(
                0,
                "bad_option",
                "PUBLISH has no option 'ky'; did you mean 'key'?",
                {"about": "PUBLISH", "option": "ky"},
            ),
        ),
        (
            [4, 9, "a", "text"],
            Rejected(9, "bad_envelope", "PUBLISH: payload is 'text'; it must be bytes (msgpack's bin)"),
        ),
    ],
)
def test_a_refusal_says_what_it_is_about(value: Any, expected: Rejected) -> None:
    """With the request's id where there is one; else the detail names the envelope."""
    assert list(decode_from_client(msgpack.packb(value))) == [expected]


def test_a_refusal_is_answered_with_an_error() -> None:
    """The answer has all that the refusal has, and a client reads it."""
    (rejected,) = decode_from_client(msgpack.packb([2, 3, "a", {"que": 1}]))

    assert isinstance(rejected, Rejected)
    assert list(decode_from_broker(encode(rejected.to_error()))) == [
        Error(3, "bad_option", "SUBSCRIBE has no option 'que'; did you mean 'queue'?", {"option": "que"})
    ]


def test_a_refusal_of_a_huge_envelope_is_short() -> None:
    """An ERROR is not longer because the request was."""
    (rejected,) = decode_from_client(msgpack.packb(["x" * 1_000_000]))

    assert isinstance(rejected, Rejected)
    assert len(encode(rejected.to_error())) < 500


def test_the_broker_is_reported_with_the_fault() -> None:
    """A client's log says which envelope was wrong, and how."""
    with pytest.raises(RemoteProtocolError, match="LAGGING needs 4 elements after its type, has 1") as caught:
        list(decode_from_broker(msgpack.packb([23, 1])))

    assert caught.value.code == "bad_envelope"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Publish(True, "a", b""), "PUBLISH: id is True; it must be an unsigned integer of at most 64 bits"),
        (lambda: Publish(0, "a b", b""), "topic 'a b' has the whitespace U+0020 at position 1"),
        (lambda: Publish(0, "a", _any(bytearray())), "PUBLISH: payload is bytearray(b''); it must be bytes"),
        (lambda: Publish(0, "a", b"", 7), "PUBLISH: encoding is 7; it must be an integer: 0 raw, 1 msgpack, 2 text, 3"),
        (lambda: Subscribe(2**64, "a"), "SUBSCRIBE: id is 18446744073709551616; it must be a request number from 1"),
        (lambda: Hello(0, token=_any(5)), "option 'token' is 5; it must be text"),
        (lambda: Ok(1, _any({1: 2})), "OK: result is {1: 2}; it must be a map with text as keys"),
    ],
)
def test_what_must_not_be_sent_cannot_be_made(make: Callable[[], object], message: str) -> None:
    """The caller is told at the call, not by the peer."""
    with pytest.raises(LocalProtocolError) as caught:
        make()

    assert str(caught.value).startswith(message)


def _nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (datetime.datetime(2024, 1, 1), "data: datetime.datetime has no form in msgpack"),
        ({"a": [1, object()]}, "data['a'][1]: object has no form in msgpack"),
        ({1, 2}, "data: set has no form in msgpack"),
        (2**64, "data: an integer of 65 bits does not fit into msgpack's 64"),
        ({"bids": {1.5: -(2**64)}}, "data['bids'][1.5]: an integer of 65 bits"),
        ("\ud800", "data: character 0 is half of a surrogate pair (U+D800)"),
        ([{"text": "hi \ud83d"}], "data[0]['text']: character 3 is half of a surrogate pair (U+D83D)"),
        ({"a": {"\ude00": 1}}, "data['a'] (its key '\\ude00'): character 0 is half of a surrogate pair"),
        (_nested(2000), "data[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0][0]: nested too deep"),
        (
            {"book": dict.fromkeys(range(5000))},
            "data['book']: a map of 5000 entries has keys",
        ),
        ([dict.fromkeys(map(float, range(3000)))] * 2, "data[0]: a map of 3000 entries has keys that are neither"),
        (
            dict.fromkeys(zip(range(200), range(200), strict=True)),
            "data: a map of 200 entries has keys that are lists or the like",
        ),
    ],
)
def test_user_data_that_cannot_be_said_is_named(value: object, message: str) -> None:
    """By its place and type, with what to do."""
    with pytest.raises(LocalProtocolError) as caught:
        pack(value)

    assert str(caught.value).startswith(message)


def test_packing_goes_on_after_an_error() -> None:
    """Nothing of a value that failed is left in the packer."""
    for value in ([1, object()], ["\ud800"]):
        with pytest.raises(LocalProtocolError):
            pack(value)

    assert pack([1]) == b"\x91\x01"


def test_data_that_contains_itself_is_refused() -> None:
    """Not an endless loop."""
    endless: list[object] = []
    endless.append(endless)

    with pytest.raises(LocalProtocolError):
        pack(endless)


def test_a_detail_that_cannot_be_said_is_refused() -> None:
    """Maps in envelopes are looked at when they are packed; nothing half packed stays behind."""
    with pytest.raises(LocalProtocolError, match=r"datetime\.datetime has no form in msgpack"):
        encode(Error(1, "internal", "x", {"when": datetime.datetime(2024, 1, 1)}))

    assert encode(Ok(1, {})) == b"\x93\x11\x01\x80"


def test_a_large_message_leaves_no_large_buffer_behind() -> None:
    """The packer that all connections share gives back what one of them needed."""
    payload = b"x" * (32 << 20)
    tracemalloc.start()
    try:
        encode(Publish(0, "a", payload))
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert left < 2 << 20


@pytest.mark.parametrize(
    ("payload", "encoding", "expected"),
    [
        (b"\xff", Encoding.RAW, b"\xff"),
        (b"\x81\xa1a\x92\x01\xc4\x01x", Encoding.MSGPACK, {"a": [1, b"x"]}),
        ("grüß dich".encode(), Encoding.TEXT, "grüß dich"),
        (b'{"a": [1.5, null]}', Encoding.JSON, {"a": [1.5, None]}),
        (b"\xd4\x05\x00", Encoding.MSGPACK, msgpack.ExtType(5, b"\x00")),
        (b"\x81\x01\x02", Encoding.MSGPACK, {1: 2}),
    ],
)
def test_payloads_are_read_by_their_encoding(payload: bytes, encoding: Encoding, expected: object) -> None:
    """What the publisher meant."""
    assert unpack_data(payload, encoding) == expected


def test_large_user_data_is_read() -> None:
    """Lists and maps of any size are read, if they are all there."""
    data = {"list": list(range(5000)), "map": {str(key): key for key in range(5000)}, "few": {1: 2}}

    assert unpack_data(pack(data), Encoding.MSGPACK) == data


@pytest.mark.parametrize(
    ("payload", "encoding", "message"),
    [
        (b"\x92\x01", Encoding.MSGPACK, "payload is no MSGPACK: No more data to unpack."),
        (b"", Encoding.MSGPACK, "payload is no MSGPACK: No more data to unpack."),
        (b"\x01\x02", Encoding.MSGPACK, "payload is no MSGPACK: unpack(b) received extra data."),
        (b"\x81\x80\x01", Encoding.MSGPACK, "payload is no MSGPACK: unhashable type: 'dict'"),
        (b"\xff", Encoding.TEXT, "payload is no TEXT: 'utf-8' codec can't decode byte 0xff in"),
        (b"[NaN]", Encoding.JSON, "payload is no JSON: NaN is no JSON"),
        (b"[" * 100_000, Encoding.JSON, "payload is no JSON: maximum recursion depth exceeded"),
        (b"x", 4, "encoding 4 is not known here"),
    ],
)
def test_payloads_that_are_not_what_they_say_are_refused(payload: bytes, encoding: int, message: str) -> None:
    """The subscriber is told; the connection has nothing to do with it."""
    with pytest.raises(RemoteProtocolError) as caught:
        unpack_data(payload, encoding)

    assert (type(caught.value), caught.value.code) == (RemoteProtocolError, "malformed")
    assert str(caught.value).startswith(message)


def test_a_token_is_not_shown() -> None:
    """Not in a log by accident."""
    assert "secret" not in repr(Hello(1, token="secret"))


def test_msgpack_in_python_reads_the_same() -> None:
    """Where msgpack has no C code, the vectors hold as well."""
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/protocol/test_vectors.py"],
        env={**os.environ, "MSGPACK_PUREPYTHON": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert ended.returncode == 0, ended.stdout[-3000:]


def _offsets(count: int) -> dict[str, int]:
    return {str(number): 1 for number in range(count)}


def test_a_request_with_a_very_large_map_is_refused_and_the_next_one_is_read() -> None:
    """By its number, without having been unpacked; one with as many entries as may be is taken."""
    large = [2, 7, "a.>", {"replay": {"offsets": _offsets(MAX_MAP + 1), "epoch": "e"}}]
    most = [2, 8, "a.>", {"replay": {"offsets": _offsets(MAX_MAP), "epoch": "e"}}]
    refused, taken = decode_from_client(msgpack.packb(large) + msgpack.packb(most))

    assert isinstance(refused, Rejected)
    assert (refused.id, refused.code) == (7, "bad_envelope")
    assert "16,384" in refused.message
    assert isinstance(taken, Subscribe)


@pytest.mark.parametrize("value", [[_offsets(MAX_MAP + 1)], _offsets(MAX_MAP + 1)], ids=["first", "alone"])
def test_a_very_large_map_where_an_envelope_should_begin(value: object) -> None:
    """Nobody can say whose request that is."""
    (refused,) = decode_from_client(msgpack.packb(value))

    assert isinstance(refused, Rejected)
    assert (refused.id, refused.code) == (0, "bad_envelope")


def test_a_broker_does_not_say_so_much_either() -> None:
    """What it stores of publishers' headers is within the bound."""
    data = msgpack.packb([17, 1, _offsets(MAX_MAP + 1)])
    with pytest.raises(RemoteProtocolError, match="16,384 entries"):
        list(decode_from_broker(data))


def test_headers_are_bounded_where_they_are_given() -> None:
    """So that no receiver gets more than it takes."""
    with pytest.raises(LocalProtocolError, match="16,384 entries at most"):
        PublishOptions(headers=dict.fromkeys(map(str, range(MAX_MAP + 1)), ""))
