"""`fanwire history`: print what the broker keeps of a topic's messages."""

import click

from fanwire.client import Message, connect

from .command import Command
from .message_line import json_line, text_line
from .options import environment_token, url_option
from .options import topic as topic_type
from .output import Output
from .running import run

_LINES = 500
"""Written at once."""


@click.command(cls=Command, short_help="Print what a topic remembers.")
@click.argument("topic", type=topic_type)
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="The newest N messages only.")
@click.option("--after", type=click.IntRange(min=0), metavar="OFFSET", help="Only what came after this message.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: topic, data, encoding, time, offset.")
@url_option
def history(topic: str, last: int | None, after: int | None, as_json: bool, url: str) -> int:
    """Print the messages of TOPIC that the broker keeps, oldest first, a line each.

    The topic has to keep history: fanwire serve --rule 'stocks.> history=1000'.

    \b
    Examples:
      fanwire history stocks.AAPL
      fanwire history stocks.AAPL --last 10 --json
      fanwire history stocks.AAPL --after 4711

    \b
    Exit status:
      0    all was printed, or the reader of its output went away
      1    no broker, or the topic keeps no history
      2    wrong usage
      130  interrupted
    """
    if last is not None and after is not None:
        raise click.UsageError("give --last or --after, not both", click.get_current_context())
    return run(_history, topic, last, after, as_json, url)


async def _history(topic: str, last: int | None, after: int | None, as_json: bool, url: str) -> int:
    output = Output()
    line = json_line if as_json else text_line
    lines: list[str] = []
    async with connect(url, token=environment_token(), name="fanwire history", reconnect=False) as client:
        async for message in client.history(topic, last=last, offset=after):
            assert isinstance(message, Message)
            lines.append(line(message))
            if len(lines) >= _LINES:
                await output.write("".join(lines))
                lines.clear()
        await output.write("".join(lines))
    return 0
