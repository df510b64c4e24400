"""A log that nobody reads stops nobody: lines are dropped, counted and told."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from fanwire.broker.cli.log_writer import LogWriter

PIPE = 64 * 1024


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Two ends; the write end is full, so that a write waits."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    filled = 0
    while True:
        try:
            filled += os.write(write, b"." * 4096)
        except BlockingIOError:
            break
    assert filled >= PIPE
    os.set_blocking(write, True)
    yield read, write
    for fd in (read, write):
        os.close(fd)


def _record(text: str) -> logging.LogRecord:
    return logging.LogRecord("fanwire.broker", logging.INFO, "", 0, text, (), None)


def _read_to_end(fd: int, last: bytes) -> bytes:
    data = b""
    while last not in data:
        data += os.read(fd, 65536)
    return data.lstrip(b".")


@pytest.mark.parametrize("blocking", [True, False])
def test_a_full_pipe_stops_nobody_and_the_number_of_lost_lines_is_told(blocking: bool, pipe: tuple[int, int]) -> None:
    """More than may wait is dropped at once; when somebody reads, the rest comes, and how many there were."""
    read, write = pipe
    os.set_blocking(write, blocking)
    writer = LogWriter(write, most=10)
    writer.setFormatter(logging.Formatter("%(message)s %(count)s", defaults={"count": ""}))

    for number in range(50):
        writer.emit(_record(f"line {number}"))

    # One line may be in the hands of the thread already.
    assert writer.dropped in (39, 40)
    text = _read_to_end(read, b"dropped")
    lines = text.decode().splitlines()
    assert [line.strip() for line in lines[:2]] == ["line 0", f"log lines dropped {writer.dropped}"]
    writer.emit(_record("afterwards"))
    assert b"afterwards" in _read_to_end(read, b"afterwards")
    writer.close()


def test_closing_waits_only_a_moment_for_a_pipe_that_nobody_reads(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program ends all the same; the thread is a daemon."""
    monkeypatch.setattr("fanwire.broker.cli.log_writer.CLOSING_S", 0.01)
    read, write = pipe
    writer = LogWriter(write)
    writer.emit(_record("never"))

    writer.close()
    writer.close()
    writer.emit(_record("too late"))

    thread = writer._thread
    assert thread is not None
    assert thread.daemon
    assert b"too late" not in _read_to_end(read, b"never")
    thread.join()


def test_what_waits_is_written_before_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    """All of it, in order, where somebody reads."""
    writer = LogWriter(2)
    for number in range(500):
        writer.emit(_record(f"{number}"))

    writer.close()

    assert capfd.readouterr().err.split() == [f"{number}" for number in range(500)]


def test_a_descriptor_that_is_closed_ends_nothing() -> None:
    """Whoever read has gone: lines are counted as lost."""
    read, write = os.pipe()
    os.close(read)
    writer = LogWriter(write)
    writer.emit(_record("nobody"))

    writer.close()
    os.close(write)

    assert writer.dropped == 1


def test_a_line_that_cannot_be_made_is_told_and_ends_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """A defect of the formatter is a line itself, and the next one is written."""

    class Broken(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if record.msg == "bad":
                raise KeyError("x")
            return super().format(record)

    writer = LogWriter(2)
    writer.setFormatter(Broken())
    writer.emit(_record("bad"))
    writer.emit(_record("good"))
    writer.close()

    assert capfd.readouterr().err == "a line of the log could not be made: 'bad' KeyError('x')\ngood\n"
