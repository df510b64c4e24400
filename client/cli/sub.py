"""`fanwire sub`: print the messages of topics."""

import attrs
import click
import trio

from fanwire.client import Client, LostMessages, Message, Stale, Subscription, connect
from fanwire.client.config import OnSlow
from fanwire.protocol import NO_LIMIT, ON_SLOW

from .command import Command
from .connection_news import tell_states
from .message_line import json_line, lost_json_line, lost_text, stale_json_line, stale_text, text_line
from .options import POSITIVE, environment_token, max_rate_option, pattern, url_option
from .output import Output, note
from .running import run, until_signalled


@attrs.frozen(slots=True)
class _Asked:
    """What is asked of the broker, and whether losses are shown."""

    on_slow: OnSlow
    queue: int | None
    max_rate: float | None
    report_loss: bool
    snapshot: bool
    last: int | None
    heartbeat_s: float | None
    group: str | None
    echo: bool

    def of(self, client: Client, pattern: str) -> Subscription:
        """The subscription, not entered yet."""
        return client.subscribe(
            pattern,
            on_slow=self.on_slow,
            queue=NO_LIMIT if self.queue is None else self.queue,
            max_rate=self.max_rate,
            report_loss=self.report_loss,
            snapshot=self.snapshot,
            replay=None if self.last is None else {"last": self.last},
            heartbeat_s=self.heartbeat_s,
            group=self.group,
            echo=self.echo,
        )


@attrs.define(slots=True)
class _Listening:
    """What is being printed, and how much of it there was."""

    as_json: bool
    output: Output
    count: int | None
    done: trio.Event = attrs.field(factory=trio.Event)
    printed: int = 0
    lost: int = 0
    writing: int = 0
    """Patterns of which lines are not out yet."""

    async def take(self, entries: list[Message]) -> None:
        """Print messages, as many as are still wanted, and the losses among them."""
        lines: list[str] = []
        for entry in entries:
            if self.printed == self.count:
                break
            lines.append(self._line(entry))
        if lines:
            self.writing += 1
            await self.output.write("".join(lines))
            self.writing -= 1
        if self.printed == self.count and not self.writing:
            self.done.set()

    def _line(self, entry: Message | LostMessages | Stale) -> str:
        if isinstance(entry, LostMessages | Stale):
            return self._told(entry)
        self.printed += 1  # before it waits: another pattern's messages may come meanwhile
        return json_line(entry) if self.as_json else text_line(entry)

    def _told(self, mark: LostMessages | Stale) -> str:
        """A program that reads JSON gets it in its place; a person is told apart from what may be piped on."""
        if self.as_json:
            return stale_json_line(mark) if isinstance(mark, Stale) else lost_json_line(mark)
        note(stale_text(mark) if isinstance(mark, Stale) else lost_text(mark))
        return ""


