"""What the broker relies on, of every `Store`: offsets, bounds, what goes first, last values, ids, pages."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanwire.broker.settings.rules import Keeping
from fanwire.broker.store.interface import KEPT_IDS, Kept, Store, Stored
from fanwire.protocol import LocalProtocolError

from .stores import STORES, Open

HISTORY = Keeping(messages=3, bytes=10_000)
RETAINING = Keeping(retain=True)
BOTH = Keeping(retain=True, messages=3, bytes=10_000)
ASKED = Keeping()
SECOND = 1_000_000

Make = Callable[..., Store]


@pytest.fixture(params=list(STORES.values()), ids=list(STORES))
def make(request: pytest.FixtureRequest) -> Make:
    """Opens a store of each kind: ``make(limit=…, max_topics=…)``."""
    return _making(request.param)


def _making(opening: Open) -> Make:
    def make(limit: int = 1_000_000, max_topics: int = 100) -> Store:
        return opening("epoch", limit, max_topics)

    return make


def _tail(payload: bytes) -> bytes:
    return b"\xc5" + len(payload).to_bytes(2, "big") + payload


def take(kept: Kept, *payloads: bytes, at_s: float = 0, retain: bool | None = None) -> int:
    return kept.take(6, [_tail(payload) for payload in payloads], int(at_s * SECOND).to_bytes(8, "big"), retain)


def payload(stored: Stored | None) -> bytes | None:
    return None if stored is None else stored.tail[3:]


def read(kept: Kept, first: int = 1) -> list[Stored]:
    """One by one what `runs` gives."""
    return [
        Stored(offset, stamp, elements, tail)
        for begin, stamp, elements, tails in kept.runs(first)
        for offset, tail in enumerate(tails, begin)
    ]


def payloads(kept: Kept, first: int = 1) -> list[bytes | None]:
    return [payload(stored) for stored in read(kept, first)]


def offsets(kept: Kept, first: int = 1) -> list[int]:
    return [stored.offset for stored in read(kept, first)]


# --------------------------------------------------------------------- topics


def test_it_has_the_epoch_that_it_was_given(make: Make) -> None:
    """Offsets mean something only together with it."""
    assert make().epoch == "epoch"


def test_topics_are_numbered_as_they_came(make: Make) -> None:
    """A cursor can walk over them; each is found by its name, and is the same one each time."""
    store = make()
    a, b = store.topic("a", HISTORY), store.topic("b", ASKED)

    assert [(kept.serial, kept.name, kept.keeping) for kept in store.topics] == [(0, "a", HISTORY), (1, "b", ASKED)]
    assert (store.find("a"), store.find("b"), store.find("c")) == (a, b, None)
    assert store.topic("a", HISTORY) is a


def test_topics_beyond_the_limit_are_refused_by_name(make: Make) -> None:
    """Those that are known go on."""
    store = make(max_topics=1)
    known = store.topic("a", HISTORY)

    with pytest.raises(LocalProtocolError, match="b: the broker remembers 1 topics already") as caught:
        store.topic("b", HISTORY)
    assert (caught.value.code, store.topic("a", HISTORY), len(store.topics)) == ("too_many", known, 1)


# -------------------------------------------------------------------- offsets


def test_offsets_go_on_when_messages_are_forgotten(make: Make) -> None:
    """1, 2, 3 …, whatever is still kept of them."""
    kept = make().topic("a", HISTORY)
    before = (kept.first, kept.head, offsets(kept))

    firsts = [take(kept, b"1", b"2"), take(kept, b"3", b"4"), take(kept, b"5")]

    assert before == (1, 0, [])
    assert firsts == [1, 3, 5]
    assert (kept.first, kept.head, offsets(kept)) == (3, 5, [3, 4, 5])


def test_each_topic_has_offsets_of_its_own(make: Make) -> None:
    """And one without history has none."""
    store = make()
    a, b, plain = store.topic("a", HISTORY), store.topic("b", HISTORY), store.topic("c", RETAINING)

    assert [take(a, b"x"), take(b, b"x", b"x"), take(a, b"x"), take(plain, b"x")] == [1, 1, 2, 0]
    assert (a.head, b.head, plain.head) == (2, 2, 0)
    assert (a.has_history, plain.has_history, offsets(plain)) == (True, False, [])


def test_a_message_is_kept_as_it_was_published(make: Make) -> None:
    """Time, form and bytes."""
    kept = make().topic("a", BOTH)
    kept.take(8, [b"one", b"two"], (1234567).to_bytes(8, "big"))

    assert read(kept, 1) == [
        Stored(1, (1234567).to_bytes(8, "big"), 8, b"one"),
        Stored(2, (1234567).to_bytes(8, "big"), 8, b"two"),
    ]
    assert kept.newest() == kept.last == Stored(2, (1234567).to_bytes(8, "big"), 8, b"two")
    assert kept.last is not None
    assert kept.last.time_us == 1234567


# --------------------------------------------------------------------- bounds


def test_a_run_longer_than_the_history_keeps_its_end(make: Make) -> None:
    """The newest messages stay."""
    kept = make().topic("a", HISTORY)

    assert take(kept, b"1", b"2", b"3", b"4", b"5") == 1
    assert payloads(kept) == [b"3", b"4", b"5"]


def test_a_topic_keeps_within_its_bytes_but_always_one_message(make: Make) -> None:
    """However large that is."""
    kept = make().topic("a", Keeping(messages=100, bytes=11_000))
    for number in range(1, 11):
        take(kept, bytes(3_000))
        assert offsets(kept) == list(range(max(1, number - 2), number + 1))
    take(kept, bytes(20_000))

    assert offsets(kept) == [11]


def test_history_is_forgotten_after_its_time(make: Make) -> None:
    """A portion at once; topics with other times are not touched, and offsets go on."""
    store = make()
    short = store.topic("s", Keeping(messages=9, seconds=1.0, bytes=10_000))
    long = store.topic("l", Keeping(messages=9, seconds=60.0, bytes=10_000))
    for at_s in (0, 0.5, 2):
        take(short, b"x", at_s=at_s)
        take(long, b"x", at_s=at_s)

    assert store.expire(2 * SECOND, most=1)
    assert offsets(short) == [2, 3]
    assert not store.expire(2 * SECOND, most=100)
    assert (offsets(short), offsets(long)) == ([3], [1, 2, 3])
    assert not store.expire(10 * SECOND, most=100)
    assert (offsets(short), short.first, take(short, b"x")) == ([], 4, 4)


def test_last_values_stay_when_history_is_forgotten_after_its_time(make: Make) -> None:
    """The time is the history's."""
    store = make()
    kept = store.topic("a", Keeping(retain=True, messages=9, seconds=1.0, bytes=10_000))
    take(kept, b"x")
    store.expire(5 * SECOND, most=100)

    assert (payloads(kept), payload(kept.newest())) == ([], b"x")


