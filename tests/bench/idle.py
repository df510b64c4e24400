"""Memory, time and descriptors of many idle, subscribed connections; and whether coming and going leaves anything.

python -m tests.bench.idle --connections 10000 --cycles 10000
"""

from __future__ import annotations

import argparse
import json
import socket
import time
from typing import Any

from tests.bench import wire
from tests.bench.program import Program, fanwire, raise_open_files

TOPIC = "bench.idle"

# The allocator grows in steps of its own in the first cycles; what counts is whether it goes on.
WARM_CYCLES = 0.2


def main() -> None:
    """Measure, print one line for each part (or one JSON object)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000, help="idle subscribed connections")
    parser.add_argument("--cycles", type=int, default=10_000, help="connections that come and go afterwards")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    wanted = parser.parse_args()
    raise_open_files(wanted.connections + 100)
    figures: dict[str, Any] = {}
    if wanted.connections:
        with fanwire() as broker:
            figures |= idle(broker, wanted.connections)
    if wanted.cycles:
        with fanwire() as broker:
            figures |= coming_and_going(broker, wanted.cycles)
    print(json.dumps(figures) if wanted.json else _lines(figures))


def idle(broker: Program, count: int) -> dict[str, Any]:
    """Connect and subscribe ``count`` connections, publish once to all, close them all."""
    before, files, cpu = broker.memory(), broker.descriptors(), broker.cpu_s()
    began = time.perf_counter()
    connections = wire.connect(broker.address, count)
    wire.subscribe_all(connections, TOPIC)
    took = time.perf_counter() - began
    time.sleep(0.5)  # what is still being put away
    memory = broker.memory() - before
    figures = {
        "connections": count,
        "kib_a_connection": round(memory / count / 1024, 2),
        "connect_s": round(took, 3),
        "connect_cpu_s": round(broker.cpu_s() - cpu, 2),
        "descriptors": broker.descriptors() - files,
        "publish_to_all_ms": round(_publish_to_all(broker, connections), 1),
    }
    wire.part(connections)
    time.sleep(0.5)
    figures["descriptors_left"] = broker.descriptors() - files
    figures["mib_after_closing"] = round((broker.memory() - before) / 2**20, 1)
    return figures


def _publish_to_all(broker: Program, connections: list[socket.socket]) -> float:
    """Milliseconds from one publish until every connection has its message."""
    [publisher] = wire.connect(broker.address, 1)
    began = time.perf_counter()
    publisher.sendall(wire.frame(wire.publish(TOPIC, bytes(128))))
    for connection in connections:
        if not connection.recv(4096):
            raise SystemExit("error: the broker closed an idle connection")
    took = time.perf_counter() - began
    wire.part([publisher])
    return took * 1000


def coming_and_going(broker: Program, cycles: int) -> dict[str, Any]:
    """Connect, subscribe, close, again and again, `wire.TOGETHER` at a time: memory after a while, and at the end."""
    files, cpu, began = broker.descriptors(), broker.cpu_s(), time.perf_counter()
    warm, done = 0, 0
    while done < cycles:
        group = wire.connect(broker.address, min(wire.TOGETHER, cycles - done))
        wire.subscribe_all(group, TOPIC)
        wire.part(group)
        done += len(group)
        if not warm and done >= cycles * WARM_CYCLES:
            warm = broker.memory()
    took = time.perf_counter() - began
    time.sleep(0.5)
    return {
        "cycles": cycles,
        "cycles_a_s": round(cycles / took),
        "cpu_ms_a_cycle": round((broker.cpu_s() - cpu) / cycles * 1000, 3),
        "cycles_mib_warm": round(warm / 2**20, 2),
        "cycles_mib_end": round(broker.memory() / 2**20, 2),
        "cycles_descriptors_left": broker.descriptors() - files,
    }


def _lines(figures: dict[str, Any]) -> str:
    lines = []
    if "connections" in figures:
        lines.append(
            "idle: {connections} connections, {kib_a_connection} KiB each; connected and subscribed in {connect_s} s "
            "(broker's CPU {connect_cpu_s} s); {descriptors} descriptors; one publish reached all in "
            "{publish_to_all_ms} ms; after closing {mib_after_closing} MiB and {descriptors_left} descriptors left"
        )
    if "cycles" in figures:
        lines.append(
            "coming and going: {cycles} connections, {cycles_a_s}/s, broker's CPU {cpu_ms_a_cycle} ms each; RSS "
            "{cycles_mib_warm} MiB after a fifth of them, {cycles_mib_end} MiB at the end; "
            "{cycles_descriptors_left} descriptors left"
        )
    return "\n".join(lines).format(**figures)


if __name__ == "__main__":
    main()
