"""Does it hurt others when a subscriber begins with the last values of 100,000 topics?

    python -m tests.bench.snapshot --topics 100000 --updates 20000

A feed updates retained topics at a fixed rate, and some subscribers take every update: their latencies count. In the
runs "with" one more connection takes a snapshot of all topics while they are measured; with `--again` one after the
other, so that the broker never rests. Each snapshot must be complete, and of each topic the values must come in order,
the snapshot's before the live ones.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any

from tests.bench import wire
from tests.bench.feed import feed
from tests.bench.figures import cell, p99
from tests.bench.program import fanwire
from tests.bench.receiving import subscribers
from tests.bench.recording import Envelopes, value

PATTERN = "snapshot.>"
_MESSAGE, _SNAPSHOT_END = 19, 25
_END = b"\x93\x19\x01\xce\x00"
"""How SNAPSHOT_END of route 1 begins, with a count of 65,536 or more: nothing else is likely to hold these bytes."""
_PATIENCE_S = 60.0
BAR = 1.10


def main() -> None:
    """Measure, print a table and a verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topics", type=int, default=100_000, help="at least 65,536")
    parser.add_argument("--updates", type=float, default=20_000, help="a second, of all topics together")
    parser.add_argument("--others", type=int, default=5, help="subscribers that take every update")
    parser.add_argument("--seconds", type=float, default=6.0, help="of one run")
    parser.add_argument("--pairs", type=int, default=5, help="runs with, and as many without")
    parser.add_argument("--size", type=int, default=60, help="bytes of payload")
    parser.add_argument("--again", action="store_true", help="take snapshots all the time, not one in each run")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    wanted = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
    for pair in range(wanted.pairs):
        for kind in ("without", "with") if pair % 2 == 0 else ("with", "without"):
            runs[kind].append(one_run(wanted, snapshots=kind == "with"))
    print(json.dumps(runs) if wanted.json else _table(runs))
    if any(run["faults"] for run in runs["with"]):
        raise SystemExit("error: a snapshot was not complete, or not in order")


def one_run(wanted: argparse.Namespace, *, snapshots: bool) -> dict[str, Any]:
    """One broker, one feed, its subscribers, and perhaps the one that takes snapshots."""
    topics = [f"snapshot.{index}" for index in range(wanted.topics)]
    with (
        fanwire("--rule", f"{PATTERN} retain=yes") as broker,
        subscribers(broker.address, PATTERN, wanted.others, latencies=True, queue=100_000) as others,
        feed(broker.address, topics, wanted.updates, wanted.size) as load,
    ):
        while load.published < wanted.topics + wanted.updates:
            others.follow(0.1)
        taker = _Taker(broker.address, wanted.topics, again=wanted.again)
        others.follow(0.5)
        others.latencies_ns.clear()
        if snapshots:
            taker.begin.set()
        cpu, end = broker.cpu_s(), time.monotonic() + wanted.seconds
        while time.monotonic() < end:
            others.follow(0.1)
        cpu = broker.cpu_s() - cpu
        latencies = [each / 1e6 for each in others.latencies_ns]
        taker.end.set()
        taken = taker.result(snapshots, lambda: others.follow(0.1))
        load.stop()
        return {
            "p50_ms": statistics.median(latencies),
            "p99_ms": p99(latencies),
            "most_ms": max(latencies),
            "deliveries_s": len(latencies) / wanted.seconds,
            "broker_cpu_pct": 100 * cpu / wanted.seconds,
            **taken,
        }


