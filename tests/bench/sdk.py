"""Python at both ends: Fanwire's SDK through its broker, beside nats-py through nats-server, in turns.

    python -m tests.bench.sdk --seconds 3 --repetitions 3

Receiving: one process receives, this one publishes without an SDK (everything encoded beforehand), pausing while the
receiver is more than ``--window`` messages behind. Publishing: one process publishes, nobody is subscribed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from tests.bench import sdk_fanwire, sdk_nats
from tests.bench.program import Program, cpu_s, fanwire, free_port, listening
from tests.bench.sdk_numbers import WARM_S, Rate

Role = Callable[[int, Connection, float], None]
Figures = dict[str, float]

_PATIENCE_S = 30.0


class Publisher(Protocol):
    """One without an SDK."""

    def publish_some(self) -> int:
        """Publish some; return how many."""

    def close(self) -> None:
        """Hang up."""


class Case:
    """One thing to measure."""

    def __init__(self, name: str, server: str, role: Role, publisher: Callable[[int], Publisher] | None = None) -> None:
        self.name = name
        self.server = server
        self.role = role
        self.publisher = publisher
        """For receivers; None: the role itself publishes."""


CASES = [
    Case("fanwire: async for message", "fanwire", sdk_fanwire.receive, sdk_fanwire.Publisher),
    Case("fanwire: async for messages in batches()", "fanwire", sdk_fanwire.receive_batches, sdk_fanwire.Publisher),
    Case("nats-py: async for message", "nats", sdk_nats.receive, sdk_nats.Publisher),
    Case("nats-py: callback", "nats", sdk_nats.receive_callback, sdk_nats.Publisher),
    Case("fanwire: publish_nowait", "fanwire", sdk_fanwire.publish),
    Case("nats-py: publish", "nats", sdk_nats.publish),
    Case("fanwire: pipeline, acknowledged", "fanwire", sdk_fanwire.pipeline),
    Case(f"fanwire: {sdk_fanwire.TASKS} tasks, acknowledged", "fanwire", sdk_fanwire.many_tasks),
]


def main() -> None:
    """Measure, print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--window", type=int, default=8192, help="messages that the receiver may be behind")
    parser.add_argument("--only", default="", help="measure only what has this in its name")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    wanted = parser.parse_args()
    cases = [case for case in CASES if wanted.only in case.name]
    if not nats_server() or importlib.util.find_spec("nats") is None:
        print("nats-py and nats-server are not here (dependency group `bench`): without them", file=sys.stderr)
        cases = [case for case in cases if case.server != "nats"]
    results: dict[str, list[Figures]] = {case.name: [] for case in cases}
    for _ in range(wanted.repetitions):
        for case in cases:
            results[case.name].append(measure(case, wanted.seconds, wanted.window))
    print(json.dumps(results) if wanted.json else _table(results))
    if any(run.get("lost") or run.get("wrong") for runs in results.values() for run in runs):
        raise SystemExit("error: messages were lost or came twice")


def measure(case: Case, seconds: float, window: int) -> Figures:
    """One case, with a server and a client process of its own."""
    with server_of(case.server) as server, client_process(case.role, server.port, seconds) as (process, reports):
        if case.publisher is None:
            return _publishing(server, reports, seconds)
        with closing(case.publisher(server.port)) as publisher:
            return _Receiving(server, process, reports, publisher, window).measure(seconds)


def _publishing(server: Program, reports: Connection, seconds: float) -> Figures:
    before = server.cpu_s()
    if not reports.poll(seconds + _PATIENCE_S):
        raise SystemExit("error: the publisher has not come to an end")
    rate: Rate = reports.recv()
    share = seconds / (seconds + WARM_S)  # the server's time has the warming up in it
    return {
        "messages_s": rate.messages / rate.seconds,
        "client_cpu_s_per_million": rate.cpu_s / rate.messages * 1e6,
        "server_cpu_s_per_million": (server.cpu_s() - before) * share / rate.messages * 1e6,
    }  # no "lost": nobody is subscribed, nothing is counted


