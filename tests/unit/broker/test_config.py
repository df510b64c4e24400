"""Settings are checked when they are made, by name."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest

from fanwire.broker import Config, TopicRule
from fanwire.broker.settings.auth import Auth
from fanwire.protocol.ranges import range_of

LIMITS = [
    field.name
    for field in attrs.fields(Config)
    if str(field.type) in ("int | None", "float | None") and field.name != "admin_port"
]
NEEDED = [
    field.name
    for field in attrs.fields(Config)
    if str(field.type) in ("int", "float") and field.name not in ("port", "drain_delay_s")
]


def _config(name: str, value: Any) -> Config:
    return Config(**{name: value})


def test_every_number_is_one_of_two_kinds() -> None:
    """Those that may be None, and those that memory or a deadline depends on."""
    assert {"max_connections", "max_pending_bytes", "stall_timeout_s", "max_age_s"} < set(LIMITS)
    assert {"queue", "max_queue", "max_message_bytes", "linger_s"} < set(NEEDED)


@pytest.mark.parametrize("name", LIMITS + NEEDED)
@pytest.mark.parametrize("value", [0, -1])
def test_zero_is_refused(name: str, value: int) -> None:
    """0 would mean either "none at all" or "no limit": nobody should have to guess."""
    with pytest.raises(ValueError, match=name):
        _config(name, value)


@pytest.mark.parametrize("name", [*LIMITS, *NEEDED, "port", "admin_port", "drain_delay_s"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, True, "1"], ids=repr)
def test_what_is_not_finite_is_refused(name: str, value: Any) -> None:
    """Each number has a range; NaN, infinity and what is no number are in none."""
    with pytest.raises(ValueError, match=f"^{name} must be a "):
        _config(name, value)


def test_every_number_has_a_range() -> None:
    """Of the broker, of its rules and of authentication: none is checked in another way."""
    for cls in (Config, TopicRule, Auth):
        numbers = [field for field in attrs.fields(cls) if str(field.type).removesuffix(" | None") in ("int", "float")]
        assert numbers, cls
        assert [field.name for field in numbers if range_of(field) is None] == []


def test_rules_may_be_texts() -> None:
    """As on the command line; a mistake says which rule, and one text alone is not a list of rules."""
    config = Config(
        rules=[
            "stocks.> max_rate=10",
            TopicRule(pattern="a", retain=True),
            "b retain=true presence=no",
            "c history=2 history_seconds=inf",
        ]
    )

    assert config.rules == (
        TopicRule(pattern="stocks.>", max_rate=10.0),
        TopicRule(pattern="a", retain=True),
        TopicRule(pattern="b", retain=True, presence=False),
        TopicRule(pattern="c", history=2),
    )
    for wrong, part in (
        (["a max_rate=fast"], "max_rate: 'fast' is not a number"),
        (["a"], "says nothing"),
        (["a history=1 history=2"], "history is given twice"),
        ("a max_rate=1", "put it in brackets"),
    ):
        with pytest.raises(ValueError, match=part):
            Config(rules=wrong)


@pytest.mark.parametrize("name", LIMITS)
def test_none_means_no_limit(name: str) -> None:
    """Where a limit may be None."""
    assert getattr(_config(name, None), name) is None


@pytest.mark.parametrize("name", NEEDED)
def test_what_bounds_memory_is_needed(name: str) -> None:
    """None is refused where nothing else would bound it."""
    with pytest.raises(ValueError, match=name):
        _config(name, None)


@pytest.mark.parametrize(("name", "value"), [("port", 65_536), ("port", -1), ("path", "ws"), ("path", "")])
def test_addresses_are_checked(name: str, value: object) -> None:
    """A port that is none, a path that no request can have."""
    with pytest.raises(ValueError, match=name):
        _config(name, value)
