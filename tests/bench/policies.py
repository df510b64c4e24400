"""What does each policy cost when nobody is slow? Fan-out (W1) and a ticker (W2) with each `on_slow`, taking turns.

    python -m tests.bench.policies --wsload /path/to/wsload

W1 has one publisher, one topic and 1,000 subscribers; W2 has 500 topics and 200 subscribers of 50 of them each. The
load comes from a load generator in C (see README.md, "Beside other brokers"), whose template is written here for each
policy from fanwire.tmpl. Without it W1 is measured with `tests.bench.fanout`, and W2 is left out.

Nobody is slow, so nothing should be conflated. What is, the generator counts as a gap; with any other policy a gap is
a loss.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack

from tests.bench.fanout import fan_out
from tests.bench.figures import cell
from tests.bench.program import fanwire, raise_open_files
from tests.bench.slow_readers import POLICIES

WORKLOADS = {
    "W1": "--mode tput --subs 1000",
    "W2": "--mode tput --subs 200 --topics 500 --per-sub 50",
}

# Of disconnect's throughput each policy must reach.
AIMS = {"conflate": 0.75}
AIM = 0.9

_TEMPLATE = Path(__file__).with_name("fanwire.tmpl")
_SUBSCRIBE = r"\x93\x02{mp:sid}{mp:topic}"
_PATIENCE_S = 60.0


def main() -> None:
    """Measure, print a table for each workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wsload", default=os.environ.get("WSLOAD"), help="the load generator (default: $WSLOAD)")
    parser.add_argument("--work", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--rounds", type=int, default=5, help="runs of each policy")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one run")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    wanted = parser.parse_args()
    raise_open_files(1200)
    works = [work for work in wanted.work if wanted.wsload or work == "W1"]
    results = {work: measure(wanted, work) for work in works}
    print(json.dumps(results) if wanted.json else "\n\n".join(_table(*each) for each in results.items()))
    faults = {
        on_slow
        for runs in results.values()
        for on_slow, each in runs.items()
        if any(run["doubled"] or (run["missing"] and on_slow != "conflate") for run in each)
    }
    if faults:
        raise SystemExit(f"error: messages were lost, doubled or out of order with {', '.join(sorted(faults))}")


def measure(wanted: argparse.Namespace, work: str) -> dict[str, list[dict[str, Any]]]:
    """The figures of all runs of one workload, by policy; policies take turns, each round begins with another."""
    one_run: Callable[[argparse.Namespace, str, str], dict[str, Any]] = _generated if wanted.wsload else _played
    runs: dict[str, list[dict[str, Any]]] = {on_slow: [] for on_slow in wanted.policies}
    for number in range(wanted.rounds):
        turn = number % len(runs)
        for on_slow in wanted.policies[turn:] + wanted.policies[:turn]:
            runs[on_slow].append(one_run(wanted, work, on_slow))
    return runs


def _generated(wanted: argparse.Namespace, work: str, on_slow: str) -> dict[str, Any]:
    with fanwire() as broker, tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / f"fanwire-{on_slow}.tmpl"
        template.write_text(_template(on_slow))
        command = [wanted.wsload, "--label", on_slow, "--port", str(broker.port), "--pid", str(broker.pid), "--quiet"]
        command += ["--proto", "raw", "--raw", str(template), "--secs", str(wanted.seconds), "--warm", "1"]
        command += shlex.split(WORKLOADS[work])
        done = subprocess.run(command, capture_output=True, text=True, timeout=wanted.seconds + _PATIENCE_S)
    if not done.stdout.strip():
        raise SystemExit(f"error: {wanted.wsload} failed with {on_slow}: {done.stderr.strip()[-300:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    # Counted over the whole run, as what each subscriber received is.
    received = (result["min_recv"] + result["max_recv"]) / 2 * result["subs"]
    missing = max(result["lost"], result["gaps"])
    return {
        "deliveries_s": result["deliv_s"],
        "with_missing_s": result["deliv_s"] * (1 + missing / max(1, received)),
        "cpu_s_per_million": result["cpu_s_per_M"],
        "missing": missing,
        "doubled": result["dups"],
    }


def _template(on_slow: str) -> str:
    """The template of this folder, with the option in SUBSCRIBE."""
    text = _TEMPLATE.read_text()
    if _SUBSCRIBE not in text:
        raise SystemExit(f"error: {_TEMPLATE} subscribes in a way that is not known here")
    options = "".join(f"\\x{byte:02x}" for byte in msgpack.packb({"on_slow": on_slow}))
    return text.replace(_SUBSCRIBE, _SUBSCRIBE.replace(r"\x93", r"\x94", 1) + options)


def _played(wanted: argparse.Namespace, _work: str, on_slow: str) -> dict[str, Any]:
    result = fan_out(1000, 1.0, wanted.seconds, 256, 128, on_slow=on_slow)
    expected = result["published"] * result["subscribers"]
    return {
        "deliveries_s": result["deliveries_s"],
        "with_missing_s": result["deliveries_s"] * expected / max(1, expected - result["lost"]),
        "cpu_s_per_million": result["broker_cpu_s_per_million"],
        "missing": result["lost"],
        "doubled": 0 if on_slow == "conflate" else result["wrong_numbers"],
    }


_ROWS = {
    "deliveries_s": ("deliveries/s", "{:,.0f}"),
    "with_missing_s": ("with what is missing, /s", "{:,.0f}"),
    "cpu_s_per_million": ("CPU s per million", "{:.3f}"),
    "missing": ("missing", "{:,.0f}"),
}


def _table(work: str, runs: dict[str, list[dict[str, Any]]]) -> str:
    lines = [f"{f'{work}; median (least to most)':28}" + "".join(f"{title:>40}" for title, _ in _ROWS.values())]
    for on_slow, each in runs.items():
        cells = [cell([run[figure] for run in each], form) for figure, (_, form) in _ROWS.items()]
        lines.append(f"{on_slow:28}" + "".join(f"{text:>40}" for text in cells))
    if "disconnect" in runs:
        plain = statistics.median(run["deliveries_s"] for run in runs["disconnect"])
        for on_slow, each in runs.items():
            ratio = statistics.median(run["deliveries_s"] for run in each) / plain
            lines.append(f"{on_slow}: {ratio:.2f} of disconnect's deliveries/s (aim: {AIMS.get(on_slow, AIM)})")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
