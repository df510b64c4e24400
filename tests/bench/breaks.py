"""Does a subscriber lose anything when its connection breaks again and again under load?

    python -m tests.bench.breaks --breaks 100 --updates 50000

A feed publishes at a fixed rate on topics that keep history. The subscriber, the SDK's, comes through a proxy that
cuts its connection (perhaps in the middle of a frame), closes half of it, and delays. Through the same proxy goes a
publisher that repeats what was not answered, with `msg_id`. At the end every message must have come once.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections import Counter
from itertools import pairwise
from typing import Any

import trio

from fanwire.client import Client, Message, Subscription, connect
from tests.bench import payload
from tests.bench.feed import Feed, feed
from tests.bench.program import fanwire
from tests.peers.proxy import Proxy

TOPICS = [f"breaks.{index}" for index in range(10)]
NAMED = "named"
BROKER = ("--rule", "> history=200000 history_bytes=64MiB", "--max-stored", "1GiB")

# Waits of the client between attempts are drawn from 0 to this; they would grow, as no connection lives for long.
MOST_WAIT_S = 0.3


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--breaks", type=int, default=100)
    parser.add_argument("--updates", type=float, default=50_000, help="a second")
    parser.add_argument("--size", type=int, default=100, help="bytes of payload")
    parser.add_argument("--seed", type=int, default=1, help="of what happens when")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    wanted = parser.parse_args()
    figures = one_run(wanted)
    print(json.dumps(figures) if wanted.json else "\n".join(f"{name:28}{value}" for name, value in figures.items()))
    if any(figures[fault] for fault in ("missing", "doubled", "named_missing", "named_doubled", "gaps")):
        raise SystemExit("error: messages are missing, or came twice")


def one_run(wanted: argparse.Namespace) -> dict[str, Any]:
    """One broker, one feed, all the breaks."""
    with fanwire(*BROKER) as broker, feed(broker.address, TOPICS, wanted.updates, wanted.size) as load:
        return trio.run(_Run(wanted, broker.port, load).run)


class _Run:
    def __init__(self, wanted: argparse.Namespace, port: int, load: Feed) -> None:
        self._wanted = wanted
        self._port = port
        self._load = load
        self._draw = random.Random(wanted.seed)
        self._seen: dict[str, list[int]] = {topic: [] for topic in TOPICS}
        self._replayed = 0
        self._named: Counter[int] = Counter()
        self._published = 0
        self._stop = False
        self._recovered_ms: list[float] = []

    async def run(self) -> dict[str, Any]:
        async with trio.open_nursery() as nursery:
            proxy = Proxy(nursery, self._open_upstream)
            port: int = await nursery.start(proxy.serve)
            direct = f"ws://127.0.0.1:{self._port}/"
            through = f"ws://127.0.0.1:{port}/"
            async with (
                connect(through, reconnect_base_s=MOST_WAIT_S, reconnect_most_s=MOST_WAIT_S) as client,
                connect(direct) as watcher,
                client.subscribe("breaks.*", on_slow_reconnect="resume", buffer=500_000) as subscription,
                watcher.subscribe(NAMED) as named,
                trio.open_nursery() as taking,
            ):
                taking.start_soon(self._take, subscription)
                taking.start_soon(self._take_named, named)
                async with trio.open_nursery() as working:
                    working.start_soon(self._publish_named, client)
                    began = time.perf_counter()
                    for _ in range(self._wanted.breaks):
                        await self._break(proxy, client, subscription)
                    took = time.perf_counter() - began
                    self._stop = True
                await trio.to_thread.run_sync(self._load.stop)
                await self._wait_for_the_rest()
                figures = self._figures(took, proxy, subscription)
                taking.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
        return figures

    async def _open_upstream(self) -> trio.abc.Stream:
        return await trio.open_tcp_stream("127.0.0.1", self._port)

    async def _break(self, proxy: Proxy, client: Client, subscription: Subscription) -> None:
        draw, opened = self._draw, proxy.opened
        await trio.sleep(draw.uniform(0.0, 0.3))
        if draw.random() < 0.3:  # a slow way for a moment
            proxy.delay = lambda: draw.uniform(0.0, 0.01)
            await trio.sleep(0.1)
            proxy.delay = None
        began = time.perf_counter()
        if draw.random() < 0.3:
            proxy.half_close()
        else:
            proxy.cut()
        with trio.fail_after(60):
            async for state in client.states():
                if state == "connected" and proxy.opened > opened:
                    break
            await subscription.complete()
            assert subscription.recovered is True
        self._recovered_ms.append((time.perf_counter() - began) * 1000)

    async def _take(self, subscription: Subscription) -> None:
        reader = payload.parse
        async for messages in subscription.batches():
            for message in messages:
                assert isinstance(message, Message)
                self._seen[message.topic].append(reader(message.payload)[0])
                self._replayed += message.replayed

    async def _take_named(self, subscription: Subscription) -> None:
        async for message in subscription:
            self._named[message.data] += 1

    async def _publish_named(self, client: Client) -> None:
        while not self._stop:
            await client.publish(NAMED, self._published, msg_id=f"{self._published}")
            self._published += 1
            await trio.sleep(0.001)

    async def _wait_for_the_rest(self) -> None:
        for _ in range(1000):
            if sum(map(len, self._seen.values())) >= self._load.published and len(self._named) >= self._published:
                break
            await trio.sleep(0.05)

    def _figures(self, took: float, proxy: Proxy, subscription: Subscription) -> dict[str, Any]:
        last = self._load.last_number
        missing = doubled = unordered = 0
        for numbers in self._seen.values():
            first = numbers[0]
            missing += last + 1 - first - len(set(numbers))
            doubled += len(numbers) - len(set(numbers))
            unordered += sum(later != before + 1 for before, later in pairwise(numbers))
        return {
            "seconds": round(took, 1),
            "updates_s": round(self._wanted.updates),
            "connections": proxy.opened,
            "messages": sum(map(len, self._seen.values())),
            "replayed": self._replayed,
            "missing": missing,
            "doubled": doubled,
            "not_in_order": unordered,
            "gaps": subscription.gaps + subscription.lost,
            "named_published": self._published,
            "named_missing": self._published - len(self._named),
            "named_doubled": sum(self._named.values()) - len(self._named),
            "recovered_after_ms_median": round(statistics.median(self._recovered_ms)),
            "recovered_after_ms_most": round(max(self._recovered_ms)),
        }


if __name__ == "__main__":
    main()
