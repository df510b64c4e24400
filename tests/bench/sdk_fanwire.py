"""Fanwire's side of `sdk`: what runs in the measured client processes, and a publisher without an SDK."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from multiprocessing.connection import Connection

import trio

import fanwire
from tests.bench import wire
from tests.bench.sdk_numbers import BATCH, CYCLE, PAYLOADS, TOPIC, Progress, warm_then_measure

# Publishes that one WebSocket message of the publisher without an SDK holds, as one of the SDK's would.
TOGETHER = 64

TASKS = 1000


def receive(port: int, pipe: Connection, seconds: float) -> None:
    """``async for message in subscription``."""
    trio.run(_receive, port, pipe)


async def _receive(port: int, pipe: Connection) -> None:
    async with _connect(port) as client, client.subscribe(TOPIC) as subscription:
        progress = Progress(pipe)
        count = 0
        async for message in subscription:
            count += 1
            if not count % BATCH:
                progress.report(count, message.payload)


def receive_batches(port: int, pipe: Connection, seconds: float) -> None:
    """``async for messages in subscription.batches()``."""
    trio.run(_receive_batches, port, pipe)


async def _receive_batches(port: int, pipe: Connection) -> None:
    async with _connect(port) as client, client.subscribe(TOPIC) as subscription:
        progress = Progress(pipe)
        count = 0
        async for messages in subscription.batches():
            count += len(messages)
            before = count - len(messages)
            for at in range(before - before % BATCH + BATCH, count + 1, BATCH):
                progress.report(at, messages[at - count - 1].payload)


def publish(port: int, pipe: Connection, seconds: float) -> None:
    """``publish_nowait``, flushed now and then; at the end a round trip."""
    trio.run(_publish, port, pipe, seconds)


async def _publish(port: int, pipe: Connection, seconds: float) -> None:
    async with _connect(port) as client:
        publish = client.publish_nowait

        async def some() -> None:
            for payload in PAYLOADS[:1024]:
                publish(TOPIC, payload, raw=True)
            await client.flush()

        async def finish() -> None:
            await client.ping()

        pipe.send(await warm_then_measure(some, 1024, finish, seconds=seconds))


def pipeline(port: int, pipe: Connection, seconds: float) -> None:
    """Acknowledged, through ``client.pipeline()``."""
    trio.run(_pipeline, port, pipe, seconds)


async def _pipeline(port: int, pipe: Connection, seconds: float) -> None:
    async with _connect(port) as client:

        async def some() -> None:
            async with client.pipeline() as line:
                for payload in PAYLOADS[:16384]:
                    await line.publish(TOPIC, payload, raw=True)

        pipe.send(await warm_then_measure(some, 16384, seconds=seconds))


def many_tasks(port: int, pipe: Connection, seconds: float) -> None:
    """Acknowledged, each awaited by one of many tasks."""
    trio.run(_many_tasks, port, pipe, seconds)


async def _many_tasks(port: int, pipe: Connection, seconds: float) -> None:
    async with _connect(port) as client:

        async def one_task() -> None:
            for payload in PAYLOADS[:20]:
                await client.publish(TOPIC, payload, raw=True)

        async def some() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(TASKS):
                    nursery.start_soon(one_task)

        pipe.send(await warm_then_measure(some, 20 * TASKS, seconds=seconds))


def _connect(port: int) -> AbstractAsyncContextManager[fanwire.Client]:
    return fanwire.connect(f"ws://127.0.0.1:{port}/")


class Publisher:
    """Publishes as quickly as a program can: everything has been encoded before."""

    def __init__(self, port: int) -> None:
        [self._socket] = wire.connect(("127.0.0.1", port), 1)
        envelopes = [wire.publish(TOPIC, payload) for payload in PAYLOADS]
        self._frames = [
            wire.frame(b"".join(envelopes[start : start + TOGETHER])) for start in range(0, CYCLE, TOGETHER)
        ]
        self._next = 0

    def publish_some(self) -> int:
        """Publish `BATCH` messages; return how many that is."""
        count = BATCH // TOGETHER
        self._socket.sendall(b"".join(self._frames[self._next : self._next + count]))
        self._next = (self._next + count) % len(self._frames)
        return BATCH

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
