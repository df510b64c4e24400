"""Where a broker's settings come from: defaults < a TOML file < environment variables < flags.

The tree is `Config`: a field of it is a setting of the file by itself, with its flag and variable where `SETTINGS` has
a row for it; one whose type is an attrs class is a section. Every mistake is told, with file and line.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import attrs
import click

from fanwire.broker import Config, Tls
from fanwire.broker.network.exposure import check_host
from fanwire.broker.sessions.authentication import authenticator_of
from fanwire.broker.settings.auth_file import build, decoded, read_auth
from fanwire.broker.settings.tls import load
from fanwire.client.cli.command import EX_CONFIG as EX_CONFIG
from fanwire.client.cli.output import note_error

from .logs import FORMATS, LEVELS
from .options import FLAGS, SETTINGS, option_of, quoted, rule_of_table, unknown, variable_of


class BadSettings(Exception):
    """They cannot be used; one line each says where and why."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@attrs.frozen
class Key:
    """A setting that has one value."""

    name: str
    """In a file."""
    field: str
    """Of `Config`; or of `Settings`, for what concerns the log."""
    read: Callable[[Any], Any]
    written: Callable[[Any], str]
    default: Any
    help: str
    restart: bool
    variable: str = ""
    option: str = ""


@attrs.frozen
class Settings:
    """All that `fanwire serve` goes by."""

    config: Config
    log_level: str
    log_format: str
    origins: Mapping[str, str]
    """By field: `fanwire.toml:7`, `FANWIRE_PORT`, `--port`. What is not in it is a default."""


@attrs.frozen
class Given:
    """A value from the command line or the environment."""

    value: Any
    origin: str


# ------------------------------------------------------------------ the tree


def _is_class(hint: Any) -> type[Any] | None:
    """The attrs class in ``X`` or ``X | None``."""
    options = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    return next((each for each in options if isinstance(each, type) and attrs.has(each)), None)


_HINTS = get_type_hints(Config)
_FIELDS = {field.name: field for field in attrs.fields(Config) if not field.metadata.get("of_programs")}
_ROWS = {setting.field: setting for setting in SETTINGS}

SECTIONS = {name: cls for name in _FIELDS if (cls := _is_class(_HINTS[name])) is not None}
"""Tables of the file."""


