"""`fanwire` and `python -m fanwire`: the command line, or what to install when its packages are missing.

What comes before the import of the command line must be quick: until then no signal and no stream is looked after.
"""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType

from fanwire.extras import missing_extra

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main() -> None:
    """Run the command line and exit: 0 done, 1 it failed, 2 it was asked wrongly, 130 it was interrupted."""
    prepare_process()
    try:
        try:
            from .commandline import run
        except ModuleNotFoundError as error:
            sys.exit(f"error: {missing_extra('the command line', 'all', error)}")
        status = run(sys.argv[1:])
    except KeyboardInterrupt:  # before a command could take care of it
        status = _INTERRUPTED
    sys.exit(status)


def prepare_process() -> None:
    """Make standard streams and SIGTERM behave as every command expects. Call it once, before anything slow."""
    _end_at_sigterm_as_init()
    _occupy_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        # A locale without a character must not end a command: the character is written as an escape.
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a test's stream, or None


def _end_at_sigterm_as_init() -> None:
    """As process 1 of a container, end at SIGTERM even before the broker listens for it.

    The kernel gives process 1 only the signals for which it has a handler: SIGTERM would be lost, and the container
    killed ten seconds later. Any other process ends by itself.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _end_at_once)


def _end_at_once(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)


def _occupy_standard_streams() -> None:
    """Put something in the place of standard streams that are closed (`fanwire serve <&- >&-`).

    Otherwise the next socket or file would get the number 0, 1 or 2, and what is meant for standard output would be
    written into it. As in glibc, standard input and output get the wrong mode, so that using them fails.
    """
    for descriptor, name, mode in ((0, "stdin", os.O_WRONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # gets the lowest number that is free, which is this one
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r", encoding="utf-8", closefd=False))


if __name__ == "__main__":
    main()
