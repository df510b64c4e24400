"""Typing what a page says into a shell, and comparing what comes back with what the page shows."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .pages import ADDRESS, ROOT, Block

_SECONDS = 60.0
"""For a command to say its first word, or to end."""

_STAYS = re.compile(r"fanwire (serve|((sub|watch|feed|demo)\b(?!.*--(count|seconds|timeout))))")
"""Commands that run until somebody stops them."""


class Command:
    """One command of a console block, and the lines that the page shows below it."""

    def __init__(self, where: Block, text: str) -> None:
        self.where = where
        self.text = text
        self.shown: list[str] = []

    def __str__(self) -> str:
        return f"{self.where}: $ {self.text}"

    @property
    def stays(self) -> bool:
        return bool(_STAYS.match(self.text))

    @property
    def fails(self) -> bool:
        return any(line.startswith("error: ") for line in self.shown)


def commands_of(block: Block) -> list[Command]:
    """`$ ` begins a command, a line after one that ends in a backslash goes on with it, all else is output."""
    commands: list[Command] = []
    for line in block.lines:
        if line.startswith("$ "):
            commands.append(Command(block, line[2:]))
        elif not commands[-1].shown and commands[-1].text.endswith("\\"):
            commands[-1].text += "\n" + line
        elif line:
            commands[-1].shown.append(line)
    return commands


class Terminal:
    """Runs commands one after the other in one folder. Those that stay are stopped at the end, the last one first."""

    def __init__(self, folder: Path, address: str) -> None:
        self._folder = folder
        self.address = address
        """Of the broker that commands reach: `fanwire serve` changes it."""
        self._staying: list[tuple[Command, subprocess.Popen[bytes], Path]] = []

    def run(self, command: Command) -> None:
        """Run one; one that stays is left running as soon as it has said something."""
        output = self._folder / f"output-{command.where.line}-{len(self._staying)}.txt"
        process = self._start(command, output)
        if command.stays:
            self._staying.append((command, process, output))
            first = _first_line(command, process, output)
            if command.text.startswith("fanwire serve"):
                self.address = first.partition("ws://")[2].partition("/")[0]
        else:
            status = process.wait(_SECONDS)
            self._check(command, status, output)

    def stop(self) -> None:
        """Ctrl-C to all that stay, once they have shown what the page shows; they must end well."""
        for command, process, output in reversed(self._staying):
            self._wait_for_all_shown(command, process, output)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            process.wait(_SECONDS)
            assert process.returncode == 0, f"{command}\nended with {process.returncode}"
        for command, process, output in self._staying:
            self._check(command, process.returncode, output)
        self._staying.clear()

    def _wait_for_all_shown(self, command: Command, process: subprocess.Popen[bytes], output: Path) -> None:
        _wait_until(lambda: self._missing(command, output) is None or process.poll() is not None)

    def kill(self) -> None:
        """For a test that failed half-way."""
        for _, process, _ in self._staying:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _start(self, command: Command, output: Path) -> subprocess.Popen[bytes]:
        text, folder = command.text.replace(ADDRESS, self.address), self._folder
        if text.startswith("fanwire serve"):
            text = re.sub(r" --port \d+", "", text) + " --port 0"
        if text.startswith("make "):  # what it would do: the tests are what `make test` runs
            text, folder = text.replace("make ", "make --dry-run ", 1), ROOT
        with output.open("wb") as file:
            return subprocess.Popen(
                ["bash", "-c", f"exec {text}" if command.stays else text],
                cwd=folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MAKE", "COV_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
        return {**kept, "PATH": path, "FANWIRE_URL": f"ws://{self.address}/", "PYTHONUNBUFFERED": "1"}

    def _check(self, command: Command, status: int, output: Path) -> None:
        told = f"{command}\nended with {status} and printed\n{self._said(output)}"
        assert (status != 0) is command.fails, told
        missing = self._missing(command, output)
        assert missing is None, f"{told}\nwhere the page shows\n{missing}"

    def _said(self, output: Path) -> str:
        return output.read_text(encoding="utf-8", errors="replace").replace(self.address, ADDRESS)

    def _missing(self, command: Command, output: Path) -> str | None:
        """The first line that the page shows and the command has not printed, in that order; `…` is anything."""
        said = iter(self._said(output).splitlines())
        for line in command.shown:
            pattern = ".*".join(map(re.escape, line.split("…")))
            if not any(re.fullmatch(pattern, each) for each in said):
                return line
        return None


def _wait_until(done: Callable[[], bool]) -> None:
    # Only a file can be both read here and written to for as long as the process likes; so it is looked at.
    deadline = time.monotonic() + _SECONDS
    while not done() and time.monotonic() < deadline:
        time.sleep(0.02)


def _first_line(command: Command, process: subprocess.Popen[bytes], output: Path) -> str:
    """What it said first; of a broker the line on standard output, which lines of its log may precede."""
    begins = b"listening on ws" if command.text.startswith("fanwire serve") else b""

    def said() -> list[bytes]:
        return [line for line in output.read_bytes().splitlines(keepends=True) if line.startswith(begins)]

    _wait_until(lambda: any(line.endswith(b"\n") for line in said()) or process.poll() is not None)
    told = output.read_text(encoding="utf-8")
    assert said(), f"{command}\nsaid nothing, but {told}"
    assert process.poll() is None, f"{command}\nended with {process.returncode}: {told}"
    return said()[0].decode().strip()
