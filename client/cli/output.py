"""What commands write: data on standard output, and notes for people on standard error.

Writing data either succeeds or ends the command with one line; a note that cannot be written is dropped.
"""

import os
import select
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
import trio

_STANDARD_OUTPUT = 1


class OutputClosed(OSError):
    """The program that read our output has gone (`fanwire sub … | head -1`): the end, and no error."""


class OutputFailed(click.ClickException):
    """Standard output cannot be written: the disk is full, or standard output is closed."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written: {error.strerror or error}")


@contextmanager
def output_errors() -> Iterator[None]:
    """Turn the errors of writing standard output in the body into those that end a command.

    Raises:
        OutputClosed: The reader has gone.
        OutputFailed: Anything else.
    """
    try:
        yield
    except BrokenPipeError:
        abandon_output()
        raise OutputClosed from None
    except OSError as error:
        abandon_output()
        raise OutputFailed(error) from None


def abandon_output() -> None:
    """Let what waits in Python's own buffer go nowhere: it would fail again when the program ends."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), _STANDARD_OUTPUT)


def say(text: str, *, nl: bool = True) -> None:
    """Print a line of a command's result on standard output, without waiting for a slow reader of other tasks.

    Args:
        text: What to print.
        nl: Whether a line end is added.

    Raises:
        OutputClosed: The reader has gone.
        OutputFailed: It cannot be written.
    """
    with output_errors():
        click.echo(text, nl=nl)


def note(text: str) -> None:
    """Tell people something on standard error; nothing happens where that cannot be written."""
    try:
        click.echo(text, err=True)
    except (OSError, ValueError):
        pass


def note_error(text: str) -> None:
    """Tell people of an error, on a line that begins with `error:`."""
    note(f"{click.style('error:', fg='red', bold=True)} {text}")


def note_warning(text: str) -> None:
    """Tell people of something that is probably a mistake, on a line that begins with `warning:`."""
    note(f"{click.style('warning:', fg='yellow', bold=True)} {text}")


class Output:
    """Writes text to a file descriptor, whole, before it returns; the event loop goes on meanwhile.

    It writes past Python's own buffers: each line is out when `write` returns, and nothing is left that could fail to
    be flushed when the program ends.

    Args:
        descriptor: where to write; standard output by default.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = _standard_output() if descriptor is None else descriptor
        self._one_at_a_time = trio.Lock()

    @property
    def is_terminal(self) -> bool:
        """Does a person read this?"""
        return os.isatty(self._descriptor)

    @property
    def columns(self) -> int | None:
        """How wide the terminal is, in columns; None where there is none, and everything should be written."""
        return shutil.get_terminal_size().columns if self.is_terminal else None

    async def write(self, text: str) -> None:
        """Write text and wait until it is out.

        Raises:
            OutputClosed: nobody reads it any more.
            OutputFailed: it cannot be written.
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
        except OSError as error:
            raise OutputFailed(error) from None

    def _write_some(self, data: bytes) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # somebody has made our terminal non-blocking
            select.select([], [self._descriptor], [])
            return 0


def _standard_output() -> int:
    try:
        return sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # it was closed before we began (None), or is only in memory
        return _STANDARD_OUTPUT
