"""What does history cost? Each workload in pairs of runs, with `history=1000` on all topics and without any rule.

    python -m tests.bench.history --wsload /path/to/wsload

The load comes from a load generator in C (see README.md, "Beside other brokers"). Runs are short and in pairs, each
pair in the other order than the one before, so that what else the machine does meets both sides; compared are the
broker's CPU seconds for a million deliveries, pair by pair. Nothing may be missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
from pathlib import Path
from typing import Any, TypeAlias

from tests.bench.figures import cell
from tests.bench.program import fanwire, raise_open_files

WORKLOADS = {
    "W1": "--mode tput --subs 1000",
    "W2": "--mode tput --subs 200 --topics 500 --per-sub 50",
    "W3": "--mode tput --subs 1",
    "W4": "--mode tput --subs 100 --pubs 100 --topics 10",
}
AIM = 1.15

_RULE = ("--rule", "> history=1000")
_TEMPLATE = Path(__file__).with_name("fanwire.tmpl")
_PATIENCE_S = 60.0

Pair: TypeAlias = tuple[dict[str, Any], dict[str, Any]]


def main() -> None:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wsload", default=os.environ.get("WSLOAD"), help="the load generator (default: $WSLOAD)")
    parser.add_argument("--work", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--pairs", type=int, default=7, help="of runs, for each workload")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one run")
    parser.add_argument("--warm", type=float, default=1.0, help="seconds before that; history fills meanwhile")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    wanted = parser.parse_args()
    if not wanted.wsload:
        parser.error("--wsload is needed: the load generator")
    raise_open_files(1200)
    results = {work: [_pair(wanted, work, number % 2 == 1) for number in range(wanted.pairs)] for work in wanted.work}
    print(json.dumps(results) if wanted.json else _table(results))
    if any(run["missing"] or run["doubled"] for pairs in results.values() for pair in pairs for run in pair):
        raise SystemExit("error: messages were lost, doubled or out of order")


def _pair(wanted: argparse.Namespace, work: str, turned: bool) -> Pair:
    """Without history, and with it."""
    if turned:
        kept = _run(wanted, work, *_RULE)
        return _run(wanted, work), kept
    return _run(wanted, work), _run(wanted, work, *_RULE)


def _run(wanted: argparse.Namespace, work: str, *options: str) -> dict[str, Any]:
    with fanwire(*options) as broker:
        command = [wanted.wsload, "--label", work, "--port", str(broker.port), "--pid", str(broker.pid), "--quiet"]
        command += [
            "--proto",
            "raw",
            "--raw",
            str(_TEMPLATE),
            "--secs",
            str(wanted.seconds),
            "--warm",
            str(wanted.warm),
        ]
        command += shlex.split(WORKLOADS[work])
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=wanted.seconds + wanted.warm + _PATIENCE_S
        )
    if not done.stdout.strip():
        raise SystemExit(f"error: {wanted.wsload} failed: {done.stderr.strip()[-300:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "deliveries_s": result["deliv_s"],
        "cpu_s_per_million": result["cpu_s_per_M"],
        "missing": max(result["lost"], result["gaps"]),
        "doubled": result["dups"],
    }


def _table(results: dict[str, list[Pair]]) -> str:
    titles = ("CPU s per million", "with history", "ratio, pair by pair", "deliveries/s, ratio")
    lines = [f"{'median (least to most)':24}" + "".join(f"{title:>28}" for title in titles)]
    for work, pairs in results.items():
        cpu = [[pair[side]["cpu_s_per_million"] for pair in pairs] for side in (0, 1)]
        ratios = [kept["cpu_s_per_million"] / plain["cpu_s_per_million"] for plain, kept in pairs]
        speeds = [kept["deliveries_s"] / plain["deliveries_s"] for plain, kept in pairs]
        cells = [cell(each, "{:.3f}") for each in (*cpu, ratios, speeds)]
        verdict = "" if statistics.median(ratios) <= AIM else f"  over the aim of {AIM}"
        lines.append(f"{work:24}" + "".join(f"{text:>28}" for text in cells) + verdict)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
