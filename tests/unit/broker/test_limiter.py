"""`max_rate`: what goes at once, what is held, what is lost when too many keys are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker.delivery.outbox import THROWN_AT_ONCE, USUAL_BUDGET
from fanwire.broker.delivery.policies import MOST_DROPPED
from fanwire.broker.delivery.subscription import Subscription
from fanwire.broker.options.throttle import PORTION, SLACK, Limiter
from fanwire.protocol import Lost, Message, decode_from_broker
from tests.unit.broker.subscriber import Engine, Subscriber


class Scene:
    """One subscriber with a rate, and the broker's tasks around it."""

    def __init__(self, pattern: str, max_rate: float, queue: int, **limits: int) -> None:
        self.engine = Engine()
        self.subscriber = Subscriber(**limits)
        self.subscription: Subscription = self.engine.subscribe(
            self.subscriber, pattern, queue=queue, on_slow="conflate", max_rate=max_rate
        )
        self.seen: list[tuple[float, object]] = []

    async def listen(self) -> None:
        """Note what arrives, and when."""
        while True:
            envelope = await self.subscriber.reader.next()
            if isinstance(envelope, Message):
                self.seen.append((trio.current_time(), bytes(envelope.payload)))
            elif isinstance(envelope, Lost):
                self.seen.append((trio.current_time(), (envelope.count, envelope.reason, envelope.topic)))

    @property
    def what(self) -> list[object]:
        """Without times."""
        return [each for _, each in self.seen]


@asynccontextmanager
async def _scene(pattern: str = "a", max_rate: float = 1.0, queue: int = 100, **limits: int) -> AsyncIterator[Scene]:
    scene = Scene(pattern, max_rate, queue, **limits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.engine.fanout.run)
        nursery.start_soon(scene.engine.watchdog.run)
        nursery.start_soon(scene.listen)
        yield scene
        nursery.cancel_scope.cancel()


async def test_first_at_once_and_then_the_newest_when_it_is_due(autojump_clock: MockClock) -> None:
    """Held meanwhile, and replaced; a quiet key has no delay again."""
    async with _scene(max_rate=2.0) as scene:
        for payload in (b"1", b"2", b"3"):
            scene.engine.publish("a", payload)
        await trio.sleep(5)
        scene.engine.publish("a", b"4")
        await wait_all_tasks_blocked()

        assert scene.seen == [(0.0, b"1"), (0.5, b"3"), (5.0, b"4")]
        assert (scene.subscription.replaced, scene.subscription.held) == (1, 0)


async def test_of_one_run_the_newest_goes(autojump_clock: MockClock) -> None:
    """Messages that travel together are conflated at once."""
    async with _scene() as scene:
        scene.engine.publish("a", b"1", b"2", b"3")
        await wait_all_tasks_blocked()

        assert (scene.what, scene.subscription.replaced) == ([b"3"], 2)


async def test_keys_have_budgets_of_their_own(autojump_clock: MockClock) -> None:
    """Topics, and keys within a topic."""
    async with _scene("a.*") as scene:
        for key in ("x", "y", None):
            scene.engine.publish("a.b", b"1", key=key)
        scene.engine.publish("a.c", b"1")
        scene.engine.publish("a.b", b"2", key="x")
        await wait_all_tasks_blocked()

        assert scene.what == [b"1"] * 4
        assert scene.subscription.held == 1


async def test_more_keys_held_than_may_wait(autojump_clock: MockClock) -> None:
    """The one held first is lost, and LOST comes before anything of its key does again."""
    async with _scene("a.*", queue=2) as scene:
        for payload in (b"old", b"new"):
            for topic in ("a.x", "a.y", "a.z"):
                scene.engine.publish(topic, payload + topic.encode())
        await wait_all_tasks_blocked()
        assert (scene.subscription.held, scene.subscription.lost) == (2, 1)
        await trio.sleep(1.5)
        scene.engine.publish("a.x", b"again")
        await wait_all_tasks_blocked()

        assert scene.what[:3] == [b"olda.x", b"olda.y", b"olda.z"]
        assert scene.what[3:] == [(1, "keys", "a.x"), b"newa.y", b"newa.z", b"again"]


