"""`fanwire top`, in a process of its own."""

import json

from .cli_programs import ran, serving, started


def test_once_is_one_report() -> None:
    """Summary, headings, and a row for each connection that can be split at blanks; then it ends."""
    with serving() as (_broker, url), started("sub", "a.>", url=url) as subscriber:
        subscriber.heard("^listening to ", subscriber.stderr)
        status, out, err = ran("top", "--once", url=url)

    lines = out.splitlines()
    headings, *rows = [line.split() for line in lines[2:] if line]
    assert (status, err) == (0, "")
    assert lines[0].startswith("up 0:00:0")
    assert lines[1].startswith("lagging 0; ")
    assert headings[:3] == ["CLIENT", "SESSION", "STATE"]
    assert sorted(row[0] for row in rows) == ["fanwire_sub", "fanwire_top"]
    assert {len(row) for row in rows} == {len(headings)}
    assert {row[headings.index("PATTERNS")] for row in rows} == {"a.>", "$sys.stats,$sys.connections"}


def test_json_has_all_that_was_reported() -> None:
    """One object a line; the broker reports again and again."""
    with serving("--report-interval", "0.05") as (_broker, url), started("top", "--json", url=url) as top:
        reports = [json.loads(top.stdout.readline()) for _ in range(4)]

    uptimes = [report["stats"]["uptime_s"] for report in reports]
    assert uptimes == sorted(uptimes)
    assert uptimes[0] < uptimes[-1]
    assert all(report["connections"]["total"] == 1 for report in reports)
    assert all(report["connections"]["connections"][0]["name"] == "fanwire top" for report in reports)


def test_without_a_broker_it_says_so() -> None:
    """One line, status 1."""
    status, out, err = ran("top", "--once", url="ws://127.0.0.1:1/")

    assert (status, out) == (1, "")
    assert err.startswith("error: cannot reach ws://127.0.0.1:1/")
