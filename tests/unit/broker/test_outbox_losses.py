"""What was lost and is yet to be told is counted in bytes, and told coarser when that is too much."""

from __future__ import annotations

import pytest

from fanwire.broker.delivery import losses
from tests.unit.broker.stuck import Stuck

NAME = "n" * 100


def _lose(stuck: Stuck, count: int) -> None:
    """Fill each subscription's queue of one, with a message of a topic of its own each time."""
    for number in range(count):
        stuck.publish(f"a.{number}.{NAME}", "x")


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "conflate"])
async def test_losses_are_counted_until_they_are_told(policy: str, autojump_clock: object) -> None:
    """Afterwards nothing is noted any more."""
    stuck = Stuck()
    stuck.subscribe("a.>", 1, policy)
    assert stuck.outbox.loss_bytes == 0
    _lose(stuck, 50)
    assert 40 * (losses.FACT + len(NAME)) < stuck.outbox.loss_bytes < 60 * (losses.FACT + len(NAME)) + 2 * losses.PLACE
    assert stuck.outbox.verdict("x", None).queued_bytes > stuck.outbox.loss_bytes

    story = await stuck.story()

    assert sum(int(each.split()[1]) for each in story if each.startswith("lost")) == 49
    assert (stuck.outbox.loss_bytes, stuck.subscriber.counters.loss_bytes) == (0, 0)


async def test_of_too_many_losses_the_topics_are_not_noted(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a connection with many subscriptions; each message that was lost is told all the same."""
    most = 20_000
    monkeypatch.setattr("fanwire.broker.delivery.outbox.MAX_LOSS_BYTES", most)
    stuck = Stuck()
    for pattern in ("a.>", ">", "*.>", "*.*.*", "a.*.*", f"a.*.{NAME}", f"*.*.{NAME}", "a.*.>"):
        stuck.subscribe(pattern, 1, "drop_oldest")
    _lose(stuck, 200)
    subscriptions = len(stuck.outbox.subscriptions)

    assert stuck.outbox.loss_bytes < most + subscriptions * (losses.PLACE + 2 * (losses.FACT + len(NAME) + 10))
    story = await stuck.story()

    assert sum(int(each.split()[1]) for each in story if each.startswith("lost")) == subscriptions * 199
    assert any(each.split()[2] == "None" for each in story if each.startswith("lost"))
    assert (stuck.outbox.loss_bytes, stuck.subscriber.counters.loss_bytes) == (0, 0)


async def test_all_connections_share_a_bound(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """When much is noted for others, one more connection's losses have no topics from the start."""
    monkeypatch.setattr("fanwire.broker.delivery.outbox.MAX_TOTAL_LOSS_BYTES", 10_000)
    stuck = Stuck()
    stuck.subscriber.counters.loss_bytes = 20_000  # others'
    stuck.subscribe("a.>", 1, "drop_oldest")
    _lose(stuck, 10)

    story = await stuck.story()

    assert [each for each in story if each.startswith("lost")] == ["lost 9 None queue"]
    assert stuck.subscriber.counters.loss_bytes == 20_000


@pytest.mark.parametrize("end", ["forget", "discard", "close"])
async def test_losses_of_what_ends_are_forgotten(end: str, autojump_clock: object) -> None:
    """However it ends."""
    stuck = Stuck()
    subscription = stuck.subscribe("a.>", 3, "drop_newest")
    _lose(stuck, 50)
    assert stuck.outbox.loss_bytes

    if end == "forget":
        stuck.outbox.forget(subscription)
    else:
        getattr(stuck.outbox, end)()

    assert (stuck.outbox.loss_bytes, stuck.subscriber.counters.loss_bytes) == (0, 0)
