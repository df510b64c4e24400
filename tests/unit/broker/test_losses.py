"""What is told of losses: adjoining ones of a topic are one, and there is an end to telling topics apart."""

from __future__ import annotations

from fanwire.broker.delivery.losses import MAX_TOPICS, Losses
from fanwire.broker.delivery.routes import Route
from fanwire.protocol import Lost, decode_from_broker


def _told(losses: Losses) -> list[object]:
    return list(decode_from_broker(b"".join(losses.envelopes(7))))


def test_adjoining_losses_of_a_topic_are_one() -> None:
    """One LOST a topic, in the order in which topics first lost something."""
    losses = Losses("queue")
    for topic, count in [("a", 1), ("b", 2), ("a", 3)]:
        losses.note(topic, count)

    assert _told(losses) == [Lost(7, 4, "queue", "a"), Lost(7, 2, "queue", "b")]


def test_merging() -> None:
    """What was lost right behind it is added, topic by topic."""
    first, second = Losses("keys"), Losses("keys")
    first.note("a", 1)
    second.note("b", 5)
    second.note("a", 2)
    first.merge(second)

    assert _told(first) == [Lost(7, 3, "keys", "a"), Lost(7, 5, "keys", "b")]


def test_topics_are_told_apart_up_to_a_number() -> None:
    """256 of them; with one more there is one LOST of no topic, with the whole count, and it stays one."""
    losses = Losses("queue")
    for number in range(MAX_TOPICS):
        losses.note(f"t.{number}", 2)
    losses.note("t.0", 1)
    assert len(_told(losses)) == MAX_TOPICS
    losses.note("one more", 4)
    assert _told(losses) == [Lost(7, 2 * MAX_TOPICS + 5, "queue", None)]
    losses.note("t.0", 10)
    losses.note("another", 100)

    assert _told(losses) == [Lost(7, 2 * MAX_TOPICS + 115, "queue", None)]


def test_merging_keeps_to_that_number() -> None:
    """Two that are within it can be beyond it together."""
    first, second = Losses("queue"), Losses("queue")
    for number in range(200):
        first.note(f"a.{number}", 1)
        second.note(f"b.{number}", 1)
    first.merge(second)
    assert _told(first) == [Lost(7, 400, "queue", None)]
    third = Losses("queue")
    third.note("a.1", 1)
    third.merge(first)

    lost = [each for each in _told(third) if isinstance(each, Lost)]
    assert sum(each.count or 0 for each in lost) == 401


def test_to_be_gathered_among_messages() -> None:
    """The same envelopes; they say what they are, and count as no message."""
    losses = Losses("keys")
    losses.note("a", 3)
    losses.note(None, 2)
    chunks = losses.chunks(Route(7, ">", wildcard=True), 1.5, frozenset({"a"}))

    assert [chunk.data for chunk in chunks] == losses.envelopes(7)
    assert [(chunk.topic, chunk.lost, chunk.reason, chunk.count, chunk.born) for chunk in chunks] == [
        ("a", 3, "keys", 0, 1.5),
        ("", 2, "keys", 0, 1.5),
    ]
    assert {chunk.keys for chunk in chunks} == {frozenset({"a"})}
