"""One publisher, one topic, many subscribers on raw sockets: deliveries a second, the broker's CPU for a million.

    python -m tests.bench.fanout --subscribers 1000 --seconds 5

The publisher pauses while the slowest subscriber is more than ``--window`` messages behind, so nobody is dropped.
With ``--on-slow conflate`` messages may be missing, replaced by newer ones; those are written off after a while.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from tests.bench import payload, wire
from tests.bench.program import fanwire, raise_open_files
from tests.bench.receiving import Subscribers, subscribers
from tests.bench.slow_readers import POLICIES

TOPIC = "bench.fanout"

# Frames written at a time: as quick as a publisher can be, and far below any window.
BURST = 16

# Conflating subscribers that got nothing for so long will not get what is missing.
WRITE_OFF_S = 0.25


def main() -> None:
    """Measure, print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm", type=float, default=1.0, help="seconds before that, not measured")
    parser.add_argument("--window", type=int, default=256, help="messages that the slowest subscriber may be behind")
    parser.add_argument("--size", type=int, default=128, help=f"bytes of payload, at least {payload.LEAST}")
    parser.add_argument("--on-slow", choices=POLICIES, help="what the subscribers ask for (default: nothing)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a line")
    wanted = parser.parse_args()
    raise_open_files(wanted.subscribers + 100)
    figures = fan_out(wanted.subscribers, wanted.warm, wanted.seconds, wanted.window, wanted.size, wanted.on_slow)
    print(json.dumps(figures) if wanted.json else _LINE.format(**figures))
    if (figures["lost"] or figures["wrong_numbers"]) and wanted.on_slow != "conflate":
        raise SystemExit("error: messages were lost or came out of order")


def fan_out(
    count: int, warm_s: float, seconds: float, window: int, size: int, on_slow: str | None = None
) -> dict[str, Any]:
    """Run one broker, one publisher, ``count`` subscribers."""
    options: dict[str, Any] = {"on_slow": on_slow} if on_slow else {}
    with fanwire() as broker, subscribers(broker.address, TOPIC, count, **options) as everybody:
        publisher = _Publisher(broker.address, everybody, window, size, write_off=on_slow == "conflate")
        publisher.run(warm_s)
        begin, cpu, theirs, ours = everybody.follow(), broker.cpu_s(), everybody.cpu_s(), time.process_time()
        publisher.run(seconds)
        end = everybody.follow()
        took = (end.time_ns - begin.time_ns) / 1e9
        delivered = end.total - begin.total
        cpu, theirs, ours = broker.cpu_s() - cpu, everybody.cpu_s() - theirs, time.process_time() - ours
        last = everybody.wait_for(publisher.published)
        return {
            "subscribers": count,
            "deliveries_s": round(delivered / took),
            "publishes_s": round(delivered / count / took),
            "broker_cpu_s_per_million": round(cpu / delivered * 1e6, 4),
            "broker_cpu_pct": round(100 * cpu / took),
            "subscribers_cpu_pct": round(100 * theirs / took),
            "publisher_cpu_pct": round(100 * ours / took),
            "published": publisher.published,
            "lost": publisher.published * count - last.total,
            "wrong_numbers": last.wrong,
        }


_LINE = (
    "fan-out to {subscribers}: {deliveries_s:,} deliveries/s ({publishes_s:,} publishes/s), broker's CPU "
    "{broker_cpu_s_per_million} s per million; busy: broker {broker_cpu_pct} %, subscribers {subscribers_cpu_pct} %, "
    "publisher {publisher_cpu_pct} %; lost {lost}, wrong numbers {wrong_numbers}"
)


class _Publisher:
    def __init__(
        self, address: tuple[str, int], everybody: Subscribers, window: int, size: int, *, write_off: bool
    ) -> None:
        [self._connection] = wire.connect(address, 1)
        self._everybody = everybody
        self._window = window
        self._size = size
        self._write_off = write_off
        self._written_off = 0
        self._moved = 0.0
        self.published = 0

    def run(self, seconds: float) -> None:
        """Publish as quickly as the window allows."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            room = self._window - (self.published - self._written_off - self._everybody.follow().least)
            if room > 0:
                self._send(min(room, BURST))
                self._moved = now
            elif self._everybody.progress.total != self._everybody.follow(0.1).total:
                self._moved = now
            elif self._write_off and now > self._moved + WRITE_OFF_S:
                self._written_off = self.published - self._everybody.progress.least

    def _send(self, count: int) -> None:
        now, numbers = time.monotonic_ns(), range(self.published, self.published + count)
        envelopes = [wire.publish(TOPIC, payload.make(number, now, self._size)) for number in numbers]
        self._connection.sendall(b"".join([wire.frame(envelope) for envelope in envelopes]))
        self.published += count


if __name__ == "__main__":
    main()
