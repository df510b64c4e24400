"""`fanwire config`: write a file of settings, check one, and show what a broker would go by."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import click

from fanwire.broker.operations.foreign_patterns import foreign_patterns
from fanwire.client.cli.command import Group
from fanwire.client.cli.output import note_warning, say

from .config_file import EX_CONFIG, KEYS, Settings, given_by, resolved
from .environment import complain

DEFAULT_FILE = "fanwire.toml"
MASK = "***"

_EXAMPLE = """
# Who may come in: [auth] here, or a file of its own with that table. See docs/authentication.md.
#  auth_file = "auth.toml"

# TLS; paths are relative to this file.
#  [tls]
#  cert = "fullchain.pem"
#  key = "key.pem"
#  client_ca = "clients.pem"
#  client_certs = "optional"
#  min_version = "1.2"

# What holds for some topics, whatever clients ask for. As many as you like; all but the pattern is optional.
#  [[rules]]
#  pattern = "stocks.>"
#  user = "legacy-*"
#  on_slow = "conflate"
#  max_queue = 500
#  max_rate = 10
#  publisher_wait = 2
#  presence = true
#  retain = true
#  history = { messages = 1000, seconds = 3600, bytes = "1MiB" }
"""


@click.group(
    cls=Group,
    short_help="Write, check and show a broker's settings.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def config() -> None:
    """Write, check and show a broker's settings.

    \b
    Examples:
      fanwire config init
      fanwire config check fanwire.toml
      fanwire config show --config fanwire.toml --port 9000

    \b
    Exit status:
      0   done; the settings are good
      1   the file cannot be written
      2   wrong usage
      78  the settings cannot be used; each mistake is told with file and line
    """


@config.command(short_help="Write a file with all settings.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=DEFAULT_FILE)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(file: Path, force: bool) -> None:
    """Write FILE (fanwire.toml) with every setting at its default, commented out, and what it is for.

    \b
    Examples:
      fanwire config init
      fanwire config init /etc/fanwire/fanwire.toml --force

    \b
    Exit status:
      0  written
      1  the file is there already, or cannot be written
      2  wrong usage
    """
    try:
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(template())
    except FileExistsError:
        raise click.ClickException(f"{file} is there already; --force replaces it") from None
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror or error}") from None
    say(f"wrote {file}")


def template() -> str:
    """The file that `init` writes."""
    lines = ["# Settings of a Fanwire broker: fanwire serve --config FILE", "# What is commented out is the default."]
    for key in KEYS:
        lines += ["", f"# {key.help}.{'' if not key.restart else ' Needs a restart.'}"]
        lines.append(f"#{key.name} = {key.written(key.default)}")
    return "\n".join(lines) + "\n" + _EXAMPLE


@config.command(short_help="Check a file.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
def check(file: Path | None) -> int:
    """Check FILE: by default the one of FANWIRE_CONFIG, or fanwire.toml; of the environment only the names.

    What may be a mistake, such as a rule with the wildcards of MQTT, is a warning.

    \b
    Example:
      fanwire config check fanwire.toml

    \b
    Exit status:
      0   the settings are good
      2   wrong usage
      78  they cannot be used; each mistake is told with file and line
    """
    from .serve import serve

    path = file or Path(os.environ.get("FANWIRE_CONFIG") or DEFAULT_FILE)
    misspelt = complain(serve)
    settings = resolved(path, {})
    if settings is None or misspelt:
        return EX_CONFIG
    for place, hint in foreign_patterns(settings.config):
        where = settings.origins.get(place) or settings.origins.get(place.partition(".")[0], str(path))
        note_warning(f"{where}: {place}: {hint}")
    say(f"{path} is good")
    return 0


@config.command(
    short_help="Show what a broker would go by.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def show(options: tuple[str, ...]) -> int:
    """Show each setting that `fanwire serve` would have with these OPTIONS, and where it comes from; no secrets.

    \b
    Examples:
      fanwire config show
      fanwire config show --config fanwire.toml --port 9000

    \b
    Exit status:
      0   shown
      2   wrong usage
      78  the settings cannot be used
    """
    from .serve import serve

    with serve.make_context("fanwire serve", list(options)) as context:
        misspelt = complain(serve)
        settings = resolved(context.params["config_file"], given_by(context))
    if settings is None or misspelt:
        return EX_CONFIG
    shown = list(_shown(settings))
    width = min(60, max(len(line) for line, _ in shown))
    for line, origin in shown:
        say(f"{line:{width}}  # {origin}")
    return 0


def _shown(settings: Settings) -> Iterator[tuple[str, str]]:
    config = settings.config
    for key in KEYS:
        value = getattr(config if hasattr(config, key.field) else settings, key.field)
        yield f"{key.name} = {key.written(value)}", settings.origins.get(key.field, "default")
    for name in ("rules", *(name for name in settings.origins if attrs.has(type(getattr(config, name, None))))):
        for line in _flat(name, getattr(config, name)):
            yield line, settings.origins.get(name, "default")


def _flat(name: str, value: Any, secret: bool = False) -> Iterator[str]:
    """`auth.tokens[0].user = 'alice'`, one line for each value; what is not to be seen is masked."""
    if secret and value is not None:
        yield f"{name} = {MASK}"
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            hidden = not field.repr or bool(field.metadata.get("secret"))
            if field.init and getattr(value, field.name) is not None:
                yield from _flat(f"{name}.{field.name}", getattr(value, field.name), hidden)
    elif isinstance(value, tuple) and value and attrs.has(type(value[0])):
        for number, each in enumerate(value):
            yield from _flat(f"{name}[{number}]", each)
    else:
        yield f"{name} = {list(value) if isinstance(value, tuple) else value!r}"


@config.command(hidden=True)
def docs() -> None:
    """Print docs/settings.md."""
    say(page(), nl=False)


def page() -> str:
    """docs/settings.md."""
    lines = [
        "# Settings by name",
        "",
        "Written by `fanwire config docs > docs/settings.md`; not edited by hand. [Configuration](configuration.md)",
        "has the reasons, the rules, and what a reload changes for whom.",
        "",
        "| in the file | variable | flag | default | what it is | by SIGHUP |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key in KEYS:
        variable, flag = (f"`{name}`" if name else "" for name in (key.variable, key.option))
        default, reloads = key.written(key.default), "no" if key.restart else "yes"
        lines.append(f"| `{key.name}` | {variable} | {flag} | {default} | {key.help} | {reloads} |")
    lines += [
        "| `[tls]`: `cert`, … | `FANWIRE_TLS_CERT`, … | `--tls-cert`, … | none | TLS, on the TCP port | not whether |",
        "| `auth_file`, `[auth]` | `FANWIRE_AUTH_FILE` | `--auth-file` | none | Who may come in | not whether |",
        "| `[[rules]]` | | `--rule` | none | What holds for some topics | yes |",
    ]
    return "\n".join(lines) + "\n"