async def test_a_loss_stands_between_what_came_before_and_after_it(autojump_clock: MockClock) -> None:
    """Though a message of its key still waits for the socket: nothing newer goes in that one's place any more."""
    engine, subscriber = Engine(), Subscriber(1000)
    subscription = engine.subscribe(subscriber, "a.*", 1, "conflate", 1.0)
    engine.publish("a.z", b"1")
    engine.fanout.flush(subscriber.outbox)
    subscriber.stream.write_nowait(b"\x82\x7e\x07\xd0" + bytes(2000))
    engine.publish("a.x", b"1")
    for topic, payload in (("a.x", b"2"), ("a.z", b"2")):  # held, and there is room for one
        engine.publish(topic, payload)
    engine.fanout.flush(subscriber.outbox)
    subscription.queue = 10
    engine.publish("a.x", b"3")
    limiter = subscription.limiter
    assert isinstance(limiter, Limiter)
    for _ in range(2):
        await trio.sleep(1)
        limiter.look(trio.current_time())
    engine.fanout.flush(subscriber.outbox)

    heard = [each for each in await _read_to_the_end(subscriber) if isinstance(each, Message | Lost)]
    mine = [each for each in heard if each.topic == "a.x"]
    assert [int(each.payload) if isinstance(each, Message) else each.count for each in mine] == [1, 1, 3]
    assert [type(each) for each in mine] == [Message, Lost, Message]
    assert subscription.lost == 1


async def _read_to_the_end(subscriber: Subscriber) -> list[object]:
    async def write_out_and_close() -> None:
        assert await subscriber.outbox.write_out() is None
        await subscriber.stream.aclose()

    heard = list[object]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_out_and_close)
        while (frame := await subscriber.reader.frame()) is not None:
            heard += decode_from_broker(frame.payload) if frame.payload.strip(bytes(1)) else []
    return heard


async def test_how_long_it_was_held_is_no_slowness(autojump_clock: MockClock) -> None:
    """A message that its rate held for a minute is not a minute old when it has to wait for the socket."""
    engine, subscriber = Engine(), Subscriber(1000, max_age_s=30.0)
    subscription = engine.subscribe(subscriber, "a", 10, "conflate", 1 / 60)
    limiter = subscription.limiter
    assert isinstance(limiter, Limiter)
    for payload in (b"1", b"2"):
        engine.publish("a", payload)
    engine.fanout.flush(subscriber.outbox)
    await trio.sleep(60)
    subscriber.stream.write_nowait(b"\x82\x7e\x07\xd0" + bytes(2000))
    limiter.look(trio.current_time())
    engine.fanout.flush(subscriber.outbox)

    assert (subscription.waiting, subscription.age_s(trio.current_time()), subscription.lagging) == (1, 0.0, False)


async def test_keys_held_beyond_the_default_are_not_lost(autojump_clock: MockClock) -> None:
    """Where ``queue`` was not asked for; until the bytes of the connection near their limit: then the oldest go."""
    async with _scene("a.*", max_rate=0.01, queue=2, max_pending_bytes=20_000) as scene:
        scene.subscription.grace_s = 5.0
        for payload in (b"1", b"x" * 100):
            for number in range(40):
                scene.engine.publish(f"a.{number}", payload)
        assert (scene.subscription.held, scene.subscription.lost) == (40, 0)
        for payload in (b"1", b"x" * 100):
            for number in range(40, 80):
                scene.engine.publish(f"a.{number}", payload)

        assert scene.subscription.lost > 0
        assert scene.subscriber.verdicts == []


async def test_a_change_counts_for_what_is_held(autojump_clock: MockClock) -> None:
    """Quicker and slower; without a rate all goes at once."""
    async with _scene(max_rate=0.1) as scene:
        limiter = scene.subscription.limiter
        assert isinstance(limiter, Limiter)
        scene.engine.publish("a", b"1")
        scene.engine.publish("a", b"2")
        limiter.change(1.0, trio.current_time())
        await trio.sleep(2.5)
        scene.engine.publish("a", b"3")
        limiter.change(0.01, trio.current_time())
        scene.engine.publish("a", b"4")
        await trio.sleep(50)
        limiter.open(trio.current_time(), limiter.close)
        await wait_all_tasks_blocked()

        assert scene.seen == [(0.0, b"1"), (1.0, b"2"), (2.5, b"3"), (52.5, b"4")]
        assert scene.subscriber.outbox.budgets == scene.subscriber.outbox.held_bytes == 0


