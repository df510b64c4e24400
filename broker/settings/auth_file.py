"""The file that says who may come in: TOML, with one table, ``auth``.

Every mistake says the file and the key. Paths in the file are relative to the folder that it is in.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

import attrs

from .auth import Auth


class BadAuthFile(ValueError):
    """The file cannot be used; says why, and where."""


def read_auth(path: str) -> Auth:
    """Read it. Raises `BadAuthFile`."""
    file = Path(path)
    try:
        settings = tomllib.loads(decoded(file.read_bytes()))
    except OSError as error:
        raise BadAuthFile(f"{path}: {error.strerror or error}") from None
    except RecursionError:
        raise BadAuthFile(f"{path}: this is nested too deeply") from None
    except ValueError as error:  # not TOML, not UTF-8, or a number of thousands of digits
        raise BadAuthFile(f"{path}: this is not TOML: {error}") from None
    try:
        if [*settings] != ["auth"]:
            stray = next((name for name in settings if name != "auth"), None)
            raise ValueError(f"{stray!r} does not belong here; all stands in [auth]" if stray else "there is no [auth]")
        auth: Auth = build(Auth, settings["auth"], "auth", file.parent)
    except ValueError as error:
        raise BadAuthFile(f"{path}: {error}") from None
    return auth


def decoded(data: bytes) -> str:
    """The text of a file of settings. A byte order mark, which some editors write, is no part of it.

    Raises:
        UnicodeDecodeError: It is not UTF-8.
    """
    return data.decode("utf-8-sig")


def build(cls: type[Any], table: object, where: str, folder: Path) -> Any:
    """An instance of an attrs class from a table. Raises ValueError, which says where."""
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table, not {table!r}")
    fields = {field.name: field for field in attrs.fields(cls)}
    for name in table:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(fields)}"
            raise ValueError(f"{where}.{name} is no setting; {hint}")
    for name, field in fields.items():
        if field.default is attrs.NOTHING and name not in table:
            raise ValueError(f"{where}.{name} is missing")
    values = {name: _value(fields[name], value, f"{where}.{name}", folder) for name, value in table.items()}
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error.args[0] if error.args else error}") from None


def _value(field: attrs.Attribute[Any], value: Any, where: str, folder: Path) -> Any:
    if (cls := field.metadata.get("of")) is not None:
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a list of tables: write [[{where}]]")
        return [build(cls, each, f"{where}[{number}]", folder) for number, each in enumerate(value)]
    if field.metadata.get("path") and isinstance(value, str):
        return str(folder / value)
    return value
