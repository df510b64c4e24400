"""Do hostile clients that connect 500 times a second hurt the healthy ones? Paired runs with and without, taking turns.

    python -m tests.bench.storm --pairs 5 --seconds 60

The broker wants a token of everybody. 1,000 subscribers have one and get 20,000 deliveries a second; what the others
say is in `tests.bench.attackers`. They come from as many addresses as `--addresses` says, and for those all limits are
the defaults: from one address nearly all are closed unread; from 65,536 no limit on addresses helps. Before
it there is a short one that is not measured: what the first crowd takes CPython keeps for the next one (see README.md).
After it the healthy stay, and the broker's memory is watched until it is back at its level: what it held before, and
5 % for what the allocator keeps.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.bench import payload
from tests.bench.attackers import Attackers, attackers
from tests.bench.figures import cell, p99
from tests.bench.program import Program, fanwire, raise_open_files
from tests.bench.publishing import PacedPublisher
from tests.bench.receiving import Subscribers, subscribers

TOPIC = "bench.storm"
AIM = 1.2
AIM_S = 30.0

LEVEL = 1.05
"""Memory is back when it is at no more than this many times what it was."""

_AUTH = """
[auth]
[[auth.keys]]
file = "key.pem"
algorithm = "ES256"
[[auth.tokens]]
user = "healthy"
roles = ["everything"]
sha256 = "{hash}"
[[auth.tokens]]
user = "publisher"
roles = ["everything"]
sha256 = "{publisher}"
[[auth.roles]]
name = "everything"
publish = [">"]
subscribe = [">"]
"""

FIGURES = {
    "p50_ms": "p50 of the healthy, ms",
    "p99_ms": "p99 of the healthy, ms",
    "deliveries_s": "deliveries/s",
    "broker_cpu_pct": "broker's CPU, %",
    "attackers_cpu_pct": "attackers' CPU, %",
    "fresh_mib": "broker's RSS before any storm, MiB",
    "before_mib": "before this one, MiB",
    "most_mib": "its highest, MiB",
    "after_mib": "when back, or after 60 s, MiB",
    "back_s": "back at its level after, s",
}


def main() -> None:
    """Measure, print a table and a verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=20.0, help="publishes a second")
    parser.add_argument("--connects", type=float, default=500.0, help="hostile connects a second")
    parser.add_argument("--first", type=float, default=8.0, help="seconds of a storm before the measuring; 0: none")
    parser.add_argument("--addresses", type=int, default=100, help="that these come from, 1 to 65,536")
    parser.add_argument("--seconds", type=float, default=60.0, help="of one run")
    parser.add_argument("--pairs", type=int, default=5, help="runs with, and as many without")
    parser.add_argument("--option", action="append", default=[], help="one more of `fanwire serve`; may be repeated")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    wanted = parser.parse_args()
    raise_open_files(wanted.subscribers + int(20 * wanted.connects))
    runs: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
    for pair in range(wanted.pairs):
        for kind in ("without", "with") if pair % 2 == 0 else ("with", "without"):
            runs[kind].append(one_run(wanted, storm=kind == "with"))
    print(json.dumps(runs) if wanted.json else _table(runs))
    if any(run["lost"] or run["wrong_numbers"] for kind in runs.values() for run in kind):
        raise SystemExit("error: healthy subscribers lost messages")


def one_run(wanted: argparse.Namespace, *, storm: bool) -> dict[str, Any]:
    """One broker, its subscribers, one publisher; figures of the measured seconds and of the rest after them."""
    with (
        _broker(wanted.option) as (broker, tokens),
        subscribers(broker.address, TOPIC, wanted.subscribers, latencies=True, token=tokens[0]) as everybody,
    ):
        publisher = PacedPublisher(broker, everybody, TOPIC, wanted.rate, payload.LEAST + 100, tokens[1])
        fresh = broker.memory()
        if storm and wanted.first:
            with attackers(broker.address, wanted.connects, wanted.first, wanted.addresses) as first:
                first.wait()
        publisher.run(2.0)
        everybody.follow()
        everybody.latencies_ns.clear()
        publisher.forget()
        before = broker.memory()
        with contextlib.ExitStack() as stack:
            others = None
            if storm:
                others = stack.enter_context(
                    attackers(broker.address, wanted.connects, wanted.seconds, wanted.addresses)
                )
            figures = {"fresh_mib": fresh / 2**20}
            figures |= _measure(wanted, broker, everybody, publisher)
            figures |= _memory(broker, publisher, before)
            figures |= _attackers(others)
        end = everybody.wait_for(publisher.published)
        figures["lost"] = publisher.published * wanted.subscribers - end.total
        figures["wrong_numbers"] = end.wrong
        return figures