def test_a_message_larger_than_all_that_a_topic_may_keep_is_kept_alone(make: Make) -> None:
    """And nothing has gone as long as nothing came before it."""
    kept = make().topic("a", Keeping(messages=9, bytes=100))
    take(kept, bytes(500), at_s=1)
    assert (offsets(kept), kept.gone_us) == ([1], 0)
    take(kept, bytes(500), bytes(500), at_s=2)

    assert (offsets(kept), kept.gone_us) == ([3], 2 * SECOND)


def test_too_many_bytes_of_all_topics_evict_the_oldest_history_first(make: Make) -> None:
    """Across topics; last values stay as long as there is any history; what goes is counted."""
    store = make(limit=12_000)
    last, old, new = store.topic("l", RETAINING), store.topic("o", HISTORY), store.topic("n", HISTORY)
    take(last, bytes(2_000))
    take(old, bytes(3_000))
    take(new, bytes(3_000))
    assert (offsets(old), offsets(new), store.evicted) == ([1], [1], 0)
    take(new, bytes(3_000))

    assert (offsets(old), offsets(new), last.last is None, store.evicted) == ([], [1, 2], False, 1)
    assert store.size <= 12_000
    assert (old.head, old.first, take(old, b"x")) == (1, 2, 2)


def test_then_last_values_go_replaced_longest_ago_first(make: Make) -> None:
    """It counts when a value was last replaced, not when its topic was first seen."""
    store = make(limit=11_000)
    a, b, c, d = (store.topic(name, RETAINING) for name in "abcd")
    for second, kept in enumerate((a, b, c, a, d)):
        take(kept, bytes(3_000), at_s=second)

    assert [kept.last is not None for kept in (a, b, c, d)] == [True, False, True, True]
    assert store.evicted == 1
    assert store.size <= 11_000


