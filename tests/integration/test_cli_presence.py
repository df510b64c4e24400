"""`fanwire presence` against a broker, all in processes of their own."""

import json
import signal
from collections.abc import Iterator

import pytest

from .cli_programs import ran, serving, started


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A broker that tells of rooms; each test has some of its own."""
    with serving("--rule", "rooms.> presence=yes", "--presence-grace", "0.2") as (_broker, url):
        yield url


def test_who_is_subscribed_is_printed(url: str) -> None:
    """A line each: pattern, name, session; as JSON with all that is known."""
    with started("sub", "rooms.one", url=url) as subscriber:
        subscriber.heard("^listening to ", subscriber.stderr)
        status, out, _ = ran("presence", "rooms.*", url=url)
        [member] = [json.loads(line) for line in ran("presence", "rooms.one", "--json", url=url)[1].splitlines()]

    assert status == 0
    assert out == f"rooms.one  fanwire sub  {member['session']}\n"
    assert (set(member), member["name"]) == ({"pattern", "name", "session", "client"}, "fanwire sub")


def test_who_comes_and_goes_is_printed(url: str) -> None:
    """Until Ctrl-C, which is how it ends."""
    with started("presence", "rooms.two", "--watch", url=url) as watcher:
        watcher.heard("^watching rooms.two; Ctrl-C ends$", watcher.stderr)
        with started("sub", "rooms.two", url=url) as subscriber:
            watcher.heard("^join   rooms.two  fanwire sub  [0-9a-f]+$")
            subscriber.signalled(signal.SIGINT)
        watcher.heard("^leave  rooms.two  fanwire sub  [0-9a-f]+$")

        assert watcher.signalled(signal.SIGINT)[0] == 0


def test_what_has_changed_is_part_of_the_json(url: str) -> None:
    """As `present`."""
    with started("presence", "rooms.three", "--watch", "--json", url=url) as watcher:
        watcher.heard("^watching ", watcher.stderr)
        with started("sub", "rooms.*", url=url):
            told = json.loads(watcher.stdout.readline())

    assert (told["pattern"], told["name"], told["present"]) == ("rooms.*", "fanwire sub", True)


@pytest.mark.parametrize("options", [(), ("--watch",)])
def test_where_presence_is_off(url: str, options: tuple[str, ...]) -> None:
    """One line that says how to turn it on."""
    status, out, err = ran("presence", "halls.*", *options, url=url)

    assert (status, out) == (1, "")
    assert err.startswith("error: halls.*: presence is off; ")
