"""The peer's side of `sdk`: nats-py against nats-server, doing the same."""

from __future__ import annotations

import asyncio
import importlib
import socket
from multiprocessing.connection import Connection
from typing import Any

from tests.bench.sdk_numbers import BATCH, CYCLE, PAYLOADS, TOPIC, Progress, warm_then_measure


def receive(port: int, pipe: Connection, seconds: float) -> None:
    """``async for message in subscription.messages``."""
    asyncio.run(_receive(port, pipe))


async def _receive(port: int, pipe: Connection) -> None:
    client = await _connect(port)
    subscription = await client.subscribe(TOPIC, pending_msgs_limit=0, pending_bytes_limit=0)
    await client.flush()
    progress = Progress(pipe)
    count = 0
    async for message in subscription.messages:
        count += 1
        if not count % BATCH:
            progress.report(count, message.data)


def receive_callback(port: int, pipe: Connection, seconds: float) -> None:
    """A callback for each message."""
    asyncio.run(_receive_callback(port, pipe))


async def _receive_callback(port: int, pipe: Connection) -> None:
    client = await _connect(port)
    progress: Progress | None = None
    count = 0

    async def on_message(message: Any) -> None:
        nonlocal count
        count += 1
        if not count % BATCH and progress is not None:
            progress.report(count, message.data)

    await client.subscribe(TOPIC, cb=on_message, pending_msgs_limit=0, pending_bytes_limit=0)
    await client.flush()
    progress = Progress(pipe)
    await asyncio.Event().wait()


def publish(port: int, pipe: Connection, seconds: float) -> None:
    """``publish``; at the end a round trip (``flush``)."""
    asyncio.run(_publish(port, pipe, seconds))


async def _publish(port: int, pipe: Connection, seconds: float) -> None:
    client = await _connect(port)
    publish = client.publish

    async def some() -> None:
        for payload in PAYLOADS[:1024]:
            await publish(TOPIC, payload)
        await asyncio.sleep(0)  # what is pending goes out, as in any program that does something else too

    pipe.send(await warm_then_measure(some, 1024, client.flush, seconds=seconds))
    await client.close()


async def _connect(port: int) -> Any:
    nats = importlib.import_module("nats")  # of the dependency group `bench` alone, so unknown to the type checker
    return await nats.connect(f"nats://127.0.0.1:{port}")


class Publisher:
    """Publishes as quickly as a program can: everything has been encoded before."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.recv(4096)  # INFO
        self._socket.sendall(b'CONNECT {"verbose":false,"pedantic":false,"lang":"bench","version":"0"}\r\n')
        messages = [b"PUB %s %d\r\n%s\r\n" % (TOPIC.encode(), len(payload), payload) for payload in PAYLOADS]
        self._batches = [b"".join(messages[start : start + BATCH]) for start in range(0, CYCLE, BATCH)]
        self._next = 0

    def publish_some(self) -> int:
        """Publish `BATCH` messages; return how many that is."""
        self._socket.sendall(self._batches[self._next])
        self._next = (self._next + 1) % len(self._batches)
        return BATCH

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
