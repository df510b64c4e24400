"""`fanwire pub`: publish messages, and know that the broker has them."""

from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import click

from fanwire.client import Client, FanwireError, Pipeline, connect

from .command import Command
from .options import POSITIVE, environment_token, url_option
from .options import topic as topic_type
from .output import say
from .payload import Form, Payload, read_payload
from .running import run
from .schedule import Pace
from .stdin_lines import STANDARD_INPUT, lines

_LONGEST_LINE = 16 * 1024 * 1024  # bounds our memory; the broker's limit is lower as a rule, and it says so


@attrs.frozen(slots=True)
class _Job:
    """What is to be published."""

    topic: str
    form: Form
    payload: Payload | None
    """One message; `None`: each line of standard input is one."""
    count: int | None
    rate: float | None
    retain: bool | None

    @property
    def is_one(self) -> bool:
        return self.payload is not None and self.count in (None, 1)

    async def payloads(self) -> AsyncIterator[Payload]:
        """Every message's data, as often and as many as was asked for."""
        if self.payload is not None:
            for _ in range(self.count or 1):
                yield self.payload
            return
        number = 0
        async for line in lines(STANDARD_INPUT, longest=_LONGEST_LINE):
            number += 1
            yield read_payload(line, self.form, where=f"line {number} of standard input")
            if number == self.count:
                return


@click.command(cls=Command, short_help="Publish messages.")
@click.argument("topic", type=topic_type)
@click.argument("data", required=False)
@click.option(
    "--file", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Publish what a file holds."
)
@click.option("--json", "form", flag_value="json", help="The data is JSON: subscribers get its value.")
@click.option("--text", "form", flag_value="text", help="The data is UTF-8 text; the default, but for --file.")
@click.option("--raw", "form", flag_value="raw", help="The data is bytes; the default for --file.")
@click.option(
    "--count",
    type=click.IntRange(min=1),
    metavar="N",
    help="Publish it so many times; of standard input, at most so many lines.",
)
@click.option("--rate", type=POSITIVE, metavar="N", help="Messages a second at most.")
@click.option(
    "--retain", is_flag=True, help="It is the topic's last value from now on; no data: the topic has none any more."
)
@click.option("--quiet", "-q", is_flag=True, help="Don't say what was published.")
@url_option
def pub(
    topic: str,
    data: str | None,
    file: Path | None,
    form: Form | None,
    count: int | None,
    rate: float | None,
    retain: bool,
    quiet: bool,
    url: str,
) -> int:
    """Publish DATA on TOPIC, or each line of standard input when DATA is '-'.

    It ends when the broker has acknowledged everything.

    \b
    Examples:
      fanwire pub rooms.kitchen 'the soup is ready'
      fanwire pub stocks.AAPL --json '{"symbol": "AAPL", "price": 130.31}'
      tail -f app.log | fanwire pub logs.app -
      fanwire pub pictures.cat --file cat.jpg
      fanwire pub load.test hello --count 10000 --rate 500
      fanwire pub rooms.kitchen --json '{"light": "on"}' --retain

    \b
    Exit status:
      0    the broker acknowledged every message
      1    it did not: no broker, a message refused, or the connection lost
      2    wrong usage, or data that is not what --json or --text say
      130  interrupted
    """
    form = form or ("text" if file is None else "raw")
    return run(_pub, _Job(topic, form, _given(data, file, form), count, rate, retain or None), url, quiet)


def _given(data: str | None, file: Path | None, form: Form) -> Payload | None:
    """The one message there is to publish; `None` for lines of standard input."""
    if file is not None:
        if data is not None:
            raise click.UsageError("give DATA or --file, not both", click.get_current_context())
        return read_payload(_read(file), form, where=f"{file}")
    if data is None:
        raise click.UsageError(
            "nothing to publish: give DATA, '-' for the lines of standard input, or --file", click.get_current_context()
        )
    # Arguments that are no UTF-8 come as surrogates, and go back to the bytes they were.
    return None if data == "-" else read_payload(data.encode("utf-8", "surrogateescape"), form, where="DATA")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None


async def _pub(job: _Job, url: str, quiet: bool) -> int:
    # Not made anew when it is lost: whether the broker has a message that it did not answer, nobody knows.
    async with connect(url, token=environment_token(), name="fanwire pub", reconnect=False) as client:
        published = await (_publish_one(job, client) if job.is_one else _publish_many(job, client))
    if not quiet:
        say(f"published {published} on {job.topic}")
    return 0


async def _publish_one(job: _Job, client: Client) -> str:
    assert job.payload is not None
    result = await client.publish(job.topic, job.payload.data, raw=job.payload.raw, retain=job.retain)
    return f"1 message to {result.subscribers} {'subscriber' if result.subscribers == 1 else 'subscribers'}"


async def _publish_many(job: _Job, client: Client) -> str:
    pipe = client.pipeline()
    try:
        async with pipe:
            await _feed_in(job, pipe)
    except ExceptionGroup as group:
        refused, rest = group.split(FanwireError)
        if refused is None or rest is not None:
            raise
        raise _not_acknowledged(pipe, refused) from None
    return f"{pipe.acknowledged} messages"


async def _feed_in(job: _Job, pipe: Pipeline) -> None:
    number = 0
    pace = Pace()
    async for payload in job.payloads():
        if job.rate is not None:
            await pace.until(number / job.rate)
        await pipe.publish(job.topic, payload.data, raw=payload.raw, retain=job.retain)
        number += 1


def _not_acknowledged(pipe: Pipeline, refused: ExceptionGroup[FanwireError]) -> click.ClickException:
    first = refused.exceptions[0]
    return click.ClickException(f"{pipe.acknowledged} messages were acknowledged, {pipe.failures} were not: {first}")