async def test_closed_it_holds_nothing(autojump_clock: MockClock) -> None:
    """Nothing is watched, counted or taken any more."""
    async with _scene() as scene:
        limiter = scene.subscription.limiter
        assert isinstance(limiter, Limiter)
        scene.engine.publish("a", b"1")
        scene.engine.publish("a", b"2")
        limiter.close()
        scene.engine.publish("a", b"3")
        await trio.sleep(5)

        assert scene.what == [b"1"]
        assert (scene.subscription.held, scene.subscriber.outbox.held_bytes, scene.subscriber.outbox.budgets) == (
            0,
            0,
            0,
        )
        assert not scene.engine.watchdog._watched


async def test_what_is_held_counts_as_bytes_that_wait(autojump_clock: MockClock) -> None:
    """Over `max_pending` the connection is too slow, whatever its rate."""
    async with _scene("a.*", max_rate=0.01, max_pending_bytes=10_000) as scene:
        for number in range(20):
            scene.engine.publish(f"a.{number}", b"first")
        await wait_all_tasks_blocked()
        for number in range(20):
            scene.engine.publish(f"a.{number}", b"x" * 1000)

        assert {verdict.measure for verdict in scene.subscriber.verdicts} == {"max_pending"}


async def test_a_connection_remembers_only_so_many_budgets(autojump_clock: MockClock) -> None:
    """Beyond `max_queue` keys the oldest is forgotten; what it held goes, and nothing is lost."""
    async with _scene("a.*", max_rate=0.01, max_queue=3) as scene:
        scene.engine.publish("a.0", b"1")
        scene.engine.publish("a.0", b"2")
        for number in range(1, 4):
            scene.engine.publish(f"a.{number}", b"x")
        await wait_all_tasks_blocked()

        assert scene.what == [b"1", b"x", b"x", b"x", b"2"]
        assert scene.subscriber.outbox.budgets == 3


