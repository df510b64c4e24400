"""Does a subscriber that never reads hurt the others? Paired runs with and without one, taking turns.

    python -m tests.bench.slow --subscribers 1000 --pairs 5

In every run a publisher publishes at a fixed rate, acknowledged, and all subscribers read, but one: in the runs "with"
that one never reads. Before the measuring its socket is filled, and then its queue at the broker, with messages of a
topic that only it has. So it is slow from the first measured moment on, and is dropped for it before the last one.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
from contextlib import closing
from typing import Any

from tests.bench import payload, wire
from tests.bench.figures import cell, p99, spread
from tests.bench.program import Program, fanwire, raise_open_files
from tests.bench.publishing import PacedPublisher
from tests.bench.receiving import subscribers

TOPIC = "bench.slow"
FLOOD = "bench.flood"

# What the frozen one has coming: more than the kernel's buffers take, less than they and the broker's 16 MiB together.
FLOOD_MESSAGES = 230
FLOOD_BYTES = 60_000

FIGURES = {
    "p99_ms": "p99 of the healthy, ms",
    "deliveries_s": "deliveries/s",
    "ack_p99_ms": "p99 of the publisher's acks, ms",
    "broker_cpu_pct": "broker's CPU, %",
    "mib": "broker's RSS at its highest, MiB",
}
JUDGED = ("p99_ms", "ack_p99_ms")


def main() -> None:
    """Measure, print a table and a verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, default=1000, help="with the one that never reads")
    parser.add_argument("--rate", type=float, default=50.0, help="publishes a second")
    parser.add_argument("--seconds", type=float, default=8.0, help="of one run")
    parser.add_argument("--pairs", type=int, default=5, help="runs with, and as many without")
    parser.add_argument("--stall-timeout", type=float, default=4.0, help="the broker's, in seconds")
    parser.add_argument("--size", type=int, default=128, help=f"bytes of payload, at least {payload.LEAST}")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    wanted = parser.parse_args()
    raise_open_files(wanted.subscribers + 100)
    runs: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
    for pair in range(wanted.pairs):
        for kind in ("without", "with") if pair % 2 == 0 else ("with", "without"):
            runs[kind].append(one_run(wanted, frozen=kind == "with"))
    judged = verdict(runs)
    print(json.dumps({**runs, "verdict": judged}) if wanted.json else _table(runs))
    if not (judged["nothing_lost"] and judged["dropped"]):
        raise SystemExit("error: healthy subscribers lost messages, or the frozen one was not dropped")


def one_run(wanted: argparse.Namespace, *, frozen: bool) -> dict[str, Any]:
    """One broker, its subscribers, one publisher; figures of the measured seconds."""
    healthy = wanted.subscribers - 1
    with (
        fanwire("--stall-timeout", str(wanted.stall_timeout)) as broker,
        subscribers(broker.address, TOPIC, healthy, latencies=True) as everybody,
        closing(_the_other_one(broker, frozen)),
    ):
        publisher = PacedPublisher(broker, everybody, TOPIC, wanted.rate, wanted.size)
        publisher.run(1.0)
        everybody.follow()
        everybody.latencies_ns.clear()
        publisher.forget()
        files, cpu, begin = broker.descriptors(), broker.cpu_s(), everybody.progress
        publisher.run(wanted.seconds)
        cpu = broker.cpu_s() - cpu
        end = everybody.wait_for(publisher.published)
        took = (end.time_ns - begin.time_ns) / 1e9
        return {
            "p99_ms": p99(everybody.latencies_ns) / 1e6,
            "deliveries_s": (end.total - begin.total) / took,
            "ack_p99_ms": p99(publisher.acks_ns) / 1e6,
            "broker_cpu_pct": 100 * cpu / took,
            "mib": publisher.most_memory / 2**20,
            "dropped": files - broker.descriptors(),
            "lost": publisher.published * healthy - end.total,
            "wrong_numbers": end.wrong,
        }


def _the_other_one(broker: Program, frozen: bool) -> socket.socket:
    """One more connection: one that never reads and has much coming, or one that has subscribed to nothing."""
    [other] = wire.connect(broker.address, 1, receive_buffer=4096)
    if frozen:
        wire.subscribe_all([other], FLOOD)
        other.sendall(wire.subscribe(TOPIC))
        [flooder] = wire.connect(broker.address, 1)
        message = wire.frame(wire.publish(FLOOD, bytes(FLOOD_BYTES)))
        for _ in range(FLOOD_MESSAGES):
            flooder.sendall(message)
        wire.part([flooder])
    return other


def verdict(runs: dict[str, list[dict[str, Any]]]) -> dict[str, bool]:
    """Whether the median of the runs with a frozen subscriber is worse by no more than runs of one kind differ."""
    judged = {}
    for figure in JUDGED:
        without, with_one = ([run[figure] for run in runs[kind]] for kind in ("without", "with"))
        judged[figure] = statistics.median(with_one) <= statistics.median(without) + spread(without, with_one)
    judged["nothing_lost"] = not any(run["lost"] or run["wrong_numbers"] for kind in runs.values() for run in kind)
    judged["dropped"] = all(run["dropped"] == 1 for run in runs["with"])
    return judged


def _table(runs: dict[str, list[dict[str, Any]]]) -> str:
    lines = [f"{'median (least to most)':34}{'without':>33}{'with':>33}"]
    for figure, name in FIGURES.items():
        cells = [cell([run[figure] for run in runs[kind]], "{:,.1f}") for kind in ("without", "with")]
        lines.append(f"{name:34}{cells[0]:>33}{cells[1]:>33}")
    judged = verdict(runs)
    for figure in JUDGED if len(runs["with"]) > 1 else ():  # a single pair has no spread to judge by
        no_worse = "no worse than" if judged[figure] else "WORSE than"
        lines.append(f"{FIGURES[figure]}: with one {no_worse} without, by the spread of runs of one kind")
    lines.append(f"healthy subscribers lost nothing: {'yes' if judged['nothing_lost'] else 'NO'}")
    lines.append(f"the frozen one was dropped in every run: {'yes' if judged['dropped'] else 'NO'}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
