"""Do slow readers hurt the healthy ones? Rounds of runs with 0, 1 and 50 of them, of each policy, taking turns.

    python -m tests.bench.isolation --rounds 5

In every run a publisher publishes at a fixed rate, acknowledged, to healthy subscribers that read. The slow ones have
the same topic: they never read (frozen) or read 1 kB a second (trickle), and have a short queue, so that what they
asked for with `on_slow` happens to them while it is measured. A round has one broker, one set of healthy subscribers
and one run of each configuration, in an order that changes from round to round. The broker's stall_timeout and max_age
are off, so that only the policies act.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

from tests.bench import payload
from tests.bench.figures import cell, p99, spread
from tests.bench.program import Program, fanwire, raise_open_files
from tests.bench.publishing import PacedPublisher
from tests.bench.receiving import Subscribers, subscribers
from tests.bench.slow_readers import KINDS, POLICIES, Group, slow_readers

TOPIC = "bench.isolation"
BASELINE = "none"

# Pings are off because neither the slow nor the healthy ones here answer any.
UNLIMITED = ("--stall-timeout", "none", "--max-age", "none", "--ping-interval", "none")

# How much worse than without slow readers is still the same, if runs don't differ by more anyway.
TOLERANCE = 0.05

_WARM_S = 0.5
_LEAVING_S = 5.0


def main() -> None:
    """Measure, print a table and a verdict for each configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--healthy", type=int, default=1000, help="subscribers that read")
    parser.add_argument("--rate", type=float, default=50.0, help="publishes a second")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one run")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each configuration")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES, help="on_slow of the slow ones")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of slow ones")
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 50], help="of slow ones; 0 is always measured")
    parser.add_argument("--queue", type=int, default=50, help="messages that may wait for a slow one")
    parser.add_argument("--size", type=int, default=128, help=f"bytes of payload, at least {payload.LEAST}")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    wanted = parser.parse_args()
    raise_open_files(wanted.healthy + max(wanted.counts) + 100)
    runs = measure(wanted)
    verdicts = {name: verdict(runs[BASELINE], runs[name]) for name in runs if name != BASELINE}
    print(json.dumps({"runs": runs, "verdicts": verdicts}) if wanted.json else _table(runs, verdicts))
    if any(run["lost"] or run["wrong_numbers"] for each in runs.values() for run in each):
        raise SystemExit("error: healthy subscribers lost messages")
    if not all(run["struck"] for each in runs.values() for run in each):
        raise SystemExit("error: the policy of a slow reader did nothing; it was not slow, or the policy does not act")


