"""How soon are a thousand clients back, with all that they missed, when their broker was away?

    python -m tests.bench.comeback --clients 1000 --away 5

All clients lose their connection at once, and no new one is taken for a while; what is published meanwhile they have to
recover from the topics' history. The way to the broker is what goes away, and the broker stays: what it remembers is
in its memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import trio

from fanwire.client import Subscription, connect
from tests.bench import payload, wire
from tests.bench.program import Program, fanwire, raise_open_files
from tests.peers.proxy import Proxy

TOPICS = 20
BUCKET_S = 0.5
BAR_S = 10.0


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--away", type=float, default=5.0, help="seconds")
    parser.add_argument("--rate", type=float, default=200.0, help=f"publishes a second, over {TOPICS} topics")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    wanted = parser.parse_args()
    raise_open_files(4 * wanted.clients + 100)
    with fanwire("--rule", "> history=100000") as broker:
        figures = trio.run(_Run(wanted, broker).run)
    print(json.dumps(figures) if wanted.json else _lines(figures))
    if figures["missing"] or figures["doubled"] or figures["not_recovered"]:
        raise SystemExit("error: messages are missing, or came twice, or a client has not recovered")


class _Run:
    def __init__(self, wanted: argparse.Namespace, broker: Program) -> None:
        self._wanted = wanted
        self._broker = broker
        [self._connection] = wire.connect(broker.address, 1)
        self._published = [0] * TOPICS
        self._seen: list[list[int]] = []
        self._subscriptions: list[Subscription] = []
        self._connected_s: list[float] = []
        self._recovered_s: list[float] = []
        self._back = 0.0
        self._all_recovered = trio.Event()

    async def _open_upstream(self) -> trio.abc.Stream:
        return await trio.open_tcp_stream(*self._broker.address)

    async def run(self) -> dict[str, Any]:
        async with trio.open_nursery() as nursery:
            proxy = Proxy(nursery, self._open_upstream)
            port: int = await nursery.start(proxy.serve)
            publishing = await nursery.start(self._publish)
            for index in range(self._wanted.clients):
                await nursery.start(self._client, f"ws://127.0.0.1:{port}/", index % TOPICS)
            await trio.sleep(1)
            proxy.down = True
            proxy.cut()
            await trio.sleep(self._wanted.away)
            self._back = time.perf_counter()
            proxy.down = False
            with trio.move_on_after(120):
                await self._all_recovered.wait()
            await trio.sleep(1)
            publishing.cancel()
            await trio.sleep(2)
            figures = self._figures()
            nursery.cancel_scope.cancel()
        return figures

    async def _publish(self, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        number = 0
        with trio.CancelScope() as scope:
            task_status.started(scope)
            began = trio.current_time()
            while True:
                await trio.sleep_until(began + number / self._wanted.rate)
                topic = number % TOPICS
                message = payload.make(self._published[topic], time.monotonic_ns(), 100)
                self._connection.sendall(wire.frame(wire.publish(f"t.{topic}", message)))
                self._published[topic] += 1
                number += 1

    async def _client(self, url: str, topic: int, *, task_status: trio.TaskStatus[None]) -> None:
        seen: list[int] = []
        self._seen.append(seen)
        async with connect(url) as client, client.subscribe(f"t.{topic}") as subscription:
            self._subscriptions.append(subscription)
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, client.states(), subscription)
                async for messages in subscription.batches():
                    seen += [payload.parse(message.payload)[0] for message in messages]

    async def _watch(self, states: Any, subscription: Subscription) -> None:
        away = False
        async for state in states:
            if state != "connected":
                away = True
            elif away:
                self._connected_s.append(time.perf_counter() - self._back)
                await subscription.complete()
                self._recovered_s.append(time.perf_counter() - self._back)
                if len(self._recovered_s) == self._wanted.clients:
                    self._all_recovered.set()

    def _figures(self) -> dict[str, Any]:
        missing = doubled = 0
        for index, numbers in enumerate(self._seen):
            whole = range(numbers[0], self._published[index % TOPICS])
            missing += len(whole) - len(set(numbers))
            doubled += len(numbers) - len(set(numbers))
        buckets = [0] * (int(max(self._recovered_s) / BUCKET_S) + 1)
        for each in self._connected_s:
            buckets[int(each / BUCKET_S)] += 1
        return {
            "clients": self._wanted.clients,
            "away_s": self._wanted.away,
            "recovered": len(self._recovered_s),
            "not_recovered": sum(each.recovered is not True for each in self._subscriptions),
            "last_recovered_s": round(max(self._recovered_s), 2),
            "median_recovered_s": round(statistics.median(self._recovered_s), 2),
            "missing": missing,
            "doubled": doubled,
            "connected_by_half_second": buckets,
        }


def _lines(figures: dict[str, Any]) -> str:
    lines = [f"{name:24}{value}" for name, value in figures.items() if not isinstance(value, list)]
    buckets = figures["connected_by_half_second"]
    scale = 60 / max(buckets)
    lines += [
        f"{index * BUCKET_S:4.1f} s {count:6d} {'#' * round(count * scale)}" for index, count in enumerate(buckets)
    ]
    lines.append(f"all recovered within {BAR_S:g} s: {'yes' if figures['last_recovered_s'] <= BAR_S else 'NO'}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