def _plain(kind: type[Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"{value!r} must be {'true or false' if kind is bool else kind.__name__}")
        return value

    return read


def _choice(names: tuple[str, ...]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if value not in names:
            raise ValueError(f"{value!r} must be one of {', '.join(names)}")
        return value

    return read


def _toml(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else quoted(str(value))


def _key(field: "attrs.Attribute[Any]") -> Key:
    restart = bool(field.metadata.get("restart"))
    if (row := _ROWS.get(field.name)) is not None:
        return Key(
            row.name, field.name, row.read, row.written, field.default, row.help, restart, row.variable, row.option
        )  # fmt: skip
    text = _HELP.get(field.name, field.name.replace("_", " "))
    variable, option = (variable_of(field.name), option_of(field.name)) if field.name in FLAGS else ("", "")
    return Key(
        field.name, field.name, _plain(_HINTS[field.name]), _toml, field.default, text, restart, variable, option
    )


_HELP = {**FLAGS, "server": "What WELCOME says the server is"}

_LOGS = (
    Key(
        "log_level", "log_level", _choice(LEVELS), _toml, "info",
        "What is logged: debug, info, warning or error", False, "FANWIRE_LOG_LEVEL", "--log-level",
    ),
    Key(
        "log_format", "log_format", _choice(FORMATS), _toml, "auto",
        "How the log looks: auto, console, plain or json", True, "FANWIRE_LOG_FORMAT", "--log-format",
    ),
)  # fmt: skip

KEYS = (*(_key(field) for name, field in _FIELDS.items() if name != "rules" and name not in SECTIONS), *_LOGS)
"""In the order of `Config`, the log's last."""

_BY_NAME = {key.name: key for key in KEYS}
_OTHER_NAMES = ("auth_file", "rules", *SECTIONS)


# ------------------------------------------------------------------ the file

_HEADER = re.compile(r"\s*(\[\[?)\s*([\w.\"'-]+)\s*\]")
_ENTRY = re.compile(r"\s*[\"']?([\w-]+)[\"']?\s*[.=]")

Place = tuple[str | int, ...]


def lines_of(text: str) -> dict[Place, int]:
    """In which line each key and each table begins; tomllib does not say."""
    found: dict[Place, int] = {}
    table: Place = ()
    counts: dict[str, int] = {}
    inside = _continued(text)
    for number, line in enumerate(text.split("\n"), 1):
        if number in inside:
            continue
        if header := _HEADER.match(line):
            name = header[2].replace('"', "").replace("'", "")
            table = tuple(name.split("."))
            if header[1] == "[[":
                counts[name] = counts.get(name, -1) + 1
                table = (*table, counts[name])
            found.setdefault(table, number)
        elif entry := _ENTRY.match(line):
            found.setdefault((*table, entry[1]), number)
    return found


# What decides where a value goes on: comments, strings (those of several lines first), and brackets.
_PIECE = re.compile(
    r'''#[^\n]*|"""(?:\\.|[^\\])*?"{3,5}|\'{3}.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[\[\]{}]''', re.DOTALL
)


def _continued(text: str) -> set[int]:
    """The lines that begin within a value: in a text of several lines, or in an array. No key begins there."""
    lines: set[int] = set()
    depth, opened = 0, 0  # brackets that are open, and the line of the first of them
    for found in _PIECE.finditer(text):
        piece = found[0]
        first = text.count("\n", 0, found.start()) + 1
        if piece in "[{":
            opened = opened if depth else first
            depth += 1
        elif piece in "]}":
            depth = max(0, depth - 1)
            if not depth:
                lines.update(range(opened + 1, first + 1))
        else:
            lines.update(range(first + 1, first + piece.count("\n") + 1))
    return lines


class _File:
    """One TOML file, while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.problems: list[str] = []
        self._lines: dict[Place, int] = {}

    def read(self) -> None:
        """Fill `values`, `origins` and `problems`."""
        try:
            text = decoded(self.path.read_bytes())
            table = tomllib.loads(text)
        except OSError as error:
            self.problems.append(f"{self.path}: {error.strerror or error}")
            return
        except UnicodeDecodeError as error:
            self.problems.append(
                f"{self.path}: this is not UTF-8 ({error.reason} at byte {error.start}): save the file as UTF-8"
            )
            return
        except tomllib.TOMLDecodeError as error:
            where = re.search(r"\(at line (\d+)", str(error))
            line = int(where[1]) if where else text.removesuffix("\n").count("\n") + 1
            self.problems.append(f"{self.path}:{line}: this is not TOML: {re.sub(r' [(]at .*', '', str(error))}")
            return
        except (ValueError, RecursionError) as error:
            why = "it is nested too deeply" if isinstance(error, RecursionError) else "a number has too many digits"
            self.problems.append(f"{self.path}: this cannot be read: {why}")
            return
        self._lines = lines_of(text)
        for name, value in table.items():
            self._take(name, value)
        if "auth_file" in table and "auth" in table:
            self._problem(("auth_file",), "auth_file and [auth] contradict each other: keep one of them")

    def where(self, place: Place) -> str:
        """`fanwire.toml:7`: the line of the innermost part that is found."""
        while place:
            within = [line for known, line in self._lines.items() if known[: len(place)] == place]
            if within:
                return f"{self.path}:{min(within)}"
            place = place[:-1]
        return f"{self.path}:1"

    def _problem(self, place: Place, message: str) -> None:
        self.problems.append(f"{self.where(place)}: {message}")

    def _take(self, name: str, value: Any) -> None:
        if name == "rules":
            self._take_rules(value)
            return
        try:
            field, read = self._reader(name, value)
        except ValueError as error:
            message = str(error)
            inner = re.match(r"[\w.\[\]]+", message) if name in SECTIONS else None
            self._problem(_place(inner[0]) if inner else (name,), message)
            return
        except click.BadParameter as error:
            self._problem((name,), f"{name}: {error.message}")
            return
        self.values[field] = read
        self.origins[field] = self.where((name,))

    def _reader(self, name: str, value: Any) -> tuple[str, Any]:
        if name in SECTIONS:
            return name, build(SECTIONS[name], value, name, self.path.parent)
        if name == "auth_file":
            return "auth", read_auth(str(self.path.parent / _plain(str)(value)))
        if name in _BY_NAME:
            try:
                return _BY_NAME[name].field, _BY_NAME[name].read(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        raise ValueError(unknown(name, [*_BY_NAME, *_OTHER_NAMES]))

    def _take_rules(self, tables: object) -> None:
        if not isinstance(tables, list):
            self._problem(("rules",), "rules must be a list of tables: write [[rules]]")
            return
        rules = []
        for number, table in enumerate(tables):
            try:
                rules.append(rule_of_table(table))
            except ValueError as error:
                self._problem(self._blamed(number, table, str(error)), f"rule: {error}")
            self.origins[f"rules[{number}]"] = self.where(("rules", number))
        self.values["rules"] = tuple(rules)
        self.origins["rules"] = self.where(("rules", 0))

    def _blamed(self, number: int, table: object, message: str) -> Place:
        names = list(table) if isinstance(table, dict) else []
        words = re.findall(r"\w+", message)
        aliases = {"publisher_wait_s": "publisher_wait", "history_s": "history_seconds"}
        named = next((name for word in words if (name := aliases.get(word, word)) in names), "history")
        return "rules", number, named


def _place(path: str) -> Place:
    """`auth.tokens[0].user` in pieces."""
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"\w+", path))


# ---------------------------------------------------------------- all of it


def resolve(path: Path | None, given: Mapping[str, Given]) -> Settings:
    """Defaults, then the file, then what was given, which has the last word. Raises `BadSettings`."""
    file = _File(path) if path is not None else None
    if file is not None:
        file.read()
    values, origins, problems = (file.values, file.origins, file.problems) if file else ({}, {}, [])
    _take_tls(given, values, origins, problems)
    for field, each in given.items():
        if field.startswith("tls_"):
            continue
        try:
            values[field] = read_auth(each.value) if field == "auth" else each.value
        except ValueError as error:
            problems.append(f"{each.origin}: {error}")
        origins[field] = each.origin
    _check_together(values, origins, problems)
    logs = {key.field: values.pop(key.field, key.default) for key in _LOGS}
    try:
        config = Config(**values)
        authenticator_of(config.auth)  # reads the keys
        load(config.tls)  # and the certificate
    except ValueError as error:
        field = next((word for word in re.findall(r"\w+", str(error)) if word in origins), "auth")
        problems.append(f"{origins.get(field, path or 'settings')}: {error}")
    else:
        _check_exposed(config, origins, problems)
    if problems:
        raise BadSettings(problems)
    return Settings(config, logs["log_level"], logs["log_format"], origins)


def _check_exposed(config: Config, origins: Mapping[str, str], problems: list[str]) -> None:
    try:
        check_host(config)
    except ValueError as error:
        origin = origins.get("host", "default")
        problems.append(f"{error} ({origin})" if origin.startswith("--") else f"{origin}: {error}")


def _take_tls(given: Mapping[str, Given], values: dict[str, Any], origins: dict[str, str], problems: list[str]) -> None:
    """`--tls-cert` and the like: each overrides its piece of the section."""
    pieces = {name.removeprefix("tls_"): each for name, each in given.items() if name.startswith("tls_")}
    if not pieces:
        return
    origins["tls"] = next(iter(pieces.values())).origin
    table = attrs.asdict(values["tls"]) if "tls" in values else {}
    try:
        values["tls"] = build(Tls, {**table, **{name: each.value for name, each in pieces.items()}}, "tls", Path())
    except ValueError as error:
        problems.append(f"{origins['tls']}: {error}")


def _check_together(values: dict[str, Any], origins: Mapping[str, str], problems: list[str]) -> None:
    """Settings that contradict each other."""
    queue, most = (values.get(name, _FIELDS[name].default) for name in ("queue", "max_queue"))
    if queue is not None and most is not None and queue > most and "queue" in values:
        there = f" ({origins['max_queue']})" if "max_queue" in origins else ""
        problems.append(
            f"{origins['queue']}: queue is {queue}, but max_queue{there} allows {most}; raise that one, too"
        )


def given_by(context: click.Context) -> dict[str, Given]:
    """What the command line and the environment say, of the options of `fanwire serve`."""
    given = {}
    for option in context.command.params:
        name = option.name or ""
        source = context.get_parameter_source(name)
        if name == "config_file" or not isinstance(option, click.Option):
            continue
        if source is click.core.ParameterSource.COMMANDLINE:
            given[name] = Given(context.params[name], max(option.opts, key=len))
        elif source is click.core.ParameterSource.ENVIRONMENT:
            given[name] = Given(context.params[name], str(option.envvar))
    return given


def resolved(path: Path | None, given: Mapping[str, Given]) -> Settings | None:
    """The settings; None: they cannot be used, and standard error has why.

    Raises:
        click.UsageError: Only flags are wrong.
    """
    try:
        return resolve(path, given)
    except BadSettings as error:
        if all(each.startswith("--") and not each.startswith(("--auth-file", "--tls-")) for each in error.problems):
            raise click.UsageError("; ".join(error.problems), click.get_current_context()) from None
        for problem in error.problems:
            note_error(problem)
        return None
