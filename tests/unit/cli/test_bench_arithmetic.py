import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanwire.client.cli.bench.latencies import Latencies
from fanwire.client.cli.bench.plan import MIN_SIZE, WINDOW, WINDOW_BYTES, Plan, read_stamp, stamped, topic_publisher
from fanwire.client.cli.bench.result import Result
from fanwire.client.cli.bench.tally import Tally


def _of(*values: int) -> Latencies:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    return latencies


def _plan(**changes: object) -> Plan:
    settings: dict[str, object] = {
        "url": "ws://h/", "run": "r1", "mode": "tput", "publishers": 2, "subscribers": 3, "size": 128,
        "seconds": 1.0, "rate": 1000.0, "acknowledged": False,
    }  # fmt: skip
    return Plan.from_json(json.dumps(settings | changes))


def _result(**changes: object) -> Result:
    settings: dict[str, object] = {
        "plan": _plan(), "published": 10, "publish_s": 2.0, "delivered": 30, "deliver_s": 2.0, "again": 0,
        "refused": 0, "dropped_subscribers": 0, "latencies": _of(1000),
    }  # fmt: skip
    return Result(**(settings | changes))  # type: ignore[arg-type]


def test_percentiles_of_small_values_are_exact() -> None:
    """Below 128 µs each microsecond is counted by itself."""
    latencies = _of(*range(1, 101))

    assert [latencies.percentile(percent) for percent in (1, 50, 99, 99.9, 100)] == [1, 50, 99, 100, 100]


def test_999_of_1000_are_99_9_percent() -> None:
    """Binary fractions don't push a percentile one message further."""
    assert _of(*[1] * 999, 100).percentile(99.9) == 1


@given(st.lists(st.integers(0, 10**12), min_size=1))
def test_percentiles_are_never_too_good(values: list[int]) -> None:
    """The maximum is at least the true one, and at most 1.6 % above it."""
    highest = _of(*values).percentile(100)

    assert max(values) <= highest <= max(values) * 1.016


@given(st.lists(st.integers(0, 10**9), min_size=1), st.lists(st.integers(0, 10**9), min_size=1))
def test_latencies_of_two_processes_add_up(ours: list[int], theirs: list[int]) -> None:
    """Merged over JSON, two histograms are the one of all values."""
    merged = _of(*ours)
    merged.merge(Latencies.from_map(json.loads(json.dumps(_of(*theirs).to_map()))))

    assert merged.to_map() == _of(*ours, *theirs).to_map()


def test_a_clock_that_ran_backwards_counts_as_zero() -> None:
    """A negative latency is counted, as none."""
    assert _of(-5).percentile(100) == 0


def test_no_latency_has_no_percentile() -> None:
    """Asking an empty histogram is an error, not a zero that looks good."""
    with pytest.raises(ValueError, match="no latency"):
        Latencies().percentile(50)


@pytest.mark.parametrize(
    ("numbers", "received", "again", "lost"),
    [
        ([0, 1, 2, 3], 4, 0, 0),
        ([0, 1, 3], 3, 0, 1),
        ([0, 1, 1, 2, 3], 4, 1, 0),
        ([0, 2, 1, 3], 3, 1, 1),
        ([1, 2, 3], 3, 0, 1),
        ([0, 1], 2, 0, 2),
        ([], 0, 0, 4),
    ],
)
def test_what_came_what_did_not_and_what_came_again(numbers: list[int], received: int, again: int, lost: int) -> None:
    """Of four messages sent every gap is loss, at the end too; what comes again or too late is counted apart."""
    tally = Tally()
    for number in numbers:
        tally.take(number)

    assert (tally.received, tally.again, tally.lost(4)) == (received, again, lost)


def test_a_stamp_is_read_back() -> None:
    """Number and time survive, and the payload has the size that was asked for."""
    payload = stamped(7, bytes(112), 123_456_789)

    assert len(payload) == MIN_SIZE + 112
    assert read_stamp(payload) == (7, 123_456_789)


def test_a_plan_goes_to_a_worker_and_back() -> None:
    """A plan is the same behind a command line of JSON."""
    assert Plan.from_json(_plan().to_json()) == _plan()


def test_topics_of_a_run() -> None:
    """Each publisher has a topic of its own, under the pattern of the run."""
    assert (_plan().pattern, _plan().topic(1), topic_publisher(_plan().topic(1))) == ("bench.r1.*", "bench.r1.1", 1)


@pytest.mark.parametrize("publishers", [1, 3, 8192])
@pytest.mark.parametrize("size", [16, 1024, 1_000_000])
def test_all_publishers_together_stay_in_the_window(publishers: int, size: int) -> None:
    """The windows of all publishers add up to no more messages or bytes than may wait, as far as one each allows."""
    plan = _plan(publishers=publishers, size=size)

    assert plan.window >= 1
    assert plan.window * publishers <= max(WINDOW, publishers)
    assert plan.window * publishers * size <= max(WINDOW_BYTES, publishers * size)


def test_a_clean_run_is_clean() -> None:
    """Ten messages to three subscribers are thirty deliveries."""
    assert _result().clean
    assert _result().lost == 0


@pytest.mark.parametrize(
    "trouble", [{"delivered": 29}, {"again": 1}, {"refused": 1}, {"dropped_subscribers": 1}, {"published": 11}]
)
def test_any_trouble_is_not_clean(trouble: dict[str, int]) -> None:
    """One loss, one duplicate, one refusal or one dropped subscriber is told."""
    assert not _result(**trouble).clean


def test_a_result_as_a_map() -> None:
    """The figures for programs have their units in their names and are plain JSON."""
    figures = json.loads(json.dumps(_result(delivered=24).to_map()))

    assert figures["published_per_s"] == 5.0
    assert figures["delivered_per_s"] == 12.0
    assert figures["delivered_bytes_per_s"] == 12 * 128
    assert figures["lost"] == 6
    assert set(figures["latency_us"]) == {"p50", "p90", "p99", "p99.9", "max"}


def test_a_result_as_text() -> None:
    """The figures for people name losses and, where there were any, refusals."""
    text = _result(delivered=24, refused=1).to_text()

    assert "2 publishers, 3 subscribers, 128 bytes, fire and forget, full load" in text
    assert "lost                   3" in text
    assert "refused                1" in text


def test_nothing_measured_is_said() -> None:
    """A run in which nothing arrived has no latencies, and no error."""
    nothing = _result(delivered=0, deliver_s=0.0, latencies=Latencies())

    assert nothing.to_map()["latency_us"] is None
    assert "none measured" in nothing.to_text()
