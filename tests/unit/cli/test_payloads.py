import json
import math
from typing import Any

import click
import pytest

from fanwire.client import Message
from fanwire.client.cli.json_view import payload_as_json
from fanwire.client.cli.message_line import json_line, text_line
from fanwire.client.cli.payload import Form, Payload, read_payload
from fanwire.protocol import Encoding, pack


def _message(payload: bytes, encoding: int = 0, *, offset: int = 0, meta: dict[str, Any] | None = None) -> Message:
    return Message((19, 1, "rooms.kitchen", offset, 1_700_000_000_000_000, payload, encoding, meta or {}), None)


@pytest.mark.parametrize(
    ("data", "form", "payload"),
    [
        (b"hello", "text", Payload("hello", raw=True)),
        (b"\xff\x00", "raw", Payload(b"\xff\x00", raw=True)),
        (b'{"price": 1.5}', "json", Payload({"price": 1.5}, raw=False)),
        (b"null", "json", Payload(None, raw=False)),
        (b"\xef\xbb\xbf[1]", "json", Payload([1], raw=False)),
        (b"\xef\xbb\xbfAAPL", "text", Payload("AAPL", raw=True)),
        (b"\xef\xbb\xbf", "raw", Payload(b"\xef\xbb\xbf", raw=True)),
    ],
)
def test_data_becomes_what_it_is_said_to_be(data: bytes, form: Form, payload: Payload) -> None:
    """Text and bytes are sent as they are, JSON as its value."""
    assert read_payload(data, form, where="DATA") == payload


@pytest.mark.parametrize(
    ("data", "form", "text"),
    [
        (b'{"a": 1 2}', "json", "DATA is not JSON: column 9: "),
        (b'{\n"a" 1}', "json", "DATA is not JSON: line 2 column 5: "),
        (b"[NaN]", "json", "DATA is not JSON: it has no NaN"),
        (b"[" * 200_000, "json", "DATA is nested too deeply"),
        (b"abc\xff", "text", "DATA is not UTF-8 text (byte 3): convert it to UTF-8, or use --raw"),
        ("[1]".encode("utf-16"), "json", "DATA is UTF-16: convert it to UTF-8 (iconv"),
        ("a".encode("utf-16"), "text", "DATA is UTF-16: convert it to UTF-8 (iconv"),
        (b'{"p": 1e400}', "json", "DATA has the number 1e400, which is too large; write it as text"),
        (b"-1e400", "json", "DATA has the number -1e400, which is too large; write it as text"),
        (b'"\xff"', "json", "DATA is not UTF-8 text (byte 1): convert it to UTF-8, or use --raw"),
    ],
)
def test_data_that_is_not_is_told_with_its_place(data: bytes, form: Form, text: str) -> None:
    """What is no JSON, or no UTF-8, is a usage error that names the position."""
    with pytest.raises(click.UsageError) as caught:
        read_payload(data, form, where="DATA")

    assert caught.value.format_message().startswith(text)


@pytest.mark.parametrize(
    ("payload", "encoding", "value"),
    [
        (b"\xff", Encoding.RAW, {"$bin": "/w=="}),
        ("grün".encode(), Encoding.TEXT, "grün"),
        (b'{"a": [1, null]}', Encoding.JSON, {"a": [1, None]}),
        (pack({"price": 1.5}), Encoding.MSGPACK, {"price": 1.5}),
        (pack({"$bin": "x"}), Encoding.MSGPACK, {"$$bin": "x"}),
        (pack({"bid": math.nan, "ask": 4512.25}), Encoding.MSGPACK, {"bid": "NaN", "ask": 4512.25}),
        (b'{"id": 9007199254740993}', Encoding.JSON, {"id": "9007199254740993"}),
        (pack([{"$a": {"$b": 1}}]), Encoding.MSGPACK, [{"$$a": {"$$b": 1}}]),
        (pack({"$a": 1, "b": 2}), Encoding.MSGPACK, {"$a": 1, "b": 2}),
    ],
)
def test_payloads_as_json(payload: bytes, encoding: int, value: object) -> None:
    """Values come as values, bytes as base64, and a map that looks like the latter is marked."""
    assert payload_as_json(payload, encoding) == value


@pytest.mark.parametrize(
    ("payload", "encoding"),
    [
        (pack({"a": b"bytes"}), Encoding.MSGPACK),
        (pack({1: 2}), Encoding.MSGPACK),
        (b"\xc1", Encoding.MSGPACK),
        (b"\xff", Encoding.TEXT),
        (b"{", Encoding.JSON),
        (b"x", 99),
    ],
)
def test_what_json_cannot_say_comes_as_its_bytes(payload: bytes, encoding: int) -> None:
    """Bytes in a map, keys that are no strings, and payloads that are not what they claim: the original bytes."""
    assert set(payload_as_json(payload, encoding)) == {"$bin"}  # type: ignore[call-overload]


def test_a_json_line() -> None:
    """One object on one line, whatever is in the data."""
    line = json_line(_message(b"a\nb", Encoding.TEXT))

    assert line.count("\n") == 1
    assert json.loads(line) == {
        "topic": "rooms.kitchen", "data": "a\nb", "encoding": "text", "time": 1_700_000_000_000_000,
    }  # fmt: skip


def test_a_json_line_has_offset_and_headers_where_there_are_any() -> None:
    """What the broker and the publisher added is there too."""
    fields = json.loads(json_line(_message(b"", offset=7, meta={"headers": {"a": "b"}})))

    assert (fields["offset"], fields["headers"]) == (7, {"a": "b"})


@pytest.mark.parametrize(
    ("payload", "encoding", "line"),
    [
        (b"hello", Encoding.TEXT, "rooms.kitchen  hello\n"),
        (b"\x1b[2J\n", Encoding.TEXT, "rooms.kitchen  \\x1b[2J\\n\n"),
        (pack({"a": 1}), Encoding.MSGPACK, 'rooms.kitchen  {"a": 1}\n'),
        (b"\x00", Encoding.RAW, 'rooms.kitchen  {"$bin": "AA=="}\n'),
    ],
)
def test_a_text_line(payload: bytes, encoding: int, line: str) -> None:
    """Topic and data on one line, and nothing a terminal would obey."""
    assert text_line(_message(payload, encoding)) == line
