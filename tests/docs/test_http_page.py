"""docs/http.md says what is served, and to whom."""

import re

from fanwire.broker.http.answers import CODES_OF_HTTP
from fanwire.broker.http.conversation import MAX_CHUNKS
from fanwire.broker.http.endpoint_table import ENDPOINTS
from fanwire.broker.http.payloads import MAX_DECODED, MAX_DEPTH
from fanwire.broker.http.publish import ENCODING_OF, OPTIONS
from fanwire.broker.http.schemas import MAX_ITEMS
from fanwire.broker.http.session_in_memory import CAPACITY
from fanwire.broker.http.sse_events import EVENTS, RETRY_MS
from fanwire.broker.http.sse_stream import PARAMETERS

from .pages import ROOT
from .tables import code_in, rows_of

PAGE = ROOT / "docs" / "http.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_endpoint_has_its_row() -> None:
    """In the order of the table in the code, with who may ask."""
    rows = [row for row in rows_of(PAGE, "HTTP") if row[0].startswith("`")]

    assert [(code_in(row[0])[0], row[1]) for row in rows] == [
        (f"{each.method} {each.path}", each.who.value) for each in ENDPOINTS
    ]


def test_numbers_and_names_stand_in_the_text() -> None:
    """Those of the code."""
    for number in (MAX_CHUNKS, MAX_ITEMS, MAX_DEPTH):
        assert f"{number:,}" in TEXT
    assert f"{MAX_DECODED // 1024} KiB" in TEXT
    assert f"{CAPACITY // 1024} KiB in front of the socket" in TEXT
    assert f"retry: {RETRY_MS}" in TEXT
    named = set(code_in(re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)))
    assert {each.name for each in OPTIONS} | set(CODES_OF_HTTP) <= named
    assert {each.name for each in PARAMETERS} | set(EVENTS) <= named
    assert {name for name in ENCODING_OF if "msgpack" not in name} <= named
