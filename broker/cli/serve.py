"""`fanwire serve`: a broker in a process of its own."""

import errno
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import click
import trio

from fanwire.broker import Broker, Config
from fanwire.broker.log import log
from fanwire.broker.process import tune
from fanwire.client.cli.running import run

from .logs import FORMATS, LEVELS, LogFormat, configure_logs
from .settings import settings_options


@click.command(short_help="Run a broker.")
@settings_options
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default="auto",
    show_default=True,
    help="How the log on standard error looks: coloured for people, key=value, or a JSON object a line; "
    "'auto' is coloured on a terminal, else key=value.",
)
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="What is logged.")
def serve(log_format: LogFormat, log_level: str, **settings: Any) -> int:
    """Run a broker until SIGTERM or Ctrl-C.

    One line on standard output says where it listens; the log goes to standard error.

    The first SIGTERM or SIGINT drains: no new clients, every client is told to come back at another moment, what is
    queued goes out, and the exit status is 0. A second one ends the broker at once.

    \b
    Examples:
      fanwire serve
      fanwire serve --host 0.0.0.0 --port 9000 --log-format json
      fanwire serve --queue 1000 --max-pending 4MiB --stall-timeout 3
      fanwire serve --rule 'stocks.> max_rate=10' --rule 'chat.> on_slow=drop_oldest max_queue=500'

    \b
    Exit status:
      0         drained
      1         it could not listen
      2         wrong usage
      130, 143  ended at once by a second SIGINT or SIGTERM
    """
    configure_logs(log_format, log_level)
    config = _config(settings)
    tune()
    return run(_serve, config)


def _config(settings: dict[str, Any]) -> Config:
    try:
        return Config(**settings)
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from None


async def _serve(config: Config) -> int:
    try:
        broker = Broker(config)
    except ValueError as error:  # a key cannot be used
        raise click.ClickException(str(error)) from None
    # Watched from before the line that says that it listens: who reads the line may send a signal at once.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await _start(broker, nursery)
            click.echo(f"listening on {' '.join(broker.urls)}")
            log.info("listening", urls=" ".join(broker.urls))
            log.info("draining", signal=signal.Signals(await anext(signals)).name)
            status = await _drain(broker, signals)
            nursery.cancel_scope.cancel()
    return status


async def _start(broker: Broker, nursery: trio.Nursery) -> None:
    try:
        await nursery.start(broker.serve)
    except OSError as error:
        raise cannot_listen(broker.config, error) from None


async def _drain(broker: Broker, signals: AsyncIterator[int]) -> int:
    """Drain; the exit status is 0, or the one of a second signal that would not wait."""
    status = 0

    async def end_at_second_signal() -> None:
        nonlocal status
        status = 128 + await anext(signals)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_at_second_signal)
        await broker.drain()
        log.info("drained")
        nursery.cancel_scope.cancel()
    return status


def cannot_listen(config: Config, error: OSError) -> click.ClickException:
    """What to do about an address that cannot be had."""
    where = f"{config.host}:{config.port}"
    if error.errno == errno.EADDRINUSE:
        return click.ClickException(f"{where} is in use: another broker? choose another with --port")
    if error.errno in (errno.EACCES, errno.EPERM):
        return click.ClickException(f"{where} is not for everyone: choose a port from 1024 on with --port")
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return click.ClickException(f"{config.host} is no address of this machine: choose another with --host")
    return click.ClickException(f"cannot listen on {where}: {error}")
