"""A subscriber whose socket is full, and the story of what it gets when it reads on at last."""

from __future__ import annotations

from typing import Any

import trio

from fanwire.broker.delivery.outbox import SlowConsumer
from fanwire.broker.delivery.subscription import Subscription
from fanwire.protocol import BrokerEnvelope, Lagging, Lost, Message, decode_from_broker
from tests.unit.broker.subscriber import Engine, Subscriber

CAPACITY = 1000


class Stuck:
    """Its stream holds half a frame from the start: all that is published waits."""

    def __init__(self, **settings: Any) -> None:
        self.engine = Engine()
        self.subscriber = Subscriber(CAPACITY, **settings)
        self.outbox = self.subscriber.outbox
        self.subscriber.stream.write_nowait(b"\x82\x7e\x07\xd0" + bytes(2000))
        self._patterns: dict[int, str] = {}

    def subscribe(
        self, pattern: str, queue: int = 100, on_slow: str = "disconnect", grace_s: float | None = None
    ) -> Subscription:
        """With one of the policies."""
        subscription = self.engine.subscribe(self.subscriber, pattern, queue, on_slow)
        subscription.grace_s = grace_s
        self._patterns[subscription.route.number] = pattern
        return subscription

    def publish(self, topic: str, *payloads: str, key: str | None = None) -> list[SlowConsumer]:
        """One run, which is in line (or dropped) afterwards; the verdicts it brought."""
        before = len(self.subscriber.verdicts)
        self.engine.publish(topic, *[payload.encode() for payload in payloads], key=key)
        self.engine.fanout.flush(self.outbox)
        return self.subscriber.verdicts[before:]

    async def story(self) -> list[str]:
        """All that comes when it reads to the end: ``a 1`` for a message, ``lost 2 a queue``, ``lagging 4/5 a``."""
        return [self._tell(each) for frame in await self.frames() for each in decode_from_broker(frame)]

    async def frames(self) -> list[bytes]:
        """The same as it comes."""
        frames: list[bytes] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_out_and_close)
            await self.subscriber.reader.frame()
            while (frame := await self.subscriber.reader.frame()) is not None:
                frames.append(frame.payload)
        return frames

    async def _write_out_and_close(self) -> None:
        assert await self.outbox.write_out() is None
        await self.subscriber.stream.aclose()

    def _tell(self, envelope: BrokerEnvelope) -> str:
        if isinstance(envelope, Message):
            return f"{envelope.topic or self._patterns[envelope.route]} {envelope.payload.decode()}"
        if isinstance(envelope, Lost):
            return f"lost {envelope.count} {envelope.topic} {envelope.reason}"
        assert isinstance(envelope, Lagging), envelope
        return f"lagging {envelope.queued}/{envelope.limit} {self._patterns[envelope.route]}"
