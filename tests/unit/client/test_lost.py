"""LOST, mixed with messages in one read: its mark stands in its exact place, whatever else the buffer does."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.client import LostMessages, Message, Subscription
from fanwire.protocol import BrokerEnvelope, Lost, Ok
from tests.unit.client.scripted_peer import ScriptedPeer, connected, message

# Of route 1, with those of another route and answers between them.
MIXED: tuple[BrokerEnvelope, ...] = (
    Lost(1, 2, "queue", "a.x"),
    message(1, 3, "a.x"),
    message(2, 99, "b"),
    message(1, 4, "a.y"),
    Ok(4711, {}),
    Lost(2, 7, "queue", "b"),
    Lost(1, 5, "queue", "a.x"),
    Lost(1, 1, "queue", "a.y"),
    Lost(1, 5, "queue", "a.x"),
    message(1, 5, "a.z"),
    Lost(1, 1, "queue", "a.z"),
)
SHOWN = ["2 a.x", 3, 4, "10 a.x", "1 a.y", 5, "1 a.z"]


async def _one_by_one(subscription: Subscription, count: int) -> list[object]:
    return [await anext(subscription) for _ in range(count)]


async def _in_batches(subscription: Subscription, count: int) -> list[object]:
    batches, entries = subscription.batches(most=3), list[object]()
    while len(entries) < count:
        entries += await anext(batches)
    return entries


def _shown(entry: object) -> object:
    """A message as its number, a mark as its count and topic."""
    if isinstance(entry, LostMessages):
        return f"{entry.count} {entry.topic}"
    assert isinstance(entry, Message)
    return entry.data


@pytest.mark.parametrize("iterate", [_one_by_one, _in_batches])
@pytest.mark.parametrize("on_full", ["disconnect", "drop_oldest", "drop_newest", "conflate"])
@pytest.mark.parametrize("together", [True, False])
async def test_marks_stand_where_messages_are_missing(
    peer: ScriptedPeer, autojump_clock: MockClock, iterate: object, on_full: str, together: bool
) -> None:
    """In one WebSocket message or in many, one by one or in batches, with every kind of buffer."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a.*", report_loss=True, on_full=on_full) as subscription:  # type: ignore[arg-type]
            for envelopes in [MIXED] if together else [(each,) for each in MIXED]:
                await end.send(*envelopes)
            await wait_all_tasks_blocked()
            assert subscription.waiting == 3
            with trio.fail_after(1):
                got = await iterate(subscription, len(SHOWN))  # type: ignore[operator]

            assert [_shown(entry) for entry in got] == SHOWN
            assert (subscription.lost, subscription.gaps, subscription.waiting) == (14, 0, 0)


async def test_a_mark_does_not_wait_for_the_next_message(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """A handler that waits hears of a loss at once: the next message may be long in coming."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", report_loss=True) as subscription:
            peer.nursery.start_soon(end.send, Lost(1, 5, "queue", "a"))

            with trio.fail_after(1):
                assert _shown(await anext(subscription)) == "5 a"
            assert subscription.waiting == 0


async def test_without_report_loss_it_is_only_counted(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """The stream has messages only."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a.*") as subscription:
            await end.send(*MIXED)
            await wait_all_tasks_blocked()

            assert [_shown(entry) for entry in await anext(subscription.batches())] == [3, 4, 5]
            assert subscription.lost == 14


@pytest.mark.parametrize(
    ("on_full", "shown"),
    [
        ("drop_oldest", ["1 None", "2 a.x", 4, "10 a.x", "1 a.y", 5, "1 a.z"]),
        ("drop_newest", ["2 a.x", 3, 4, "10 a.x", "1 a.y", "1 None", "1 a.z"]),
        ("conflate", ["1 None", "2 a.x", 4, "10 a.x", "1 a.y", 5, "1 a.z"]),
    ],
)
async def test_beside_what_is_lost_here(
    peer: ScriptedPeer, autojump_clock: MockClock, on_full: str, shown: list[object]
) -> None:
    """Of three messages two find room: the broker's marks stay where they stood, ours stands where ours was lost."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a.*", report_loss=True, buffer=2, on_full=on_full) as subscription:  # type: ignore[arg-type]
            await end.send(*MIXED)
            await wait_all_tasks_blocked()
            batch = await anext(subscription.batches())

            assert [_shown(entry) for entry in batch] == shown
            assert subscription.lost == 15


async def test_offsets_are_passed_on(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Where the topic keeps history a mark says which; adjoining ones become a longer stretch."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", report_loss=True) as subscription:
            await end.send(Lost(1, 5, "evicted", "a", 10, 14), Lost(1, 2, "evicted", "a", 15, 16), message(1, 1))
            await end.send(Lost(1, 3, "queue", "a"), message(1, 2))
            await wait_all_tasks_blocked()
            entries: list[object] = [*await anext(subscription.batches())]
            marks = [entry for entry in entries if isinstance(entry, LostMessages)]

    assert [(mark.count, mark.first, mark.last) for mark in marks] == [(7, 10, 16), (3, None, None)]
    assert repr(marks[0]) == "LostMessages(count=7, reason='evicted', topic='a', first=10, last=16)"


async def test_each_subscription_of_a_pattern_counts_for_itself(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """They are told of one loss; what one of them adds up is not the other's."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", report_loss=True) as one, client.subscribe("a", report_loss=True) as two:
            await end.send(Lost(1, 5, "queue", "a"))
            await wait_all_tasks_blocked()
            first = await anext(one)
            await end.send(Lost(1, 5, "queue", "a"), message(1, 1))
            await wait_all_tasks_blocked()

            assert [_shown(entry) for entry in [first, *await anext(one.batches())]] == ["5 a", "5 a", 1]
            assert [_shown(entry) for entry in await anext(two.batches())] == ["10 a", 1]