def measure(wanted: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The figures of all runs, by the name of the configuration."""
    setups: dict[str, list[Group]] = {BASELINE: []}
    for on_slow in wanted.policies:
        for kind in wanted.kinds:
            for count in wanted.counts:
                setups[f"{count} {kind}, {on_slow}"] = [Group(on_slow, kind, count)]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in setups}
    for number in range(wanted.rounds):
        for name, run in one_round(wanted, setups, _turned(list(setups), number, wanted.rounds)).items():
            runs[name].append(run)
    return runs


def _turned(names: list[str], number: int, of: int) -> list[str]:
    """Begin elsewhere in each round, and go backwards in every other one: no configuration is always late."""
    start = len(names) * number // of
    names = names[start:] + names[:start]
    return names[::-1] if number % 2 else names


def one_round(
    wanted: argparse.Namespace, setups: dict[str, list[Group]], order: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """One broker, one set of healthy subscribers, one run of each configuration."""
    with (
        fanwire(*UNLIMITED) as broker,
        subscribers(broker.address, TOPIC, wanted.healthy, latencies=True) as everybody,
    ):
        publisher = PacedPublisher(broker, everybody, TOPIC, wanted.rate, wanted.size)
        publisher.run(1.0)
        return {name: one_run(wanted, setups[name], broker, everybody, publisher) for name in order}


def one_run(
    wanted: argparse.Namespace,
    groups: Sequence[Group],
    broker: Program,
    everybody: Subscribers,
    publisher: PacedPublisher,
) -> dict[str, Any]:
    """Figures of the measured seconds of one configuration."""
    files, first = broker.descriptors(), publisher.published
    everybody.wait_for(publisher.published)
    with slow_readers(broker.address, TOPIC, groups, wanted.queue) as slow:
        publisher.run(_WARM_S)
        begin = everybody.wait_for(publisher.published)
        everybody.latencies_ns.clear()
        publisher.forget()
        cpu = broker.cpu_s()
        publisher.run(wanted.seconds)
        cpu = broker.cpu_s() - cpu
        end = everybody.wait_for(publisher.published)
        struck = slow.struck(first, publisher.published - 1)
    _wait_until_gone(broker, files)
    took = (end.time_ns - begin.time_ns) / 1e9
    return {
        "deliveries_s": (end.total - begin.total) / took,
        "p99_ms": p99(everybody.latencies_ns) / 1e6,
        "ack_p99_ms": p99(publisher.acks_ns) / 1e6,
        "broker_cpu_pct": 100 * cpu / took,
        "mib": publisher.most_memory / 2**20,
        "lost": publisher.published * wanted.healthy - end.total,
        "wrong_numbers": end.wrong,
        "struck": all(struck),
    }


def _wait_until_gone(broker: Program, files: int) -> None:
    """Until the broker has closed what the slow ones left."""
    end = time.monotonic() + _LEAVING_S
    while broker.descriptors() > files:
        if time.monotonic() > end:
            raise SystemExit("error: the broker keeps connections of slow readers that have gone")
        time.sleep(0.05)


def verdict(baseline: list[dict[str, Any]], runs: list[dict[str, Any]]) -> dict[str, bool]:
    """Whether the medians are within 5 % of the baseline's, or within the spread of runs of one kind."""
    judged = {}
    for figure, better in (("deliveries_s", 1), ("p99_ms", -1)):
        without, with_some = ([run[figure] for run in each] for each in (baseline, runs))
        worse_by = better * (statistics.median(without) - statistics.median(with_some))
        judged[figure] = worse_by <= max(TOLERANCE * statistics.median(without), spread(without, with_some))
    return judged


_COLUMNS = {
    "deliveries_s": ("deliveries/s", "{:,.0f}"),
    "p99_ms": ("p99, ms", "{:.1f}"),
    "ack_p99_ms": ("acks' p99, ms", "{:.1f}"),
    "broker_cpu_pct": ("broker's CPU, %", "{:.0f}"),
    "mib": ("RSS, MiB", "{:.0f}"),
}


def _table(runs: dict[str, list[dict[str, Any]]], verdicts: dict[str, dict[str, bool]]) -> str:
    lines = [f"{'median (least to most)':26}" + "".join(f"{name:>25}" for name, _ in _COLUMNS.values())]
    for name, each in runs.items():
        cells = [cell([run[figure] for run in each], form) for figure, (_, form) in _COLUMNS.items()]
        lines.append(f"{name:26}" + "".join(f"{text:>25}" for text in cells))
    if len(runs[BASELINE]) > 1:  # a single round has no spread to judge by
        lines += _judged(verdicts)
    lost = any(run["lost"] or run["wrong_numbers"] for each in runs.values() for run in each)
    lines.append(f"healthy subscribers lost nothing: {'NO' if lost else 'yes'}")
    return "\n".join(lines)


def _judged(verdicts: dict[str, dict[str, bool]]) -> list[str]:
    lines = []
    for name, judged in verdicts.items():
        if worse := [_COLUMNS[figure][0] for figure, same in judged.items() if not same]:
            lines.append(f"WORSE than without slow readers: {name}: {' and '.join(worse)}")
    return lines or ["with each kind of slow reader as without: within 5 %, or the spread of runs of one kind"]


if __name__ == "__main__":
    main()