class _Taker:
    """The process that takes snapshots. It looks at what has come when the measuring is over."""

    def __init__(self, address: tuple[str, int], topics: int, *, again: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.begin, self.end = context.Event(), context.Event()
        self._result, theirs = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_take, args=(address, topics, again, self.begin, self.end, theirs), daemon=True
        )
        self._process.start()

    def result(self, wanted: bool, meanwhile: Any) -> dict[str, Any]:
        if not wanted:
            self._process.terminate()
            return {"snapshots": 0, "snapshot_s": 0.0, "live_between": 0, "faults": 0}
        until = time.monotonic() + _PATIENCE_S
        while not self._result.poll():
            meanwhile()
            if time.monotonic() > until:
                raise SystemExit("error: no snapshot came to its end")
        found: dict[str, Any] = self._result.recv()
        return found


def _take(address: tuple[str, int], topics: int, again: bool, begin: Event, end: Event, result: Connection) -> None:
    begin.wait()
    taken: list[list[bytes]] = []
    seconds: list[float] = []
    while not end.is_set() and (again or not taken):
        began = time.monotonic()
        taken.append(_one(address))
        seconds.append(time.monotonic() - began)
    end.wait()  # to look at them takes a processor, which others need now
    looked = [_look(taken[0], topics), _look(taken[-1], topics)]
    result.send(
        {
            "snapshots": len(taken),
            "snapshot_s": statistics.median(seconds),
            "live_between": sum(each["live"] for each in looked),
            "faults": sum(each["faults"] for each in looked),
        }
    )


def _one(address: tuple[str, int]) -> list[bytes]:
    """The bytes of one connection up to the end of its snapshot."""
    [connection] = wire.connect(address, 1)
    connection.sendall(wire.subscribe(PATTERN, snapshot=True))
    pieces: list[bytes] = []
    before = b""
    while True:
        data = connection.recv(1 << 18)
        pieces.append(data)
        if not data or _END in before + data:
            connection.close()
            return pieces
        before = data[-len(_END) :]


def _look(pieces: list[bytes], topics: int) -> dict[str, int]:
    """Whether each topic has come, its values in order, those of the snapshot first."""
    envelopes = [seen.envelope for seen in Envelopes().read(b"".join(pieces))]
    kinds = [envelope[0] for envelope in envelopes]
    numbers: dict[str, int] = {}
    faults = live = count = 0
    for envelope in envelopes[: kinds.index(_SNAPSHOT_END)]:
        if envelope[0] != _MESSAGE:
            continue
        count += 1
        retained = len(envelope) > 7 and envelope[7].get("retained", False)
        live += not retained
        before, number = numbers.get(envelope[2], -1), value(envelope).number
        faults += (retained and before >= 0) or (before >= 0 and number != before + 1)
        numbers[envelope[2]] = number
    faults += abs(topics - len(numbers)) + (envelopes[kinds.index(_SNAPSHOT_END)][2] != count)
    return {"faults": faults, "live": live}


_ROWS = {
    "p50_ms": ("p50 of the others, ms", "{:.2f}"),
    "p99_ms": ("p99 of the others, ms", "{:.2f}"),
    "most_ms": ("their longest, ms", "{:.1f}"),
    "deliveries_s": ("deliveries/s to them", "{:,.0f}"),
    "broker_cpu_pct": ("broker's CPU, %", "{:.1f}"),
    "snapshots": ("snapshots taken", "{:,.0f}"),
    "snapshot_s": ("each took, s", "{:.2f}"),
    "live_between": ("live messages among the two looked at", "{:,.0f}"),
    "faults": ("faults", "{:,.0f}"),
}


def _table(runs: dict[str, list[dict[str, Any]]]) -> str:
    lines = [f"{'median (least to most)':40}{'without':>30}{'with':>30}"]
    for figure, (title, form) in _ROWS.items():
        cells = [cell([run[figure] for run in runs[kind]], form) for kind in ("without", "with")]
        lines.append(f"{title:40}{cells[0]:>30}{cells[1]:>30}")
    pairs = zip(runs["with"], runs["without"], strict=True)
    ratio = statistics.median(one["p99_ms"] / other["p99_ms"] for one, other in pairs)
    lines.append(f"p99 with: {ratio:.2f} times that without (aim: {BAR}, median of the pairs)")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
