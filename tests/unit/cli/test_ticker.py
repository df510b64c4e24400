"""The feed and the watch against a broker in memory, on a clock that jumps: minutes of prices in no time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from itertools import islice

import trio
from trio.testing import MockClock

from fanwire.broker import Broker, Config
from fanwire.client import Client, connect
from fanwire.client.cli.board import Board
from fanwire.client.cli.prices import read_bars
from fanwire.client.cli.ticker import Feed, Progress, publish_bars
from fanwire.client.cli.watching import Watch


@asynccontextmanager
async def _clients(count: int) -> AsyncIterator[list[Client]]:
    """So many clients of one broker in memory."""
    async with Broker(Config(listen=False)).serving() as broker, trio.open_nursery() as nursery:
        yield [await nursery.start(_client, broker) for _ in range(count)]
        nursery.cancel_scope.cancel()


async def _client(broker: Broker, *, task_status: trio.TaskStatus[Client]) -> None:
    async with connect(open_stream=broker.open_stream) as client:
        task_status.started(client)
        await trio.sleep_forever()


class _Kept:
    """A display that keeps what it was shown."""

    interval_s = 1.0

    def __init__(self) -> None:
        self.drawn: list[tuple[float, int, str]] = []

    def shown(self) -> nullcontext[None]:
        return nullcontext()

    async def draw(self, board: Board, now: float, state: str) -> None:
        await trio.lowlevel.checkpoint()
        self.drawn.append((now - board.began_at, board.messages, state))


def test_a_feed_is_the_real_prices_in_date_order() -> None:
    """At ten days a second the second day begins after a tenth of a second, each day's shares spread over it."""
    due = list(islice(Feed(("AAPL", "IBM"), speed=10).schedule(), 4))

    assert [(bar.symbol, bar.date) for _, bar in due] == [
        ("AAPL", "2000-03-01"), ("IBM", "2000-03-01"), ("AAPL", "2000-03-02"), ("IBM", "2000-03-02"),
    ]  # fmt: skip
    assert [seconds for seconds, _ in due] == [0.0, 0.05, 0.1, 0.15]


def test_a_feed_ends_with_the_prices_or_begins_anew() -> None:
    """Once there are 12,154 bars; in a loop the first comes again after the last."""
    assert sum(1 for _ in Feed().schedule()) == 12_154
    assert [bar.date for _, bar in islice(Feed(rate=1, loop=True).schedule(), 12_153, 12_155)] == [
        "2013-03-01",
        "2000-03-01",
    ]


def test_a_rate_counts_messages() -> None:
    """At four messages a second the fifth is due after a second, of real prices and of a random walk."""
    assert next(islice(Feed(rate=4).schedule(), 4, None))[0] == 1.0
    assert next(islice(Feed(rate=4, seed=1).schedule(), 4, None))[0] == 1.0
    assert next(islice(Feed(speed=4, seed=1).schedule(), 4 * 5, None))[0] == 1.0


async def test_prices_are_published_when_they_are_due(autojump_clock: MockClock) -> None:
    """A year of two shares at ten days a second takes its seconds, and every bar arrives, in order."""
    bars = read_bars(["IBM", "MSFT"], since="2012-03-01")
    feed = Feed(("IBM", "MSFT"), since="2012-03-01", speed=10)
    progress = Progress()
    async with _clients(2) as (feeder, watcher), watcher.subscribe("stocks.>") as subscription:
        started = trio.current_time()
        await publish_bars(feeder, feed.schedule(), progress)
        took = trio.current_time() - started
        arrived = [await anext(subscription) for _ in bars]

    assert (progress.published, progress.bar) == (len(bars), bars[-1])
    assert abs(took - len(bars) / 2 / 10) < 0.1
    assert [message.data for message in arrived] == [bar.to_data() for bar in bars]


async def test_the_watch_shows_what_is_fed(autojump_clock: MockClock) -> None:
    """After ten seconds at five days a second the board has fifty bars of each share, and was shown every second."""
    display = _Kept()
    watch = Watch()
    async with _clients(2) as (feeder, watcher), trio.open_nursery() as nursery:
        await nursery.start(watch.follow, watcher, "stocks.>")
        nursery.start_soon(watch.follow_state, watcher)
        nursery.start_soon(watch.show, display)
        nursery.start_soon(publish_bars, feeder, Feed(speed=5, since="2012-06").schedule(), Progress())
        await trio.sleep(9.99)
        nursery.cancel_scope.cancel()

    assert [row.symbol for row in watch.board.rows()] == ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    assert {row.messages for row in watch.board.rows()} == {50}
    assert [round(seconds) for seconds, _, _ in display.drawn] == [*range(1, 11)]
    assert display.drawn[-1][1:] == (250, "connected")


async def test_the_watch_copes_with_anything(autojump_clock: MockClock) -> None:
    """Numbers, text, bytes and payloads that are not what they claim are all counted."""
    watch = Watch()
    async with _clients(2) as (publisher, watcher), trio.open_nursery() as nursery:
        await nursery.start(watch.follow, watcher, ">")
        await publisher.publish("a.number", 1.5)
        await publisher.publish("a.text", "12.25", raw=True)
        await publisher.publish("a.bytes", b"\xff", raw=True)
        await publisher.publish("a.list", [1])
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert {row.symbol: row.price for row in watch.board.rows()} == {
        "a.bytes": None, "a.list": None, "a.number": 1.5, "a.text": 12.25,
    }  # fmt: skip
