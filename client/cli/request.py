"""`fanwire request`: ask whoever serves a topic, and print what they reply."""

import click

from fanwire.client import connect

from .command import Command
from .message_line import data_text
from .options import POSITIVE, environment_token, url_option
from .options import topic as topic_type
from .output import Output
from .payload import Form, Payload, read_payload
from .running import run


@click.command(cls=Command, short_help="Ask whoever serves a topic.")
@click.argument("topic", type=topic_type)
@click.argument("data", default="")
@click.option("--json", "form", flag_value="json", help="The data is JSON: who answers gets its value.")
@click.option("--text", "form", flag_value="text", help="The data is UTF-8 text; the default.")
@click.option("--raw", "form", flag_value="raw", help="The data is bytes.")
@click.option("--count", type=click.IntRange(min=1), default=1, metavar="N", help="Wait for so many replies.")
@click.option("--timeout", type=POSITIVE, default=5.0, show_default=True, metavar="S", help="Wait so long at most.")
@url_option
def request(topic: str, data: str, form: Form | None, count: int, timeout: float, url: str) -> int:
    """Publish DATA on TOPIC as a request, and print each reply to it on a line.

    \b
    Examples:
      fanwire request sums.add --json '[1, 2, 3]'
      fanwire request who.is.there --count 10 --timeout 1

    \b
    Exit status:
      0    as many replies came as were asked for
      1    fewer did in time, nobody serves the topic, or the connection failed
      2    wrong usage, or data that is not what --json or --text say
      130  interrupted
    """
    payload = read_payload(data.encode("utf-8", "surrogateescape"), form or "text", where="DATA")
    return run(_request, topic, payload, count, timeout, url)


async def _request(topic: str, payload: Payload, count: int, timeout_s: float, url: str) -> int:
    output = Output()
    async with (
        connect(url, token=environment_token(), name="fanwire request", reconnect=False) as client,
        client.request_many(topic, payload.data, timeout_s=timeout_s, most=count, raw=payload.raw) as replies,
    ):
        async for reply in replies:
            await output.write(f"{data_text(reply)}\n")
    if replies.timed_out:
        came = f"{replies.count} of {count} replies" if replies.count else "no reply"
        raise click.ClickException(f"{came} within {timeout_s:g} s")
    return 0
