"""What topics remember, and what makes them forget."""

import pytest

from fanwire.broker.rules import Keeping
from fanwire.broker.store import Kept, MemoryStore
from fanwire.protocol import LocalProtocolError

HISTORY = Keeping(messages=3, bytes=10_000)
RETAINING = Keeping(retain=True)


def store(limit: int = 1_000_000, max_topics: int = 100) -> MemoryStore:
    return MemoryStore("epoch", limit, max_topics)


def take(kept: Kept, *payloads: bytes, stamp: int = 0) -> int:
    tails = [bytes((0xC4, len(payload))) + payload for payload in payloads]
    return kept.take(6, tails, stamp.to_bytes(8, "big"))


def offsets(kept: Kept, first: int = 1) -> list[int]:
    return [stored.offset for stored in kept.read(first)]


def test_offsets_go_on_when_messages_are_forgotten() -> None:
    """1, 2, 3 …, whatever is still kept of them."""
    kept = store().topic("a", HISTORY)

    firsts = [take(kept, b"1", b"2"), take(kept, b"3", b"4"), take(kept, b"5")]

    assert firsts == [1, 3, 5]
    assert (kept.first, kept.head, offsets(kept)) == (3, 5, [3, 4, 5])
    assert offsets(kept, 5) == [5]


def test_a_run_longer_than_the_history_keeps_its_end() -> None:
    """The newest messages stay."""
    kept = store().topic("a", HISTORY)
    take(kept, b"1", b"2", b"3", b"4", b"5")

    assert [stored.tail[2:] for stored in kept.read(1)] == [b"3", b"4", b"5"]


def test_a_topic_keeps_within_its_bytes_but_always_one_message() -> None:
    """However large that is."""
    kept = store().topic("a", Keeping(messages=100, bytes=200))
    for _ in range(10):
        take(kept, bytes(60))
    assert kept.size <= 200
    take(kept, bytes(255))

    assert offsets(kept) == [11]


def test_too_many_bytes_of_all_topics_evict_the_oldest_history_first() -> None:
    """Then last values, replaced longest ago first; all of it is counted."""
    kept_by = store(limit=400)
    last, old, new = (kept_by.topic(name, keep) for name, keep in (("l", RETAINING), ("o", HISTORY), ("n", HISTORY)))
    take(last, bytes(50))
    take(old, bytes(100))
    take(new, bytes(100))
    assert (last.last is None, offsets(old), offsets(new)) == (False, [1], [1])
    take(new, bytes(100))
    assert (last.last is None, offsets(old), offsets(new), kept_by.evicted) == (False, [], [1, 2], 1)
    kept_by.limit = 0
    kept_by.shrink()

    assert (last.last, offsets(new), kept_by.size, kept_by.evicted) == (None, [], 0, 4)
    assert new.head == 2


def test_an_empty_value_deletes_the_last_one() -> None:
    """And its bytes are given back."""
    kept_by = store()
    kept = kept_by.topic("a", RETAINING)
    take(kept, b"value")
    assert kept.newest() is not None
    take(kept, b"")

    assert (kept.newest(), kept_by.size) == (None, 0)


def test_history_is_forgotten_after_its_time() -> None:
    """A portion at once; topics with other times are not touched."""
    kept_by = store()
    short = kept_by.topic("s", Keeping(messages=9, seconds=1.0, bytes=1000))
    long = kept_by.topic("l", Keeping(messages=9, seconds=60.0, bytes=1000))
    for stamp in (0, 1, 2_000_000):
        take(short, b"x", stamp=stamp)
        take(long, b"x", stamp=stamp)

    assert kept_by.expire(2_000_000, most=1)
    assert offsets(short) == [2, 3]
    assert not kept_by.expire(2_000_000, most=1)
    assert (offsets(short), offsets(long)) == ([3], [1, 2, 3])


def test_topics_beyond_the_limit_are_refused_by_name() -> None:
    """Those that are known go on."""
    kept_by = store(max_topics=1)
    known = kept_by.topic("a", HISTORY)

    with pytest.raises(LocalProtocolError, match="b: the broker remembers 1 topics already") as caught:
        kept_by.topic("b", HISTORY)
    assert (caught.value.code, kept_by.topic("a", HISTORY)) == ("too_many", known)
