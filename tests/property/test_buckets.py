"""A bucket lets through what it says over any stretch of time, whatever is asked of it when."""

from hypothesis import given
from hypothesis import strategies as st

from fanwire.broker.limits.token_bucket import Bucket

_RATES = st.sampled_from([0.1, 1 / 3, 1.0, 7.0, 100.0, 1e6])
_BURSTS = st.integers(1, 50)
_WAITS = st.lists(st.floats(0, 20), min_size=1, max_size=200)


@given(rate=_RATES, burst=_BURSTS, waits=_WAITS)
def test_never_more_than_the_burst_and_the_rate(rate: float, burst: int, waits: list[float]) -> None:
    """In every stretch between two moments at which something was taken."""
    bucket, now, taken = Bucket("", rate, burst), 100.0, list[float]()
    for wait in waits:
        now += wait / rate
        if not bucket.owed_s(now):
            bucket.take(1, now)
            taken.append(now)

    for first, began in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - began) * rate + 1e-3


@given(rate=_RATES, burst=_BURSTS)
def test_a_whole_burst_at_once_and_one_more_when_its_time_has_come(rate: float, burst: int) -> None:
    """From a full bucket exactly so many; then as long as it says, and not before."""
    bucket, now = Bucket("", rate, burst), 5000.0
    for _ in range(burst):
        assert bucket.owed_s(now) == 0
        bucket.take(1, now)

    owed = bucket.owed_s(now)

    assert abs(owed - 1 / rate) < 1e-6
    assert bucket.owed_s(now + owed * 0.99 - 1e-6) > 0
    assert bucket.owed_s(now + owed) == 0


@given(rate=_RATES, burst=_BURSTS, counts=st.lists(st.integers(0, 10_000), min_size=1, max_size=20))
def test_debts_are_paid_at_the_rate(rate: float, burst: int, counts: list[int]) -> None:
    """What was taken beyond what there was takes its time, however it was taken."""
    bucket, now = Bucket("", rate, burst), 10.0
    for count in counts:
        owed = bucket.take(count, now)

    expected = max(0.0, (sum(counts) - (burst - 1)) / rate)
    assert abs(owed - expected) <= 1e-6 + 1e-9 * expected
    assert bucket.owed_s(now + expected + 1e-3) == 0
    assert bucket.full(now + expected + burst / rate + 1e-3)


@given(waits=_WAITS)
def test_who_stays_within_the_rate_is_never_refused(waits: list[float]) -> None:
    """Coming once an interval, or later."""
    bucket, now = Bucket("", 2.0, 1), 0.0
    for wait in waits:
        assert bucket.owed_s(now) == 0
        bucket.take(1, now)
        now += 0.5 + wait


def test_another_rate_keeps_the_debt() -> None:
    """In seconds; from then on the new rate counts."""
    bucket = Bucket("", 1, 1)
    bucket.take(5, 0.0)

    bucket.change(10, 10)

    assert bucket.owed_s(0.0) == 5
    assert round(bucket.take(10, 0.0), 6) == 6
