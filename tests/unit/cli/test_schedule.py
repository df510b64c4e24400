from trio.testing import MockClock

from fanwire.client.cli.schedule import Pace, by_group, evenly


def test_evenly_spaces_by_the_rate() -> None:
    """At four a second the fifth thing is due after one second."""
    assert list(evenly("abcde", rate=4)) == [(0.0, "a"), (0.25, "b"), (0.5, "c"), (0.75, "d"), (1.0, "e")]


def test_a_group_is_spread_over_its_time() -> None:
    """At two groups a second each takes half a second, however many things it holds."""
    assert list(by_group(["ab", "c"], speed=2)) == [(0.0, "a"), (0.25, "b"), (0.5, "c")]


async def test_pace_waits_for_what_is_due(autojump_clock: MockClock) -> None:
    """What is due three seconds after the start is reached three seconds after the start."""
    started = autojump_clock.current_time()
    pace = Pace()

    await pace.until(3.0)

    assert autojump_clock.current_time() - started == 3.0


async def test_pace_makes_up_for_being_late(mock_clock: MockClock) -> None:
    """What was due in the past is late: it is not waited for."""
    pace = Pace()
    before = pace.late(1.0)
    mock_clock.jump(5.0)

    assert (before, pace.late(1.0), pace.late(6.0)) == (False, True, False)


async def test_pace_makes_up_for_a_little(autojump_clock: MockClock) -> None:
    """Half a second late, the next things come sooner, and the one after is on time."""
    pace = Pace()
    started = autojump_clock.current_time()
    autojump_clock.jump(1.5)
    await pace.until(1.0)
    await pace.until(2.0)

    assert autojump_clock.current_time() - started == 2.0


async def test_pace_forgives_an_outage(autojump_clock: MockClock) -> None:
    """A minute late, it goes on from there at its pace: there is no flood of a minute's messages."""
    pace = Pace()
    started = autojump_clock.current_time()
    autojump_clock.jump(61.0)
    await pace.until(1.0)
    await pace.until(2.0)

    assert autojump_clock.current_time() - started == 62.0
