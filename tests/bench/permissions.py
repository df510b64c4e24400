"""What do permissions and limits cost? Fan-out (W1), a ticker (W2), one publisher and one subscriber (W3) and many
publishers (W4), with and without them, taking turns.

    python -m tests.bench.permissions --wsload /path/to/wsload

See `tests.bench.policies` for the load generator. With permissions, everybody is anonymous and may publish and
subscribe by two patterns each, of which nothing matches the first. With limits, all those of the defaults are on, and
rates of publishing that nobody reaches; without, all are off that can be. CPU time is compared: others on the machine
change it less than throughput.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import tempfile
from pathlib import Path

from tests.bench.policies import WORKLOADS
from tests.bench.program import fanwire, raise_open_files

WORKS = {
    **WORKLOADS,
    "W3": "--mode tput --subs 1",
    "W4": "--mode tput --subs 100 --pubs 100 --topics 10",
}

# Of CPU time, with beside without.
AIMS = {"W1": 1.05, "W2": 1.05, "W3": 1.1, "W4": 1.1}

_OFF = (
    "max-connections-per-address", "max-connections-per-user", "max-opening", "connect-rate", "auth-failures",
    "unlimited-addresses", "max-total-subscriptions", "max-patterns", "max-envelopes", "max-total-pending",
)  # fmt: skip
_WITHOUT_LIMITS = [word for name in _OFF for word in (f"--{name}", "none")]
_WITH_LIMITS = ["--publish-rate", "100000000", "--publish-volume", "100GiB", "--idle-timeout", "60"]

_TEMPLATE = Path(__file__).with_name("fanwire.tmpl")
_AUTH = """
[auth]
anonymous_roles = ["everybody"]
[[auth.roles]]
name = "everybody"
publish = ["not.these.>", ">"]
subscribe = ["not.these.>", ">"]
"""


def main() -> None:
    """Measure, print one line for each workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wsload", default=os.environ.get("WSLOAD"), help="the load generator (default: $WSLOAD)")
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--of", nargs="+", choices=("permissions", "limits"), default=["permissions", "limits"])
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one run")
    wanted = parser.parse_args()
    if not wanted.wsload:
        raise SystemExit("error: say with --wsload where the load generator is")
    raise_open_files(1200)
    for work in wanted.work:
        print(_told(work, [_pair(wanted, work, number) for number in range(wanted.pairs)]))


def _pair(wanted: argparse.Namespace, work: str, number: int) -> tuple[float, float]:
    """CPU seconds for a million deliveries, without and with; each pair begins with the other one."""
    figures = {on: _run(wanted, work, on) for on in ((False, True) if number % 2 else (True, False))}
    return figures[False], figures[True]


def _run(wanted: argparse.Namespace, work: str, on: bool) -> float:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "auth.toml"
        file.write_text(_AUTH)
        options = ["--auth-file", str(file)] if on and "permissions" in wanted.of else []
        if "limits" in wanted.of:
            options += _WITH_LIMITS if on else _WITHOUT_LIMITS
        with fanwire(*options) as broker:
            command = [wanted.wsload, "--port", str(broker.port), "--pid", str(broker.pid), "--quiet", "--proto", "raw"]
            command += [
                "--raw",
                str(_TEMPLATE),
                "--secs",
                str(wanted.seconds),
                "--warm",
                "1",
                *shlex.split(WORKS[work]),
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=wanted.seconds + 60, check=True)
    result = json.loads(done.stdout.strip().splitlines()[-1])
    if result["lost"] or result["gaps"] or result["dups"]:
        raise SystemExit(f"error: messages were lost or doubled: {result}")
    return float(result["cpu_s_per_M"])


def _told(work: str, pairs: list[tuple[float, float]]) -> str:
    ratios = sorted(on / off for off, on in pairs)
    off, on = (statistics.median(column) for column in zip(*pairs, strict=True))
    return (
        f"{work}: {off:.3f} CPU s for a million deliveries without, {on:.3f} with;"
        f" paired {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}; aim: {AIMS[work]})"
    )


if __name__ == "__main__":
    main()
