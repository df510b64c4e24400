"""How `fanwire sub` tells of losses (`--report-loss`) and of silence (`--heartbeat`)."""

import json
import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fanwire.client import LostMessages, Stale
from fanwire.client.cli.message_line import lost_json_line, lost_text, stale_json_line, stale_text
from fanwire.client.cli.output import Output
from fanwire.client.cli.sub import _Listening
from fanwire.client.message import Message

MESSAGE = Message((19, 1, None, 0, 7, b"x", 2), "a")


@pytest.mark.parametrize(
    ("lost", "text", "fields"),
    [
        (
            LostMessages(5, "queue", "stocks.AAPL"),
            "lost 5 messages of stocks.AAPL (queue)",
            {"lost": 5, "reason": "queue", "topic": "stocks.AAPL"},
        ),
        (
            LostMessages(None, "reconnect", None),
            "lost an unknown number of messages (reconnect)",
            {"lost": None, "reason": "reconnect"},
        ),
        (
            LostMessages(2, "evicted", "a", 3, 4),
            "lost 2 messages of a (evicted)",
            {"lost": 2, "reason": "evicted", "topic": "a", "first": 3, "last": 4},
        ),
    ],
)
def test_a_loss_in_words_and_as_json(lost: LostMessages, text: str, fields: dict[str, object]) -> None:
    """Both say how many, of what, and why; JSON leaves out what is not known, but for the count."""
    assert lost_text(lost) == text
    assert json.loads(lost_json_line(lost)) == fields


@pytest.mark.parametrize(
    ("stale", "text", "fields"),
    [
        (
            Stale("stocks.AAPL", "stocks.*", 5.0004, 7, connected=True),
            "quiet: nothing on stocks.AAPL for 5.0 s",
            {"silent": 5.0, "topic": "stocks.AAPL", "offset": 7, "connected": True},
        ),
        (
            Stale(None, "stocks.*", 10.0, 0, connected=False),
            "quiet: nothing from the broker for 10.0 s (stocks.*)",
            {"silent": 10.0, "pattern": "stocks.*", "connected": False},
        ),
        (
            Stale(None, "stocks.*", 10.0, 0, connected=True),
            "quiet: nothing on several topics of stocks.* for 10.0 s",
            {"silent": 10.0, "pattern": "stocks.*", "connected": True},
        ),
    ],
)
def test_silence_in_words_and_as_json(stale: Stale, text: str, fields: dict[str, object]) -> None:
    """Both say of what, for how long, and who says so."""
    assert stale_text(stale) == text
    assert json.loads(stale_json_line(stale)) == fields


def _read(line: str) -> object:
    """A message as its topic, a loss as it is."""
    fields = json.loads(line)
    return fields["topic"] if "data" in fields else fields


@pytest.mark.parametrize(
    ("as_json", "out", "err"),
    [
        (False, ["a  x", "a  x"], "lost 5 messages of a (queue)\n"),
        (True, ["a", {"lost": 5, "reason": "queue", "topic": "a"}, "a"], ""),
    ],
)
async def test_where_it_is_told(capsys: pytest.CaptureFixture[str], as_json: bool, out: list[object], err: str) -> None:
    """As JSON in its place among the messages, else on standard error; a loss does not count as a message."""
    read_end, write_end = os.pipe()
    listening = _Listening(as_json, Output(write_end), count=2)
    entries = [MESSAGE, LostMessages(5, "queue", "a"), MESSAGE, MESSAGE]

    await listening.take(entries)  # type: ignore[arg-type]

    os.close(write_end)
    with os.fdopen(read_end) as file:
        lines = file.read().splitlines()
    assert [_read(line) if as_json else line for line in lines] == out
    assert capsys.readouterr().err == err
    assert listening.done.is_set()


class _SlowOutput(Output):
    """Each line is out when a test says so."""

    def __init__(self) -> None:
        super().__init__(descriptor=-1)
        self.turns: list[trio.Event] = []

    async def write(self, text: str) -> None:
        """See `Output`."""
        self.turns.append(trio.Event())
        await self.turns[-1].wait()


async def test_it_ends_when_the_last_line_is_out(nursery: trio.Nursery) -> None:
    """Not when the last message has come: lines of another pattern may still be on their way."""
    output = _SlowOutput()
    listening = _Listening(False, output, count=2)
    nursery.start_soon(listening.take, [MESSAGE])
    nursery.start_soon(listening.take, [MESSAGE])
    await wait_all_tasks_blocked()
    output.turns[0].set()
    await wait_all_tasks_blocked()
    assert not listening.done.is_set()
    output.turns[1].set()
    await wait_all_tasks_blocked()

    assert listening.done.is_set()
