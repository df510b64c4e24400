"""A process that plays many subscribers of one topic on raw sockets, and says how far they are."""

from __future__ import annotations

import multiprocessing
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from tests.bench import wire
from tests.bench.payload import Counter, Reader
from tests.bench.program import cpu_s

_PATIENCE_S = 60.0


class Progress(NamedTuple):
    """How far the subscribers are."""

    time_ns: int
    least: int
    """Messages that every subscriber has."""
    total: int
    """Messages of all subscribers together."""
    wrong: int
    """Sequence errors seen by those who look (the first subscriber; all of them when latencies are taken)."""
    latencies_ns: list[int]
    """Since the last report; empty unless they are taken."""


class Subscribers:
    """Handle of the process, for the one who publishes."""

    def __init__(self, process: multiprocessing.process.BaseProcess, reports: Connection) -> None:
        assert process.pid is not None
        self.pid = process.pid
        self.progress = Progress(time.monotonic_ns(), 0, 0, 0, [])
        self.latencies_ns: list[int] = []
        self._reports = reports

    def cpu_s(self) -> float:
        """CPU seconds so far."""
        return cpu_s(self.pid)

    def follow(self, wait_s: float = 0.0) -> Progress:
        """The newest progress. Waits up to ``wait_s`` for news."""
        while self._reports.poll(wait_s):
            self.progress = self._reports.recv()
            self.latencies_ns += self.progress.latencies_ns
            wait_s = 0.0
        return self.progress

    def wait_for(self, count: int, patience_s: float = 3.0) -> Progress:
        """Wait until every subscriber has ``count`` messages, or until nothing has moved for a while."""
        end = time.monotonic() + patience_s
        while self.progress.least < count and time.monotonic() < end:
            before = self.progress.total
            if self.follow(0.1).total != before:
                end = time.monotonic() + patience_s
        return self.progress


@contextmanager
def subscribers(
    address: tuple[str, int],
    pattern: str,
    count: int,
    *,
    latencies: bool = False,
    looking: bool = True,
    report_s: float = 0.0002,
    token: str | None = None,
    **options: Any,
) -> Iterator[Subscribers]:
    """``count`` subscribers in a process of their own, all subscribed.

    Args:
        address: The broker's.
        pattern: What they subscribe to.
        count: How many.
        latencies: Whether all look at each message's number and time; otherwise only the first looks at the numbers.
        looking: False: not even the first does, because more than one series of numbers comes.
        report_s: How often they report, in seconds. Reports that are not followed fill a pipe, and then they stop.
        token: Whose they are, where the broker asks.
        options: Of SUBSCRIBE.
    """
    context = multiprocessing.get_context("spawn")
    reports, theirs = context.Pipe(duplex=False)
    work = (address, pattern, count, latencies, looking, report_s, token, options, theirs)
    process = context.Process(target=_run, args=work, daemon=True)
    process.start()
    theirs.close()
    try:
        if not reports.poll(_PATIENCE_S):
            raise SystemExit("error: the subscribers could not subscribe")
        reports.recv()
        yield Subscribers(process, reports)
    finally:
        process.terminate()
        process.join()


def _run(
    address: tuple[str, int],
    pattern: str,
    count: int,
    latencies: bool,
    looking: bool,
    report_s: float,
    token: str | None,
    options: dict[str, Any],
    reports: Connection,
) -> None:
    connections = wire.connect(address, count, token=token)
    wire.subscribe_all(connections, pattern, **options)
    for connection in connections:
        connection.setblocking(False)
    reports.send(None)
    if latencies:
        _Timing(connections, reports, report_s).run()
    else:
        _Counting(connections, reports, report_s, looking).run()


class _Loop:
    """Reads what there is, and reports when there is news, but not too often."""

    def __init__(self, connections: list[socket.socket], reports: Connection, report_s: float) -> None:
        self.connections = {connection.fileno(): connection for connection in connections}
        self.latencies_ns: list[int] = []
        self._reports = reports
        self._report_s = report_s

    def run(self) -> None:
        poller = select.epoll()
        for number in self.connections:
            poller.register(number, select.EPOLLIN)
        due, news = 0.0, False
        while True:
            events = poller.poll(self._report_s if news else None)
            for number, _ in events:
                self.read(number)
            news = news or bool(events)
            if (now := time.monotonic()) >= due or not events:
                self._report()
                due, news = now + self._report_s, False

    def _report(self) -> None:
        counts, wrong = self.counts()
        self._reports.send(Progress(time.monotonic_ns(), min(counts), sum(counts), wrong, self.latencies_ns))
        self.latencies_ns = []

    def read(self, number: int) -> None:
        raise NotImplementedError

    def counts(self) -> tuple[list[int], int]:
        raise NotImplementedError


class _Counting(_Loop):
    """The first subscriber looks at each number, the others only count."""

    def __init__(self, connections: list[socket.socket], reports: Connection, report_s: float, looking: bool) -> None:
        super().__init__(connections, reports, report_s)
        self._first = connections[0].fileno() if looking else None
        self._reader = Reader()
        self._counters = {connection.fileno(): Counter() for connection in connections[looking:]}

    def read(self, number: int) -> None:
        size = self.connections[number].recv_into(Counter.room)
        if not size:
            raise SystemExit("error: the broker closed a subscriber's connection")
        if number == self._first:
            self._reader.read(bytes(Counter.room[:size]))
        else:
            self._counters[number].read(size)

    def counts(self) -> tuple[list[int], int]:
        looked = [] if self._first is None else [self._reader.count]
        return looked + [each.count for each in self._counters.values()], self._reader.wrong


class _Timing(_Loop):
    """All look at each number and at the time."""

    def __init__(self, connections: list[socket.socket], reports: Connection, report_s: float) -> None:
        super().__init__(connections, reports, report_s)
        self._readers = {connection.fileno(): Reader() for connection in connections}

    def read(self, number: int) -> None:
        data = self.connections[number].recv(256 * 1024)
        if not data:
            raise SystemExit("error: the broker closed a subscriber's connection")
        now = time.monotonic_ns()
        self.latencies_ns += [now - due for due in self._readers[number].read(data)]

    def counts(self) -> tuple[list[int], int]:
        readers = self._readers.values()
        return [each.count for each in readers], sum([each.wrong for each in readers])
