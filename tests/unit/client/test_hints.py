"""Patterns with the wildcards of other systems are told in the log, once each."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from fanwire.client.subscribing import hints
from fanwire.client.subscribing.hints import warn_of
from fanwire.testing import broker_in_memory, client_of


@pytest.fixture(autouse=True)
def told_nothing() -> Iterator[None]:
    """As in a new process."""
    hints._told.clear()
    yield
    hints._told.clear()


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "fanwire.client.patterns"]


async def test_each_way_to_name_a_pattern_tells_it_once(caplog: pytest.LogCaptureFixture) -> None:
    """Subscribing, watching presence, demand; again is not told again, and what is right is not told at all."""
    async with broker_in_memory() as broker, client_of(broker) as client:
        for _ in range(3):
            async with client.subscribe("stocks/#"), client.subscribe("stocks.>"):
                pass
        client.watch_presence("rooms.+")
        client.demand("a/b")

    lines = _lines(caplog)
    assert [line.split()[1] for line in lines] == ["'stocks/#'", "'rooms.+'", "'a/b'"]
    assert lines[0].endswith("did you mean 'stocks.>'?")
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_what_is_remembered_is_bounded() -> None:
    """However many patterns a program makes up."""
    for number in range(10_000):
        warn_of(f"a/{number}")

    assert len(hints._told) <= 256
