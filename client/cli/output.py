"""Standard output for programs that must not stand still while somebody reads slowly."""

import os
import select
import sys

import trio


class OutputClosed(Exception):
    """Whoever read our output has gone (`fanwire sub … | head -1`): the end, and no error."""


class Output:
    """Writes text to a file descriptor, whole, before it returns; the event loop goes on meanwhile.

    It writes past Python's own buffers: each line is out when `write` returns, and nothing is left that could fail to
    be flushed when the program ends.

    Args:
        descriptor: where to write; standard output by default.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = sys.stdout.fileno() if descriptor is None else descriptor
        self._one_at_a_time = trio.Lock()

    @property
    def is_terminal(self) -> bool:
        """Does a person read this?"""
        return os.isatty(self._descriptor)

    async def write(self, text: str) -> None:
        """Write text and wait until it is out.

        Raises:
            OutputClosed: nobody reads it any more.
        """
        # In a thread, as a pipe may be full for as long as its reader likes; left behind when we are cancelled.
        data = text.encode("utf-8", "backslashreplace")
        async with self._one_at_a_time:
            await trio.to_thread.run_sync(self._write, data, abandon_on_cancel=True)

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[self._write_some(data) :]
        except BrokenPipeError:
            raise OutputClosed from None

    def _write_some(self, data: bytes) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # somebody has made our terminal non-blocking
            select.select([], [self._descriptor], [])
            return 0
