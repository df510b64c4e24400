"""`fanwire sub`: print the messages of topics."""

from collections.abc import Callable

import attrs
import click
import trio

from fanwire.client import Client, Message, connect

from .connection_news import tell_states
from .message_line import json_line, text_line
from .options import POSITIVE, QUEUE, pattern, url_option
from .output import Output
from .running import run, until_signalled


@attrs.define(slots=True)
class _Listening:
    """What is being printed, and how much of it there was."""

    line_of: Callable[[Message], str]
    output: Output
    count: int | None
    done: trio.Event = attrs.field(factory=trio.Event)
    printed: int = 0
    lost: int = 0

    async def take(self, messages: list[Message]) -> None:
        """Print messages, as many as are still wanted."""
        if self.count is not None:
            messages = messages[: self.count - self.printed]
        if not messages:
            return
        self.printed += len(messages)  # before it waits: another pattern's messages may come meanwhile
        await self.output.write("".join(map(self.line_of, messages)))
        if self.printed == self.count:
            self.done.set()


@click.command(short_help="Print the messages of topics.")
@click.argument("patterns", metavar="PATTERN...", nargs=-1, required=True, type=pattern)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after so many messages.")
@click.option("--timeout", type=POSITIVE, metavar="S", help="End after so many seconds, in any case.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: topic, data, encoding, time.")
@url_option
def sub(patterns: tuple[str, ...], count: int | None, timeout: float | None, as_json: bool, url: str) -> int:
    """Print every message on the topics that match PATTERN, a line each.

    In a pattern '*' stands for one token and '>' at its end for one or more: quote them, or your shell expands them.

    With --json, data is the message's value; bytes, and what JSON cannot say, come as {"$bin": base64}.

    \b
    Examples:
      fanwire sub 'stocks.>'
      fanwire sub 'stocks.*' 'rooms.kitchen' --json
      fanwire sub 'stocks.>' --json | jq .data.price
      fanwire sub stocks.AAPL --count 1 --timeout 5

    \b
    Exit status:
      0    --count was reached, or without it Ctrl-C (or SIGTERM) ended it, or the reader of its output went away
      1    --timeout came first, or the connection failed
      2    wrong usage
      130  interrupted before --count was reached (143 by SIGTERM)
    """
    line_of = json_line if as_json else text_line
    return run(_sub, _Listening(line_of, Output(), count), tuple(dict.fromkeys(patterns)), timeout, url)


async def _sub(listening: _Listening, patterns: tuple[str, ...], seconds: float | None, url: str) -> int:
    started = trio.current_time()
    async with until_signalled(seconds) as ending, connect(url, name="fanwire sub") as client:
        await _listen(client, patterns, listening)
    if listening.lost or not listening.done.is_set():
        _summarise(listening, trio.current_time() - started)
    return _status(listening, ending.signal)


async def _listen(client: Client, patterns: tuple[str, ...], listening: _Listening) -> None:
    async with trio.open_nursery() as nursery:
        for pattern in patterns:
            await nursery.start(_print, client, pattern, listening)
        nursery.start_soon(tell_states, client)
        click.echo(f"listening to {' '.join(patterns)}; Ctrl-C ends", err=True)
        await listening.done.wait()
        nursery.cancel_scope.cancel()


async def _print(
    client: Client,
    pattern: str,
    listening: _Listening,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    async with client.subscribe(pattern, queue=QUEUE) as subscription:
        task_status.started()
        try:
            async for messages in subscription.batches():
                await listening.take(messages)
        finally:
            listening.lost += subscription.lost


def _summarise(listening: _Listening, seconds: float) -> None:
    lost = f", {listening.lost} lost" if listening.lost else ""
    click.echo(f"{listening.printed} messages in {seconds:.1f} s{lost}", err=True)


def _status(listening: _Listening, signal: int | None) -> int:
    if listening.done.is_set():
        return 0
    if signal is None:
        return 1  # the time was up
    return 0 if listening.count is None else 128 + signal
