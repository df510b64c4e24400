"""Writing the log never makes the broker wait.

Standard error may be a pipe that nobody empties, or a terminal that was stopped with Ctrl-S: then a write lasts until
somebody reads. So lines are put into a bounded queue, and a thread of its own writes them. When the queue is full,
lines are dropped and counted, and their number is the next line that gets through.
"""

import contextlib
import logging
import os
import queue
import select
import threading
from typing import TextIO

MOST_LINES = 1_000
"""That may wait. With lines of some 300 bytes that is 300 KiB; with the longest tracebacks 16 MiB."""

CLOSING_S = 1.0
"""How long the last lines may take when the program ends."""


class LogWriter(logging.Handler):
    """Writes formatted records to a file descriptor, from a thread of its own."""

    def __init__(self, fd: int, most: int = MOST_LINES) -> None:
        """
        Args:
            fd: Where to; blocking or not.
            most: How many lines may wait.
        """
        super().__init__()
        self._fd = fd
        self._most = most
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()
        self._untold = 0
        self._closed = False
        self.dropped = 0
        """Lines that were not written, since the start."""

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written. Never waits."""
        if self._closed:
            return
        if self._thread is None:
            self._start()
        if self._queue.qsize() >= self._most:
            with self._guard:
                self._untold += 1
                self.dropped += 1
            return
        self._queue.put(self._line(record))

    def _line(self, record: logging.LogRecord) -> bytes:
        try:
            text = self.format(record)
        except Exception as error:  # a defect; `handleError` would write by itself, and wait
            text = f"a line of the log could not be made: {record.msg!r:.200} {error!r:.200}"
        return (text + "\n").encode(errors="backslashreplace")

    def _start(self) -> None:
        # A daemon: if nobody ever reads what it writes, the program ends all the same.
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            self._write(line)
            self._tell_dropped()

    def _tell_dropped(self) -> None:
        with self._guard:
            count, self._untold = self._untold, 0
        if count:
            record = logging.makeLogRecord(
                {"name": "fanwire.broker", "levelno": logging.WARNING, "levelname": "WARNING",
                 "msg": "log lines dropped", "count": count}
            )  # fmt: skip
            self._write(self._line(record))

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        try:
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:
                    select.select([], [self._fd], [])
        except (OSError, ValueError):  # nobody will ever read it
            with self._guard:
                self.dropped += 1

    def close(self) -> None:
        """Write what waits, as far as that takes no more than `CLOSING_S`. Idempotent."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            if self._thread is not None:
                self._thread.join(CLOSING_S)
        super().close()


def handler_for(stream: TextIO) -> logging.Handler:
    """A `LogWriter` for a stream that has a file descriptor; one that is only in memory never blocks."""
    with contextlib.suppress(OSError, ValueError):
        return LogWriter(stream.fileno())
    return logging.StreamHandler(stream)
