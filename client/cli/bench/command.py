"""`fanwire bench`: throughput and latency, with every message counted."""

import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import click

from fanwire.client.cli.command import Command
from fanwire.client.cli.options import POSITIVE, broker_url
from fanwire.client.cli.output import say
from fanwire.client.cli.running import run, until_signalled

from .own_broker import own_broker
from .plan import MIN_SIZE, WINDOW, WINDOW_BYTES, Mode, Plan
from .progress import progress_bar
from .result import Result
from .run import measure

_LARGEST = 1_000_000  # below the 1 MiB that a broker takes by default, with its envelope


@click.command(cls=Command, short_help="Measure a broker's throughput and latency.")
@click.option(
    "--mode",
    type=click.Choice(["tput", "latency"]),
    default="tput",
    show_default=True,
    help="As much as goes through, or the time messages take at a given --rate.",
)
@click.option(
    "--publishers", type=click.IntRange(1, WINDOW), default=1, show_default=True, help="Connections that publish."
)
@click.option(
    "--subscribers",
    type=click.IntRange(0, 10_000),
    default=1,
    show_default=True,
    help="Connections that get everything.",
)
@click.option(
    "--size",
    type=click.IntRange(MIN_SIZE, _LARGEST),
    default=128,
    show_default=True,
    metavar="BYTES",
    help="Of a payload.",
)
@click.option("--seconds", type=POSITIVE, default=5.0, show_default=True, metavar="S", help="How long to publish.")
@click.option(
    "--rate",
    type=POSITIVE,
    default=1000.0,
    show_default=True,
    metavar="N",
    help="In mode latency: messages a second of all publishers together.",
)
@click.option("--acknowledged", is_flag=True, help="Publishers want an answer to each message, without waiting for it.")
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    metavar="N",
    help="To spread the subscribers over.  [default: the machine's cores less two]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
@click.option(
    "--url",
    type=broker_url,
    metavar="URL",
    envvar="FANWIRE_URL",
    show_envvar=True,
    help="The broker to measure; its own by default.",
)
def bench(
    mode: Mode,
    publishers: int,
    subscribers: int,
    size: int,
    seconds: float,
    rate: float,
    acknowledged: bool,
    processes: int | None,
    as_json: bool,
    url: str | None,
) -> int:
    """Measure how much goes through a broker, or how long messages take.

    Publishers and subscribers run in processes of their own, with the SDK. The publishers stay at most 8,192 messages
    or 8 MiB ahead of the slowest subscriber, so that none is dropped. Every message has a number: what was lost or
    came twice is told. Without --url it starts a broker of its own, on this machine.

    \b
    Examples:
      fanwire bench
      fanwire bench --subscribers 100 --seconds 10
      fanwire bench --mode latency --rate 5000 --json
      fanwire bench --subscribers 0 --acknowledged

    \b
    Exit status:
      0    every message was delivered, once
      1    some were lost or came twice, a subscriber was dropped, or it could not be measured
      2    wrong usage
      130  interrupted
    """
    if publishers * size > WINDOW_BYTES:
        raise click.UsageError(
            f"{publishers} publishers of {size} bytes at a time are more than may wait for a subscriber "
            f"({WINDOW_BYTES} bytes): take fewer publishers or a smaller --size",
            click.get_current_context(),
        )
    plan = Plan(url or "", secrets.token_hex(4), mode, publishers, subscribers, size, seconds, rate, acknowledged)
    return run(_bench, plan, processes or max((os.cpu_count() or 1) - 2, 1), as_json)


async def _bench(plan: Plan, processes: int, as_json: bool) -> int:
    result: Result | None = None
    async with until_signalled() as ending, _broker(plan) as ready:
        with progress_bar(ready, wanted=not as_json) as on_progress:
            result = await measure(ready, processes, on_progress)
    if result is None:
        return 128 + (ending.signal or 0)
    say(json.dumps(result.to_map()) if as_json else result.to_text())
    return 0 if result.clean else 1


@asynccontextmanager
async def _broker(plan: Plan) -> AsyncIterator[Plan]:
    """The plan with the URL of a broker: the one that was given, or one of our own."""
    if plan.url:
        yield plan
        return
    async with own_broker() as url:
        yield attrs.evolve(plan, url=url)
