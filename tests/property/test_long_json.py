"""A long array that is cut and parsed piece by piece is what a parser makes of the whole; so is what is none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fanwire.broker.http import long_json
from fanwire.broker.http.answers import HttpError
from fanwire.broker.http.long_json import items_of
from fanwire.broker.http.payloads import parsed
from fanwire.broker.timing.turn import Turn

# Small ones, so that what is random and short has their ends everywhere.
STRETCHES = (2, 3, 7, 1024)

_spaces = st.text(" \t\r\n", max_size=3)
_texts = st.text(st.sampled_from('[]{},:"\\ aé€\n\ud800'), max_size=80)
_leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts
_values = st.recursive(_leaves, lambda some: st.lists(some) | st.dictionaries(_texts, some), max_leaves=10)


@st.composite
def _arrays(draw: st.DrawFn) -> bytes:
    """JSON of an array, with white space around its marks and with escapes, or without."""
    escaped = draw(st.booleans())
    items = [
        json.dumps(item, ensure_ascii=escaped, indent=draw(st.none() | st.just(1))) for item in draw(st.lists(_values))
    ]
    spaced = [draw(_spaces) + item + draw(_spaces) for item in items]
    text = f"{draw(_spaces)}[{','.join(spaced) or draw(_spaces)}]{draw(_spaces)}"
    return text.encode(errors="surrogatepass")


@st.composite
def _broken(draw: st.DrawFn) -> bytes:
    """One that something was put into, or cut out of; or that is only made of the marks."""
    text = draw(_arrays())
    at = draw(st.integers(0, len(text)))
    put = draw(
        st.sampled_from([b"", b"[", b"]", b"{", b"}", b",", b'"', b"\\", b"1", b"\xff", b"NaN", b"\xef\xbb\xbf"])
    )
    return text[:at] + put + text[at + draw(st.integers(0, 3)) :]


_marks = st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b",", b'"', b"\\", b"1", b" ", b":"]), max_size=12).map(
    b"".join
)


def _at_once(text: bytes) -> Any:
    value = parsed(text)
    if not isinstance(value, list):
        raise HttpError("bad_envelope", "no array")
    return value


async def _piecewise(text: bytes) -> Any:
    return [parsed(item) for item in await items_of(text, Turn(), count=lambda _: None)]


async def _same(text: bytes, stretch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_json, "_STRETCH", stretch)
        try:
            expected = _at_once(text)
        except HttpError:
            with pytest.raises(HttpError):
                await _piecewise(text)
        else:
            assert repr(await _piecewise(text)) == repr(expected)


@given(_arrays(), st.sampled_from(STRETCHES))
@settings(max_examples=300)
async def test_pieces_are_what_the_whole_is(text: bytes, stretch: int) -> None:
    """Whatever it has in it."""
    await _same(text, stretch)


@given(_broken() | _marks, st.sampled_from(STRETCHES))
@settings(max_examples=500)
@example(b"[1,]", 2)
@example(b"[,1]", 2)
@example(b"[1}", 2)
@example(b"[1]]", 2)
@example(b'["\\', 2)
@example(b'["\\"', 2)
@example(b"[ ]", 2)
@example(b"[}", 2)
@example(b"[", 2)
@example(b"", 2)
@example(b'["a" "b"]', 2)
@example(b"[{]}", 2)
@example(b"[1\xef\xbb\xbf,2]", 2)
async def test_what_is_none_is_refused_alike(text: bytes, stretch: int) -> None:
    """Cut off, put together wrongly, or nothing of the kind."""
    await _same(text, stretch)
