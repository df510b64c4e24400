"""The line: in order, bounded, and without room for the dead."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fanwire.broker.line import Entry, Line
from fanwire.broker.routes import Chunk, Route
from fanwire.broker.subscription import Subscription
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
        entry.cut(0, 0)
    line.note_dead(len(entries))


def _rest(line: Line) -> list[Entry]:
    entries = []
    while (entry := line.first()) is not None:
        entries.append(entry)
        line.take_first()
    return entries


def test_first_come_first_out() -> None:
    """Looking takes nothing away."""
    line, entries = Line(10), [_entry(b"%d" % number) for number in range(5)]
    assert line.first() is None
    assert all(line.put(entry) for entry in entries)

    assert line.first() is line.first() is entries[0]
    assert _rest(line) == entries


def test_it_is_bounded() -> None:
    """A full line takes nothing until something has left it."""
    line, entries = Line(2), [_entry(b"x") for _ in range(4)]
    assert [line.put(entry) for entry in entries] == [True, True, False, False]
    line.first()
    line.take_first()
    assert [line.put(entry) for entry in entries[2:]] == [True, False]

    assert _rest(line) == entries[1:3]


def test_the_dead_are_skipped() -> None:
    """In front, in the middle, at the end, and when all are dead."""
    line, entries = Line(10), [_entry(b"x") for _ in range(6)]
    for entry in entries:
        line.put(entry)
    _kill(line, entries[0], entries[3], entries[5])
    assert line.first() is entries[1]
    assert _rest(line) == [entries[1], entries[2], entries[4]]
    line.put(last := _entry(b"x"))
    _kill(line, last)

    assert line.first() is None
    assert line.put(entries[1])


def test_the_dead_take_nobodys_place() -> None:
    """A line that is full of dead entries has room; those alive keep their order."""
    line, entries = Line(5), [_entry(b"x") for _ in range(8)]
    for entry in entries[:5]:
        line.put(entry)
    _kill(line, entries[1], entries[3])
    assert [line.put(entry) for entry in entries[5:]] == [True, True, True]  # one place was the looked at one's

    assert _rest(line) == [entries[index] for index in (0, 2, 4, 5, 6, 7)]


def test_the_dead_do_not_stay_for_long() -> None:
    """However many die behind one that lives: at most as many as are alive, and a few, are kept."""
    line = Line(1_000_000)
    line.put(_entry(b"x"))
    for _ in range(5_000):
        entry = _entry(b"x")
        line.put(entry)
        _kill(line, entry)
        assert line._length <= 66


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


@given(st.integers(1, 6), st.lists(st.sampled_from(["put", "put", "put", "take", "look", "kill"]), max_size=60))
def test_as_a_plain_list(capacity: int, doings: list[str]) -> None:
    """Whatever is put, taken and killed in whatever order, what comes out is what a list of the living says."""
    line, living = Line(capacity), list[Entry]()
    for number, doing in enumerate(doings):
        if doing == "put":
            entry = _entry(b"x")
            room = line.put(entry)
            assert room or len(living) in (capacity, capacity + 1)
            assert not room or len(living) <= capacity
            living += [entry] * room
        elif doing == "kill" and living:
            _kill(line, living.pop(number % len(living)))
        elif doing in ("take", "look"):
            assert line.first() is (living[0] if living else None)
            if doing == "take" and living:
                line.take_first()
                del living[0]

    assert _rest(line) == living
