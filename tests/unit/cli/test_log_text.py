"""What a client says stays text: no line of the log, no escape code, no key that it did not have."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import cast

import pytest

from fanwire.broker.cli.log_text import LONGEST, printable
from fanwire.broker.cli.logs import LogFormat, configure_logs
from fanwire.broker.telemetry.log import log

EVIL = (
    "line\nevent=forged level=error",
    "carriage\rreturn",
    "\x1b]0;title\x07\x1b[2J\x1b[31mred",
    "\x9b31m",
    "null\x00byte",
    "next\x85line\u2028separator\u2029",
    "\u202egnp.exe",
    "\ud800",
    'a" event="forged',
    "back\\",
    "\x7f" * 5000,
)

Written = Callable[[], str]


@pytest.fixture
def written(capfd: pytest.CaptureFixture[str]) -> Written:
    """What stands on standard error, once the writer has written it."""

    def read() -> str:
        for handler in logging.getLogger("fanwire").handlers:
            handler.close()
        return capfd.readouterr().err

    return read


@pytest.mark.parametrize("form", ["plain", "json", "console"])
@pytest.mark.parametrize("evil", EVIL, ids=repr)
def test_what_a_client_says_is_one_line_without_codes(form: str, evil: str, written: Written) -> None:
    """In every format: as many lines as events, and nothing in them that a terminal would obey but our own colours."""
    configure_logs(cast("LogFormat", form), "info")

    log.info("handshake refused", reason=evil, inner={"topic": evil})
    log.info("another")

    lines = written().rstrip("\n").split("\n")
    assert len(lines) == 2
    assert "handshake refused" in lines[0]
    assert "another" in lines[1]
    assert re.sub(r"\x1b\[\d+m", "", lines[0]).isprintable()
    if form != "console":
        assert lines[0].isprintable()
    assert len(lines[0]) < 6 * LONGEST * 4


def test_json_says_what_was_said(written: Written) -> None:
    """A program gets the text itself back, whatever stands in it."""
    configure_logs("json", "info")

    for evil in EVIL[:-1]:
        log.info("x", reason=evil)

    told = [json.loads(line)["reason"] for line in written().splitlines()]
    assert told == [evil if evil != "\ud800" else "\ud800" for evil in EVIL[:-1]]


def test_a_value_cannot_pretend_to_be_a_key(written: Written) -> None:
    """In key=value lines quotes and backslashes are escaped."""
    configure_logs("plain", "info")

    log.info("x", reason='a" level=error event="forged')

    assert r'reason="a\" level=error event=\"forged"' in written()


@pytest.mark.parametrize("form", ["plain", "json", "console"])
def test_a_traceback_shows_no_variables_and_forges_no_line(form: str, written: Written) -> None:
    """Tokens live in variables, and messages of exceptions quote what came from outside."""
    configure_logs(cast("LogFormat", form), "info")

    secret = "secret".upper()

    def fail(token: str) -> None:
        own = token * 2
        raise ValueError(f"bad topic\n2026-01-01 [error] forged\x1b[2J {len(own)}")

    try:
        fail(secret)
    except ValueError:
        log.exception("defect")

    text = written()
    assert "ValueError" in text
    assert "SECRET" not in text
    assert "\x1b[2J" not in text
    assert not re.search(r"^2026-01-01 \[error\] forged", text, re.MULTILINE)
    assert len(text.splitlines()) == 1 or form == "console"


def test_a_long_text_is_cut_and_says_so() -> None:
    """A line has a bound."""
    assert printable("x" * 5000) == "x" * LONGEST + "… (5000 characters)"
