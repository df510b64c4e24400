import os
import signal
from collections.abc import Awaitable, Callable

import click
import pytest
import trio
from trio.testing import MockClock

from fanwire.client import ConnectionFailed, SlowConsumer
from fanwire.client.cli.output import OutputClosed
from fanwire.client.cli.running import run, until_signalled
from fanwire.protocol import LocalProtocolError


def _raising(error: BaseException) -> Callable[[], Awaitable[int]]:
    async def main() -> int:
        await trio.lowlevel.checkpoint()
        raise error

    return main


def test_the_status_is_what_main_returns() -> None:
    """Nothing is changed where nothing goes wrong."""

    async def main(status: int) -> int:
        await trio.lowlevel.checkpoint()
        return status

    assert run(main, 3) == 3


@pytest.mark.parametrize(
    "error",
    [
        ConnectionFailed("cannot reach it"),
        LocalProtocolError("cannot reach it"),
        click.ClickException("cannot reach it"),
        ExceptionGroup("", [ExceptionGroup("", [ConnectionFailed("cannot reach it")])]),
    ],
)
def test_what_users_understand_is_one_line(error: Exception) -> None:
    """Known errors become one line, from within groups too."""
    with pytest.raises(click.ClickException, match=r"^cannot reach it$"):
        run(_raising(error))


@pytest.mark.parametrize("error", [ZeroDivisionError(), ExceptionGroup("", [ConnectionFailed("x"), KeyError("y")])])
def test_a_defect_keeps_its_traceback(error: Exception) -> None:
    """What is our fault comes out as it is, even beside an error of the user's."""
    with pytest.raises(type(error)) as caught:
        run(_raising(error))

    assert caught.value is error


def test_ctrl_c_wins() -> None:
    """An interrupt is an interrupt, whatever else broke meanwhile."""
    with pytest.raises(KeyboardInterrupt):
        run(_raising(BaseExceptionGroup("", [KeyboardInterrupt(), ConnectionFailed("x")])))


def test_a_reader_that_went_away_is_no_error() -> None:
    """`| head` ends the command in silence."""
    assert run(_raising(ExceptionGroup("", [OutputClosed()]))) == 0


def test_a_slow_consumer_is_told_in_the_words_of_the_command_line() -> None:
    """The text names no arguments of a Python call."""
    error = SlowConsumer(
        "call it with buffer=", pattern="a.>", queued=5, queued_bytes=9, oldest_s=1.0, limit=5, at_broker=True
    )
    with pytest.raises(
        click.ClickException, match=r"messages of a\.> came faster .* 5 messages were waiting"
    ) as caught:
        run(_raising(error))

    assert "buffer=" not in caught.value.message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_body(number: signal.Signals) -> None:
    """SIGINT and SIGTERM cancel what runs, and are remembered."""
    async with until_signalled() as ending:
        os.kill(os.getpid(), number)
        await trio.sleep_forever()

    assert ending.signal == number


async def test_the_time_ends_the_body(autojump_clock: MockClock) -> None:
    """After the seconds the body is cancelled; nobody gave a signal."""
    started = autojump_clock.current_time()
    async with until_signalled(5) as ending:
        await trio.sleep_forever()

    assert (autojump_clock.current_time() - started, ending.signal) == (5.0, None)


async def test_a_body_that_ends_is_not_waited_for() -> None:
    """Where the body ends by itself, it is over."""
    async with until_signalled() as ending:
        await trio.lowlevel.checkpoint()

    assert ending.signal is None
