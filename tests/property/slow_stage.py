"""A broker in memory, on a mock clock, that stands still while the test thinks: for tests that act step by step.

It runs in a thread of its own. Each step is one call into it, which ends when nothing can move any more but time.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgpack
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker
from fanwire.broker.delivery.subscription import Subscription
from fanwire.broker.sessions.handlers import handle
from fanwire.broker.sessions.session import Session
from fanwire.protocol import MAX_BATCH, BrokerEnvelope, ClientEnvelope, Welcome, decode_from_broker
from fanwire.protocol.frames import Opcode, close_payload
from fanwire.transport import memory_stream_pair
from tests.integration.raw import RawClient, serving

T = TypeVar("T")


class Stage:
    """The broker. Close it."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self._clock = MockClock()
        self._scope = trio.CancelScope()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        try:
            trio.run(self._serve, clock=self._clock)
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        async with serving(**self._settings) as self.broker:
            self._token = trio.lowlevel.current_trio_token()
            self._ready.set()
            with self._scope:
                await trio.sleep_forever()

    broker: Broker

    def close(self) -> None:
        """Drain and end the broker; raises what went wrong in it."""
        self._token.run_sync_soon(self._end)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _end(self) -> None:
        self._clock.autojump_threshold = 0
        self._scope.cancel()

    def step(self, act: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run ``act`` in the broker's loop, and then all that it has set going."""

        async def whole_step() -> T:
            result = await act(*args)
            await wait_all_tasks_blocked()
            return result

        return trio.from_thread.run(whole_step, trio_token=self._token)

    def pass_time(self, seconds: float) -> None:
        """Let the clock run on; what becomes due happens at its time."""
        self.step(self._pass_time, seconds)

    async def _pass_time(self, seconds: float) -> None:
        self._clock.autojump_threshold = 0
        await trio.sleep(seconds)
        self._clock.autojump_threshold = math.inf

    @property
    def now(self) -> float:
        """The time on the clock, in seconds."""
        return self._clock.current_time()

    def publish(self, topic: str, payloads: list[bytes], key: str | None = None) -> list[int]:
        """One run of publishes, gathered but not swept yet: only within a step. Returns the routes that it goes to."""
        hub = self.broker._hub
        entry = hub.registry.topic_named(topic)
        routes = [route.number for route in entry.routes]
        tails = [msgpack.packb(payload) for payload in payloads]
        reached = hub.fanout.publish(entry, 6, tails, bytes(8), trio.current_time(), key)
        assert reached == sum(len(route.outboxes) for route in entry.routes)
        return routes

    def assert_nothing_is_left(self) -> None:
        """What the broker itself holds while all is quiet: nothing."""
        fanout = self.broker._hub.fanout
        assert not fanout._dirty
        assert not fanout._chunks
        assert not fanout._sweeping
        assert fanout._gathered == 0


class Player:
    """One client, which reads only as far as it is told to."""

    def __init__(self, stage: Stage, capacity: int) -> None:
        self._stage = stage
        self.heard: list[BrokerEnvelope] = []
        """All that came."""
        self.heard_at: list[float] = []
        """And when it was read."""
        self.closed_with: int | None = None
        stage.step(self._connect, capacity)

    raw: RawClient
    session: Session

    async def _connect(self, capacity: int) -> None:
        ours, theirs = memory_stream_pair(capacity)
        broker = self._stage.broker
        assert broker._connections is not None
        broker._connections.start_soon(broker._handle, ours)
        self.raw = await RawClient(theirs).open()
        await self.raw.expect(Welcome)
        self.session = list(broker._hub.sessions)[-1]
        self.outbox, self.stream = self.session.outbox, self.session.stream  # a session that has ended lets go of them

    def ask(self, request: ClientEnvelope) -> None:
        """Have the broker do what the client asks for at this very moment: only within a step."""
        if self.session.ending is None:
            handle(self.session, request)

    def subscription(self, route: int) -> Subscription:
        """The broker's."""
        return self.outbox.subscriptions[route]

    def read(self, most: int) -> None:
        """Read so many bytes, as far as there are any, and let the broker write what there is room for."""
        self._stage.step(self._read, most)

    async def _read(self, most: int) -> None:
        while most > 0 and self.stream.in_flight():
            most -= await self.raw.read(most)
            await wait_all_tasks_blocked()
        while (frame := self.raw._cut()) is not None:
            await self._hear(frame.opcode, frame.payload)

    async def _hear(self, opcode: int, payload: bytes) -> None:
        assert self.closed_with is None, "nothing follows a close frame"
        if opcode == Opcode.CLOSE:
            self.closed_with = int.from_bytes(payload[:2], "big")
            with contextlib.suppress(trio.BrokenResourceError):  # it has not waited for that
                await self.raw.send_frame(close_payload(self.closed_with), Opcode.CLOSE)
            return
        envelopes = list(decode_from_broker(payload))
        assert len(payload) <= MAX_BATCH or len(envelopes) == 1, "frames hold 64 KiB, or one envelope"
        self.heard += envelopes
        self.heard_at += [trio.current_time()] * len(envelopes)
