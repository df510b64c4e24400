"""What is left of connections that have come and gone, with the garbage collector off: live objects and memory.

python -m tests.bench.left [--connections 1000] [--only TEXT] [--json]

For each kind of subscription and of stream a broker of its own, on a clock that jumps. So many connections of the kind
come and go, one after the other: in turn they are cut, close, unsubscribe, are kicked (and read that, or not), are too
slow, or send nonsense; every other one has messages waiting. Objects are counted after ten of them and after all, when
every grace is over.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import attrs
import trio
from trio.testing import MockClock

from fanwire.broker import Broker
from tests.fault import test_nothing_left as fault

_WARM = 10

Life: TypeAlias = Callable[[Broker, int], Awaitable[None]]


@attrs.frozen
class Left:
    """Of one kind."""

    kind: str
    connections: int
    objects: dict[str, int]
    """More than before, by the name of their class."""
    rss_before_mib: float
    rss_after_mib: float


def rss_mib() -> float:
    """Now, of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def lives() -> dict[str, Life]:
    """By kind: one connection from its beginning to its end, in the way that its number says."""
    ways = fault.WAYS
    of_streams = [way for way in ways if way is not fault.unsubscribed]

    async def subscribed(kind: str, broker: Broker, number: int) -> None:
        way = ways[number // 2 % len(ways)]
        await fault._life(broker, fault.KINDS[kind], way, behind=bool(number % 2))

    async def streaming(query: str, broker: Broker, number: int) -> None:
        way = of_streams[number // 2 % len(of_streams)]
        await fault._stream_life(broker, query, way, behind=bool(number % 2))

    return {
        **{kind: partial(subscribed, kind) for kind in fault.KINDS},
        **{f"stream{query}": partial(streaming, query) for query in fault.STREAMS},
    }


async def measure(kind: str, life: Life, connections: int) -> Left:
    """One broker, one kind."""
    async with Broker(fault.config()).serving() as broker:
        for number in range(_WARM):
            await life(broker, number)
        await fault._quiet(broker)
        gc.collect()
        before, memory = fault.alive(), rss_mib()
        for number in range(connections):
            await life(broker, number)
        await fault._quiet(broker)
        left = dict(fault.alive() - before)
        figures = broker.statistics()
        if figures.connections or figures.http_connections or figures.subscriptions:
            left["(still connected)"] = figures.connections + figures.http_connections + figures.subscriptions
        return Left(kind, connections, left, memory, rss_mib())


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1000, help="of each kind")
    parser.add_argument("--only", default="", help="kinds whose name has this text")
    parser.add_argument("--json", action="store_true", help="all figures as JSON")
    arguments = parser.parse_args()
    logging.disable()  # each that is kicked, or too slow, would be a line
    gc.disable()
    found = []
    for kind, life in lives().items():
        if arguments.only in kind:
            gc.collect()
            left = trio.run(measure, kind, life, arguments.connections, clock=MockClock(autojump_threshold=0))
            found.append(left)
            line = f"{kind:24} {left.connections:6} connections: {sum(left.objects.values())} objects left, "
            print(f"{line}RSS {left.rss_before_mib} -> {left.rss_after_mib} MiB", file=sys.stderr, flush=True)
    if arguments.json:
        json.dump([attrs.asdict(left) for left in found], sys.stdout, indent=1)
    else:
        print(f"{len(found)} kinds; objects left: {sum(sum(left.objects.values()) for left in found)}")
        for left in found:
            if left.objects:
                print(left.kind, left.objects)
    raise SystemExit(any(left.objects for left in found))


if __name__ == "__main__":
    main()
