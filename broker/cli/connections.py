"""`fanwire connections`: who is connected, now; or who was."""

import json
from collections.abc import Sequence
from typing import Any

import click

from fanwire.client.cli.command import Command
from fanwire.client.cli.options import url_option
from fanwire.client.cli.output import Output, note
from fanwire.client.cli.running import run

from .http_query import ask
from .operator_table import table

MOST = 1000

_STATE = ("STATE", "QUEUED", "BYTES", "OLDEST_MS", "LOST", "REPLACED", "SUBSCRIPTIONS")
_OPEN = ("SESSION", "CLIENT", "USER", "ADDRESS", *_STATE)
_CLOSED = ("SESSION", "CLIENT", "USER", "CODE", "LASTED_S", "REASON")
_NUMBERS = ("QUEUED", "BYTES", "OLDEST_MS", "LOST", "REPLACED", "SUBSCRIPTIONS", "CODE", "LASTED_S")


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


async def _print(listed: list[Any], headings: Sequence[str], rows: Sequence[Sequence[object]], as_json: bool) -> None:
    if as_json:
        await Output().write("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in listed))
    else:
        await Output().write(table(headings, rows, _NUMBERS))
