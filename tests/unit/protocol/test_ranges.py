"""Ranges take finite numbers between their bounds, and say what is wrong with others."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest

from fanwire.protocol import Fetch, LocalProtocolError, Replay, Subscribe, SubscribeOptions
from fanwire.protocol.ranges import COUNT, RATE, SECONDS, Range, range_of


@attrs.frozen
class _Settings:
    pause_s: float = attrs.field(default=1.0, validator=SECONDS)
    name: str = "x"


NO_NUMBERS = [math.nan, math.inf, -math.inf, 1e308, -1.0, "1", True, None, [1]]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize("allowed", [COUNT, SECONDS, RATE], ids=str)
def test_what_is_not_a_number_of_the_range_is_refused(allowed: Range, value: Any) -> None:
    """With the name, the range and the value in the message."""
    with pytest.raises(ValueError, match="limit must be a ") as caught:
        allowed.check("limit", value)

    assert str(caught.value) == f"limit must be {allowed}, not {value!r}"


def test_the_bounds_belong_to_the_range() -> None:
    """Also None, where it means "no limit"; a whole number has no fraction."""
    for value in (SECONDS.least, SECONDS.most, 1):
        SECONDS.check("pause_s", value)
    COUNT.or_none.check("count", None)

    assert not COUNT.allows(1.0)


def test_a_range_is_a_validator() -> None:
    """Of a field, which can be asked for it."""
    with pytest.raises(ValueError, match=r"pause_s must be a number from 0.001 to 31,536,000, not nan"):
        _Settings(pause_s=math.nan)

    assert [range_of(field) for field in attrs.fields(_Settings)] == [SECONDS, None]


def test_a_long_value_is_cut_in_the_message() -> None:
    """A setting can be of any length."""
    with pytest.raises(ValueError, match="limit") as caught:
        COUNT.check("limit", "9" * 10_000)

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("option", ["max_rate", "heartbeat"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e308, -1.0, 0])
def test_options_of_a_subscription_are_finite(option: str, value: float) -> None:
    """Else sums with them would fail in the middle of a sweep."""
    with pytest.raises(LocalProtocolError, match=option) as caught:
        SubscribeOptions.from_map({option: value})

    assert caught.value.code == "bad_option"


@pytest.mark.parametrize(
    ("since", "unit"),
    [
        (1, "seconds"),
        (1_700_000_000, "seconds"),
        (1_700_000_000_000, "milliseconds"),
        (1_700_000_000_000_000_000, "nanoseconds"),
    ],
)
def test_since_in_another_unit_is_refused(since: int, unit: str) -> None:
    """It would mean the very beginning or a far future, and nobody would notice."""
    for ask in (
        lambda: Fetch(1, "a", since=since),
        lambda: Subscribe(1, "a", SubscribeOptions(replay={"since": since})),
    ):
        with pytest.raises(LocalProtocolError, match=f"since.* if these are {unit}, ") as caught:
            ask()
        assert (caught.value.code, caught.value.option) == ("bad_option", "since")


@pytest.mark.parametrize("since", [0, 10**14, 1_700_000_000_000_000, 10**17])
def test_since_in_microseconds_is_taken(since: int) -> None:
    """And 0, which stands for all that is kept."""
    assert Fetch(1, "a", since=since).since == since
    assert SubscribeOptions.from_map({"replay": {"since": since}}).replay == Replay(since=since)


def test_the_time_of_a_broker_whose_clock_is_wrong_is_taken_with_offsets() -> None:
    """A client goes on after a break with what the broker told it, in 1970 too."""
    replay: dict[str, Any] = {"offsets": {}, "epoch": "e", "since": 5}

    assert SubscribeOptions.from_map({"replay": replay}).replay == Replay(**replay)