@contextlib.contextmanager
def _broker(options: list[str]) -> Iterator[tuple[Program, list[str]]]:
    tokens = [secrets.token_urlsafe(32) for _ in range(2)]  # a user may have a thousand connections
    hashes = [hashlib.sha256(token.encode()).hexdigest() for token in tokens]
    with tempfile.TemporaryDirectory() as folder:
        public = ec.generate_private_key(ec.SECP256R1()).public_key()
        form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (Path(folder) / "key.pem").write_bytes(public.public_bytes(*form))
        file = Path(folder) / "auth.toml"
        file.write_text(_AUTH.format(hash=hashes[0], publisher=hashes[1]))
        limits = ("--unlimited-addresses", "127.0.0.1", "--ping-interval", "none")
        with fanwire("--auth-file", str(file), *limits, *options) as broker:
            yield broker, tokens


def _measure(
    wanted: argparse.Namespace, broker: Program, everybody: Subscribers, publisher: PacedPublisher
) -> dict[str, Any]:
    cpu, begin = broker.cpu_s(), everybody.progress
    publisher.run(wanted.seconds)
    cpu = broker.cpu_s() - cpu
    end = everybody.wait_for(publisher.published)
    took = (end.time_ns - begin.time_ns) / 1e9
    latencies = everybody.latencies_ns
    return {
        "p50_ms": statistics.median(latencies) / 1e6,
        "p99_ms": p99(latencies) / 1e6,
        "deliveries_s": (end.total - begin.total) / took,
        "broker_cpu_pct": 100 * cpu / took,
    }


def _memory(broker: Program, publisher: PacedPublisher, before: int) -> dict[str, Any]:
    """How soon the memory is back, while the healthy go on."""
    most, began, took = publisher.most_memory, time.monotonic(), 0.0
    while broker.memory() > before * LEVEL and took < 2 * AIM_S:
        publisher.run(0.5)
        took = time.monotonic() - began
    return {
        "before_mib": before / 2**20,
        "most_mib": most / 2**20,
        "after_mib": broker.memory() / 2**20,
        "back_s": took,
    }


def _attackers(others: Attackers | None) -> dict[str, Any]:
    if others is None:
        return {"attackers_cpu_pct": 0.0, "connects_s": 0.0, "outcomes": {}}
    tally = others.wait()
    return {
        "attackers_cpu_pct": 100 * tally.cpu_s / tally.seconds,
        "connects_s": tally.connects / tally.seconds,
        "slowest_connect_ms": tally.slowest_connect_ms,
        "outcomes": tally.outcomes,
    }


def _table(runs: dict[str, list[dict[str, Any]]]) -> str:
    lines = [f"{'median (least to most)':34}{'without':>33}{'with':>33}"]
    for figure, name in FIGURES.items():
        cells = [cell([run[figure] for run in runs[kind]], "{:,.2f}") for kind in ("without", "with")]
        lines.append(f"{name:34}{cells[0]:>33}{cells[1]:>33}")
    storms = runs["with"]
    lines.append(f"hostile connects/s: {cell([run['connects_s'] for run in storms], '{:.0f}')}")
    lines.append(f"slowest to connect, ms: {cell([run['slowest_connect_ms'] for run in storms], '{:.1f}')}")
    lines += [
        f"  {name:26} " + ", ".join(f"{outcome}: {count}" for outcome, count in counts.items())
        for name, counts in storms[-1]["outcomes"].items()
    ]
    ratios = [storm["p99_ms"] / calm["p99_ms"] for calm, storm in zip(runs["without"], storms, strict=True)]
    lines.append(f"p99 with the storm: {cell(ratios, '{:.2f}')} times that without (aim: {AIM}, median of the pairs)")
    back = max(run["back_s"] for run in storms)
    lines.append(f"memory back at its level after {back:.1f} s at the latest (aim: {AIM_S:g})")
    lost = any(run["lost"] or run["wrong_numbers"] for kind in runs.values() for run in kind)
    lines.append(f"healthy subscribers lost nothing: {'NO' if lost else 'yes'}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
