"""`fanwire serve`: a broker in a process of its own."""

import errno
import signal
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
import trio

from fanwire.broker import Broker, Config
from fanwire.broker.cli.process import tune
from fanwire.broker.network.listeners import ADMIN, in_url
from fanwire.broker.telemetry.log import log
from fanwire.client.cli.output import OutputClosed, OutputFailed, say
from fanwire.client.cli.running import run

from .config_file import EX_CONFIG, BadSettings, Settings, given_by, resolve, resolved
from .environment import complain
from .logs import FORMATS, LEVELS, LogFormat, change_level, configure_logs
from .options import settings_options
from .serve_help import ServeCommand, help_all_option
from .systemd import Notifier


@click.command(cls=ServeCommand, short_help="Run a broker.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    envvar="FANWIRE_CONFIG",
    metavar="FILE",
    help="Settings, as TOML (`fanwire config init` writes one). Environment variables and options override it."
    "  [default: no file]",
)
@settings_options
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default="auto",
    envvar="FANWIRE_LOG_FORMAT",
    show_default=True,
    help="How the log on standard error looks: coloured for people, key=value, or a JSON object a line; "
    "'auto' is coloured on a terminal, else key=value.",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    default="info",
    show_default=True,
    envvar="FANWIRE_LOG_LEVEL",
    help="What is logged.",
)
@help_all_option
@click.pass_context
def serve(context: click.Context, /, config_file: Path | None, **_options: Any) -> int:
    """Run a broker until SIGTERM or Ctrl-C.

    One line on standard output says where it listens; the log goes to standard error.

    The first SIGTERM or SIGINT drains: no new clients, every client is sent away and told when to come back, what is
    queued goes out, and the exit status is 0. A second one ends the broker at once. SIGHUP reads the files of --config,
    --auth-file and --tls-cert again. Every option but --rule has a variable: FANWIRE_PORT for --port.

    --help shows the most common options, --help-all shows all of them. Where the value may be none, the text says what
    that means.

    \b
    Examples:
      fanwire serve
      fanwire serve --host :: --tls-cert fullchain.pem --tls-key key.pem --auth-file auth.toml
      fanwire serve --host none --unix-path /run/fanwire/fanwire.sock
      fanwire serve --config fanwire.toml
      fanwire serve --queue 1000 --max-pending 4MiB --stall-timeout 3
      fanwire serve --rule 'stocks.> max_rate=10' --rule 'chat.> on_slow=drop_oldest max_queue=500'

    \b
    Exit status:
      0         drained
      1         it could not listen, or a defect ended it
      2         wrong usage
      78        the settings cannot be used
      130, 143  ended at once by a second SIGINT or SIGTERM
    """
    given = given_by(context)
    misspelt = complain(context.command)
    settings = resolved(config_file, given)
    if settings is None or misspelt:
        return EX_CONFIG
    configure_logs(cast("LogFormat", settings.log_format), settings.log_level)
    tune()
    return run(_serve, settings, partial(resolve, config_file, given), config_file is not None)


_SIGHUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # Windows does not have it


class Unusable(click.ClickException):
    """Settings that turn out to be no good only when the broker listens."""

    exit_code = EX_CONFIG


async def _serve(settings: Settings, again: Callable[[], Settings], from_file: bool) -> int:
    try:
        broker = Broker(settings.config)
    except ValueError as error:  # a key cannot be used
        raise click.ClickException(str(error)) from None
    systemd = Notifier()
    # Without files there is nothing to read again, and SIGHUP is what it always was: the terminal has gone.
    has_files = from_file or settings.config.auth is not None or settings.config.tls is not None
    watched = {_SIGHUP} if has_files and _SIGHUP is not None else set()
    # Watched from before the line that says that it listens: who reads the line may send a signal at once.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, *watched) as signals:
        async with trio.open_nursery() as nursery:
            await _start(broker, nursery)
            _say_where(broker)
            log.info("listening", urls=" ".join(broker.urls), **_admin(broker))
            nursery.start_soon(broker.watch_lag)
            systemd.ready()
            nursery.start_soon(systemd.keep_telling, partial(_status, broker))
            while (number := await anext(signals)) == _SIGHUP:
                systemd.reloading()
                systemd.reloaded(await _reload(broker, again))
            log.info("draining", signal=signal.Signals(number).name)
            systemd.stopping(_longest_drain_s(broker.config))
            status = await _drain(broker, signals)
            nursery.cancel_scope.cancel()
    return status


