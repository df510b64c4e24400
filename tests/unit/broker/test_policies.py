"""What each policy does to a queue that is full: what goes, what stays, and what is told where."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker.delivery.policies import MOST_DROPPED, SHED
from fanwire.broker.delivery.queue import ENTRY_BYTES
from fanwire.protocol import Message, decode_from_broker, encode
from tests.unit.broker.stuck import Stuck

DROPPING = ["drop_oldest", "drop_newest", "conflate"]
ALL = ["disconnect", "unsubscribe", *DROPPING]


@pytest.mark.parametrize("on_slow", ["disconnect", "unsubscribe"])
async def test_nothing_is_dropped_until_the_verdict(on_slow: str, autojump_clock: MockClock) -> None:
    """As many as the queue holds wait; one more is a verdict, and of the run that was too much nothing is queued."""
    stuck = Stuck()
    subscription = stuck.subscribe("a", 3, on_slow)
    assert stuck.publish("a", "1", "2", "3") == []
    [verdict] = stuck.publish("a", "4")

    assert (verdict.measure, verdict.subscription, verdict.messages) == ("queue", subscription, 3)
    assert (subscription.lost, stuck.engine.counters.lost) == (0, {})


@pytest.mark.parametrize("on_slow", ["disconnect", "unsubscribe"])
async def test_one_run_longer_than_the_queue(on_slow: str) -> None:
    """Is too much even when nothing waits yet."""
    stuck = Stuck()
    stuck.subscribe("a", 3, on_slow)
    [verdict] = stuck.publish("a", "1", "2", "3", "4")

    assert (verdict.messages, verdict.queued_bytes) == (0, 0)


async def test_unsubscribe_ends_one_subscription_only(autojump_clock: MockClock) -> None:
    """Nothing of it is sent any more, not even what waited; the connection's other subscription goes on."""
    stuck = Stuck()
    stuck.subscribe("a", 3, "unsubscribe")
    stuck.subscribe("b", 3)
    stuck.publish("a", "1", "2")
    stuck.publish("b", "1")
    assert len(stuck.publish("a", "3", "4")) == 1
    assert stuck.publish("a", "5") == []
    stuck.publish("b", "2")

    assert await stuck.story() == ["b 1", "b 2"]
    assert stuck.outbox.waiting_bytes == 0


async def test_drop_oldest_keeps_the_newest(autojump_clock: MockClock) -> None:
    """LOST comes first, then what is left: all of it newer than what was lost."""
    stuck = Stuck()
    subscription = stuck.subscribe("a", 3, "drop_oldest")
    for number in range(5):
        stuck.publish("a", str(number))

    assert await stuck.story() == ["lagging 3/3 a", "lost 2 a queue", "a 2", "a 3", "a 4"]
    assert (subscription.lost, stuck.subscriber.counters.lost) == (2, {"drop_oldest": 2})


async def test_drop_newest_keeps_the_oldest(autojump_clock: MockClock) -> None:
    """LOST comes last, behind what waited; what is published once there is room follows it."""
    stuck = Stuck()
    subscription = stuck.subscribe("a", 3, "drop_newest")
    for number in range(5):
        stuck.publish("a", str(number))

    assert await stuck.story() == ["lagging 3/3 a", "a 0", "a 1", "a 2", "lost 2 a queue"]
    assert (subscription.lost, stuck.subscriber.counters.lost) == (2, {"drop_newest": 2})


async def test_drop_oldest_cuts_a_run_that_waits(autojump_clock: MockClock) -> None:
    """Only as many messages go as have to, though they came as one."""
    stuck = Stuck()
    stuck.subscribe("a", 10, "drop_oldest")
    stuck.publish("a", *"abcdef")
    stuck.publish("a", *"ghijklm")

    assert await stuck.story() == ["lagging 10/10 a", "lost 3 a queue", *[f"a {letter}" for letter in "defghijklm"]]


async def test_drop_newest_cuts_a_run_that_comes(autojump_clock: MockClock) -> None:
    """As many as there is room for still get in line."""
    stuck = Stuck()
    stuck.subscribe("a", 10, "drop_newest")
    stuck.publish("a", *"abcdef")
    stuck.publish("a", *"ghijklm")

    assert await stuck.story() == ["lagging 10/10 a", *[f"a {letter}" for letter in "abcdefghij"], "lost 3 a queue"]


