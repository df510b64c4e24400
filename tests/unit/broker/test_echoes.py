"""``echo: false``: who publishes does not get it back."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from fanwire.broker.options.throttle import Limiter
from tests.unit.broker.subscriber import Engine, Subscriber
from tests.unit.broker.test_groups import _numbers


def _published_by(engine: Engine, source: Subscriber | None, *numbers: int) -> int:
    payloads = [bytes((number,)) for number in numbers]
    return engine.publish("a", *payloads, source=source.outbox if source else None)


async def test_only_the_publisher_goes_without(autojump_clock: MockClock) -> None:
    """Others who want no echo of their own get it, and so does everybody else; it counts for those who do."""
    engine, one, other, plain = Engine(), Subscriber(), Subscriber(), Subscriber()
    engine.subscribe(one, "a", echo=False)
    engine.subscribe(other, "a", echo=False)
    engine.subscribe(plain, "a")

    reached = [_published_by(engine, source, number) for number, source in enumerate([one, other, plain, None])]

    assert reached == [2, 2, 3, 3]
    assert [_numbers(each) for each in (one, other, plain)] == [[1, 2, 3], [0, 2, 3], [0, 1, 2, 3]]
    assert engine.counters.delivered == 10


async def test_it_is_for_one_subscription(autojump_clock: MockClock) -> None:
    """Another one of the same connection gets what the first one does not want."""
    engine, one = Engine(), Subscriber()
    engine.subscribe(one, "a", echo=False)
    engine.subscribe(one, "*")

    assert _published_by(engine, one, 1) == 1
    assert _numbers(one) == [1]


async def test_a_long_run_is_taken_back_whole(autojump_clock: MockClock) -> None:
    """One of several chunks, behind something that stays."""
    engine, one, other = Engine(), Subscriber(), Subscriber()
    engine.subscribe(one, "a", echo=False)
    engine.subscribe(other, "a")
    engine.publish("a", b"\x07")
    engine.publish("a", *[b"\x01" * 40_000] * 3, source=one.outbox)

    assert len(other.outbox.pending) == 4
    assert _numbers(one) == [7]


@pytest.mark.parametrize("group", [None, "g"])
async def test_what_nobody_gets_is_not_kept(autojump_clock: MockClock, group: str | None) -> None:
    """The only subscriber is the publisher: however much is published, it never has to wait for a sweep of it."""
    engine, one = Engine(), Subscriber()
    engine.subscribe(one, "a", echo=False, group=group)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.fanout.run)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(10):
            assert _published_by(engine, one, *[0] * 10) == 0
            await trio.testing.wait_all_tasks_blocked()
            assert (engine.fanout._gathered, engine.fanout._chunks) == (0, {})
        nursery.cancel_scope.cancel()

    assert one.outbox.pending == []


async def test_a_group_passes_over_the_publisher(autojump_clock: MockClock) -> None:
    """The message goes to another member; one that wants its echo may get its own."""
    engine, one, other = Engine(), Subscriber(), Subscriber()
    engine.subscribe(one, "a", group="g", echo=False)
    engine.subscribe(other, "a", group="g")

    assert [_published_by(engine, one, *numbers) for numbers in ((1, 2), (3,))] == [1, 1]
    assert (_numbers(one), _numbers(other)) == ([], [1, 2, 3])
    assert _published_by(engine, other, 4, 5, 6, 7, 8) == 1
    assert (_numbers(one), _numbers(other)) == ([4, 5, 6, 8], [1, 2, 3, 7])


async def test_a_rate_does_not_bring_it_back(autojump_clock: MockClock) -> None:
    """Neither at once nor when its time has come."""
    engine, one = Engine(), Subscriber()
    subscription = engine.subscribe(one, "a", max_rate=1, echo=False)
    assert [_published_by(engine, source, number) for number, source in enumerate([one, None, one, None, one])] == [
        0, 1, 0, 1, 0,
    ]  # fmt: skip
    assert _numbers(one) == [1]
    await trio.sleep(2)
    assert isinstance(subscription.limiter, Limiter)
    subscription.limiter.look(trio.current_time())

    assert _numbers(one) == [1, 3]
