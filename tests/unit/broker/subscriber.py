"""An outbox on one end of an in-memory stream, without a session around it, and its reader on the other end."""

from __future__ import annotations

from functools import partial
from typing import Any

import trio

from fanwire.broker import Config
from fanwire.broker.delivery.fanout import Fanout
from fanwire.broker.delivery.outbox import Outbox, Owner, SlowConsumer
from fanwire.broker.delivery.routes import Registry
from fanwire.broker.delivery.subscription import Subscription
from fanwire.broker.options.queue_groups import GroupRoute
from fanwire.broker.options.throttle import Limiter
from fanwire.broker.telemetry.statistics import Counters
from fanwire.broker.timing.timers import Watchdog
from fanwire.protocol.fastpath import take_publishes
from fanwire.transport import FrameStream, memory_stream_pair
from tests.integration.raw import RawClient

QUIET: dict[str, Any] = {"stall_timeout_s": None, "max_age_s": None, "ping_interval_s": None}


class Subscriber(Owner):
    """Owns an outbox as a session does, and notes what it is told. Its writer runs when a test says so."""

    def __init__(self, capacity: int = 65536, **settings: Any) -> None:
        ours, theirs = memory_stream_pair(capacity)
        self.stream = FrameStream(ours, client=False, max_message=1 << 20, on_messages=lambda messages: None)
        self.counters = Counters()
        self.outbox = Outbox(self, self.stream, Config(**{**QUIET, **settings}), self.counters)
        self.reader = RawClient(theirs)
        self.wanted_writer = 0
        self.wanted_clearing = 0
        self.verdicts: list[SlowConsumer] = []
        self.lost = 0
        self.news: list[str] = []
        """Which patterns began to lag (``"a lags"``) and caught up, in order."""

    def need_writer(self) -> None:
        """See `Owner`."""
        self.wanted_writer += 1

    def need_clearing(self) -> None:
        """See `Owner`."""
        self.wanted_clearing += 1

    def too_slow(self, verdict: SlowConsumer) -> None:
        """See `Owner`."""
        self.verdicts.append(verdict)

    def lagging(self, subscription: Subscription) -> None:
        """See `Owner`."""
        self.news.append(f"{subscription.route.pattern} lags")

    def caught_up(self, subscription: Subscription) -> None:
        """See `Owner`."""
        self.news.append(f"{subscription.route.pattern} caught up")

    def gone(self) -> None:
        """See `Owner`."""
        self.lost += 1

    async def payloads_read(self, count: int) -> list[bytes]:
        """Read messages while the writer writes them out."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.outbox.write_out)
            return await self.reader.payloads(count)


class Engine:
    """A registry and a fanout, as `Hub` has them."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.fanout = Fanout(self.counters)
        self.registry = Registry(group_route=partial(GroupRoute, fanout=self.fanout))
        self.watchdog = Watchdog()

    def subscribe(
        self,
        subscriber: Subscriber,
        pattern: str,
        queue: int = 10_000,
        on_slow: str = "disconnect",
        max_rate: float | None = None,
        *,
        group: str | None = None,
        echo: bool = True,
    ) -> Subscription:
        """Put the subscriber on a route."""
        outbox = subscriber.outbox
        subscription = Subscription(self.registry.route(pattern, group), queue, on_slow, max_rate, echo=echo)
        outbox.subscriptions[subscription.route.number] = subscription
        outbox.conflating = outbox.conflating or on_slow == "conflate"
        if max_rate is not None:
            subscription.limiter = Limiter(subscription, outbox, self.fanout, self.watchdog)
        subscription.route.add(outbox, subscription)
        return subscription

    def publish(self, topic: str, *payloads: bytes, key: str | None = None, source: Outbox | None = None) -> int:
        """One run of publishes to one topic; the subscriptions reached. With a key: one publish."""
        tails = [_tail(payload) for payload in payloads]
        entry = self.registry.topic_named(topic)
        return self.fanout.publish(entry, 6, tails, bytes(8), trio.current_time(), key, source=source)

    def take(self, message: bytes) -> None:
        """One WebSocket message of publishes, as a session takes it in."""
        runs: list[Any] = []
        assert take_publishes([message], 0, self.registry.heads, self.registry.topic, runs) == (1, 0, False)
        for topic, wide, tails, _ in runs:
            topic.tails = None
            self.fanout.publish(topic, 7 if wide else 6, tails, bytes(8), trio.current_time())


def _tail(payload: bytes) -> bytes:
    """A payload as it ends a PUBLISH."""
    size = len(payload)
    head = b"\xc4" + size.to_bytes(1) if size < 256 else b"\xc6" + size.to_bytes(4)
    return head + payload
