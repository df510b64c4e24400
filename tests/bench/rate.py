"""What does a reader with a `max_rate` cost, and does it get the newest? 10,000 symbols, 50 of them twice a second.

    python -m tests.bench.rate --updates 200000

A process publishes updates of all symbols in turn. Runs without such a reader take turns with runs in which it
subscribes to 50 symbols, one by one or with one pattern. In all runs a witness without a rate reads the same symbols:
it tells when the broker took in which value. With "beside" one more subscriber takes everything, in all runs of the
set: without it the broker has next to nothing to do but to take updates in.

A value is stale when the broker had taken in a newer one of its symbol before it sent this one. We only see when it
arrives, so a stale one is one that arrives later after that than any of the witness's own messages needed to arrive
(and at least 5 ms): so long may a value be under way. A value held back wrongly would be late by a whole period of the
rate, 500 ms.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from tests.bench import payload, wire
from tests.bench.arrivals import Arrivals, arrivals, gaps_ms, newest, steps
from tests.bench.feed import feed
from tests.bench.figures import cell, p99
from tests.bench.program import Program, fanwire, raise_open_files
from tests.bench.receiving import Subscribers, subscribers
from tests.bench.recording import Recorder

KINDS = ("without", "one by one", "pattern")
SETS = ("alone", "beside")

FAULTS = ("lost", "missing_beside", "wrong_numbers", "stale", "not_newest", "too_many")

CPU_BAR = 1.3
LEAST_TOLERANCE_MS = 5.0

_WARM_S = 1.0


def main() -> None:
    """Measure, print a table and a verdict for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=10_000)
    parser.add_argument("--updates", type=float, default=200_000.0, help="a second, of all symbols together")
    parser.add_argument("--chosen", type=int, default=50, help="symbols that the reader wants")
    parser.add_argument("--max-rate", type=float, default=2.0, help="of the reader, a second and symbol")
    parser.add_argument("--seconds", type=float, default=6.0, help="of one run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--size", type=int, default=32, help=f"bytes of payload, at least {payload.LEAST}")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    wanted = parser.parse_args()
    raise_open_files(100)
    sets = {each: measure(wanted, beside=each == "beside") for each in wanted.sets}
    print(json.dumps(sets) if wanted.json else "\n\n".join(_table(wanted, *each) for each in sets.items()))
    every = [run for runs in sets.values() for each in runs.values() for run in each]
    if any(run[fault] for run in every for fault in FAULTS):
        raise SystemExit(f"error: these must all be 0: {', '.join(FAULTS)}; see --json")
    if any(run["updates_s"] < 0.99 * wanted.updates for run in every):
        raise SystemExit("error: the feed did not reach its rate; ask for fewer --updates, or close other programs")


def measure(wanted: argparse.Namespace, *, beside: bool) -> dict[str, list[dict[str, Any]]]:
    """The figures of all runs, by kind; kinds take turns, each round begins with another."""
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for number in range(wanted.rounds):
        turn = number % len(KINDS)
        for kind in KINDS[turn:] + KINDS[:turn]:
            runs[kind].append(one_run(wanted, kind, beside=beside))
    return runs


class _Names:
    """The symbols: those wanted have a first token of their own, so that a pattern can say them, but come scattered."""

    def __init__(self, wanted: argparse.Namespace) -> None:
        groups = wanted.symbols // wanted.chosen
        self.all = [f"rate.{index % groups}.{index}" for index in range(wanted.symbols)]
        self.pattern = "rate.0.*"
        self.chosen = self.all[::groups][: wanted.chosen]


def one_run(wanted: argparse.Namespace, kind: str, *, beside: bool) -> dict[str, Any]:
    """One broker, one feed, a witness, and the reader if there is one."""
    names = _Names(wanted)
    with fanwire() as broker, _everything(broker, beside) as everything:
        witness, reader = wire.connect(broker.address, 2)
        with closing(witness), closing(reader):
            wire.subscribe_all([witness], names.pattern)
            topics = _subscribe(reader, kind, names, wanted.max_rate)
            recorder = Recorder([witness, reader])
            with feed(broker.address, names.all, wanted.updates, wanted.size) as load:
                recorder.read(_WARM_S)
                begin, count, cpu = time.monotonic_ns(), load.published, broker.cpu_s()
                recorder.read(wanted.seconds)
                end, count, cpu = time.monotonic_ns(), load.published - count, broker.cpu_s() - cpu
                load.stop()
            recorder.read_until_quiet(1.0)
            took = (end - begin) / 1e9
            figures = {"updates_s": count / took, "broker_cpu_pct": 100 * cpu / took, "missing_beside": 0}
            if everything is not None:
                figures["missing_beside"] = load.published - everything.wait_for(load.published).total
            seen = arrivals(recorder, witness, {}), arrivals(recorder, reader, topics)
            return figures | _judge(wanted, *seen, begin, end)


