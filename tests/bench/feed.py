"""A process that publishes updates of many symbols at a fixed rate: a ticker plant.

It goes through all symbols again and again, each time in another order, so that no symbol has a period that could hide
what happens between its updates.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import c_uint64
from multiprocessing.synchronize import Event

from tests.bench import payload, wire
from tests.bench.program import cpu_s

# So many updates in one frame at most; of 100 bytes each they are below any read of the broker's.
_TOGETHER = 1000
_TICK_S = 0.001

# Orders of the symbols, one after the other: shuffling anew each time would cost the feed a tenth of a core.
_ORDERS = 16
_PATIENCE_S = 30.0


class Feed:
    """Handle of the process. Updates of a symbol carry the numbers 0, 1, 2 …, and the time they were written."""

    def __init__(
        self, process: multiprocessing.process.BaseProcess, symbols: int, count: c_uint64, stop: Event
    ) -> None:
        assert process.pid is not None
        self.pid = process.pid
        self._process = process
        self._symbols = symbols
        self._count = count
        self._stop = stop

    @property
    def published(self) -> int:
        """Updates of all symbols so far."""
        return self._count.value

    @property
    def last_number(self) -> int:
        """Of each symbol, after `stop`."""
        return self.published // self._symbols - 1

    def cpu_s(self) -> float:
        """CPU seconds so far."""
        return cpu_s(self.pid)

    def stop(self) -> None:
        """Publish the rest of the round, and no more. When this returns the broker has taken in all of it."""
        self._stop.set()
        self._process.join(_PATIENCE_S)
        if self._process.exitcode != 0:
            raise SystemExit("error: the feed failed")


@contextmanager
def feed(address: tuple[str, int], topics: Sequence[str], rate: float, size: int) -> Iterator[Feed]:
    """Publish updates of ``topics``, ``rate`` a second of all together, ``size`` bytes of payload each."""
    context = multiprocessing.get_context("spawn")
    count, stop = context.RawValue(c_uint64), context.Event()
    process = context.Process(target=_run, args=(address, list(topics), rate, size, count, stop), daemon=True)
    process.start()
    try:
        end = time.monotonic() + _PATIENCE_S
        while count.value == 0:
            if process.exitcode is not None or time.monotonic() > end:
                raise SystemExit("error: the feed did not start")
            time.sleep(0.01)
        yield Feed(process, len(topics), count, stop)
    finally:
        process.terminate()
        process.join()


def _run(address: tuple[str, int], topics: list[str], rate: float, size: int, count: c_uint64, stop: Event) -> None:
    [connection] = wire.connect(address, 1)
    heads = [wire.publish(topic, bytes(size))[:-size] for topic in topics]
    orders = [random.Random(seed).sample(heads, len(heads)) for seed in range(_ORDERS)]
    at, sent, begin = 0, 0, time.monotonic_ns()
    while at or not stop.is_set():
        now = time.monotonic_ns()
        due = int((now - begin) * rate / 1e9) - sent
        if due <= 0:
            time.sleep(_TICK_S)
            continue
        number = sent // len(heads)
        part = orders[number % _ORDERS][at : at + min(due, _TOGETHER)]
        same = payload.make(number, now, size)
        connection.sendall(wire.frame(same.join(part) + same))
        sent += len(part)
        at = (at + len(part)) % len(heads)
        count.value = sent
    wire.part([connection])
