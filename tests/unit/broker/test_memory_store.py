"""What the store in memory costs: its look-ups, its upkeep, its memory. What it does is in tests/contract."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from heapq import heapreplace
from typing import Any

import pytest

from fanwire.broker.settings.rules import Keeping
from fanwire.broker.store import memory
from fanwire.broker.store.memory import MemoryKept, MemoryStore

SECOND = 1_000_000


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.calls = 0

    def __call__(self, *args: Any) -> Any:
        """One more."""
        self.calls += 1
        return self.function(*args)


def take(kept: MemoryKept, payload: bytes, at: int, retain: bool | None = None) -> int:
    return kept.take(6, [b"\xc4" + bytes([len(payload)]) + payload], at.to_bytes(8, "big"), retain)


def long_history(count: int) -> MemoryKept:
    kept = MemoryStore("epoch", 1 << 40, 10).topic("a", Keeping(messages=count, bytes=1 << 40))
    for number in range(count + count // 3):  # the first ones have gone
        take(kept, b"x", number * SECOND)
    return kept


@pytest.mark.parametrize("name", ["_end_of", "_stamp_of"])
def test_a_place_in_a_long_history_is_found_by_halving(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By offset and by time: 14 looks are enough for ten thousand blocks, wherever it is."""
    kept = long_history(10_000)
    looks = Counted(getattr(memory, name))
    monkeypatch.setattr(memory, name, looks)

    for offset in (3_334, 5_000, 9_999, 13_333):
        found = next(kept.runs(offset))[0] if name == "_end_of" else kept.first_since((offset - 1) * SECOND)
        assert found == offset
    assert 0 < looks.calls <= 4 * 14


def test_the_blocks_of_a_history_take_no_room_when_they_have_gone() -> None:
    """The list of them is cut off at the front now and then."""
    kept = MemoryStore("epoch", 1 << 40, 10).topic("a", Keeping(messages=100, bytes=1 << 40))
    for number in range(10_000):
        take(kept, b"x", number)

    assert len(kept.blocks) < 250
    assert [first for first, *_ in kept.runs(0)] == list(range(9_901, 10_001))


@pytest.mark.parametrize("retained", [False, True], ids=["history", "last values"])
def test_what_is_oldest_is_found_a_little_at_a_time(retained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all is too much for the first time, all topics' places by age are out of date: no publish mends them all."""
    topics, now = 5_000, 0
    store = MemoryStore("epoch", 1 << 40, topics)
    keeping = Keeping(retain=True) if retained else Keeping(messages=1, bytes=1 << 40)
    every = [store.topic(f"topic {number:05}", keeping) for number in range(topics)]
    for kept in [*every, *every]:
        now += 1
        take(kept, b"x", now)
    mended = Counted(heapreplace)
    monkeypatch.setattr(memory, "heapreplace", mended)
    store.resize(store.size * 6 // 5, topics)
    most = 0
    for kept in every:
        before, now = mended.calls, now + 1
        take(kept, bytes(200), now)
        most = max(most, mended.calls - before)
        assert store.size <= store.limit

    assert store.evicted > 0
    assert 0 < most <= 300


def test_a_lower_limit_is_reached_in_portions() -> None:
    """What is over it does not go all at once; the next publishes evict, too."""
    store = MemoryStore("epoch", 1 << 40, 10)
    kept = store.topic("a", Keeping(messages=10_000, bytes=1 << 40))
    for number in range(3_000):
        take(kept, b"x", number)
    store.resize(10_000, 10)

    assert store.shrink(500)
    assert 0 < store.evicted <= 500
    while store.shrink(500):
        pass
    assert store.size <= 10_000


KINDS: dict[str, tuple[Keeping, int]] = {
    "last values": (Keeping(retain=True), 1),
    "one message": (Keeping(messages=10, bytes=1 << 40), 1),
    "ten messages": (Keeping(messages=10, bytes=1 << 40), 10),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_counted_is_what_is_held(kind: str) -> None:
    """Names, objects and places of topics included, within a third."""
    keeping, messages = KINDS[kind]
    store = MemoryStore("epoch", 1 << 40, 1 << 40)
    tracemalloc.start()
    try:
        for number in range(5_000):
            kept = store.topic(f"some.topic.{number:06}", keeping)
            for each in range(messages):
                take(kept, number.to_bytes(10, "big"), 1_700_000_000_000_000 + number * 10 + each)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 0.75 * store.size < held < 1.05 * store.size


def test_a_topic_without_anything_is_small() -> None:
    """No history, no list for it: a million topics that have lost their last value take 300 MB."""
    store = MemoryStore("epoch", 1 << 40, 1 << 40)
    tracemalloc.start()
    try:
        for number in range(5_000):
            kept = store.topic(f"some.topic.{number:06}", Keeping(retain=True))
            take(kept, b"x", number)
            take(kept, b"", number)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert store.size == 0
    assert held < 5_000 * 450


def test_ids_count_and_long_ones_are_remembered_by_their_hash() -> None:
    """A megabyte each would be gigabytes for one topic."""
    store = MemoryStore("epoch", 1 << 40, 10)
    kept = store.topic("a", Keeping(messages=10, bytes=1 << 40))
    take(kept, b"x", 1)
    before = store.size
    for number in range(100):
        kept.remember_id(f"{number}" + "ü" * 10_000, number + 1)
        kept.remember_id(f"{number}", number + 1)

    assert 100 * 2 * 170 < store.size - before < 100 * 2 * 400
    assert (kept.offset_of("7" + "ü" * 10_000), kept.offset_of("7"), kept.offset_of("7" + "ü" * 9_999)) == (8, 8, None)


def test_ids_go_with_the_messages_that_are_evicted() -> None:
    """Of other topics' history none has to go for those of a topic that is quiet; in the end nothing is counted."""
    store = MemoryStore("epoch", 1 << 40, 10)
    old, new = (store.topic(name, Keeping(messages=1, bytes=1 << 40)) for name in ("old", "new"))
    for number in range(50):
        old.remember_id(f"id {number}", take(old, b"x", number))
    take(new, b"x", 1_000)
    store.resize(2_000, 10)
    assert not store.shrink(1_000)

    assert (old.offset_of("id 48"), old.offset_of("id 49")) == (None, None)
    assert new.newest() is not None
    store.resize(0, 10)
    assert not store.shrink(1_000)
    assert store.size == 0