async def test_a_run_longer_than_the_queue_is_cut(autojump_clock: MockClock) -> None:
    """`drop_oldest` keeps its last messages, `drop_newest` its first."""
    stuck = Stuck()
    stuck.subscribe("a", 2, "drop_oldest")
    stuck.subscribe("b", 2, "drop_newest")
    stuck.publish("a", "0")
    stuck.publish("a", *"12345")
    stuck.publish("b", *"12345")

    told = [each for each in await stuck.story() if not each.startswith("lagging")]
    assert told == ["lost 4 a queue", "a 4", "a 5", "b 1", "b 2", "lost 3 b queue"]


async def test_losses_of_several_topics_are_told_apart(autojump_clock: MockClock) -> None:
    """One LOST for each topic, all in the same place."""
    stuck = Stuck()
    stuck.subscribe("t.*", 2, "drop_newest")
    for topic in ("t.a", "t.b", "t.c", "t.b", "t.a", "t.b"):
        stuck.publish(topic, "x")

    assert await stuck.story() == [
        "lagging 2/2 t.*",
        "t.a x",
        "t.b x",
        "lost 1 t.c queue",
        "lost 2 t.b queue",
        "lost 1 t.a queue",
    ]


async def test_a_loss_stands_between_what_came_before_and_after_it(autojump_clock: MockClock) -> None:
    """The next message that there is room for comes behind the LOST, however long both wait."""
    stuck = Stuck()
    subscription = stuck.subscribe("a", 2, "drop_newest")
    stuck.publish("a", "0", "1", "2", "3")
    subscription.queue = 4
    stuck.publish("a", "4", "5", "6")
    subscription.queue = 5
    stuck.publish("a", "7")

    assert await stuck.story() == [
        "lagging 2/2 a",
        "a 0",
        "a 1",
        "lost 2 a queue",
        "a 4",
        "a 5",
        "lost 1 a queue",
        "a 7",
    ]


async def test_one_subscriptions_loss_does_not_move_anothers_messages(autojump_clock: MockClock) -> None:
    """What waits of others keeps its place in line."""
    stuck = Stuck()
    stuck.subscribe("a", 1, "drop_oldest")
    stuck.subscribe("b", 10)
    for number in range(3):
        stuck.publish("a", str(number))
        stuck.publish("b", str(number))

    told = await stuck.story()
    assert told == ["lagging 1/1 a", "b 0", "b 1", "lost 2 a queue", "a 2", "b 2"]


async def test_conflate_replaces_in_place(autojump_clock: MockClock) -> None:
    """Each topic waits once, where it stood first, with its newest value; that is no loss."""
    stuck = Stuck()
    subscription = stuck.subscribe("t.*", 100, "conflate")
    for topic, value in [("t.a", "1"), ("t.b", "1"), ("t.a", "2"), ("t.c", "1"), ("t.b", "2"), ("t.a", "3")]:
        stuck.publish(topic, value)

    assert subscription.waiting == 3
    assert await stuck.story() == ["t.a 3", "t.b 2", "t.c 1"]
    assert (subscription.replaced, subscription.lost, stuck.subscriber.counters.replaced) == (3, 0, 3)


async def test_conflate_takes_the_last_of_a_run(autojump_clock: MockClock) -> None:
    """The others of it are replaced before they wait."""
    stuck = Stuck()
    subscription = stuck.subscribe("a", 100, "conflate")
    stuck.publish("a", *"123")
    stuck.publish("a", *"45")

    assert await stuck.story() == ["a 5"]
    assert subscription.replaced == 4


async def test_a_messages_own_key_tells_values_of_one_topic_apart(autojump_clock: MockClock) -> None:
    """Topic and key together: the same key elsewhere, and the topic without one, are others."""
    stuck = Stuck()
    stuck.subscribe("*", 100, "conflate")
    for topic, key in [("a", "k"), ("a", "l"), ("b", "k"), ("a", None), ("a", "k"), ("a", None)]:
        stuck.publish(topic, f"{key} {len(stuck.outbox.subscriptions[1].entries)}", key=key)

    assert await stuck.story() == ["a k 4", "a l 1", "b k 2", "a None 4"]


