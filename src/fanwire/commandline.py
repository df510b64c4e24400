"""The root of the command line: which commands there are, where they live, and how errors are shown.

A command's module is imported when the command is run, and not before: `fanwire --help` and `fanwire serve` must not
wait for what `fanwire bench` needs.
"""

import errno
from collections.abc import Sequence
from importlib import import_module

import attrs
import click

from fanwire import __version__
from fanwire.extras import MissingExtra, missing_extra

INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_OF_OUTPUT = (errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC)


@attrs.frozen(slots=True)
class _Place:
    """Where a command lives, and what the list of commands says of it."""

    module: str
    short_help: str


COMMANDS = {
    "serve": _Place("fanwire.broker.cli.serve", "Run a broker."),
    "config": _Place("fanwire.broker.cli.config_command", "Write, check and show a broker's settings."),
    "pub": _Place("fanwire.client.cli.pub", "Publish messages."),
    "sub": _Place("fanwire.client.cli.sub", "Print the messages of topics."),
    "history": _Place("fanwire.client.cli.history", "Print what a topic remembers."),
    "request": _Place("fanwire.client.cli.request", "Ask whoever serves a topic."),
    "presence": _Place("fanwire.client.cli.presence", "Show who is subscribed."),
    "watch": _Place("fanwire.client.cli.watch", "Show a live table of prices."),
    "feed": _Place("fanwire.client.cli.feed", "Publish stock prices: real ones, or a random walk."),
    "top": _Place("fanwire.client.cli.top", "Show which subscribers are behind."),
    "connections": _Place("fanwire.broker.cli.connections", "List who is connected."),
    "topics": _Place("fanwire.broker.cli.topics", "List topics."),
    "kick": _Place("fanwire.broker.cli.kick", "Send clients away."),
    "demo": _Place("fanwire.broker.cli.demo", "See it work: a broker, a feed and a live table."),
    "token": _Place("fanwire.broker.cli.tokens", "Make tokens, and check them."),
    "bench": _Place("fanwire.client.cli.bench.command", "Measure a broker's throughput and latency."),
}
"""Every command is the attribute of its own name in its module."""


class _Commands(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        try:
            command = getattr(import_module(place.module), cmd_name)
        except (ModuleNotFoundError, MissingExtra) as error:
            raise _missing_package(cmd_name, error) from error
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.short_help) for name, place in COMMANDS.items()])


def _missing_package(command: str, error: ModuleNotFoundError | MissingExtra) -> Exception:
    """What to install; a module of our own that is missing is a defect, and shown as one."""
    cause = error if isinstance(error, ModuleNotFoundError) else ModuleNotFoundError(str(error), name=error.name)
    missing = missing_extra(f"`fanwire {command}`", "all", cause)
    return click.ClickException(str(missing)) if isinstance(missing, MissingExtra) else missing


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="fanwire", message="%(prog)s %(version)s")
def root() -> None:
    """Fanwire: a WebSocket publish/subscribe broker, and its clients.

    \b
    See it work in one terminal:
      fanwire demo
    Or in three:
      fanwire serve
      fanwire sub 'stocks.>'
      fanwire pub stocks.AAPL 130.31

    Commands exit with 0 when they are done, 1 when something failed, 2 when they were asked wrongly, 78 when settings
    or environment variables cannot be used, and 130 when they were interrupted before they were done. The broker's URL
    comes from --url, or from the environment variable FANWIRE_URL.
    """


def run(arguments: Sequence[str]) -> int:
    """Run a command line.

    Args:
        arguments: what stands behind the program's name; none is `--help`.

    Returns:
        The exit status.
    """
    try:
        status = root.main(list(arguments) or ["--help"], prog_name="fanwire", standalone_mode=False)
    except click.ClickException as error:
        _show(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except (OSError, SystemExit) as error:
        return _unwritten(error)
    except ModuleNotFoundError as error:  # what a command needs only on a terminal
        missing = _missing_package(arguments[0], error)
        if not isinstance(missing, click.ClickException):
            raise
        _show(missing)
        return missing.exit_code
    return status if isinstance(status, int) else 0


def _unwritten(error: OSError | SystemExit) -> int:
    """The exit status where click could not print a help text; click itself ends the program if its reader has gone."""
    from fanwire.client.cli.output import OutputClosed, OutputFailed, abandon_output

    if isinstance(error, SystemExit | OutputClosed):
        return 0
    if error.filename is not None or error.errno not in _OF_OUTPUT:
        raise error
    abandon_output()
    _show(OutputFailed(error))
    return 1


def _show(error: click.ClickException) -> None:
    """`error: …` on one line, with the way to the help where the command line was the fault."""
    message = " ".join(error.format_message().split())
    if message[1:2].islower():
        message = message[0].lower() + message[1:]
    if isinstance(error, click.UsageError) and error.ctx is not None:
        message = f"{message.rstrip('.')} (see {error.ctx.command_path} --help)"
    try:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True)
    except OSError:
        pass  # the exit status says it, too
