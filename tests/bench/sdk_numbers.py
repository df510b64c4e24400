"""What both sides of `sdk` share: the messages, how progress is told, how a publisher is measured."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

TOPIC = "bench.sdk"

SIZE = 128

CYCLE = 16_384
"""Messages are numbered 0 to this, and again from 0."""

BATCH = 256
"""A receiver looks at the number of every so manieth message: one that was lost, or came twice, shifts all later ones.
So the looking costs next to nothing."""

PAYLOADS = [number.to_bytes(4) + bytes(SIZE - 4) for number in range(CYCLE)]

WARM_S = 0.5


class Rate(NamedTuple):
    """What a publisher measured of itself."""

    messages: int
    seconds: float
    cpu_s: float


class Progress:
    """A receiver's reports: how many it has, and whether the number of the last one was the expected one."""

    def __init__(self, pipe: Connection) -> None:
        """Also says that it has subscribed."""
        self._pipe = pipe
        pipe.send((0, True))

    def report(self, count: int, payload: bytes) -> None:
        """``payload``: the ``count``-th message's. ``count`` is a multiple of `BATCH`."""
        self._pipe.send((count, int.from_bytes(payload[:4]) == (count - 1) % CYCLE))


async def _nothing() -> None:
    pass


async def warm_then_measure(
    some: Callable[[], Awaitable[None]],
    count: int,
    finish: Callable[[], Awaitable[Any]] = _nothing,
    *,
    seconds: float,
) -> Rate:
    """Publish for ``WARM_S`` and then, measured, for ``seconds``.

    Args:
        some: Publishes ``count`` messages.
        count: See there.
        finish: Waits until the broker has them all; its time counts.
        seconds: How long.
    """
    await _publish_for(WARM_S, some, finish)
    began, cpu = time.perf_counter(), time.process_time()
    rounds = await _publish_for(seconds, some, finish)
    return Rate(rounds * count, time.perf_counter() - began, time.process_time() - cpu)


async def _publish_for(
    seconds: float, some: Callable[[], Awaitable[None]], finish: Callable[[], Awaitable[Any]]
) -> int:
    end, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        await some()
        rounds += 1
    await finish()
    return rounds
