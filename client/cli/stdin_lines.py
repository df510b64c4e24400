"""Lines of standard input, read so that Ctrl-C needs no line to end the program."""

import os
import sys
from collections.abc import AsyncIterator

import click
import trio

STANDARD_INPUT = 0
_CHUNK = 65_536


class InputFailed(click.ClickException):
    """Standard input cannot be read (`fanwire pub t - <&-`), or has a line that no message can hold."""


async def lines(descriptor: int, *, longest: int) -> AsyncIterator[bytes]:
    """The lines that come from a file descriptor, without their ends (`\\n` or `\\r\\n`).

    Args:
        descriptor: standard input's, as a rule.
        longest: bytes that a line may have; it bounds the memory a file without line ends takes.

    Raises:
        InputFailed: a line has more, or there is nothing to read from.
    """
    rest = b""
    # A thread left behind in `os.read` holds no lock that the end of the program would wait for.
    while chunk := await trio.to_thread.run_sync(_read, descriptor, abandon_on_cancel=True):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r")
        if len(rest) > longest:
            raise InputFailed(
                f"standard input has a line of more than {longest} bytes: use --file to publish a file as one message"
            )
    if rest:
        yield rest


def read_whole(most: int) -> bytes:
    """All of standard input, but not more than ``most`` bytes; waits for it.

    Raises:
        InputFailed: It cannot be read.
    """
    try:
        return sys.stdin.buffer.read(most)
    except OSError as error:
        raise _unreadable(error) from None


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK)
    except OSError as error:
        raise _unreadable(error) from None


def _unreadable(error: OSError) -> InputFailed:
    return InputFailed(f"standard input cannot be read: {error.strerror or error}")
