"""`fanwire connections`: who is connected, now; or who was."""

import json
from collections.abc import Sequence
from typing import Any

import click

from fanwire.client.cli.columns import Column
from fanwire.client.cli.command import Command
from fanwire.client.cli.options import url_option
from fanwire.client.cli.output import Output, note
from fanwire.client.cli.running import run
from fanwire.client.cli.top_view import nearest_limit

from .http_query import ask
from .operator_table import table

MOST = 1000

_OPEN = (
    Column("SESSION", 0, name=True),  # whole: `fanwire kick` wants it
    Column("CLIENT", 1, words=True),
    Column("USER", 7, words=True, least=6),
    Column("ADDRESS", 6, name=True),
    Column("STATE", 2, name=True),
    Column("QUEUED", 3),
    Column("BYTES", 4),
    Column("OLDEST_MS", 8),
    Column("NEAREST", 9, name=True),
    Column("LOST", 5),
    Column("REPLACED", 10),
    Column("SUBSCRIPTIONS", 11),
)
_CLOSED = (
    Column("SESSION", 0, name=True),
    Column("CLIENT", 3, words=True),
    Column("USER", 5, words=True, least=6),
    Column("CODE", 1),
    Column("LASTED_S", 4),
    Column("REASON", 2, words=True, least=20),
)


@click.command(cls=Command, short_help="List who is connected.")
@click.option(
    "--sort", type=click.Choice(("lag", "age")), default="lag", show_default=True,
    help="Who comes first: who is furthest behind, or who came first.",
)  # fmt: skip
@click.option("--closed", is_flag=True, help="The last that were closed, the newest first.")
@click.option(
    "--limit", type=click.IntRange(min=1, max=MOST), default=80, show_default=True, metavar="N", help="How many."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with all that is known.")
@url_option
def connections(sort: str, closed: bool, limit: int, as_json: bool, url: str) -> int:
    """List the broker's connections once, those that are furthest behind first. `fanwire top` goes on showing them.

    On a terminal that is too narrow words are cut and columns left out, but no number is cut; a pipe and --json get
    everything.

    It asks over HTTP: with FANWIRE_TOKEN an operator's token, or without authentication on the broker's own machine.

    \b
    Examples:
      fanwire connections --limit 10
      fanwire connections --json | jq -r 'select(.lagging).session'
      fanwire connections --closed

    \b
    Exit status:
      0  listed
      1  no broker, or it does not tell
      2  wrong usage
    """
    return run(_closed if closed else _open, sort, limit, as_json, url)


async def _open(sort: str, limit: int, as_json: bool, url: str) -> int:
    answer = await ask(url, "GET", "/v1/connections", {"sort": sort, "limit": limit})
    listed = answer["connections"]
    rows = [
        (
            each["session"],
            each["name"],
            each.get("user"),  # a broker of an older version does not tell it
            each["address"],
            "lagging" if each["lagging"] else "ok",
            each["queued"],
            each["queued_bytes"],
            each["oldest_ms"],
            nearest_limit(each),
            each["lost"],
            each["replaced"],
            each["subscriptions"],
        )
        for each in listed
    ]
    await _print(listed, _OPEN, rows, as_json)
    if not as_json and answer["total"] > len(listed):
        note(f"{len(listed)} of {answer['total']}; --limit shows more")
    return 0


async def _closed(_sort: str, limit: int, as_json: bool, url: str) -> int:
    listed = (await ask(url, "GET", "/v1/connections/closed", {"limit": limit}))["closed"]
    rows = [
        (each["session"], each["name"], each.get("user"), each["code"], f"{each['lasted_s']:.1f}", each["reason"])
        for each in listed
    ]
    await _print(listed, _CLOSED, rows, as_json)
    return 0


async def _print(listed: list[Any], columns: Sequence[Column], rows: Sequence[Sequence[object]], as_json: bool) -> None:
    output = Output()
    if as_json:
        await output.write("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in listed))
    else:
        await output.write(table(columns, rows, output.columns))
