from fanwire.client.cli.recent_rate import RecentRate


def test_a_steady_rate_is_found() -> None:
    """Ten events a second for a minute are ten a second."""
    rate = RecentRate(100.0)
    for tenth in range(600):
        rate.add(100.0 + tenth / 10)

    assert abs(rate.per_second(160.0) - 10.0) < 1.0


def test_the_first_moments_are_not_blown_up() -> None:
    """Three events in the first hundredth of a second are three a second, not three hundred."""
    rate = RecentRate(0.0)
    rate.add(0.01, 3)

    assert rate.per_second(0.01) == 3.0


def test_silence_brings_it_to_zero() -> None:
    """Five seconds after the last event the rate is zero."""
    rate = RecentRate(0.0)
    rate.add(0.5, 1000)

    assert rate.per_second(3.0) > 0
    assert rate.per_second(6.0) == 0


def test_a_long_silence_leaves_nothing_behind() -> None:
    """A slot of the ring that is met again a long time later starts at zero."""
    rate = RecentRate(0.0)
    rate.add(0.5, 1000)
    rate.add(1000.5, 1)

    assert rate.per_second(1000.5) < 1
