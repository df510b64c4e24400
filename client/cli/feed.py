"""`fanwire feed`: a ticker of real stock prices, or of a random walk."""

import re
from collections.abc import Callable
from functools import reduce
from typing import Any, TypeVar

import attrs
import click
import trio

from fanwire.client import Client, connect

from .command import Command
from .connection_news import tell_states
from .on_demand import OnDemand
from .options import POSITIVE, environment_token, seconds_option, topic, url_option
from .output import note
from .prices import TOPIC_PREFIX
from .running import run, until_signalled
from .ticker import DEFAULT_SPEED, OUTGOING, SYMBOLS, Feed, Progress, publish_bars

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _symbols(value: str) -> tuple[str, ...]:
    """Symbols with commas between them, each good for a token of a topic."""
    symbols = tuple(dict.fromkeys(symbol.strip() for symbol in value.split(",")))
    for symbol in symbols:
        if not symbol or "." in symbol:
            raise click.BadParameter(f"{symbol!r} is no symbol: write them with commas between, as in AAPL,IBM")
        topic(f"{TOPIC_PREFIX}.{symbol}")
    return symbols


def _date(value: str) -> str:
    """An ISO 8601 date, or the beginning of one."""
    if value and not re.fullmatch(r"\d{4}(-\d\d(-\d\d)?)?", value):
        raise click.BadParameter(f"{value!r} is no date: write 2007 or 2007-01-09")
    return value


def feed_options(*, speed: float = DEFAULT_SPEED, since: str = "") -> Callable[[_Command], _Command]:
    """What is fed, and how fast: the options that `fanwire feed` and `fanwire demo` have, each with its defaults."""
    options = (
        click.option(
            "--speed", type=POSITIVE, default=speed, show_default=True, metavar="N",
            help="Trading days a second, with a bar of each share a day.",
        ),
        click.option("--rate", type=POSITIVE, metavar="N", help="Messages a second in all; instead of --speed."),
        click.option(
            "--symbols", type=_symbols, metavar="A,B,…",
            help=f"Which shares: some of {','.join(SYMBOLS)}, or any names with --random-walk.  [default: all five]",
        ),
        click.option(
            "--since", type=_date, default=since, show_default=bool(since), metavar="DATE",
            help="Begin the real prices at this date.",
        ),
        click.option(
            "--random-walk", is_flag=True, help="Made-up prices, without end, instead of the real ones of 2000 to 2013."
        ),
        click.option(
            "--seed", type=int, default=1, show_default=True, help="With --random-walk: the same seed, the same prices."
        ),
    )  # fmt: skip
    return lambda command: reduce(lambda done, option: option(done), reversed(options), command)


@click.command(cls=Command, short_help="Publish stock prices: real ones, or a random walk.")
@feed_options()
@click.option("--loop", is_flag=True, help="Begin anew after the last of the real prices.")
@click.option("--on-demand", is_flag=True, help="Publish only what somebody is subscribed to; time goes on meanwhile.")
@seconds_option("End after so many seconds.")
@url_option
def feed(
    speed: float,
    rate: float | None,
    symbols: tuple[str, ...] | None,
    since: str,
    random_walk: bool,
    seed: int,
    loop: bool,
    on_demand: bool,
    seconds: float | None,
    url: str,
) -> int:
    """Publish a ticker on the topics stocks.AAPL, stocks.IBM and so on.

    The prices are real: daily bars of five shares from 2000-03-01 to 2013-03-01, replayed in date order. A message is
    a map with symbol, date, open, high, low, close, volume, and price, which is the close.

    \b
    Examples:
      fanwire feed
      fanwire feed --speed 50 --symbols AAPL,IBM --since 2007
      fanwire feed --random-walk --rate 10000 --seed 7
      fanwire feed --loop --on-demand

    \b
    Exit status:
      0  all was published, or Ctrl-C or --seconds ended it
      1  no broker, or the connection was lost for good
      2  wrong usage
    """
    chosen = chosen_feed(speed, rate, symbols, since, random_walk, seed)
    return run(_feed, attrs.evolve(chosen, loop=loop), on_demand, url, seconds)


def chosen_feed(
    speed: float, rate: float | None, symbols: tuple[str, ...] | None, since: str, random_walk: bool, seed: int
) -> Feed:
    """What the options of `feed_options` say.

    Raises:
        click.UsageError: there are no such prices.
    """
    chosen = Feed(symbols or (), since, speed, rate, seed if random_walk else None)
    try:
        chosen.schedule()
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from None
    return chosen


async def _feed(chosen: Feed, on_demand: bool, url: str, seconds: float | None) -> int:
    progress = Progress()
    started = trio.current_time()
    async with (
        until_signalled(seconds),
        connect(url, token=environment_token(), name="fanwire feed", outgoing_messages=OUTGOING) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(tell_states, client)
        _say(f"publishing on {TOPIC_PREFIX}.* at {url}{' on demand' if on_demand else ''}; Ctrl-C ends")
        if on_demand:
            await _publish_wanted(client, chosen, progress)
        else:
            await publish_bars(client, chosen.schedule(), progress)
        nursery.cancel_scope.cancel()
    took = trio.current_time() - started
    last = f", the last of {progress.bar.date}" if progress.bar else ""
    _say(f"published {progress.published} bars in {took:.1f} s{last}")
    return 0


async def _publish_wanted(client: Client, chosen: Feed, progress: Progress) -> None:
    wanted = OnDemand(f"{TOPIC_PREFIX}.*", chosen.topics(), _say)
    async with trio.open_nursery() as nursery:
        await nursery.start(wanted.follow, client)
        await publish_bars(client, chosen.schedule(), progress, wanted.wants)
        nursery.cancel_scope.cancel()


def _say(text: str) -> None:
    note(text)
