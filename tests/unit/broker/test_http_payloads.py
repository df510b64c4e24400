"""Payloads in JSON: nothing is lost, and nothing is taken for something else."""

import json
import math
from typing import Any

import msgpack
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from fanwire.broker import Config, TopicRule
from fanwire.broker.http import HttpService
from fanwire.broker.http.answers import Answer, HttpError, as_json
from fanwire.broker.http.caller import Caller
from fanwire.broker.http.endpoint_table import ENDPOINTS
from fanwire.broker.http.payloads import MAX_DECODED, read, shown
from fanwire.broker.http.publish import publish_batch
from fanwire.broker.http.request import Request
from fanwire.broker.network.peer import Peer
from fanwire.broker.sessions.hub import Hub
from fanwire.protocol import Encoding, pack

_batch = next(each for each in ENDPOINTS if each.handle is publish_batch)

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(_json)
def test_a_json_value_comes_through(value: Any) -> None:
    """Published as JSON and shown as JSON it is the same, whatever its keys are called."""
    payload, encoding = read(json.loads(as_json(shown(json.dumps(value).encode(), Encoding.JSON))), None)

    assert encoding is Encoding.JSON
    assert json.loads(payload) == value


@given(st.binary(max_size=200), st.sampled_from(list(Encoding)))
def test_any_bytes_can_be_shown(payload: bytes, encoding: Encoding) -> None:
    """Whatever they are called, and in valid JSON and UTF-8."""
    json.loads(as_json(shown(payload, encoding)).decode())


def test_msgpack_and_text_are_values() -> None:
    """As far as JSON can say them."""
    assert shown(pack({"price": 1.5}), Encoding.MSGPACK) == {"price": 1.5}
    assert shown("é".encode(), Encoding.TEXT) == "é"


@pytest.mark.parametrize(
    ("payload", "encoding"),
    [
        (b"raw", Encoding.RAW),
        (b"\xff", Encoding.TEXT),
        (b"NaN", Encoding.JSON),
        (b"[" * 5000, Encoding.JSON),
        (b"9" * 5000, Encoding.JSON),
        (pack(b"bytes"), Encoding.MSGPACK),
        (msgpack.packb({1: 2}), Encoding.MSGPACK),
        (msgpack.packb({b"a": 2}), Encoding.MSGPACK),
        (b"\x91" * 900 + b"\x01", Encoding.MSGPACK),
        (b"\xdd\xff\xff\xff\xff", Encoding.MSGPACK),
        (b"\xc1", Encoding.MSGPACK),
        (b"1", 9),
        (b'"' + b"x" * MAX_DECODED + b'"', Encoding.JSON),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_json_cannot_say_comes_as_bytes(payload: bytes, encoding: int) -> None:
    """And can be published again as such."""
    value = shown(payload, encoding)

    assert list(value) == ["$bin"]
    assert read(value, None) == (payload, Encoding.RAW)


@pytest.mark.parametrize(
    ("payload", "encoding", "value"),
    [
        (pack({"bid": math.nan, "ask": 4512.25}), Encoding.MSGPACK, {"bid": "NaN", "ask": 4512.25}),
        (pack([math.inf, -math.inf, 1.5]), Encoding.MSGPACK, ["Infinity", "-Infinity", 1.5]),
        (b'{"p": 1e999}', Encoding.JSON, {"p": "Infinity"}),
        (pack({"id": 2**53 + 1, "n": 2**53}), Encoding.MSGPACK, {"id": "9007199254740993", "n": 2**53}),
        (b"[-9007199254740993, 123456789012345678901234567890]", Encoding.JSON,
         ["-9007199254740993", "123456789012345678901234567890"]),
        (pack({"$sum": math.nan}), Encoding.MSGPACK, {"$$sum": "NaN"}),
    ],
)  # fmt: skip
def test_only_a_number_that_json_cannot_say_changes(payload: bytes, encoding: int, value: Any) -> None:
    """It is text then, and the rest of the value is what it was."""
    shown_ = shown(payload, encoding)

    assert shown_ == value
    json.loads(as_json(shown_))


def test_half_a_surrogate_pair_is_no_invalid_utf_8() -> None:
    """JSON can say it, UTF-8 cannot."""
    value = shown(b'"\\ud800"', Encoding.JSON)

    assert json.loads(as_json(value).decode()) == "\ud800"


def test_encodings_can_be_chosen() -> None:
    """For the receivers."""
    assert read({"a": 1}, "msgpack") == (pack({"a": 1}), Encoding.MSGPACK)
    assert read("é", "text") == ("é".encode(), Encoding.TEXT)
    assert read({"$bin": "AQ=="}, "msgpack") == (b"\x01", Encoding.MSGPACK)
    assert read({"$$bin": 1}, None) == (b'{"$bin":1}', Encoding.JSON)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1, "text"),
        (1, "raw"),
        (1, "xml"),
        ({"$bin": "?"}, None),
        ({"$bin": 1}, None),
        ({"$other": 1}, None),
        (2**70, "msgpack"),
    ],
    ids=str,
)
def test_what_stands_for_no_payload(value: Any, name: str | None) -> None:
    """It says which option is wrong."""
    with pytest.raises(HttpError) as caught:
        read(value, name)

    assert caught.value.code == "bad_option"
    assert caught.value.detail["option"] in ("payload", "encoding")


_any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=5,
)
_names = ("topic", "payload", "encoding", "headers", "key", "retain", "msg_id", "expect", "reply_to")


@given(
    st.lists(
        st.dictionaries(st.sampled_from(_names) | st.text(max_size=3), _any | st.sampled_from(["a", "json", "$bin"]))
        | st.builds(dict, topic=st.just("a"), payload=_any, key=_any)
        | _any
    )
)
def test_whatever_a_batch_holds_each_item_is_answered(items: list[Any]) -> None:
    """Published, or refused with a code; never a defect of ours."""
    body = json.dumps(items).encode()

    async def post() -> Answer:
        hub = Hub(Config(listen=False, rules=(TopicRule(pattern="a", history=3),)), HttpService)
        request = Request(_batch, Caller(hub, Peer(), local=True), {}, {}, {"content-type": "application/json"}, body)
        return await publish_batch(hub, request)

    try:
        answer = trio.run(post)
    except HttpError as error:
        answer = error.answer()
    said = json.loads(answer.body)
    if answer.status == 400:
        assert said["error"]["code"] == "malformed"  # NaN, or half a pair of surrogates
    else:
        assert len(said["results"]) == len(items)
        assert all("offset" in result or result["error"]["code"] for result in said["results"])