@contextmanager
def _everything(broker: Program, wanted: bool) -> Iterator[Subscribers | None]:
    """One subscriber, in a process of its own, that takes every update."""
    if not wanted:
        yield None
        return
    with subscribers(broker.address, "rate.>", 1, looking=False, report_s=0.5, queue=100_000) as everything:
        yield everything


def _subscribe(reader: socket.socket, kind: str, names: _Names, max_rate: float) -> dict[int, str]:
    """Returns the topics of routes whose messages don't say theirs."""
    if kind == "pattern":
        wire.subscribe_all([reader], names.pattern, max_rate=max_rate)
    if kind != "one by one":
        return {}
    return {wire.subscribe_all([reader], topic, max_rate=max_rate): topic for topic in names.chosen}


def _judge(wanted: argparse.Namespace, witness: Arrivals, reader: Arrivals, begin: int, end: int) -> dict[str, Any]:
    accepted = {(each.topic, each.number): each.accepted_ns for each in witness.messages}
    transit_ms = [
        (each.arrived_ns - each.accepted_ns) / 1e6 for each in witness.messages if begin <= each.arrived_ns < end
    ]
    tolerance_ms = max(LEAST_TOLERANCE_MS, max(transit_ms))
    measured = [each for each in reader.messages if begin <= each.arrived_ns < end]
    overtaken_ms = [
        max(0.0, each.arrived_ns - accepted[each.topic, each.number + 1]) / 1e6
        for each in measured
        if (each.topic, each.number + 1) in accepted
    ]
    took = (end - begin) / 1e9
    return {
        "messages_s": len(measured) / took,
        "age_p99_ms": p99([(each.arrived_ns - each.published_ns) / 1e6 for each in measured]),
        "overtaken_worst_ms": max(overtaken_ms, default=0.0),
        "transit_p99_ms": p99(transit_ms),
        "transit_worst_ms": max(transit_ms),
        "least_gap_ms": min(gaps_ms(measured), default=0.0),
        "stale": sum(each > tolerance_ms for each in overtaken_ms),
        # The window cuts periods of the rate: one message more of each symbol may fall into it.
        "too_many": int(len(measured) > wanted.chosen * (wanted.max_rate * took + 1)),
        "not_newest": sum(newest(witness.messages)[topic] != last for topic, last in newest(reader.messages).items()),
        "lost": witness.lost + reader.lost,
        "wrong_numbers": sum(step != 1 for step in steps(witness.messages))
        + sum(step < 1 for step in steps(reader.messages)),
    }


_ROWS = {
    "updates_s": ("updates/s taken in", "{:,.0f}"),
    "broker_cpu_pct": ("broker's CPU, %", "{:.1f}"),
    "messages_s": ("messages/s to the reader", "{:.1f}"),
    "age_p99_ms": ("age of its values, p99, ms", "{:.1f}"),
    "overtaken_worst_ms": ("longest after a newer one, ms", "{:.2f}"),
    "transit_p99_ms": ("witness: under way, p99, ms", "{:.2f}"),
    "transit_worst_ms": ("witness: under way, worst, ms", "{:.2f}"),
    "least_gap_ms": ("least time between two, ms", "{:.1f}"),
}


def _table(wanted: argparse.Namespace, name: str, runs: dict[str, list[dict[str, Any]]]) -> str:
    lines = [f"{f'{name}; median (least to most)':34}" + "".join(f"{kind:>33}" for kind in KINDS)]
    for figure, (title, form) in _ROWS.items():
        cells = [cell([run[figure] for run in runs[kind]], form) for kind in KINDS]
        lines.append(f"{title:34}" + "".join(f"{text:>33}" for text in cells))
    for kind in KINDS[1:]:
        pairs = zip(runs[kind], runs["without"], strict=True)
        ratio = statistics.median(run["broker_cpu_pct"] / without["broker_cpu_pct"] for run, without in pairs)
        stale, many = (sum(run[figure] for run in runs[kind]) for figure in ("stale", "too_many"))
        lines.append(
            f"{kind}: {ratio:.2f} times the CPU of runs without (aim: {CPU_BAR}); stale values: {stale}; "
            f"at most {wanted.chosen * wanted.max_rate:g}/s: {'NO' if many else 'yes'}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