def test_what_is_forgotten_gives_its_bytes_back(make: Make) -> None:
    """By its topic's rule, by time, by deletion; none of that counts as evicted."""
    store = make()
    by_rule = store.topic("r", HISTORY)
    timed, value = store.topic("t", Keeping(messages=9, seconds=1.0, bytes=10_000)), store.topic("v", RETAINING)
    take(by_rule, b"x", b"x", b"x")
    full = store.size
    take(by_rule, b"x", b"x", b"x")
    assert store.size == full
    take(timed, b"x")
    take(value, b"x")
    assert store.size > full
    store.expire(5 * SECOND, most=100)
    take(value, b"")

    assert (store.size, store.evicted) == (full, 0)


# ---------------------------------------------------------------- last values


def test_a_rule_retains_or_a_publish_asks_for_it(make: Make) -> None:
    """The last message of a run is the value; without rule and wish nothing is."""
    store = make()
    ruled, asked = store.topic("a", RETAINING), store.topic("b", ASKED)
    take(ruled, b"1", b"2")
    take(asked, b"1")
    assert (payload(ruled.last), asked.last) == (b"2", None)
    take(asked, b"2", retain=True)
    take(asked, b"3")

    assert (payload(asked.last), payload(asked.newest())) == (b"2", b"2")


def test_without_retained_values_the_newest_of_the_history_is_the_last_one(make: Make) -> None:
    """As long as it is kept."""
    store = make()
    kept = store.topic("a", Keeping(messages=3, seconds=1.0, bytes=10_000))
    take(kept, b"1", b"2")
    assert payload(kept.newest()) == b"2"
    store.expire(5 * SECOND, most=100)

    assert kept.newest() is None


EMPTY = [
    b"\xc4\x00",
    b"\xc5\x00\x00",  # lengths need not be in their shortest form
    b"\xc6\x00\x00\x00\x00",
    b"\xc4\x00\x02",  # with an encoding
    b"\xc4\x00\x01\x81\xa3key\xa1k",  # and with meta
]


@pytest.mark.parametrize("empty", EMPTY, ids=bytes.hex)
def test_an_empty_value_deletes_the_last_one(make: Make, empty: bytes) -> None:
    """With any encoding, key and headers. In the history it stands as any other message."""
    kept = make().topic("a", BOTH)
    take(kept, b"value")
    kept.take(6, [empty], bytes(8))

    assert (kept.last, kept.newest(), kept.head) == (None, None, 2)
    assert [stored.tail for stored in read(kept, 2)] == [empty]


# ------------------------------------------------------------------------ ids


def test_ids_are_remembered_with_their_offsets(make: Make) -> None:
    """Of each topic apart; those of long ago are forgotten."""
    store = make()
    kept, other = store.topic("a", HISTORY), store.topic("b", HISTORY)
    for number in range(KEPT_IDS + 1):
        kept.remember_id(f"id {number}", number + 1)

    assert kept.offset_of("id 0") is None
    assert (kept.offset_of("id 1"), kept.offset_of(f"id {KEPT_IDS}")) == (2, KEPT_IDS + 1)
    assert other.offset_of("id 1") is None


# ---------------------------------------------------------------------- pages


def test_a_page_begins_at_any_offset(make: Make) -> None:
    """Within a run, too; before what is kept it begins with the oldest, beyond the head it is empty."""
    kept = make().topic("a", Keeping(messages=5, bytes=10_000))
    take(kept, b"1", b"2", b"3")
    take(kept, b"4", b"5", b"6")

    assert [offsets(kept, first) for first in (0, 1, 3, 5, 6, 7, 100)] == [
        [2, 3, 4, 5, 6], [2, 3, 4, 5, 6], [3, 4, 5, 6], [5, 6], [6], [], [],
    ]  # fmt: skip


def test_it_is_known_until_when_messages_are_gone(make: Make) -> None:
    """Whether by number, by time, or because all together were too many: so a replay by time can say what misses."""
    store = make(limit=12_000)
    kept = store.topic("a", Keeping(messages=3, seconds=60, bytes=20_000))
    take(kept, b"1", at_s=1)
    take(kept, b"2", b"3", at_s=2)
    before = kept.gone_us
    take(kept, b"4", at_s=3)
    by_number = kept.gone_us
    take(kept, b"5", at_s=4)
    by_half_a_run = kept.gone_us
    store.expire(64 * SECOND, most=100)
    by_time = kept.gone_us
    take(store.topic("b", Keeping(messages=9, bytes=20_000)), bytes(11_800), at_s=5)

    assert [before, by_number, by_half_a_run, by_time, kept.gone_us] == [0, SECOND, 2 * SECOND, 3 * SECOND, 4 * SECOND]


