"""One task for all clocks: everything is looked at when it is due, and nothing is kept that has ended."""

from __future__ import annotations

import gc
import weakref

import pytest
import trio
from trio.testing import MockClock

from fanwire.broker.timing.timers import Watchdog, Watched


class Noted(Watched):
    """Notes when it is looked at, so many times, every so often."""

    def __init__(self, every_s: float, times: int = 1) -> None:
        self.every_s = every_s
        self.times = times
        self.looked: list[float] = []

    def look(self, now: float) -> float | None:
        """See `Watched`."""
        self.looked.append(now)
        self.times -= 1
        return now + self.every_s if self.times else None


@pytest.fixture
def watchdog(nursery: trio.Nursery) -> Watchdog:
    """A running one."""
    watchdog = Watchdog()
    nursery.start_soon(watchdog.run)
    return watchdog


async def test_each_is_looked_at_when_it_is_due(watchdog: Watchdog, autojump_clock: MockClock) -> None:
    """At its own times, until it wants no more."""
    start = trio.current_time()
    slow, quick, late = Noted(10, 3), Noted(1, 4), Noted(1)
    watchdog.watch(slow, start + 10)
    watchdog.watch(quick, start + 1)
    await trio.sleep(2.5)
    watchdog.watch(late, start + 3)
    await trio.sleep(100)

    assert [at - start for at in slow.looked] == [10, 20, 30]
    assert [at - start for at in quick.looked] == [1, 2, 3, 4]
    assert [at - start for at in late.looked] == [3]


async def test_what_was_watched_before_it_ran_is_not_late(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A watchdog that starts later looks at once at what is due."""
    watchdog, noted, start = Watchdog(), Noted(1), trio.current_time()
    watchdog.watch(noted, start + 1)
    await trio.sleep(5)
    nursery.start_soon(watchdog.run)
    await trio.sleep(1)

    assert [at - start for at in noted.looked] == [5]


async def test_a_look_that_is_overdue_does_not_starve_the_others(watchdog: Watchdog, autojump_clock: MockClock) -> None:
    """Who was due several times is looked at, and then so is the next."""
    start = trio.current_time()
    one, other = Noted(5, 3), Noted(5, 3)
    for noted in (one, other):
        watchdog.watch(noted, start - 100)
    await trio.sleep(20)

    assert [at - start for at in one.looked] == [at - start for at in other.looked] == [0, 5, 10]


async def test_who_was_forgotten_is_not_looked_at_nor_kept(watchdog: Watchdog, autojump_clock: MockClock) -> None:
    """Its memory is free at once, not when it would have been due; forgetting twice is no fault."""
    noted, other = Noted(1), Noted(1)
    number = watchdog.watch(noted, trio.current_time() + 1)
    watchdog.watch(other, trio.current_time() + 1)
    watchdog.forget(number)
    watchdog.forget(number)
    alive = weakref.ref(noted)
    gc.disable()
    try:
        del noted
        assert alive() is None
    finally:
        gc.enable()
    await trio.sleep(2)
    assert len(other.looked) == 1


async def test_who_comes_and_goes_leaves_nothing(watchdog: Watchdog, autojump_clock: MockClock) -> None:
    """However many were forgotten before they were due: the heap follows the number of the living."""
    staying = Noted(1)
    watchdog.watch(staying, trio.current_time() + 1)
    for _ in range(10_000):
        watchdog.forget(watchdog.watch(Noted(1), trio.current_time() + 1000))
        assert len(watchdog._heap) < 1000
    await trio.sleep(2)

    assert len(staying.looked) == 1