STEPS = st.lists(
    st.tuples(st.sampled_from("xyz"), st.integers(1, 3), st.sampled_from([0.0, 0.1, 0.25, 0.4, 1.3])), max_size=40
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, rate=st.sampled_from([0.5, 2.0, 10.0]))
def test_never_too_often_never_too_late_and_the_newest_at_last(
    steps: list[tuple[str, int, float]], rate: float
) -> None:
    """For any schedule: the interval is kept for each key, order too, and what is newest comes within the interval."""

    async def check() -> None:
        async with _scene("a.*", max_rate=rate) as scene:
            number, newest = 0, dict[str, tuple[float, int]]()
            for token, count, pause in steps:
                payloads = [f"{token}{number + each}".encode() for each in range(count)]
                number += count
                scene.engine.publish(f"a.{token}", *payloads)
                newest[token] = trio.current_time(), number - 1
                await trio.sleep(pause)
            await trio.sleep(2 / rate + 1)
            for token, (at, last) in newest.items():
                mine = [
                    (when, int(what[1:]))
                    for when, what in scene.seen
                    if isinstance(what, bytes) and what[:1] == token.encode()
                ]
                times, values = [when for when, _ in mine], [value for _, value in mine]
                assert values == sorted(set(values))
                assert values[-1] == last
                assert all(after - before >= 1 / rate - 1e-9 for before, after in pairwise(times))
                assert times[-1] <= at + 1 / rate + 2 * SLACK
            assert len(scene.seen) + scene.subscription.replaced == number
            assert scene.subscription.held == scene.subscriber.outbox.held_bytes == 0

    trio.run(check, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("rate", [5e-324, 1e308])
async def test_odd_rates(rate: float, autojump_clock: MockClock) -> None:
    """Once in a lifetime, or as often as one likes: no spinning, no error."""
    async with _scene(max_rate=rate) as scene:
        scene.engine.publish("a", b"1")
        scene.engine.publish("a", b"2")
        await trio.sleep(1)

        assert scene.what == ([b"1"] if rate < 1 else [b"1", b"2"])


async def test_long_keys_count_as_several(autojump_clock: MockClock) -> None:
    """What is remembered is bounded in bytes, too: as if every key had the usual length."""
    most = 40
    async with _scene("a", max_rate=0.01, max_queue=most) as scene:
        outbox = scene.subscriber.outbox
        for number in range(3 * most):
            scene.engine.publish("a", b"x", key=f"{number:0250}")
            assert outbox.budget_bytes <= most * USUAL_BUDGET
        assert 0 < outbox.budgets < most
        limiter = scene.subscription.limiter
        assert isinstance(limiter, Limiter)

        limiter.close()
        await outbox.clear()

        assert (outbox.budgets, outbox.budget_bytes) == (0, 0)


async def test_very_many_keys_are_freed_some_at_a_time(autojump_clock: MockClock) -> None:
    """Nothing of one that is closed is sent; what is in memory still counts until it is freed."""
    async with _scene("t.>", max_rate=0.001, queue=100_000) as scene:
        for payload in (b"1", b"2"):
            for number in range(5 * PORTION):
                scene.engine.publish(f"t.{number}", payload)
            await wait_all_tasks_blocked()
        outbox, limiter = scene.subscriber.outbox, scene.subscription.limiter
        assert isinstance(limiter, Limiter)
        assert (scene.subscription.held, outbox.budgets) == (5 * PORTION, 5 * PORTION)
        before = outbox.held_bytes
        limiter.close()
        assert (scene.subscription.held, outbox.budgets) == (0, 5 * PORTION - THROWN_AT_ONCE)
        assert before / 2 < outbox.held_bytes < before
        assert scene.subscriber.wanted_clearing == 1
        for left in range(4, -1, -1):
            limiter.free(PORTION)
            assert outbox.budgets == max(0, left * PORTION - THROWN_AT_ONCE)
        assert (outbox.held_bytes, outbox.budget_bytes) == (0, 0)
        await trio.sleep(2000)

    assert b"2" not in scene.what


async def test_a_queue_that_becomes_much_smaller_is_emptied_some_at_a_time(autojump_clock: MockClock) -> None:
    """Each key that comes drops some of those that are held, until no more are held than may be."""
    async with _scene("t.>", max_rate=0.001, queue=1000) as scene:
        for payload in (b"1", b"2"):
            for number in range(1000):
                scene.engine.publish(f"t.{number}", payload)
        scene.engine.publish("t.x", b"1")
        scene.subscription.queue = 10
        held = [scene.subscription.held]
        for number in range(1001, 1011):
            scene.engine.publish(f"t.{number}", b"1")
            scene.engine.publish(f"t.{number}", b"2")
            held.append(scene.subscription.held)

    assert all(before - after < MOST_DROPPED for before, after in pairwise(held))
    assert held[-1] == 10
    assert scene.subscription.lost + held[-1] == 1010


async def test_very_many_keys_are_let_go_some_at_a_time(autojump_clock: MockClock) -> None:
    """There is no limit any more: all that was held comes, and what is published meanwhile comes behind it, each."""
    count = 5 * PORTION
    async with _scene("t.>", max_rate=0.001, queue=100_000, capacity=10**7) as scene:
        for payload in (b"1", b"2"):
            for number in range(count):
                scene.engine.publish(f"t.{number}", payload)
            await wait_all_tasks_blocked()
        limiter, outbox = scene.subscription.limiter, scene.subscriber.outbox
        assert limiter is not None
        began, opened = trio.current_time(), list[float]()

        def note_opened() -> None:
            opened.append(trio.current_time() - began)
            limiter.close()

        limiter.open(trio.current_time(), note_opened)
        assert scene.subscription.held == 4 * PORTION
        scene.engine.publish(f"t.{count - 1}", b"3", b"4")  # its key is held still
        scene.engine.publish("t.0", b"5")  # and this one's is not
        left = [scene.subscription.held]
        while scene.subscription.held:
            await trio.sleep(SLACK)
            left.append(scene.subscription.held)
        await wait_all_tasks_blocked()

    assert len(left) > 2
    assert all(before - after <= 2 * PORTION for before, after in pairwise(left)), "two looks between ours"
    assert len(opened) == 1
    assert sorted(scene.what, key=repr) == [b"1"] * count + [b"2"] * count + [b"3", b"4", b"5"]
    places = [scene.what.index(each) for each in (b"3", b"4")]
    assert scene.what[places[0] - 1] == b"2"
    assert places[0] < places[1]
    assert (outbox.budgets, outbox.budget_bytes, outbox.held_bytes) == (0, 0, 0)


async def test_a_limit_that_comes_back_while_keys_are_let_go(autojump_clock: MockClock) -> None:
    """What is held still is held by the new one."""
    async with _scene("t.>", max_rate=0.001, queue=100_000, capacity=10**7) as scene:
        for payload in (b"1", b"2"):
            for number in range(3 * PORTION):
                scene.engine.publish(f"t.{number}", payload)
            await wait_all_tasks_blocked()
        limiter = scene.subscription.limiter
        assert limiter is not None
        limiter.open(trio.current_time(), limiter.close)
        limiter.change(0.001, trio.current_time())
        await trio.sleep(500)
        assert scene.what.count(b"2") == PORTION
        await trio.sleep(1000)

        assert scene.what.count(b"2") == 3 * PORTION
