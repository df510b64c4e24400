"""What happens to a reader that pauses, in time: a series of figures for each policy, for plots.

    python -m tests.bench.slow_series --series series.json

A feed publishes updates of many symbols at a fixed rate. One reader with the policy reads, pauses, reads on. Ten times
a second are noted: what the broker says of it (`$sys.connections`: messages and bytes that wait, lost, replaced) and
the broker's RSS; and, worked out afterwards from what the reader received and when: messages received, messages told as
lost, and the age of the newest value that it had at that moment.
"""

from __future__ import annotations

import argparse
import bisect
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack

from tests.bench import payload, wire
from tests.bench.feed import Feed, feed
from tests.bench.program import Program, fanwire, raise_open_files
from tests.bench.recording import LOST, MESSAGE, Recorder, Seen, value
from tests.bench.slow_readers import POLICIES

STEP_S = 0.1
NAME = "the slow one"

_BROKER_FIGURES = ("queued", "queued_bytes", "oldest_ms", "lost", "replaced", "lagging")


def main() -> None:
    """Measure each policy in turn, print a line for each, write the series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--updates", type=float, default=20_000.0, help="a second, of all symbols together")
    parser.add_argument("--symbols", type=int, default=100)
    parser.add_argument("--queue", type=int, default=10_000, help="messages that may wait for the reader")
    parser.add_argument("--before", type=float, default=2.0, help="seconds of reading before the pause")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds")
    parser.add_argument("--after", type=float, default=3.0, help="seconds of reading after it")
    parser.add_argument("--size", type=int, default=128, help=f"bytes of payload, at least {payload.LEAST}")
    parser.add_argument("--series", type=Path, help="file for the series (JSON)")
    parser.add_argument("--json", action="store_true", help="print the series instead of a line for each policy")
    wanted = parser.parse_args()
    raise_open_files(100)
    results = {}
    for on_slow in wanted.policies:
        results[on_slow] = one_run(wanted, on_slow)
        if not wanted.json:
            print(f"{on_slow}: {_summary(results[on_slow]['end'])}", flush=True)
    whole = {"settings": {**vars(wanted), "series": str(wanted.series)}, "policies": results}
    if wanted.json:
        print(json.dumps(whole))
    if wanted.series:
        wanted.series.write_text(json.dumps(whole))
    wrong = [on_slow for on_slow, each in results.items() if each["end"]["unaccounted"]]
    if wrong:
        raise SystemExit(f"error: received + lost + replaced is not what was published, with {', '.join(wrong)}")


def one_run(wanted: argparse.Namespace, on_slow: str) -> dict[str, Any]:
    """One broker, one feed, one reader that pauses."""
    topics = [f"series.{index}" for index in range(wanted.symbols)]
    with fanwire("--report-interval", str(STEP_S), "--stall-timeout", "none") as broker:
        [reader] = wire.connect(broker.address, 1, receive_buffer=65536)
        [operator] = wire.connect(broker.address, 1)
        with closing(reader), closing(operator):
            wire.name(reader, NAME)
            wire.subscribe_all([reader], "series.*", on_slow=on_slow, queue=wanted.queue)
            reports, recorder = Recorder([operator]), Recorder([reader])
            operator.sendall(wire.subscribe("$sys.connections"))  # its answer may come together with the first report
            with feed(broker.address, topics, wanted.updates, wanted.size) as load:
                began = time.monotonic_ns()
                clock = _Clock(broker, load, reports)
                for seconds, reads in ((wanted.before, True), (wanted.pause, False), (wanted.after, True)):
                    clock.run(seconds, recorder if reads else None)
                load.stop()
            recorder.read_until_quiet(1.0)
            reports.read(2 * STEP_S)
            seen, told = recorder.seen(reader), list(_told(reports, operator))
            rows = [row | _view(seen, told, row["time_ns"]) for row in clock.rows]
            for row in rows:
                row["t_s"] = round((row.pop("time_ns") - began) / 1e9, 3)
            return {"rows": rows, "end": _end(on_slow, load, seen, told, recorder.is_open(reader))}


class _Clock:
    """Takes a row every `STEP_S`, while the reader reads or pauses."""

    def __init__(self, broker: Program, load: Feed, reports: Recorder) -> None:
        self.rows: list[dict[str, Any]] = []
        self._broker = broker
        self._load = load
        self._reports = reports
        self._due = time.monotonic()

    def run(self, seconds: float, recorder: Recorder | None) -> None:
        """Let so much time pass."""
        for _ in range(round(seconds / STEP_S)):
            self._due += STEP_S
            left = max(0.0, self._due - time.monotonic())
            if recorder is None:
                time.sleep(left)
            else:
                recorder.read(left)
            self._reports.read(0.001)
            row = {"time_ns": time.monotonic_ns(), "published": self._load.published}
            self.rows.append(row | {"reading": recorder is not None, "rss_mib": self._broker.memory() / 2**20})


def _told(reports: Recorder, operator: socket.socket) -> Iterator[tuple[int, dict[str, Any]]]:
    """When the broker told what of the reader."""
    for seen in reports.seen(operator):
        if seen.envelope[0] == MESSAGE:
            report = msgpack.unpackb(seen.envelope[5])
            for each in report["connections"]:
                if each["name"] == NAME:
                    yield seen.time_ns, {figure: each[figure] for figure in _BROKER_FIGURES}


def _view(seen: list[Seen], told: list[tuple[int, dict[str, Any]]], now: int) -> dict[str, Any]:
    """What was known at one moment: the reader's own view, and the last report."""
    until = seen[: bisect.bisect_right(seen, now, key=lambda each: each.time_ns)]
    last = next((each for each in reversed(until) if each.envelope[0] == MESSAGE), None)
    reported = [figures for at, figures in told if at <= now]
    return {
        "received": sum(each.envelope[0] == MESSAGE for each in until),
        "lost_told": _lost(until),
        "age_ms": (now - value(last.envelope).time_ns) / 1e6 if last else None,
        "broker": reported[-1] if reported else None,
    }


def _lost(seen: list[Seen]) -> int:
    return sum(each.envelope[2] or 0 for each in seen if each.envelope[0] == LOST)


def _end(
    on_slow: str, load: Feed, seen: list[Seen], told: list[tuple[int, dict[str, Any]]], still_open: bool
) -> dict[str, Any]:
    """The sums, when all has come that will come."""
    received, lost = sum(each.envelope[0] == MESSAGE for each in seen), _lost(seen)
    replaced = told[-1][1]["replaced"] if told else 0
    figures = {"published": load.published, "received": received, "lost": lost, "replaced": replaced}
    stays = on_slow not in ("disconnect", "unsubscribe")
    rest = load.published - received - lost - replaced
    return figures | {"open": still_open, "unaccounted": rest if stays else 0}


def _summary(end: dict[str, Any]) -> str:
    whether = "still connected" if end["open"] else "disconnected"
    return (
        "published {published:,}, received {received:,}, lost {lost:,}, replaced {replaced:,}; ".format(**end) + whether
    )


if __name__ == "__main__":
    main()
