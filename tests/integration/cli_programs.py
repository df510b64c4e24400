"""`fanwire …` as programs of their own, for tests. Nothing sleeps: each waits for a line that says it is so far."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

DEADLINE_S = 60
"""For a program to end. They take a second or so; a machine with a hundred other things to do takes longer."""

COMMAND = (sys.executable, "-m", "fanwire")


class Program:
    """One running command."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.stdout: IO[str] = process.stdout
        self.stderr: IO[str] = process.stderr

    def heard(self, pattern: str, stream: IO[str] | None = None) -> "re.Match[str]":
        """Read on, in standard output or another stream, until a line matches."""
        read = []
        for line in stream or self.stdout:
            read.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"it ended without {pattern!r}: {''.join(read)}")

    def ended(self) -> tuple[int, str, str]:
        """Wait for the end: status, the rest of standard output, the rest of standard error."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out, err

    def signalled(self, number: int) -> tuple[int, str, str]:
        """Send a signal, then wait for the end."""
        self.process.send_signal(number)
        return self.ended()


@contextmanager
def started(*arguments: str, url: str | None = None) -> Iterator[Program]:
    """Start a command, and make sure that it is gone at the end."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(url),
    )
    with process:
        try:
            yield Program(process)
        finally:
            process.kill()


def ran(*arguments: str, url: str | None = None, stdin: str | bytes = b"") -> tuple[int, str, str]:
    """Run a command to its end: status, standard output, standard error."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    ended = subprocess.run(
        [*COMMAND, *arguments], input=data, capture_output=True, timeout=DEADLINE_S, env=_environment(url), check=False
    )
    return ended.returncode, ended.stdout.decode(), ended.stderr.decode()


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[Program, str]]:
    """A broker on a free port, and its URL."""
    with started("serve", "--port", "0", *arguments) as broker:
        yield broker, broker.heard(r"^listening on (ws://127\.0\.0\.1:\d+/)$")[1]


def _environment(url: str | None) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "FANWIRE_URL"}
    return environment | {"FANWIRE_URL": url} if url else environment
