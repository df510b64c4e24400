"""`fanwire top`: which subscribers are behind, now."""

import json
from collections.abc import Mapping
from typing import Any

import click
import trio

from fanwire.client import Client, Undecodable, connect
from fanwire.protocol.reserved import CONNECTIONS, STATS

from .command import Command
from .connection_news import leave_the_screen_alone
from .options import environment_token, plain_option, seconds_option, url_option
from .output import Output
from .running import run, until_signalled
from .top_view import COLUMNS, HEADINGS, SORTS, Recent, Reports, cells, summary

# A broker reports at once when somebody begins to listen, and every second.
PATIENCE_S = 5.0
"""How long the first report may take, and with --once the one that rates need."""

_CLOSED = 5


@click.command(cls=Command, short_help="Show which subscribers are behind.")
@click.option("--once", is_flag=True, help="Show one report, with rates, and end.")
@click.option(
    "--sort",
    type=click.Choice(tuple(SORTS)),
    default="lag",
    show_default=True,
    help="What comes first: who lags (then by bytes), most bytes, the oldest message, most lost, most replaced.",
)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="Rows at most.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line for each report, with all that is in it.")
@plain_option
@seconds_option("End after so many seconds.")
@url_option
def top(once: bool, sort: str, limit: int, as_json: bool, plain: bool, seconds: float | None, url: str) -> int:
    """Show the broker's connections, those that are furthest behind first, and what has become of slow ones.

    The broker reports once a second while somebody looks. Without a terminal each report is printed as plain text. On
    a terminal large numbers are rounded (12.3k, 4.56M), and a narrow one shows fewer columns; no number is cut.

    Rates are over the time between two reports. --once waits for a second one, about a second.

    \b
    Examples:
      fanwire top
      fanwire top --once --sort bytes --limit 10
      fanwire top --json | jq '.connections.connections[0]'

    \b
    Exit status:
      0  Ctrl-C, SIGTERM, --once or --seconds ended it, or the reader of its output went away
      1  no broker, one that does not report, or the connection was lost for good
      2  wrong usage
    """
    output = Output()
    if as_json:
        display: Display = JsonDisplay(output)
    elif plain or not output.is_terminal:
        display = PlainDisplay(output, sort, limit)
    else:
        display = LiveDisplay(sort, limit)
    return run(_top, display, once, seconds, url)


class Display:
    """Something that shows reports."""

    shows_rates = True
    """Whether one report is of little use without another one before it."""

    async def show(self, reports: Reports) -> None:
        """Show them."""
        raise NotImplementedError

    def __enter__(self) -> None:
        """Begin to show."""

    def __exit__(self, *_: object) -> None:
        """The last one has been shown."""


class JsonDisplay(Display):
    """For programs, which reckon rates themselves."""

    shows_rates = False

    def __init__(self, output: Output) -> None:
        self._output = output

    async def show(self, reports: Reports) -> None:
        """One line."""
        both = {"stats": reports.stats, "connections": reports.connections}
        await self._output.write(json.dumps(both, ensure_ascii=False, default=repr) + "\n")


class PlainDisplay(Display):
    """Plain text: blanks part the columns of the table, and no cell holds one."""

    def __init__(self, output: Output, sort: str, limit: int) -> None:
        self._output = output
        self._sort = sort
        self._limit = limit

    async def show(self, reports: Reports) -> None:
        """Summary, table, the connections closed last, an empty line."""
        lines = [*summary(reports), *table(reports, self._sort, self._limit), *reports.closed(_CLOSED), ""]
        await self._output.write("\n".join(lines) + "\n")


class LiveDisplay(Display):
    """A table on a terminal."""

    def __init__(self, sort: str, limit: int) -> None:
        from .top_table import TopTable  # brings rich, which a pipe does not need

        leave_the_screen_alone()
        self._table = TopTable(sort, limit)
        self._shown = self._table.shown()

    def __enter__(self) -> None:
        self._shown.__enter__()

    def __exit__(self, *_: object) -> None:
        self._shown.__exit__(None, None, None)

    async def show(self, reports: Reports) -> None:
        """Draw them in their place."""
        self._table.draw(reports)
        await trio.lowlevel.checkpoint()


def table(reports: Reports, sort: str, limit: int) -> list[str]:
    """Headings and a line for each connection."""
    rows = [HEADINGS, *(cells(connection) for connection in reports.listed(sort, limit))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column.left else cell.rjust(width)
            for cell, width, column in zip(row, widths, COLUMNS, strict=True)
        ).rstrip()
        for row in rows
    ]


async def _top(display: Display, once: bool, seconds: float | None, url: str) -> int:
    async with until_signalled(seconds), connect(url, token=environment_token(), name="fanwire top") as client:
        send, receive = trio.open_memory_channel[tuple[str, Mapping[str, Any]]](2)
        async with trio.open_nursery() as nursery:
            # The statistics first: each report of connections is shown with the ones before it.
            await nursery.start(_follow, client, STATS, send)
            await nursery.start(_follow, client, CONNECTIONS, send)
            with display:
                await _show_all(display, receive, once)
            nursery.cancel_scope.cancel()
    return 0


async def _follow(
    client: Client,
    topic: str,
    send: trio.MemorySendChannel[tuple[str, Mapping[str, Any]]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    # Only the newest report is of interest, at the broker and here.
    async with client.subscribe(topic, on_slow="conflate", on_full="conflate") as subscription:
        task_status.started()
        async for message in subscription:
            try:
                report = message.data
            except Undecodable:
                continue
            if isinstance(report, dict):
                await send.send((topic, report))


async def _show_all(
    display: Display, receive: trio.MemoryReceiveChannel[tuple[str, Mapping[str, Any]]], once: bool
) -> None:
    recent = Recent()
    stats: Mapping[str, Any] | None = None
    before: Mapping[str, Any] | None = None
    connections: Mapping[str, Any] | None = None
    shown = False
    deadline = trio.current_time() + PATIENCE_S
    while True:
        with trio.move_on_at(deadline) as waiting:
            topic, report = await receive.receive()
        if waiting.cancelled_caught:
            if stats is not None and connections is not None:
                await display.show(Reports(stats, connections, before))  # no second report to reckon rates from
                return
            raise click.ClickException(
                f"the broker did not report on {STATS} and {CONNECTIONS} within {PATIENCE_S:g} s: it is older than"
                " version 0.2, or does not let you subscribe to them"
            )
        if topic == STATS:
            stats, before = report, recent.add(report)
        else:
            connections = report
        if stats is None or connections is None or (topic == STATS and (shown or before is not None)):
            continue  # the connections follow
        if once and display.shows_rates and before is None and stats.get("interval_s") is not None:
            continue
        await display.show(Reports(stats, connections, before))
        shown = True
        if once:
            return
        deadline = float("inf")  # a broker may be told to report only once
