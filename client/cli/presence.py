"""`fanwire presence`: print who is subscribed, and who comes and goes."""

import json

import click
import trio

from fanwire.client import Client, Member, connect

from .command import Command
from .connection_news import tell_states
from .options import environment_token, pattern, url_option
from .output import Output, note
from .running import run, until_signalled
from .terminal_text import printable


@click.command(cls=Command, short_help="Show who is subscribed.")
@click.argument("wanted", metavar="PATTERN", type=pattern)
@click.option("--watch", is_flag=True, help="Go on, and print who comes and who goes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: pattern, name, session, client.")
@url_option
def presence(wanted: str, watch: bool, as_json: bool, url: str) -> int:
    """Print who is subscribed to anything that overlaps with PATTERN, a line each: pattern, name, session.

    The broker tells it only where it was started with a rule that says so: fanwire serve --rule 'rooms.> presence=yes'.

    With --watch each line begins with join or leave (with --json it has "present"); those who are there already come
    first. Who has lost the connection counts as there for a moment, five seconds unless the broker is told otherwise.

    \b
    Examples:
      fanwire presence 'rooms.>'
      fanwire presence rooms.kitchen --watch
      fanwire presence 'rooms.>' --json | jq .name

    \b
    Exit status:
      0    all were printed, or with --watch Ctrl-C (or SIGTERM) ended it, or the reader of its output went away
      1    no broker, or presence is off for PATTERN
      2    wrong usage
      130  interrupted
    """
    return run(_watch if watch else _list, wanted, as_json, url)


async def _list(wanted: str, as_json: bool, url: str) -> int:
    output = Output()
    async with connect(url, token=environment_token(), name="fanwire presence", reconnect=False) as client:
        lines = [_line(member, None, as_json) for member in await client.presence(wanted)]
    await output.write("".join(lines))
    return 0


async def _watch(wanted: str, as_json: bool, url: str) -> int:
    async with until_signalled(None), connect(url, token=environment_token(), name="fanwire presence") as client:
        await _follow(client, wanted, as_json)
    return 0


async def _follow(client: Client, wanted: str, as_json: bool) -> None:
    output = Output()
    async with client.watch_presence(wanted) as watch, trio.open_nursery() as nursery:
        nursery.start_soon(tell_states, client)
        note(f"watching {wanted}; Ctrl-C ends")
        async for member, present in watch:
            await output.write(_line(member, present, as_json))


def _line(member: Member, present: bool | None, as_json: bool) -> str:
    """``present``: whether it has come or gone; None: it is there."""
    if as_json:
        fields: dict[str, object] = {
            "pattern": member.pattern,
            "name": member.name,
            "session": member.session,
            "client": member.client,
        }
        if present is not None:
            fields["present"] = present
        return json.dumps(fields, ensure_ascii=False) + "\n"
    change = [] if present is None else ["join " if present else "leave"]
    return "  ".join([*change, printable(member.pattern), printable(member.name or "-"), member.session]) + "\n"
