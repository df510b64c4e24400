"""What a connection is charged for, and when."""

from hypothesis import given
from hypothesis import strategies as st

from fanwire.broker.limits.publish_meter import Meter, buckets_of

_NONE = (None, None)


@given(reads=st.lists(st.integers(0, 300), min_size=1, max_size=100), rate=st.sampled_from([1, 50, 1000, 100_000]))
def test_all_is_charged_for_but_a_hundredth_of_a_second(reads: list[int], rate: int) -> None:
    """However it comes in, at one moment: the debt is what it would be, less what is not charged yet."""
    meter = Meter(buckets_of("", rate, None), _NONE)
    for count in reads:
        if meter.due(count, 0):
            meter.settle(0, 0.0)

    exact = buckets_of("", rate, None)[0]
    assert exact is not None
    owed = exact.take(sum(reads), 0.0)
    debt = meter.debt(0.0)
    assert owed - 0.01 - 1e-9 <= (debt.owed_s(0.0) if debt is not None else 0.0) <= owed + 1e-9


def test_low_rates_are_charged_at_once() -> None:
    """There a hundredth of a second's worth is less than a message."""
    meter = Meter(buckets_of("", 10, None), _NONE)

    assert not meter.due(0, 10**9), "bytes are not limited"
    assert meter.due(1, 10**9)


def test_the_share_of_a_user_is_smaller() -> None:
    """Since it may have very many connections."""
    meter = Meter(_NONE, buckets_of("user_", 1_000_000, 1_000_000))

    assert not meter.due(99, 99)
    assert meter.due(1, 99)
    assert meter.settle(99, 0.0) is None
    assert meter.due(0, 99 + 100)


def test_what_was_acknowledged_slows_nobody() -> None:
    """The next ones are refused instead; one that was not acknowledged does slow, and so do bytes."""
    for acknowledged, slowed in ((20, False), (19, True)):
        meter = Meter(buckets_of("", 10, None), _NONE)
        meter.acknowledged = acknowledged
        assert (meter.charge(20, 0, 0.0) is not None) is slowed
        assert meter.debt(0.0) is not None
        assert meter.debt(2.0) is None

    meter = Meter(buckets_of("", None, 10), _NONE)
    meter.acknowledged = 1
    assert meter.charge(1, 100, 0.0) is not None


def test_the_deepest_debt_is_told() -> None:
    """Of all budgets, by its name."""
    meter = Meter(buckets_of("", 100, 100), buckets_of("user_", 10, 1000))

    worst = meter.charge(200, 200, 0.0)

    assert worst is not None
    assert worst.name == "user_publish_rate"
