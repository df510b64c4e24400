"""A hostile peer ends at most its own connection; whoever behaves notices nothing (protocol.md, Errors and closing)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker, Config
from tests.fault.cases import FRAMES, OPENINGS, SILENCES, Case
from tests.peers.healthy import Healthy
from tests.peers.raw import converse

Open = Callable[[], Awaitable[trio.abc.Stream]]


@pytest.mark.parametrize("case", OPENINGS + FRAMES + SILENCES, ids=str)
async def test_in_memory(case: Case, autojump_clock: MockClock) -> None:
    """The peer is told why it is cut off, nothing of it stays behind, and a healthy subscriber gets everything."""
    async with _broker(Config(listen=False)) as (broker, subscriber):
        await _attack(broker, subscriber, case, broker.open_stream)


@pytest.mark.parametrize("case", OPENINGS + FRAMES, ids=str)
async def test_over_tcp(case: Case) -> None:
    """The same holds on real sockets, where a close frame can be lost in a reset."""
    async with _broker(Config(port=0)) as (broker, subscriber):
        await _attack(broker, subscriber, case, partial(trio.open_tcp_stream, "127.0.0.1", broker.port or 0))


@asynccontextmanager
async def _broker(config: Config) -> AsyncIterator[tuple[Broker, Healthy]]:
    async with Broker(config).serving() as broker, trio.open_nursery() as nursery:
        subscriber = Healthy(await broker.open_stream())
        await nursery.start(subscriber.run, "healthy.>")
        yield broker, subscriber
        nursery.cancel_scope.cancel()


async def _attack(broker: Broker, subscriber: Healthy, case: Case, open_stream: Open) -> None:
    before = _belongings(broker)
    broker.publish("healthy.before", b"before")
    stream = await open_stream()
    broker.publish("healthy.while", b"while")

    heard = await converse(stream, case.parts, opened=case.opened, leave=case.leave)

    assert heard.outcome == case.outcome
    await _until(lambda: _belongings(broker) == before)
    broker.publish("healthy.after", b"after")
    await _until(lambda: len(subscriber.received) == 3)
    assert subscriber.received == [b"before", b"while", b"after"]
    assert 1011 not in broker.statistics().closed_by_broker, "an exception left the connection"


def _belongings(broker: Broker) -> tuple[int, ...]:
    """What a connection has while it lives: an entry, subscriptions, tasks, a descriptor."""
    figures = broker.statistics()
    tasks = trio.lowlevel.current_statistics().tasks_living
    return figures.connections, figures.subscriptions, figures.routes, tasks, len(os.listdir("/dev/fd"))


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for what the kernel and other tasks still have to do."""
    with trio.fail_after(10):
        while not condition():
            await wait_all_tasks_blocked(0.001)
