"""`fanwire bench` for half a second: that it counts, not how fast it is."""

import json
import signal

import pytest

from .cli_programs import ran, started


@pytest.mark.parametrize(
    ("arguments", "publishers", "subscribers"),
    [
        (["--publishers", "2", "--subscribers", "3", "--processes", "2"], 2, 3),
        (["--acknowledged"], 1, 1),
        (["--mode", "latency", "--rate", "200"], 1, 1),
        (["--subscribers", "0"], 1, 0),
    ],
)
def test_bench_counts_every_message(arguments: list[str], publishers: int, subscribers: int) -> None:
    """With a broker of its own: everything published reaches every subscriber once, and the figures say so."""
    status, out, err = ran("bench", "--seconds", "0.5", "--json", *arguments)
    figures = json.loads(out)

    assert (status, err) == (0, "")
    assert (figures["publishers"], figures["subscribers"]) == (publishers, subscribers)
    assert figures["published"] > 0
    assert figures["delivered"] == figures["published"] * subscribers
    assert (figures["lost"], figures["duplicates"], figures["dropped_subscribers"]) == (0, 0, 0)
    assert (figures["latency_us"] is None) == (subscribers == 0)


def test_bench_speaks_to_people() -> None:
    """Without --json the same as text."""
    status, out, _ = ran("bench", "--seconds", "0.2")

    assert status == 0
    assert out.startswith("1 publisher, 1 subscriber, 128 bytes, fire and forget, full load\npublished ")
    assert "\nlost                   0\nduplicates             0\nlatency     p50 " in out


def test_bench_ends_on_sigterm() -> None:
    """Ended before it is done it says nothing, and its processes are gone: their pipe to us is closed."""
    with started("bench", "--seconds", "600") as bench:
        status, out, err = bench.signalled(signal.SIGTERM)

    assert (out, err) == ("", "")
    assert status in (128 + signal.SIGTERM, -signal.SIGTERM)  # the latter before it was listening to signals
