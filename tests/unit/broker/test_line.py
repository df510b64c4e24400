"""The line: in order, bounded, and soon rid of the dead."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from fanwire.broker.delivery.queue import ENTRY_BYTES, MOVED_EACH, PASSED, Line
from fanwire.broker.delivery.routes import Route
from fanwire.broker.delivery.subscription import Entry, Subscription
from fanwire.broker.topics.chunks import Chunk
from fanwire.protocol import Message, encode

ROUTE = Route(1, "a", wildcard=False)
SUBSCRIPTION = Subscription(ROUTE, 100)


def _message(payload: bytes) -> bytes:
    return encode(Message(ROUTE.number, None, 0, 1 << 50, payload))


def _entry(*payloads: bytes) -> Entry:
    data = b"".join(map(_message, payloads))
    return Entry(SUBSCRIPTION, Chunk(ROUTE, "a", data, len(payloads), 0.0))


def _kill(line: Line, *entries: Entry) -> None:
    for entry in entries:
        entry.kill()
    line.note_dead(len(entries))


def _take(line: Line) -> Entry | None:
    """The first in line, in a step of its own."""
    line.may_pass = PASSED
    entry = line.first()
    if entry is not None:
        line.head = None
    return entry


def _rest(line: Line) -> list[Entry]:
    entries = []
    while line.first() or line.length:
        if (entry := _take(line)) is not None:
            entries.append(entry)
    return entries


def test_first_come_first_out() -> None:
    """Looking takes nothing away."""
    line, entries = Line(None), [_entry(b"%d" % number) for number in range(5)]
    assert line.first() is None
    for entry in entries:
        line.put(entry)

    assert line.first() is line.first() is entries[0]
    assert _rest(line) == entries


def test_it_is_bounded() -> None:
    """Whoever puts more in it than it may hold has not counted."""
    line, entries = Line(ENTRY_BYTES), [_entry(b"x") for _ in range(3)]
    for entry in entries[:2]:
        line.put(entry)
    with pytest.raises(trio.WouldBlock):
        line.put(entries[2])

    assert (line.length, _rest(line)) == (2, entries[:2])


def test_the_dead_are_skipped() -> None:
    """In front, in the middle, at the end, and when all are dead."""
    line, entries = Line(None), [_entry(b"x") for _ in range(6)]
    for entry in entries:
        line.put(entry)
    _kill(line, entries[0], entries[3], entries[5])
    assert line.first() is entries[1]
    assert _rest(line) == [entries[1], entries[2], entries[4]]
    line.put(last := _entry(b"x"))
    _kill(line, last)

    assert line.first() is None


def test_the_dead_do_not_stay_for_long() -> None:
    """However many die behind one that lives: at most as many as are alive, and a few, are kept."""
    line = Line(None)
    line.put(_entry(b"x"))
    for _ in range(5_000):
        entry = _entry(b"x")
        line.put(entry)
        _kill(line, entry)
        assert line.length <= 66 + 66 // MOVED_EACH


def test_a_part_of_an_entry() -> None:
    """Cut at its front and at its end, its size and bytes are those of what remains."""
    payloads = [b"one", b"two", b"three", b"four" * 100, b"five" * 20_000]
    messages = list(map(_message, payloads))
    entry = _entry(*payloads)
    assert (entry.count, entry.data()) == (5, b"".join(messages))
    assert entry.size == len(entry.data())
    assert entry.cut(1, 4) == len(messages[0])
    assert (entry.count, entry.data()) == (4, b"".join(messages[1:]))
    assert entry.size == len(entry.data())
    assert entry.cut(1, 2) == len(messages[1] + messages[4])
    assert (entry.count, entry.data()) == (2, messages[2] + messages[3])
    assert entry.cut(2, 0) == len(messages[2] + messages[3])

    assert (entry.count, entry.size) == (0, 0)


@given(st.lists(st.sampled_from(["put", "put", "put", "take", "look", "kill", "kill"]), max_size=400))
def test_as_a_plain_list(doings: list[str]) -> None:
    """Whatever is put, taken and killed in whatever order, what comes out is what a list of the living says."""
    line, living = Line(None), list[Entry]()
    for number, doing in enumerate(doings):
        if doing == "put":
            living.append(_entry(b"x"))
            line.put(living[-1])
        elif doing == "kill" and living:
            _kill(line, living.pop(number % len(living)))
        elif doing in ("take", "look"):
            assert line.first() is (living[0] if living else None)
            if doing == "take" and living:
                assert _take(line) is living[0]
                del living[0]

    assert _rest(line) == living


def test_no_call_looks_at_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many die at once, in front or behind: the rest is looked at later, and order and number stay."""
    looked = 0
    receive = trio.MemoryReceiveChannel.receive_nowait

    def counted(channel: trio.MemoryReceiveChannel[Entry]) -> Entry:
        nonlocal looked
        looked += 1
        return receive(channel)

    monkeypatch.setattr(trio.MemoryReceiveChannel, "receive_nowait", counted)
    line, entries = Line(None), [_entry(b"x") for _ in range(20 * PASSED)]
    for entry in entries:
        line.put(entry)
    for number in reversed(range(len(entries))):
        if number < 5 * PASSED or number % 3:
            looked = 0
            _kill(line, entries[number])
            assert looked <= 4 + MOVED_EACH + 1
    found, living = list[Entry](), [entry for entry in entries if entry.count]
    while line.length or line.first():
        line.may_pass, looked, taken = PASSED, 0, 0
        while (first := line.first()) is not None:
            found.append(first)
            line.head = None
            taken += 1
        assert looked <= taken + PASSED + 1, "of the dead no more than may be passed over, in front and in between"
        looked = 0
        line.refill(MOVED_EACH)
        assert looked <= MOVED_EACH

    assert found == living


def test_a_line_that_is_refilled_is_bounded_like_any_other() -> None:
    """Its two channels together hold no more than one may."""
    line, entries = Line(400 * ENTRY_BYTES), [_entry(b"x") for _ in range(401)]
    for entry in entries:
        line.put(entry)
    for entry in entries[1:250]:
        _kill(line, entry)
    assert line.refill(0), "it is being refilled"
    room = 401 - line.length
    assert room > 0
    for _ in range(room):
        line.put(_entry(b"y"))
    with pytest.raises(trio.WouldBlock):
        line.put(_entry(b"z"))
    while line.refill(MOVED_EACH):
        pass

    assert len(_rest(line)) == 401 - 249 + room
