"""How every command reads its arguments: one class of command and one of group, for the whole command line.

click by itself takes the last of an option that is given twice, takes `-18.5` for options, and names the option where
an environment variable is wrong.
"""

import re
from collections.abc import Sequence

import click

EX_CONFIG = 78
"""Exit status (sysexits.h): the settings cannot be used. Starting again will not help."""

_is_number = re.compile(r"-\.?[0-9]").match  # no option of ours begins with a digit


class BadVariable(click.ClickException):
    """An environment variable has a value that cannot be used; the text names the variable."""

    exit_code = EX_CONFIG


class Command(click.Command):
    """A command that takes negative numbers as arguments, and refuses an option that is given twice."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line.

        Raises:
            click.UsageError: It is wrong, or gives an option twice that has one value.
            BadVariable: The value of an option's environment variable cannot be used.
        """
        args = _numbers_as_arguments(self.get_params(ctx), args)
        try:
            *_, order = self.make_parser(ctx).parse_args(args=list(args))
            _refuse_repetition(order, ctx)
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if any(isinstance(each, click.Argument) and each.type is click.STRING for each in self.params):
                hint = "; an argument that begins with '-' needs -- before it"
                raise click.UsageError(error.format_message().rstrip(".") + hint, ctx) from None
            raise
        except click.BadParameter as error:
            raise _named_after_variable(error, ctx) from None


class Group(click.Group):
    """A group of such commands that shows its help when it is called alone."""

    command_class = Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the name of the command and what stands before it; no name is `--help`."""
        return super().parse_args(ctx, list(args) or ["--help"])


def _numbers_as_arguments(params: Sequence[click.Parameter], args: list[str]) -> list[str]:
    """The same command line with all arguments behind `--`, if one of them is a number below zero."""
    valued = {
        name
        for param in params
        if isinstance(param, click.Option) and not param.is_flag and not param.count
        for name in param.opts
    }
    options: list[str] = []
    arguments: list[str] = []
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            arguments += rest
        elif _is_number(arg) or not arg.startswith("-") or arg == "-":
            arguments.append(arg)
        else:
            options.append(arg)
            if arg in valued:
                value = next(rest, None)
                if value is None:
                    return options  # an option without its value: click says so
                options.append(value)
    return [*options, "--", *arguments] if any(_is_number(arg) for arg in arguments) else args


def _refuse_repetition(order: Sequence[click.Parameter], ctx: click.Context) -> None:
    seen: dict[str | None, click.Option] = {}
    for param in order:
        if not isinstance(param, click.Option) or param.multiple or param.count:
            continue
        first = seen.setdefault(param.name, param)
        if first is not param:
            raise click.UsageError(f"give {_name(first)} or {_name(param)}, not both", ctx)
        if [each for each in order if each is param] != [param] and not param.is_flag:
            raise click.UsageError(f"{_name(param)} is given twice; it has one value: give it once", ctx)


def _name(option: click.Option) -> str:
    return max(option.opts, key=len)


def _named_after_variable(error: click.BadParameter, ctx: click.Context) -> click.ClickException:
    param = error.param
    if not isinstance(param, click.Option) or param.name is None:
        return error
    if ctx.get_parameter_source(param.name) is not click.core.ParameterSource.ENVIRONMENT:
        return error
    return BadVariable(f"{param.envvar}: {error.message}")