class _Receiving:
    def __init__(
        self, server: Program, process: BaseProcess, reports: Connection, publisher: Publisher, window: int
    ) -> None:
        assert process.pid is not None
        self._server = server
        self._client = process.pid
        self._reports = reports
        self._publisher = publisher
        self._window = window
        self._published = 0
        self._received = 0
        self._wrong = 0

    def measure(self, seconds: float) -> Figures:
        if not self._reports.poll(_PATIENCE_S):
            raise SystemExit("error: the receiver has not subscribed")
        self._run(WARM_S)
        began, received = time.perf_counter(), self._received
        server, client = self._server.cpu_s(), cpu_s(self._client)
        self._run(seconds)
        took, count = time.perf_counter() - began, self._received - received
        server, client = self._server.cpu_s() - server, cpu_s(self._client) - client
        while self._received < self._published and self._reports.poll(3.0):
            self._follow(0.0)
        return {
            "messages_s": count / took,
            "client_cpu_s_per_million": client / count * 1e6,
            "server_cpu_s_per_million": server / count * 1e6,
            "lost": self._published - self._received,
            "wrong": self._wrong,
        }

    def _run(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self._follow(0.0)
            if self._published - self._received >= self._window:
                self._follow(0.1)
            else:
                self._published += self._publisher.publish_some()

    def _follow(self, wait_s: float) -> None:
        while self._reports.poll(wait_s):
            self._received, right = self._reports.recv()
            self._wrong += not right
            wait_s = 0.0


@contextmanager
def client_process(role: Role, port: int, seconds: float) -> Iterator[tuple[BaseProcess, Connection]]:
    """A process that plays ``role``, and what it reports."""
    context = multiprocessing.get_context("spawn")
    reports, theirs = context.Pipe(duplex=False)
    process = context.Process(target=role, args=(port, theirs, seconds), daemon=True)
    process.start()
    theirs.close()
    try:
        yield process, reports
    finally:
        process.terminate()
        process.join()


def server_of(name: str) -> AbstractContextManager[Program]:
    """A broker of its own: "fanwire" or "nats"."""
    if name == "fanwire":
        return fanwire()
    port = free_port()
    command = nats_server()
    assert command is not None
    return listening([command, "-a", "127.0.0.1", "-p", str(port), "-l", "/dev/null"], port)


def nats_server() -> str | None:
    """The program, where pip puts it, or on the path."""
    beside = Path(sys.executable).parent / "nats-server"
    return str(beside) if beside.exists() else shutil.which("nats-server")


def _table(results: dict[str, list[Figures]]) -> str:
    lines = [
        f"{'medians':44}{'messages/s':>12}{'(least to most)':>25}{'client':>9}{'server':>9}{'lost':>6}{'wrong':>7}",
        f"{'':81}{'CPU s per million':>18}",
    ]
    for name, runs in results.items():
        rates = [run["messages_s"] for run in runs]
        client, server = (
            statistics.median([run[f"{who}_cpu_s_per_million"] for run in runs]) for who in ("client", "server")
        )
        lost, wrong = (
            f"{sum(run[what] for run in runs):.0f}" if what in runs[0] else "—" for what in ("lost", "wrong")
        )
        spread = f"({min(rates):,.0f} to {max(rates):,.0f})"
        row = f"{name:44}{statistics.median(rates):>12,.0f}{spread:>25}{client:>9.2f}{server:>9.2f}"
        lines.append(f"{row}{lost:>6}{wrong:>7}")
    return "\n".join([*lines, *_ratios(results)])


def _ratios(results: dict[str, list[Figures]]) -> list[str]:
    """What matters: how many times the peer's rate."""
    rates: dict[str, Any] = {
        name: statistics.median([run["messages_s"] for run in runs]) for name, runs in results.items()
    }
    receiving = [rate for name, rate in rates.items() if name in ("nats-py: async for message", "nats-py: callback")]
    pairs = [
        ("fanwire: async for message", max(receiving, default=None)),
        ("fanwire: async for messages in batches()", max(receiving, default=None)),
        ("fanwire: publish_nowait", rates.get("nats-py: publish")),
    ]
    return [f"{name}: {rates[name] / peer:.2f} × nats-py" for name, peer in pairs if peer and name in rates]


if __name__ == "__main__":
    main()
