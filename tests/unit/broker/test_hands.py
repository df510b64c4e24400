"""What one member of a queue group has: its window, what is finished, what is given up."""

from __future__ import annotations

from functools import partial

from fanwire.broker.delivery.fanout import Fanout
from fanwire.broker.delivery.hands import GOOD_S, LEAST, MOST, MOST_BYTES, Hand, Held
from fanwire.broker.delivery.routes import Registry
from fanwire.broker.options.queue_groups import GroupRoute
from fanwire.broker.telemetry.statistics import Counters
from fanwire.broker.topics.chunks import Chunk


def _hand() -> Hand:
    hand = Hand()
    hand.begin(0.0)
    return hand


def _chunk(count: int = 1) -> Chunk:
    return Chunk(
        Registry(group_route=partial(GroupRoute, fanout=Fanout(Counters()))).route("a", "g"),
        "a",
        b"x" * 10 * count,
        count,
        0.0,
    )


def _give(hand: Hand, count: int, now: float = 0.0, size: int = 10) -> None:
    hand.given += count
    hand.hold(Held(_chunk(count), count, now, size))


def test_the_window_doubles_while_all_of_it_is_finished_soon() -> None:
    """As far as it may; and not when less than half of it was in use."""
    hand, taken, windows = _hand(), 0, []
    for _ in range(12):
        count = hand.room
        _give(hand, count)
        taken += count
        hand.finish(taken, 10_000, GOOD_S)
        windows.append(hand.window)
    assert windows == [4, 8, 16, 32, 64, 128, 256, 512, 1024, MOST, MOST, MOST]

    other = _hand()
    other.window = 100
    _give(other, 10)
    other.finish(10, 10_000, 0.1)
    assert other.window == 100


def test_the_window_is_no_longer_than_the_queue() -> None:
    """So no policy drops what is given within it."""
    hand, taken = _hand(), 0
    for _ in range(10):
        count = hand.room
        _give(hand, count)
        taken += count
        hand.finish(taken, 50, 0.0)

    assert hand.window == 50


def test_the_window_shrinks_as_messages_take_longer() -> None:
    """To what is done in a quarter of a second, and never under two."""
    hand = _hand()
    hand.window = 100
    _give(hand, 100)
    hand.finish(100, 1000, 10 * GOOD_S)
    assert hand.window == 10
    _give(hand, 10)
    hand.finish(110, 1000, 1000 * GOOD_S)
    assert hand.window == LEAST


def test_large_messages_have_a_window_in_bytes() -> None:
    """Of two there may always be room."""
    hand = _hand()
    hand.window = 100
    _give(hand, 1, size=2 * MOST_BYTES)
    assert hand.room == 99
    _give(hand, 1, size=2 * MOST_BYTES)
    assert hand.room == 0
    hand.finish(2, 1000, 0.0)
    assert (hand.room, hand.size) == (100, 0)


def test_what_is_finished_is_told_as_one_number() -> None:
    """A number that says less than one before, or more than there is, does no harm."""
    hand = _hand()
    _give(hand, 3)
    _give(hand, 2)
    assert hand.finish(4, 1000, 0.0) == 10
    assert hand.finish(1, 1000, 0.0) == 0
    assert (hand.unfinished, [(held.first, held.count) for held in hand.held]) == (1, [(1, 1)])
    assert hand.finish(1 << 60, 1000, 0.0) == 10
    assert (hand.unfinished, list(hand.held)) == (0, [])


def test_what_its_policy_has_dropped_is_not_waited_for() -> None:
    """The client never hears of it, and counts on without it."""
    hand = _hand()
    _give(hand, 5)
    hand.lose(2)
    assert hand.unfinished == 3
    hand.finish(3, 1000, 0.0)
    assert hand.unfinished == 0


def test_what_is_given_up_stays_unfinished() -> None:
    """All but what is to be kept; once the client has finished it there is room again."""
    hand = _hand()
    _give(hand, 3)
    _give(hand, 2)
    goes = hand.give_up(keep=1)

    assert [(held.first, held.count, held.size) for held in goes] == [(1, 2, 10), (0, 2, 10)]
    assert [(held.chunk is None, held.count) for held in hand.held] == [(False, 1), (True, 2), (True, 2)]
    assert (hand.unfinished, hand.size) == (5, 0)
    assert hand.finish(5, 1000, 0.0) == 0
    assert hand.unfinished == 0
