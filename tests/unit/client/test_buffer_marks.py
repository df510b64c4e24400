"""Marks of loss in a subscription's buffer: where they stand, and that they take no message's place."""

from typing import Any

import pytest

from fanwire.client.notices import LostMessages
from fanwire.client.subscribing.buffer import Bounds, Buffer, Conflating, Line, drop_newest, drop_oldest
from fanwire.client.subscribing.marks import KINDS_A_PLACE
from fanwire.client.subscribing.marks import lost_of as mark_in


def message(number: int, topic: str = "a") -> tuple[Any, ...]:
    return (19, 1, topic, 0, number, b"x")


def lost_of(raw: tuple[Any, ...]) -> LostMessages | None:
    """The loss that a mark tells of; None for a message."""
    mark = mark_in(raw)
    assert mark is None or isinstance(mark, LostMessages)
    return mark


def offer_all(buffer: Buffer, runs: list[list[tuple[Any, ...]]]) -> int:
    """As a subscription does with ``report_loss=True``; returns how many were lost."""
    lost = 0
    for run in runs:
        more = buffer.offer(run, len(run))
        assert more is not None
        if more:
            buffer.add_mark(LostMessages(more, "buffer", None))
        lost += more
    return lost


def shown(buffer: Buffer) -> list[object]:
    """What a handler would see: the messages' numbers, and the counts of losses in brackets."""
    return [[lost.count] if (lost := lost_of(raw)) else raw[4] for raw in buffer.take_up_to(1000)]


@pytest.mark.parametrize("size", [1, 3, 7])
def test_the_oldest_lost_are_one_mark_before_the_newest(size: int) -> None:
    """Of 100 messages offered to a buffer of ten, 90 are lost, said once, in front of the ten that are kept."""
    buffer = Line(Bounds(10, 1000), drop_oldest)
    numbers = list(range(100))

    lost = offer_all(buffer, [[message(n) for n in numbers[at : at + size]] for at in range(0, 100, size)])

    assert lost == 90
    assert len(buffer) == 10
    assert shown(buffer) == [[90], *range(90, 100)]
    assert (len(buffer), buffer.size) == (0, 0)


def test_the_newest_lost_are_one_mark_behind_what_was_kept() -> None:
    """The ten first are kept; the 90 after them are one mark, and there is room for ten again once those are taken."""
    buffer = Line(Bounds(10, 1000), drop_newest)

    lost = offer_all(buffer, [[message(n)] for n in range(100)])

    assert lost == 90
    assert shown(buffer) == [*range(10), [90]]
    assert offer_all(buffer, [[message(n)] for n in range(10)]) == 0


def test_marks_that_are_handed_out_and_not_taken_come_back() -> None:
    """A loss while some of the hand is still to be taken joins the mark at its front; nothing is counted twice."""
    buffer = Line(Bounds(4, 1000), drop_oldest)
    offer_all(buffer, [[message(n) for n in range(6)]])
    hand = buffer.hand(3)
    assert lost_of(next(hand)) is not None

    lost = offer_all(buffer, [[message(6)]])

    assert lost == 1
    assert len(buffer) == 4
    assert shown(buffer) == [[1], 3, 4, 5, 6]


def test_lost_keys_are_one_mark_before_the_keys_that_are_left() -> None:
    """A conflating buffer of two keys that saw five has lost three; replacing is no loss."""
    buffer = Conflating(Bounds(2, 1000))

    lost = offer_all(buffer, [[message(n, topic)] for n, topic in enumerate("abcdee")])

    assert lost == 3
    assert len(buffer) == 2
    assert shown(buffer) == [[3], 3, 5]


def test_losses_of_different_kinds_stay_apart() -> None:
    """What the broker lost and what this process lost are told apart."""
    buffer = Line(Bounds(10, 1000), drop_newest)
    buffer.add_mark(LostMessages(1, "queue", "a"))
    buffer.add_mark(LostMessages(2, "buffer", "a"))
    buffer.add_mark(LostMessages(None, "buffer", "a"))

    assert shown(buffer) == [[1], [2], [None]]
    assert len(buffer) == 0


@pytest.mark.parametrize(
    "buffer",
    [Line(Bounds(3, 1000), drop_newest), Line(Bounds(3, 1000), drop_oldest), Conflating(Bounds(3, 1000))],
    ids=["drop_newest", "drop_oldest", "conflate"],
)
def test_marks_are_bounded_and_complete_however_many_topics_lose(buffer: Buffer) -> None:
    """A handler that takes nothing while a broker drops from a thousand topics: hundreds of marks, not a million."""
    for turn in range(20):
        for topic in range(1000):
            buffer.add_mark(LostMessages(1, "queue", f"t.{topic}"))
        buffer.offer([message(turn, f"k.{turn}")], 1)

    losses = [lost for raw in buffer.take_up_to(100_000) if (lost := lost_of(raw))]

    assert sum(lost.count or 0 for lost in losses) == 20_000
    assert len(losses) <= 5 * (KINDS_A_PLACE + 1)


def test_the_first_kinds_of_loss_keep_their_topics() -> None:
    """Those for which there is no room any more are told in one, without a topic."""
    buffer = Line(Bounds(10, 1000), drop_newest)
    for topic in range(KINDS_A_PLACE + 10):
        buffer.add_mark(LostMessages(2, "queue", f"t.{topic}", 5, 6))

    losses = [lost_of(raw) for raw in buffer.take_up_to(1000)]

    assert [(lost.count, lost.topic, lost.first, lost.last) for lost in losses if lost] == [
        *((2, f"t.{topic}", 5, 6) for topic in range(KINDS_A_PLACE)),
        (20, None, None, None),
    ]


def test_losses_without_a_count_are_one_mark() -> None:
    """Several outages while a handler takes nothing."""
    buffer = Line(Bounds(10, 1000), drop_newest)
    for _ in range(3):
        buffer.add_mark(LostMessages(None, "reconnect", None))

    assert shown(buffer) == [[None]]
