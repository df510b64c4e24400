"""`fanwire watch`: a live table of prices."""

import click
import trio

from fanwire.client import connect

from .command import Command
from .options import POSITIVE, environment_token, max_rate_option, pattern, plain_option, seconds_option, url_option
from .running import run, until_signalled
from .watching import Display, Watch, display_for


@click.command(cls=Command, short_help="Show a live table of prices.")
@click.argument("patterns", metavar="PATTERN...", nargs=-1, required=True, type=pattern)
@click.option(
    "--field",
    metavar="NAME",
    help="What has the price in a message: a key, or keys and places in lists with dots between, as in data.0.last.",
)
@plain_option
@click.option(
    "--interval",
    type=POSITIVE,
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds from one plain table to the next.",
)
@max_rate_option
@seconds_option("End after so many seconds.")
@url_option
def watch(
    patterns: tuple[str, ...],
    field: str | None,
    plain: bool,
    interval: float,
    max_rate: float | None,
    seconds: float | None,
    url: str,
) -> int:
    """Show a table with a line for each topic that matches PATTERN: its latest price, the change, the trend, the pace.

    A message's price is the number it is, or what it has under 'price' or 'close', or where --field says; CHANGE is
    against the price before. Messages without one are counted. Without a terminal the table is printed as plain text,
    once a second. A narrow terminal shows fewer columns; no number is cut.

    While we don't keep up the broker keeps the newest price of each topic for us. --max-rate spares a slow network
    more; MESSAGES and MSG/S are what came, not what was published.

    \b
    Examples:
      fanwire watch 'stocks.>'
      fanwire watch stocks.AAPL stocks.IBM
      fanwire watch 'stocks.*' --plain --seconds 5
      fanwire watch 'stocks.>' --max-rate 2
      fanwire watch 'sensors.>' --field value
      fanwire watch 'trades.>' --field data.0.last

    \b
    Exit status:
      0  Ctrl-C, SIGTERM or --seconds ended it, or the reader of its output went away
      1  no broker, or the connection was lost for good
      2  wrong usage
    """
    display = display_for(f"watch {' '.join(patterns)} at {url}", plain=plain, interval_s=interval)
    return run(_watch, tuple(dict.fromkeys(patterns)), field, display, max_rate, seconds, url)


async def _watch(
    patterns: tuple[str, ...],
    field: str | None,
    display: Display,
    max_rate: float | None,
    seconds: float | None,
    url: str,
) -> int:
    async with until_signalled(seconds), connect(url, token=environment_token(), name="fanwire watch") as client:
        watch = Watch(max_rate, field)
        async with trio.open_nursery() as nursery:
            for pattern in patterns:
                await nursery.start(watch.follow, client, pattern)
            nursery.start_soon(watch.follow_state, client)
            nursery.start_soon(watch.show, display)
    return 0
