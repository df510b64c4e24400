"""A storm outside is no storm in the log."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from fanwire.broker.telemetry.bounded_log import BURST, MAX_KINDS, Repeats
from fanwire.broker.timing.timers import Watchdog


@pytest.fixture
def repeats(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> Repeats:
    """With its clock running."""
    caplog.set_level(logging.INFO, "fanwire.broker")
    watchdog = Watchdog()
    nursery.start_soon(watchdog.run)
    return Repeats(watchdog)


async def test_of_many_lines_some_are_written_and_the_others_are_counted(
    repeats: Repeats, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Five hundred within a second are 20 lines and one that says how many more; then all is as before."""
    for _ in range(500):
        repeats.say(None, "info", "handshake refused", 400, reason="x")
    await trio.sleep(1.5)

    (told,) = [vars(record) for record in caplog.records[BURST:]]
    assert (told["message"], told["levelname"]) == ("and more in the last second", "INFO")
    assert (told["of"], told["by"], told["more"]) == ("handshake refused", 400, 480)

    caplog.clear()
    repeats.say(None, "info", "handshake refused", 400, reason="y")
    await trio.sleep(5)
    assert [vars(record)["reason"] for record in caplog.records] == ["y"]


async def test_kinds_do_not_hide_each_other(
    repeats: Repeats, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """While one kind of refusal storms, the first of another one is written."""
    for _ in range(500):
        repeats.say(None, "info", "handshake refused", 400)
    repeats.say(None, "info", "handshake refused", 401)
    repeats.say(None, "warning", "authentication failed", "query")

    assert len(caplog.records) == BURST + 2


async def test_kinds_are_bounded(repeats: Repeats, autojump_clock: MockClock) -> None:
    """Nothing that somebody makes up can be kept without end."""
    for number in range(2 * MAX_KINDS):
        repeats.say(None, "info", "x", number)

    assert len(repeats._counts) == MAX_KINDS


async def test_at_rest_there_is_no_clock(repeats: Repeats, autojump_clock: MockClock) -> None:
    """A second without a line, and nothing is looked at any more."""
    repeats.say(None, "info", "x")
    await trio.sleep(3)

    assert repeats._watch is None


async def test_the_last_second_is_told_at_the_end(
    repeats: Repeats, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A broker that ends says what it had not said."""
    for _ in range(BURST + 3):
        repeats.say(None, "info", "x")
    repeats.tell()
    repeats.tell()

    assert [record.__dict__["more"] for record in caplog.records[BURST:]] == [3]
