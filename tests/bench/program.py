"""Programs under measurement: started, asked for their memory, CPU time and descriptors (Linux's /proc), ended."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 15.0


class Program:
    """A process that listens on a port."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port
        self.address = ("127.0.0.1", port)
        self.pid = process.pid
        self._proc = Path("/proc") / str(process.pid)

    def memory(self) -> int:
        """Resident bytes."""
        for line in (self._proc / "status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"process {self.process.pid} has ended")

    def cpu_s(self) -> float:
        """See `cpu_s`."""
        return cpu_s(self.pid)

    def descriptors(self) -> int:
        """Open files."""
        return len(os.listdir(self._proc / "fd"))


def cpu_s(pid: int) -> float:
    """User and system time of a process so far, all its threads, in steps of 10 ms."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def fanwire(*options: str) -> Iterator[Program]:
    """A broker of its own, ``fanwire serve`` with these options."""
    command = [sys.executable, "-m", "fanwire", "serve", "--port", "0", "--log-level", "error", *options]
    with _running(command) as process:
        assert process.stdout is not None
        line = process.stdout.readline()  # "listening on ws://127.0.0.1:40123/"
        if not line:
            raise SystemExit("error: the broker did not start; try `python -m fanwire serve --port 0`")
        yield Program(process, int(line.rstrip("/\n").rpartition(":")[2]))


@contextmanager
def listening(command: Sequence[str], port: int) -> Iterator[Program]:
    """Any other server, that listens on ``port`` of 127.0.0.1."""
    with _running(command) as process:
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"error: {command[0]} does not listen on port {port}") from None
                time.sleep(0.05)
        yield Program(process, port)


@contextmanager
def _running(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def raise_open_files(needed: int) -> None:
    """Let this process and those it starts open as many files as the system allows; end if that is too little."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SystemExit(f"error: {needed} open files are needed, {hard} allowed; raise `ulimit -Hn` or ask for less")
