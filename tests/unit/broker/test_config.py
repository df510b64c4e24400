"""Settings are checked when they are made, by name."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from fanwire.broker import Config

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
