"""What `fanwire top` makes of reports, also of odd ones."""

from typing import Any

import pytest
from rich.console import Console

from fanwire.client.cli.top import table
from fanwire.client.cli.top_table import drawn
from fanwire.client.cli.top_view import HEADINGS, Recent, Reports, cells, nearest_limit, summary


def _connection(name: str, **changed: Any) -> dict[str, Any]:
    usual = {
        "session": "5e55", "name": name, "agent": "", "connected_s": 3.0, "subscriptions": 1, "patterns": ["a.>"],
        "on_slow": ["conflate"], "queued": 0, "queued_bytes": 0, "oldest_ms": 0, "held": 0, "lagging": False,
        "lost": 0, "replaced": 0, "client_queued": None, "client_limit": None,
    }  # fmt: skip
    return {**usual, **changed}


def _reports(*connections: dict[str, Any], **stats: Any) -> Reports:
    return Reports(stats, {"total": len(connections), "connections": list(connections), "closed": []})


def test_who_lags_comes_first_and_then_who_has_most_waiting() -> None:
    """The usual order; others go by one figure."""
    one = _connection("one", queued_bytes=900, lost=1)
    two = _connection("two", queued_bytes=10, lagging=True)
    three = _connection("three", queued_bytes=20, lost=5)
    reports = _reports(three, two, one)

    assert [each["name"] for each in reports.listed("lag", 3)] == ["two", "one", "three"]
    assert [each["name"] for each in reports.listed("bytes", 2)] == ["one", "three"]
    assert [each["name"] for each in reports.listed("lost", 1)] == ["three"]


def test_a_row_can_be_split_at_blanks() -> None:
    """Whatever a client calls itself, and nothing of it reaches the terminal as a control character."""
    odd = _connection("two words\x1b[2J", patterns=["a", "b.*"], subscriptions=9, client_queued=3, client_limit=4)
    heading, row = table(_reports(odd), "lag", 5)

    assert heading.split() == list(HEADINGS)
    assert len(row.split()) == len(HEADINGS)
    assert row.split()[0] == "two_words\\x1b[2J"
    assert row.split()[-1] == "a,b.*,+7"
    assert "3/4" in row.split()


@pytest.mark.parametrize(
    ("measure", "percent", "shown"),
    [
        ("stall_timeout", 83, "stall:83%"),
        ("max_pending", 4, "pending:4%"),
        ("max_age", 120, "age:120%"),
        ("queue", 0, "queue:0%"),
        (None, 0, "-"),
        (7, "x", "-"),
    ],
)
def test_the_nearest_limit(measure: object, percent: object, shown: str) -> None:
    """Which it is, and how far; nothing waits, or the broker does not say: nothing."""
    assert nearest_limit({"measure": measure, "percent": percent}) == shown


def test_rates_come_from_two_reports() -> None:
    """Published and delivered a second between them; one report alone has none."""
    first, second = {"uptime_s": 10.0, "published": 100, "delivered": 0}, {
        "uptime_s": 12.0, "published": 300, "delivered": 5000,
    }  # fmt: skip

    assert "published -/s" in summary(Reports(first, {}))[0]
    assert "published 100/s, delivered 2,500/s" in summary(Reports(second, {}, first))[0]


def test_rates_need_half_a_second() -> None:
    """Of two reports one millisecond apart a single message would be 1,000 a second."""
    first, second = {"uptime_s": 10.0, "published": 100}, {"uptime_s": 10.499, "published": 101}

    assert "published -/s" in summary(Reports(second, {}, first))[0]


def test_rates_are_reckoned_from_the_newest_report_that_is_old_enough() -> None:
    """However often a broker reports, with few of them kept; a broker that was started anew has none before."""
    recent = Recent()
    reports = [{"uptime_s": round(number * 0.001, 3)} for number in range(3000)]
    before = [recent.add(report) for report in reports]
    ages = [report["uptime_s"] - each["uptime_s"] for report, each in zip(reports, before, strict=True) if each]

    assert before[:500] == [None] * 500
    assert len(ages) == 2500
    assert 0.5 <= min(ages) <= max(ages) < 0.56
    assert len(recent._kept) < 25
    assert recent.add({"uptime_s": 0.7}) is None


def test_what_a_broker_leaves_out_is_a_dash() -> None:
    """Another version's report is shown as far as it goes."""
    assert cells({}) == ("-", "-", "ok", "-", "-", "0.0s", "-", "-", "-", "-", "-", "-", "-", "-")
    assert _reports().listed("lag", 5) == []
    assert Reports({}, {"connections": 7, "closed": "x"}).listed("lag", 5) == []
    assert "lost 0" in summary(Reports({}, {}))[1]


def test_what_was_dropped_is_told_by_policy_and_measure() -> None:
    """Names with counts."""
    stats = {"lost": {"drop_oldest": 7, "conflate": 1}, "slow_by_measure": {"max_age": 2}, "lagging": 3}

    text = summary(Reports(stats, {}))[1]

    assert "lagging 3; " in text
    assert "lost conflate=1 drop_oldest=7," in text
    assert text.endswith("disconnected max_age=2")


def test_closed_connections_say_why() -> None:
    """Name, session, code, how long it lived, the reason."""
    closed = {"session": "5e55", "name": "n", "code": 4008, "reason": "slow consumer: x\n", "lasted_s": 3661.0}

    assert Reports({}, {"closed": [closed]}).closed(5) == ["n 5e55 closed 4008 after 1:01:01: slow consumer: x\\n"]


def test_a_narrow_terminal_gets_fewer_columns() -> None:
    """All of them where there is room; never a line too long."""
    for width, expected in ((160, True), (70, False)):
        console = Console(width=width, file=None, force_terminal=False, record=True, quiet=False)
        with console.capture() as captured:
            console.print(drawn(_reports(_connection("n", lagging=True)), "lag", 5, width))
        lines = captured.get().splitlines()

        assert any("SESSION" in line for line in lines) is expected
        assert any("lagging" in line for line in lines)
        assert max(map(len, lines)) <= width or not expected