@click.command(cls=Command, short_help="Print the messages of topics.")
@click.argument("patterns", metavar="PATTERN...", nargs=-1, required=True, type=pattern)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after so many messages.")
@click.option("--timeout", type=POSITIVE, metavar="S", help="End after so many seconds, in any case.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: topic, data, encoding, time.")
@click.option(
    "--on-slow",
    type=click.Choice(ON_SLOW),
    default=ON_SLOW[0],
    show_default=True,
    help="What the broker does when we don't keep up.",
)
@click.option(
    "--queue",
    type=click.IntRange(min=1),
    metavar="N",
    help="Messages that may wait at the broker. Default: as many as the broker lets wait.",
)
@max_rate_option
@click.option("--report-loss", is_flag=True, help="Say where messages are missing, and how many.")
@click.option("--snapshot", is_flag=True, help="Begin with the last value of each topic that has one.")
@click.option(
    "--last",
    type=click.IntRange(min=1),
    metavar="N",
    help="Begin with the newest N messages of each topic that keeps history.",
)
@click.option("--heartbeat", type=POSITIVE, metavar="S", help="Say when a topic was silent for so many seconds.")
@click.option("--group", metavar="NAME", help="Share the messages with all others of this queue group.")
@click.option("--no-echo", "echo", is_flag=True, default=True, flag_value=False, help="Leave out what we publish.")
@url_option
def sub(
    patterns: tuple[str, ...],
    count: int | None,
    timeout: float | None,
    as_json: bool,
    on_slow: OnSlow,
    queue: int | None,
    max_rate: float | None,
    report_loss: bool,
    snapshot: bool,
    last: int | None,
    heartbeat: float | None,
    group: str | None,
    echo: bool,
    url: str,
) -> int:
    """Print every message on the topics that match PATTERN, a line each.

    In a pattern '*' stands for one token and '>' at its end for one or more: quote them, or your shell expands them.

    With --json, data is the message's value; bytes, and what JSON cannot say, come as {"$bin": base64}.

    --on-slow conflate keeps only the newest message of each topic for us while we don't keep up; drop_oldest and
    drop_newest lose messages, which --report-loss shows: on standard error or, with --json, as {"lost": 5, "reason":
    "queue", "topic": "stocks.AAPL"} in the place where they are missing. --max-rate implies conflate.

    --heartbeat 5 tells, again and again, of each topic on which nothing was published for 5 s: on standard error or,
    with --json, as {"silent": 5.0, "topic": "stocks.AAPL", "connected": true} in its place. connected is false when it
    is the connection that is silent.

    \b
    Examples:
      fanwire sub 'stocks.>'
      fanwire sub 'stocks.*' 'rooms.kitchen' --json
      fanwire sub 'stocks.>' --json | jq .data.price
      fanwire sub stocks.AAPL --count 1 --timeout 5
      fanwire sub 'stocks.>' --max-rate 2
      fanwire sub 'rooms.>' --snapshot
      fanwire sub jobs.resize --group workers
      fanwire sub 'stocks.>' --on-slow drop_oldest --queue 1000 --report-loss

    \b
    Exit status:
      0    --count was reached, or without it Ctrl-C (or SIGTERM) ended it, or the reader of its output went away
      1    --timeout came first, or the connection failed
      2    wrong usage
      130  interrupted before --count was reached (143 by SIGTERM)
    """
    listening = _Listening(as_json, Output(), count)
    asked = _Asked(on_slow, queue, max_rate, report_loss, snapshot, last, heartbeat, group, echo)
    return run(_sub, listening, tuple(dict.fromkeys(patterns)), asked, timeout, url)


async def _sub(listening: _Listening, patterns: tuple[str, ...], asked: _Asked, seconds: float | None, url: str) -> int:
    started = trio.current_time()
    async with (
        until_signalled(seconds) as ending,
        connect(url, token=environment_token(), name="fanwire sub") as client,
    ):
        await _listen([asked.of(client, pattern) for pattern in patterns], client, listening)
    if listening.lost or not listening.done.is_set():
        _summarise(listening, trio.current_time() - started)
    return _status(listening, ending.signal)


async def _listen(subscriptions: list[Subscription], client: Client, listening: _Listening) -> None:
    async with trio.open_nursery() as nursery:
        for subscription in subscriptions:
            await nursery.start(_print, subscription, listening)
        nursery.start_soon(tell_states, client)
        note(f"listening to {' '.join(each.pattern for each in subscriptions)}; Ctrl-C ends")
        await listening.done.wait()
        nursery.cancel_scope.cancel()


async def _print(
    subscription: Subscription, listening: _Listening, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with subscription:
        task_status.started()
        try:
            async for messages in subscription.batches():
                await listening.take(messages)
        finally:
            listening.lost += subscription.lost


def _summarise(listening: _Listening, seconds: float) -> None:
    lost = f", {listening.lost} lost" if listening.lost else ""
    note(f"{listening.printed} messages in {seconds:.1f} s{lost}")


def _status(listening: _Listening, signal: int | None) -> int:
    if listening.done.is_set():
        return 0
    if signal is None:
        return 1  # the time was up
    return 0 if listening.count is None else 128 + signal
