"""Runs a command's async function, and makes of whatever comes out of it an exit status or one line of text."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from signal import SIGINT, SIGTERM
from typing import TypeVarTuple

import attrs
import click
import trio

from .connection_news import leave_connections_to_commands
from .explain import explain
from .output import OutputClosed

Ts = TypeVarTuple("Ts")


def run(main: Callable[[*Ts], Awaitable[int]], *args: *Ts) -> int:
    """`trio.run`, for a command.

    Returns:
        The exit status `main` returned; 0 when whoever read the output has gone.

    Raises:
        click.ClickException: something failed that a user can understand; it says what to do.
        KeyboardInterrupt: Ctrl-C, where `main` does not listen for it.
        BaseException: whatever else came out of `main`: a defect, with its traceback.
    """
    leave_connections_to_commands()
    try:
        return trio.run(main, *args)
    except BaseException as error:
        return _status_of(error)


def _status_of(error: BaseException) -> int:
    leaves = [leaf for leaf in _leaves(error) if not isinstance(leaf, trio.Cancelled)]
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        raise KeyboardInterrupt from None
    if any(isinstance(leaf, OutputClosed) for leaf in leaves):
        return 0
    presentable = [_presentable(leaf) for leaf in leaves]
    for exception in presentable:
        if exception is None:
            raise error
    for exception in presentable:
        if exception is not None:
            raise exception from None
    raise error


def _presentable(leaf: BaseException) -> click.ClickException | None:
    if isinstance(leaf, click.ClickException):
        return leaf
    text = explain(leaf)
    return None if text is None else click.ClickException(text)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


@attrs.define(slots=True)
class Ending:
    """Whether and by what a command was told to end."""

    signal: int | None = None
    """SIGINT, SIGTERM, or `None` when nobody told it to."""


@asynccontextmanager
async def until_signalled(seconds: float | None = None) -> AsyncIterator[Ending]:
    """Cancel the body at Ctrl-C, SIGTERM or the end of the time, and go on behind it, to say a last word.

    Args:
        seconds: how long the body may take at most.
    """
    ending = Ending()
    with trio.open_signal_receiver(SIGINT, SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at_signal, signals, nursery.cancel_scope, ending)
            if seconds is not None:
                nursery.cancel_scope.deadline = trio.current_time() + seconds
            yield ending
            nursery.cancel_scope.cancel()


async def _cancel_at_signal(signals: AsyncIterator[int], scope: trio.CancelScope, ending: Ending) -> None:
    ending.signal = await anext(signals)
    scope.cancel()