async def test_more_keys_than_the_queue(autojump_clock: MockClock) -> None:
    """The key that has waited longest is lost, and its LOST stands where it stood; it may come in again at the end."""
    stuck = Stuck()
    subscription = stuck.subscribe("t.*", 2, "conflate")
    for topic in ("t.a", "t.b", "t.c", "t.a"):
        stuck.publish(topic, f"to {topic}")

    assert await stuck.story() == [
        "lagging 2/2 t.*",
        "lost 1 t.a keys",
        "lost 1 t.b keys",
        "t.c to t.c",
        "t.a to t.a",
    ]
    assert (subscription.lost, subscription.replaced) == (2, 0)


async def test_a_key_that_was_sent_waits_again_at_the_end(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Once it is in a frame it has no place in line any more, and nothing can replace it."""
    stuck = Stuck()
    subscription = stuck.subscribe("t.*", 100, "conflate")
    for topic in ("t.a", "t.b", "t.c"):
        stuck.publish(topic, "x" * 10_000)
    nursery.start_soon(stuck.outbox.write_out)
    await stuck.subscriber.reader.frame()
    await wait_all_tasks_blocked()
    assert subscription.waiting == 2  # frames to who conflates are short: only the first has left the line
    for topic in ("t.b", "t.a"):
        stuck.publish(topic, "new")
    messages = [await stuck.subscriber.reader.expect(Message) for _ in range(4)]

    assert [(each.topic, len(each.payload)) for each in messages] == [
        ("t.a", 10_000),
        ("t.b", 3),
        ("t.c", 10_000),
        ("t.a", 3),
    ]


@pytest.mark.parametrize("on_slow", [*DROPPING, "disconnect"])
async def test_too_many_bytes_end_it_whatever_the_policy(on_slow: str) -> None:
    """`max_pending` concerns the connection: no policy of a subscription saves it."""
    stuck = Stuck(max_pending_bytes=5000)
    stuck.subscribe("t.*", 1000, on_slow)
    verdicts = [verdict for number in range(60) for verdict in stuck.publish(f"t.{number}", "x" * 100)]

    assert verdicts
    assert {(verdict.measure, verdict.route) for verdict in verdicts} == {("max_pending", None)}


@pytest.mark.parametrize("on_slow", DROPPING)
async def test_bytes_that_wait_are_bytes_that_come(on_slow: str, autojump_clock: MockClock) -> None:
    """Whatever is cut, dropped and replaced, the count of bytes stays that of what is going to be sent."""
    stuck = Stuck()
    subscription = stuck.subscribe("t.*", 5, on_slow)
    for number in range(12):
        stuck.publish(f"t.{number % 7}", *["x" * (number * 10 + i) for i in range(number % 4 + 1)])
    waiting = stuck.outbox.waiting_bytes - stuck.outbox.answer_bytes
    assert waiting == sum(entry.size for entry in subscription.entries)
    frames = await stuck.frames()

    messages = [each for frame in frames for each in decode_from_broker(frame) if isinstance(each, Message)]
    assert sum(len(encode(each)) + 8 for each in messages) == waiting  # the broker's times take nine bytes, even 0
    assert (stuck.outbox.waiting_bytes, subscription.waiting) == (0, 0)


# ---------------------------------------------------------------- who did not ask for a queue


@pytest.mark.parametrize("on_slow", ALL)
async def test_a_burst_is_no_slowness(on_slow: str, autojump_clock: MockClock) -> None:
    """However many more than the default queue wait: until the oldest is older than the grace nothing is dropped."""
    stuck = Stuck()
    subscription = stuck.subscribe("t.*", 3, on_slow, grace_s=5.0)
    for number in range(100):
        stuck.publish(f"t.{number}", "x")
    await trio.sleep(5)
    stuck.publish("t.100", "x")

    assert (subscription.waiting, subscription.lost, stuck.subscriber.verdicts) == (101, 0, [])
    told = [each for each in await stuck.story() if not each.startswith("lagging")]
    assert told == [f"t.{number} x" for number in range(101)]


@pytest.mark.parametrize("on_slow", ["disconnect", "unsubscribe"])
async def test_late_and_with_more_than_the_queue_it_ends(on_slow: str, autojump_clock: MockClock) -> None:
    """Both must be: one that is late with few messages waiting has its grace still."""
    stuck = Stuck()
    subscription = stuck.subscribe("a", 3, on_slow, grace_s=5.0)
    stuck.publish("a", "1", "2")
    await trio.sleep(5.1)
    assert stuck.publish("a", "3") == []
    [verdict] = stuck.publish("a", "4")

    assert (verdict.measure, verdict.subscription, verdict.messages) == ("queue", subscription, 3)
    assert verdict.oldest_s == pytest.approx(5.1)


@pytest.mark.parametrize("on_slow", DROPPING)
async def test_late_and_with_more_than_the_queue_it_loses(on_slow: str, autojump_clock: MockClock) -> None:
    """The late ones go a few at a time, so that nobody waits while thousands are dropped; or the new ones do."""
    stuck = Stuck()
    subscription = stuck.subscribe("t.*", 3, on_slow, grace_s=5.0)
    for number in range(40):
        stuck.publish(f"t.{number}", "x")
    await trio.sleep(5.1)
    stuck.publish("t.40", "x")
    assert subscription.lost == (1 if on_slow == "drop_newest" else SHED)
    for number in range(41, 81):
        stuck.publish(f"t.{number}", "x")

    assert (subscription.waiting, subscription.lost) == ((40, 41) if on_slow == "drop_newest" else (41, 40))
    assert stuck.subscriber.verdicts == []


@pytest.mark.parametrize("on_slow", ["unsubscribe", *DROPPING])
async def test_bytes_near_their_limit_make_the_default_queue_count(on_slow: str, autojump_clock: MockClock) -> None:
    """Before the connection would have to be ended, who agreed to lose something (or to be unsubscribed) does."""
    stuck = Stuck(max_pending_bytes=20_000)
    subscription = stuck.subscribe("t.*", 3, on_slow, grace_s=5.0)
    verdicts = [verdict for number in range(500) for verdict in stuck.publish(f"t.{number}", "x" * 50)]

    assert [verdict.subscription for verdict in verdicts] == [subscription] * (on_slow == "unsubscribe")
    assert (subscription.lost > 0) is (on_slow != "unsubscribe")
    assert stuck.outbox.behind_bytes <= 20_000


async def test_bytes_end_a_burst_that_is_too_large(autojump_clock: MockClock) -> None:
    """Memory is bounded whatever the age: small messages count with their places in line."""
    stuck = Stuck(max_pending_bytes=20_000)
    stuck.subscribe("t.*", 3, grace_s=5.0)
    count = 0
    while not (verdicts := stuck.publish(f"t.{count}", "")):
        count += 1

    assert [verdict.measure for verdict in verdicts] == ["max_pending"]
    assert count < 20_000 // ENTRY_BYTES


@pytest.mark.parametrize("on_slow", ALL)
async def test_what_is_asked_for_afterwards_counts_at_once(on_slow: str, autojump_clock: MockClock) -> None:
    """A subscription that had a grace and then asks for a queue has what it asks for."""
    stuck = Stuck()
    subscription = stuck.subscribe("t.*", 3, on_slow, grace_s=5.0)
    for number in range(10):
        stuck.publish(f"t.{number}", "x")
    subscription.grace_s = None
    verdicts = stuck.publish("t.new", "x")

    assert len(verdicts) == (on_slow in ("disconnect", "unsubscribe"))
    assert subscription.waiting == {"drop_newest": 10, "disconnect": 10, "unsubscribe": 0}.get(on_slow, 3)


async def test_a_queue_that_becomes_much_smaller_loses_some_at_a_time(autojump_clock: MockClock) -> None:
    """Each message that comes drops some of those that wait, until no more wait than may."""
    stuck = Stuck()
    subscription = stuck.subscribe("a", 1000, "drop_oldest")
    for number in range(1000):
        stuck.publish("a", f"{number}")
    subscription.queue = 10
    waiting = [subscription.waiting]
    for number in range(1000, 1010):
        stuck.publish("a", f"{number}")
        waiting.append(subscription.waiting)

    assert all(before - after <= MOST_DROPPED for before, after in pairwise(waiting))
    assert waiting[-1] == 10
    assert subscription.lost == 1000
    assert [each for each in await stuck.story() if each.startswith("a ")] == [f"a {n}" for n in range(1000, 1010)]
