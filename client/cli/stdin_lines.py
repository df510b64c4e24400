"""Lines of standard input, read so that Ctrl-C needs no line to end the program."""

import os
from collections.abc import AsyncIterator

import trio

_CHUNK = 65_536


class LineTooLong(Exception):
    """A line is longer than any message may be."""


async def lines(descriptor: int, *, longest: int) -> AsyncIterator[bytes]:
    """The lines that come from a file descriptor, without their ends (`\\n` or `\\r\\n`).

    Args:
        descriptor: standard input's, as a rule.
        longest: bytes that a line may have; it bounds the memory a file without line ends takes.

    Raises:
        LineTooLong: a line has more.
    """
    rest = b""
    # A thread left behind in `os.read` holds no lock that the end of the program would wait for.
    while chunk := await trio.to_thread.run_sync(os.read, descriptor, _CHUNK, abandon_on_cancel=True):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r")
        if len(rest) > longest:
            raise LineTooLong(f"a line of more than {longest} bytes: use --file to publish a file as one message")
    if rest:
        yield rest
