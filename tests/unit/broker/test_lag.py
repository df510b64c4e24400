"""How late the loop is."""

from __future__ import annotations

import time

import trio
from trio.testing import MockClock

from fanwire.broker.telemetry.loop_lag import LAGS_S, PERIOD_S, LoopLag


async def test_a_loop_in_time_is_counted_so(autojump_clock: MockClock) -> None:
    """Ten looks a second, all of them in the first bucket."""
    lag = LoopLag()
    with trio.move_on_after(10 * PERIOD_S + 0.01):
        await lag.run()

    assert sum(lag.histogram.values()) == lag.histogram["0.002"] == 10
    assert lag.sum_s < 0.001


async def test_a_loop_that_stands_is_seen() -> None:
    """Somebody keeps it for as long as two looks and more: one look is that late."""
    lag = LoopLag()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.run)
        await trio.testing.wait_all_tasks_blocked()
        time.sleep(PERIOD_S + 0.03)  # noqa: ASYNC251
        while not any(lag.histogram.values()):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()

    assert lag.sum_s >= 0.025
    assert lag.histogram["0.002"] == 0


def test_every_look_is_in_one_bucket() -> None:
    """Bounds included; what is beyond all of them is "more"."""
    lag = LoopLag()
    for bound in LAGS_S:
        lag.observe(bound)
    lag.observe(10.0)

    assert lag.histogram == dict.fromkeys([*map(str, LAGS_S), "more"], 1)
