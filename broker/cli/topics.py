"""`fanwire topics`: which topics there are, and what they remember."""

import json

import click

from fanwire.client.cli.columns import Column
from fanwire.client.cli.command import Command
from fanwire.client.cli.options import pattern as pattern_type
from fanwire.client.cli.options import url_option
from fanwire.client.cli.output import Output
from fanwire.client.cli.running import run

from .http_query import ask
from .operator_table import table

# Of one request.
_PAGE = 1000

_COLUMNS = (
    Column("TOPIC", 0, words=True, least=20),
    Column("SUBSCRIPTIONS", 1),
    Column("LAGGING", 2),
    Column("OFFSET", 3),
    Column("MESSAGES", 4),
    Column("RETAINED", 5, name=True),
)


@click.command(cls=Command, short_help="List topics.")
@click.argument("wanted", metavar="[PATTERN]", type=pattern_type, default=">")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="How many at most; all if it is not given.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with all that is known.")
@url_option
def topics(wanted: str, limit: int | None, as_json: bool, url: str) -> int:
    """List the topics that match PATTERN, by name: those that were published on, or remember something.

    It asks over HTTP: with FANWIRE_TOKEN an operator's token, or without authentication on the broker's own machine.

    \b
    Examples:
      fanwire topics
      fanwire topics 'stocks.*' --json | jq -r 'select(.subscriptions == 0).topic'

    \b
    Exit status:
      0  listed
      1  no broker, or it does not tell
      2  wrong usage
    """
    return run(_topics, wanted, limit, as_json, url)


async def _topics(wanted: str, limit: int | None, as_json: bool, url: str) -> int:
    output, after, left, more = Output(), None, limit, True
    if as_json:
        while more and left != 0:
            page, more = await _page(url, wanted, after, left)
            await output.write("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in page))
            after, left = _rest(page, after, left)
        return 0
    rows: list[tuple[object, ...]] = []  # a table is as wide as its widest row
    while more and left != 0:
        page, more = await _page(url, wanted, after, left)
        rows += [tuple(each[column.heading.lower()] for column in _COLUMNS) for each in page]
        after, left = _rest(page, after, left)
    await output.write(table(_COLUMNS, rows, output.columns))
    return 0


async def _page(url: str, wanted: str, after: str | None, left: int | None) -> tuple[list[dict[str, object]], bool]:
    query = {"pattern": wanted, "after": after, "limit": min(_PAGE, left or _PAGE)}
    answer = await ask(url, "GET", "/v1/topics", query)
    return answer["topics"], answer["more"]


def _rest(page: list[dict[str, object]], after: str | None, left: int | None) -> tuple[str | None, int | None]:
    return str(page[-1]["topic"]) if page else after, None if left is None else left - len(page)
