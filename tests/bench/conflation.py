"""How old is what a conflating reader gets after a pause? It reads, stops reading for 5 s, reads on, all under load.

    python -m tests.bench.conflation --updates 100000 --symbols 100 1000

What had left the broker when the reader stopped cannot be conflated any more: it lies in the reader's own receive
buffer (asked for at the end of the pause) and in the broker's send buffer. After that share, told in KiB, every value
must be young. A value's age runs from when the publisher wrote it until its frame has come whole. At the end the reader
must have the newest value of each symbol.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import socket
import sys
import termios
import time
from contextlib import closing
from typing import Any

from tests.bench import payload, wire
from tests.bench.feed import Feed, feed
from tests.bench.figures import p99
from tests.bench.program import fanwire, raise_open_files
from tests.bench.recording import LOST, MESSAGE, Recorder, Seen, value

YOUNG_MS = 250.0


def main() -> None:
    """Measure, print a line for each combination."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=float, default=100_000.0, help="a second, of all symbols together")
    parser.add_argument("--symbols", nargs="+", type=int, default=[100, 1000])
    parser.add_argument(
        "--buffers", nargs="+", type=int, default=[0, 65536], help="the reader's SO_RCVBUF; 0: system's"
    )
    parser.add_argument("--before", type=float, default=2.0, help="seconds of reading before the pause")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds")
    parser.add_argument("--after", type=float, default=3.0, help="seconds of reading after it")
    parser.add_argument("--size", type=int, default=32, help=f"bytes of payload, at least {payload.LEAST}")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line instead of text")
    wanted = parser.parse_args()
    raise_open_files(100)
    failed = False
    for symbols in wanted.symbols:
        for buffer in wanted.buffers:
            figures = one_run(wanted, symbols, buffer or None)
            print(json.dumps(figures) if wanted.json else _LINE.format(**figures), flush=True)
            failed |= bool(figures["stale_after_young"] or figures["not_newest"] or figures["lost"])
    if failed:
        raise SystemExit(f"error: values older than {YOUNG_MS:g} ms came after young ones, or values were lost")


def one_run(wanted: argparse.Namespace, symbols: int, buffer: int | None) -> dict[str, Any]:
    """One broker, one feed, one reader."""
    topics = [f"conflation.{index}" for index in range(symbols)]
    with fanwire("--stall-timeout", "none") as broker:
        [reader] = wire.connect(broker.address, 1, receive_buffer=buffer)
        with closing(reader):
            wire.subscribe_all([reader], "conflation.*", on_slow="conflate")
            recorder = Recorder([reader])
            with feed(broker.address, topics, wanted.updates, wanted.size) as load:
                began, before = time.monotonic(), load.published
                recorder.read(wanted.before)
                time.sleep(wanted.pause)
                own, resumed = _waiting_here(reader), time.monotonic_ns()
                recorder.read(wanted.after)
                rate = (load.published - before) / (time.monotonic() - began)
                load.stop()
            recorder.read_until_quiet(1.0)
            figures = {"symbols": symbols, "receive_buffer": buffer or "the system's", "updates_s": round(rate)}
            seen = recorder.seen(reader)
            return figures | _ages(seen, own, resumed) | _completeness(seen, topics, load, recorder.is_open(reader))


def _waiting_here(connection: socket.socket) -> int:
    """Bytes that lie in our own receive buffer (Linux: FIONREAD)."""
    answer = fcntl.ioctl(connection.fileno(), termios.FIONREAD, b"\0\0\0\0")
    return int.from_bytes(answer, sys.byteorder)


def _ages(seen: list[Seen], own: int, resumed: int) -> dict[str, Any]:
    """Of what came after the pause."""
    messages = [each for each in seen if each.envelope[0] == MESSAGE]
    before = [each for each in messages if each.time_ns < resumed]
    after = [each for each in messages if each.time_ns >= resumed]
    ages_ms = [(each.time_ns - value(each.envelope).time_ns) / 1e6 for each in after]
    young = next((index for index, age in enumerate(ages_ms) if age <= YOUNG_MS), len(after))
    start = before[-1].end if before else 0
    stale_bytes = (after[young - 1].end - start) if young else 0
    return {
        "stale_kib": round(stale_bytes / 1024, 1),
        "own_kib": round(min(own, stale_bytes) / 1024, 1),
        "broker_kib": round(max(0, stale_bytes - own) / 1024, 1),
        "stale_messages": young,
        "young_after_ms": round((after[young].time_ns - resumed) / 1e6, 1) if young < len(after) else None,
        "oldest_then_ms": round(max(ages_ms[young:], default=float("nan")), 1),
        "p99_then_ms": round(p99(ages_ms[young:]), 1),
        "stale_after_young": sum(age > YOUNG_MS for age in ages_ms[young:]),
        "messages_after": len(after) - young,
    }


def _completeness(seen: list[Seen], topics: list[str], load: Feed, still_open: bool) -> dict[str, Any]:
    newest = {each.envelope[2]: value(each.envelope).number for each in seen if each.envelope[0] == MESSAGE}
    received = sum(each.envelope[0] == MESSAGE for each in seen)
    return {
        "not_newest": sum(newest.get(topic) != load.last_number for topic in topics),
        "lost": sum(each.envelope[0] == LOST for each in seen) + (not still_open),
        "replaced": load.published - received,
    }


_LINE = (
    "{symbols} symbols, {updates_s:,} updates/s, receive buffer {receive_buffer}: after the pause {stale_kib} KiB of "
    "old values (own buffer {own_kib}, on the broker's side {broker_kib}; {stale_messages} messages), then young ones, "
    "the first after {young_after_ms} ms; the oldest of {messages_after} {oldest_then_ms} ms (p99 {p99_then_ms}); old "
    "ones among them {stale_after_young}; symbols without their newest value {not_newest}, lost {lost}, replaced "
    "{replaced:,}"
)


if __name__ == "__main__":
    main()