def _say_where(broker: Broker) -> None:
    """The line on standard output. A broker serves also where nobody can read it."""
    try:
        say(f"listening on {' '.join(broker.urls)}")
    except (OutputClosed, OutputFailed) as error:
        log.warning("cannot say where it listens", reason=str(error) or "the reader of standard output has gone")


def _admin(broker: Broker) -> dict[str, str]:
    """Where operators ask, if they have a port of their own; for the log."""
    if broker.admin_port is None:
        return {}
    scheme = "https" if broker.config.tls else "http"
    return {"admin": f"{scheme}://{in_url(broker.config.admin_host)}:{broker.admin_port}/"}


def _status(broker: Broker) -> str:
    """For `systemctl status`."""
    figures = broker.statistics()
    return f"{figures.connections} connections, {figures.subscriptions} subscriptions, {figures.lagging} lagging"


def _longest_drain_s(config: Config) -> float:
    return config.drain_delay_s + config.drain_spread_s + config.drain_timeout_s + 2 * config.linger_s


async def _reload(broker: Broker, again: Callable[[], Settings]) -> str | None:
    """Go by what the files say now; if that cannot be, by what they said before, and return why."""
    try:
        settings = again()
        kept = await broker.reload(settings.config)
    except BadSettings as error:
        for problem in error.problems:
            log.error("not reloaded", reason=problem)
        return error.problems[0]
    except ValueError as error:
        log.error("not reloaded", reason=str(error))
        return str(error)
    except Exception as error:  # a file can hold anything: whatever it makes go wrong, the broker lives on
        log.exception("not reloaded", reason="a defect of the broker")
        return f"a defect of the broker: {type(error).__name__}"
    change_level(settings.log_level)
    for name in kept:
        log.warning("needs a restart", setting=name, origin=settings.origins.get(name, "default"))
    log.info("reloaded")
    return None


async def _start(broker: Broker, nursery: trio.Nursery) -> None:
    try:
        await nursery.start(broker.serve)
    except OSError as error:
        raise cannot_listen(broker.config, error) from None
    except ValueError as error:  # a name that is an address of the network
        raise Unusable(str(error)) from None


async def _drain(broker: Broker, signals: AsyncIterator[int]) -> int:
    """Drain; the exit status is 0, or the one of a second signal that would not wait."""
    status = 0

    async def end_at_second_signal() -> None:
        nonlocal status
        while (number := await anext(signals)) == _SIGHUP:
            pass
        status = 128 + number
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_at_second_signal)
        await broker.drain()
        log.info("drained")
        nursery.cancel_scope.cancel()
    return status


def cannot_listen(config: Config, error: OSError) -> click.ClickException:
    """What to do about an address that cannot be had."""
    if error.filename is not None and error.filename == config.unix_path:
        return click.ClickException(f"{config.unix_path}: {error.strerror}; choose another file with --unix-path")
    host, port, option = str(config.host), config.port, "--"
    if error.filename == ADMIN and config.admin_port is not None:
        host, port, option = config.admin_host, config.admin_port, "--admin-"
    where = f"{in_url(host)}:{port}"
    if error.errno == errno.EADDRINUSE:
        return click.ClickException(f"{where} is in use: another broker? choose another with {option}port")
    if error.errno in (errno.EACCES, errno.EPERM):
        return click.ClickException(f"{where} is not for everyone: choose a port from 1024 on with {option}port")
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return click.ClickException(f"{host} is no address of this machine: choose another with {option}host")
    return click.ClickException(f"cannot listen on {where}: {error}")
