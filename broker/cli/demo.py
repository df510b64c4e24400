"""`fanwire demo`: a broker, a feed and a live table in one process, joined by real WebSocket connections."""

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import click
import trio

from fanwire.broker import Broker, Config
from fanwire.client import connect
from fanwire.client.cli.command import Command
from fanwire.client.cli.feed import chosen_feed, feed_options
from fanwire.client.cli.options import plain_option, seconds_option
from fanwire.client.cli.output import note
from fanwire.client.cli.prices import TOPIC_PREFIX
from fanwire.client.cli.running import run, until_signalled
from fanwire.client.cli.ticker import OUTGOING, Feed, Progress, publish_bars
from fanwire.client.cli.watching import Watch, display_for
from fanwire.protocol import DEFAULT_PORT

from .logs import configure_logs
from .serve import cannot_listen

_PATTERN = f"{TOPIC_PREFIX}.>"
_ALL_FIVE = "2012-05-18"  # Facebook's first day: from here on there are prices of all five shares


@click.command(cls=Command, short_help="See it work: a broker, a feed and a live table.")
@feed_options(speed=5.0, since=_ALL_FIVE)
@plain_option
@seconds_option("End after so many seconds.")
def demo(
    speed: float,
    rate: float | None,
    symbols: tuple[str, ...] | None,
    since: str,
    random_walk: bool,
    seed: int,
    plain: bool,
    seconds: float | None,
) -> int:
    """Run a broker, publish real stock prices through it, and show them as they come, until Ctrl-C.

    Everything goes over real connections: while it runs, `fanwire sub 'stocks.>'` in another terminal sees it too.

    \b
    Examples:
      fanwire demo
      fanwire demo --speed 100
      fanwire demo --seconds 5 --plain

    \b
    Exit status:
      0  Ctrl-C, SIGTERM or --seconds ended it
      1  no port could be had
      2  wrong usage
    """
    configure_logs("auto", "warning")
    chosen = attrs.evolve(chosen_feed(speed, rate, symbols, since, random_walk, seed), loop=True)
    return run(_demo, chosen, plain, seconds)


async def _demo(feed: Feed, plain: bool, seconds: float | None) -> int:
    async with until_signalled(), _serving() as broker:
        url = broker.urls[0]
        note(f"broker at {url}; in another terminal: fanwire sub '{_PATTERN}' --url {url}")
        display = display_for(f"demo at {url}", plain=plain, interval_s=1.0)
        watch = Watch()
        async with (
            connect(url, name="fanwire watch") as watcher,
            connect(url, name="fanwire feed", outgoing_messages=OUTGOING) as feeder,
            trio.open_nursery() as nursery,
        ):
            await nursery.start(watch.follow, watcher, _PATTERN)
            nursery.start_soon(watch.show, display)
            nursery.start_soon(publish_bars, feeder, feed.schedule(), Progress())
            await trio.sleep(float("inf") if seconds is None else seconds)
            nursery.cancel_scope.cancel()
    return 0


@asynccontextmanager
async def _serving() -> AsyncIterator[Broker]:
    """A broker on the usual port, or on any other when that one is in use."""
    async with trio.open_nursery() as nursery:
        yield await _started(nursery)
        nursery.cancel_scope.cancel()


async def _started(nursery: trio.Nursery) -> Broker:
    broker = Broker(Config())
    try:
        return await _start(nursery, broker)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise cannot_listen(broker.config, error) from None
    note(f"port {DEFAULT_PORT} is in use (another broker?): taking a free one")
    return await _start(nursery, Broker(Config(port=0)))


async def _start(nursery: trio.Nursery, broker: Broker) -> Broker:
    await nursery.start(broker.serve)
    return broker
