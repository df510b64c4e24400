"""`fanwire feed`, `watch` and `demo`, in processes of their own."""

import json
import re
import signal
import socket
from contextlib import closing

from fanwire.client.cli.prices import read_bars
from fanwire.protocol import DEFAULT_PORT

from .cli_programs import ran, serving, started

PRICES = {(bar.symbol, bar.date): bar.close for bar in read_bars()}
ROW = re.compile(r"^(AAPL|FB|GOOG|IBM|MSFT) +(\d{4}-\d\d-\d\d) +(\d+\.\d\d) ")


def _rows(table: str) -> list[tuple[str, str, float]]:
    """Symbol, date and price of every row of plain tables."""
    found = [ROW.match(line) for line in table.splitlines()]
    return [(row[1], row[2], float(row[3])) for row in found if row]


def test_feed_publishes_the_real_prices() -> None:
    """The first bars that a subscriber sees are those of the file, as maps with their price."""
    with serving() as (_broker, url), started("sub", "stocks.>", "--json", "--count", "6", url=url) as subscriber:
        subscriber.heard("^listening to ", subscriber.stderr)
        with started("feed", "--rate", "200", url=url):
            status, out, _ = subscriber.ended()

    messages = [json.loads(line) for line in out.splitlines()]
    bars = read_bars()[:6]
    assert status == 0
    assert [message["topic"] for message in messages] == [bar.topic for bar in bars]
    assert [message["data"] for message in messages] == [bar.to_data() for bar in bars]


def test_feed_ends_with_its_prices() -> None:
    """When all is published the feed ends by itself, with what it has done."""
    with serving() as (_broker, url):
        status, _, err = ran("feed", "--since", "2013-02-28", "--speed", "100", url=url)

    assert status == 0
    assert re.search(r"^published 10 bars in \d+\.\d s, the last of 2013-03-01$", err, re.MULTILINE)


def test_feed_ends_on_ctrl_c() -> None:
    """Ctrl-C is the usual end of a feed: status 0, and a summary."""
    with serving() as (_broker, url), started("feed", url=url) as feed:
        feed.heard("^publishing on stocks", feed.stderr)
        status, _, err = feed.signalled(signal.SIGINT)

    assert status == 0
    assert err.startswith("published ")


def test_watch_shows_what_is_fed() -> None:
    """The plain table of a watch has real prices, and its row can be split at blanks."""
    with (
        serving() as (_broker, url),
        started("watch", "stocks.>", "--interval", "0.2", url=url) as watch,
        started("feed", "--loop", url=url),
    ):
        found = watch.heard(ROW.pattern)
        status, _, err = watch.signalled(signal.SIGINT)

    assert (status, err) == (0, "")
    assert float(found[3]) == PRICES[found[1], found[2]]
    assert len(found.string.split()) == 9


def test_demo_shows_real_prices_of_all_five() -> None:
    """Headless, for some seconds: a table of real prices of all five shares, and messages that were counted."""
    status, out, _ = ran("demo", "--seconds", "3", "--plain")
    rows = _rows(out)

    assert status == 0
    assert {symbol for symbol, _, _ in rows} == {"AAPL", "FB", "GOOG", "IBM", "MSFT"}
    assert [row for row in rows if row[2] != PRICES[row[0], row[1]]] == []
    assert int(re.findall(r"^(\d+) messages of 5 topics", out, re.MULTILINE)[-1]) > 0


def test_demo_ends_on_ctrl_c() -> None:
    """Ctrl-C ends broker, feed and watch in good order."""
    with started("demo", "--plain") as demo:
        demo.heard(ROW.pattern)
        status, out, err = demo.signalled(signal.SIGINT)

    assert status == 0
    assert _rows(out) != []  # a last table
    assert "Traceback" not in err


def test_demo_takes_another_port_when_its_own_is_in_use() -> None:
    """With port 9473 taken the demo says so, and works on another."""
    with closing(socket.socket()) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", DEFAULT_PORT))
            taken.listen()
        except OSError:
            pass  # somebody else has it: as good
        status, out, err = ran("demo", "--seconds", "2", "--plain")

    assert status == 0
    assert f"port {DEFAULT_PORT} is in use (another broker?): taking a free one" in err
    assert f"broker at ws://127.0.0.1:{DEFAULT_PORT}/" not in err
    assert _rows(out) != []


def test_feed_on_demand_waits_for_subscribers() -> None:
    """It says when somebody comes, publishes for them, and says when nobody is left."""
    with serving() as (_broker, url), started("feed", "--loop", "--on-demand", url=url) as feed:
        feed.heard("^publishing on stocks.* on demand; Ctrl-C ends$", feed.stderr)
        status, out, _ = ran("sub", "stocks.IBM", "--json", "--count", "3", url=url)
        heard = [feed.heard("is subscribed", feed.stderr).string.strip() for _ in range(2)]
        feed.signalled(signal.SIGINT)

    assert status == 0
    assert {json.loads(line)["topic"] for line in out.splitlines()} == {"stocks.IBM"}
    assert heard == ["somebody is subscribed: publishing", "nobody is subscribed: pausing"]
