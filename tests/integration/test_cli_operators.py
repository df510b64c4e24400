"""`fanwire connections`, `topics` and `kick` against a broker, all in processes of their own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cli_programs import ran, serving, started


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A broker without authentication, on this machine."""
    with serving("--rule", "kept.> history=5") as (_broker, url):
        yield url


def test_a_client_is_found_and_sent_away(url: str) -> None:
    """By the name that the list has for it; it does not come back."""
    with started("sub", "kick.*", url=url) as subscriber:
        subscriber.heard("^listening to ", subscriber.stderr)
        status, table, _ = ran("connections", "--sort", "age", url=url)
        listed = [json.loads(line) for line in ran("connections", "--json", url=url)[1].splitlines()]
        [session] = [each["session"] for each in listed if each["patterns"] == ["kick.*"]]
        kicked = ran("kick", session, url=url)
        ended, _, said = subscriber.ended()

    assert status == 0
    headings, *rows = [line.split() for line in table.splitlines()]
    assert headings[:4] == ["SESSION", "CLIENT", "USER", "ADDRESS"]
    assert [session, "fanwire_sub", "-", "127.0.0.1", "ok"] in [row[:5] for row in rows]
    assert kicked == (0, f"{session} disconnected\n", "")
    assert ended == 1
    assert "disconnected by an operator" in said
    closed = ran("connections", "--closed", url=url)[1]
    assert [session, "fanwire_sub", "-", "4003"] in [line.split()[:4] for line in closed.splitlines()]


def test_all_of_several_are_tried(url: str) -> None:
    """One that is not there is told, and is no reason to stop."""
    with started("sub", "several.*", url=url) as subscriber:
        subscriber.heard("^listening to ", subscriber.stderr)
        listed = [json.loads(line) for line in ran("connections", "--json", url=url)[1].splitlines()]
        [session] = [each["session"] for each in listed if each["patterns"] == ["several.*"]]
        status, out, err = ran("kick", "nobody", session, url=url)
        subscriber.ended()

    assert (status, out) == (1, f"{session} disconnected\n")
    assert err.startswith("error: ")
    assert "there is no connection 'nobody'" in err


def test_topics_are_listed(url: str) -> None:
    """A line each; as JSON with all that is known."""
    for name in ("kept.b", "kept.a", "kept.a"):
        ran("pub", name, "1", url=url)
    status, table, _ = ran("topics", "kept.*", url=url)
    [first] = [json.loads(line) for line in ran("topics", "kept.*", "--limit", "1", "--json", url=url)[1].splitlines()]

    assert status == 0
    assert [line.split() for line in table.splitlines()] == [
        ["TOPIC", "SUBSCRIPTIONS", "LAGGING", "OFFSET", "MESSAGES", "RETAINED"],
        ["kept.a", "0", "0", "2", "2", "no"],
        ["kept.b", "0", "0", "1", "1", "no"],
    ]
    assert (first["topic"], first["offset"]) == ("kept.a", 2)


@pytest.mark.parametrize("command", [("connections",), ("topics",), ("kick", "x")])
def test_no_broker(command: tuple[str, ...]) -> None:
    """One line that says what to do."""
    status, out, err = ran(*command, url="ws://127.0.0.1:1/")

    assert (status, out) == (1, "")
    assert err.startswith("error: cannot reach ws://127.0.0.1:1/")
    assert err.count("\n") == 1


def test_operators_have_a_port_of_their_own() -> None:
    """What to do is said on the other one."""
    with serving("--admin-port", "0", "--log-format", "json") as (broker, url):
        status, out, err = ran("topics", url=url)
        admin = json.loads(broker.heard('"admin"', broker.stderr).string)["admin"]
        told = ran("topics", url=admin.replace("http:", "ws:"))

    assert (status, out) == (1, "")
    assert "admin_port" in err
    assert told[:2] == (0, "TOPIC  SUBSCRIPTIONS  LAGGING  OFFSET  MESSAGES  RETAINED\n")


def test_who_is_no_operator_is_told_so(tmp_path: Path) -> None:
    """And what to set."""
    file = tmp_path / "auth.toml"
    file.write_text('[auth]\nanonymous_roles = ["all"]\n[[auth.roles]]\nname = "all"\nsubscribe = [">"]\n')
    with serving("--auth-file", str(file)) as (_broker, url):
        status, out, err = ran("topics", url=url)

    assert (status, out) == (1, "")
    assert "operators" in err