def test_history_begins_where_a_time_does(make: Make) -> None:
    """At the oldest message of that time or later; behind the head when there is none."""
    kept = make().topic("a", Keeping(messages=5, bytes=10_000))
    take(kept, b"1", b"2", at_s=1)
    take(kept, b"3", at_s=3)

    assert [kept.first_since(int(at_s * SECOND)) for at_s in (0, 1, 1.5, 3, 4)] == [1, 1, 3, 3, 4]


RUNS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 6), st.integers(0, 400)), max_size=40)


@pytest.mark.parametrize("opening", STORES.values(), ids=list(STORES))
@settings(max_examples=100, deadline=None)
@given(runs=RUNS, limit=st.integers(1_000, 12_000), page=st.integers(1, 5))
def test_what_is_kept_is_a_run_without_a_gap_up_to_the_head(
    opening: Open, runs: list[tuple[str, int, int]], limit: int, page: int
) -> None:
    """For any schedule, read in pages of any length; all bounds hold; nothing is counted twice or not at all."""
    store = _making(opening)(limit=limit)
    keepings = {"a": Keeping(messages=4, bytes=2_000), "b": BOTH, "c": Keeping(messages=50, bytes=1_500)}
    published: dict[str, list[bytes]] = {name: [] for name in keepings}
    for name, count, size in runs:
        some = [f"{len(published[name]) + each}".encode().ljust(size, b".") for each in range(count)]
        kept = store.topic(name, keepings[name])
        assert take(kept, *some) == len(published[name]) + 1
        published[name] += some

        assert store.size <= limit
        assert kept.head == len(published[name])
        found: list[Stored] = []
        while some_more := read(kept, found[-1].offset + 1 if found else 0)[:page]:
            found += some_more
        assert [stored.offset for stored in found] == list(range(kept.first, kept.head + 1))
        assert [payload(stored) for stored in found] == published[name][kept.first - 1 :]
        assert len(found) <= (keepings[name].messages or 0)


# ---------------------------------------------------------------- other rules


def test_other_rules_hold_at_once(make: Make) -> None:
    """Of history, of the last value, and of how long both are kept."""
    store = make()
    short, gone, kept = store.topic("short", BOTH), store.topic("gone", BOTH), store.topic("kept", BOTH)
    for topic in (short, gone, kept):
        take(topic, b"1", b"2", b"3")
    size = store.size

    rules = {"short": Keeping(True, 1, None, 10_000), "gone": Keeping(False), "kept": BOTH}
    store.change(rules.__getitem__)

    assert (payloads(short), payloads(gone), payloads(kept)) == ([b"3"], [], [b"1", b"2", b"3"])
    assert (short.last is None, gone.last, kept.last is None) == (False, None, False)
    assert store.size < size


def test_history_that_begins_anew_leaves_an_offset_out(make: Make) -> None:
    """What was published in between had none: who knows the last one of before is told of a loss."""
    store = make()
    kept = store.topic("a", HISTORY)
    take(kept, b"1", b"2")

    store.change(lambda _name: Keeping())
    between = take(kept, b"3")
    store.change(lambda _name: HISTORY)

    assert (between, take(kept, b"4")) == (0, 4)
    assert (kept.first, kept.gone_us > 0) == (4, True)


def test_history_gets_another_age(make: Make) -> None:
    """Also what was there before, in the right order."""
    store = make()
    a, b = store.topic("a", HISTORY), store.topic("b", HISTORY)
    for topic, second in ((a, 1), (b, 2), (a, 3)):
        topic.take(6, [b"x"], (second * 1_000_000).to_bytes(8, "big"))

    store.change(lambda _name: Keeping(messages=3, seconds=10.0, bytes=10_000))
    store.expire(12_500_000, 100)

    assert (offsets(a), offsets(b)) == ([2], [])
    store.change(lambda _name: HISTORY)
    store.expire(99_000_000, 100)
    assert offsets(a) == [2]


def test_other_bounds_evict_at_once(make: Make) -> None:
    """And hold from then on."""
    store = make()
    kept = store.topic("a", HISTORY)
    take(kept, b"1")

    store.resize(1, 1)
    assert not store.shrink(100)

    assert (payloads(kept), store.evicted) == ([], 1)
    with pytest.raises(LocalProtocolError, match="1 topics"):
        store.topic("b", HISTORY)
