"""Whatever a file of settings holds, it is good, or each mistake is told: nothing else ever happens."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fanwire.broker.cli.config_file import KEYS, SECTIONS, BadSettings, resolve
from fanwire.broker.settings.auth import Auth, AuthCertificate, AuthKey, AuthToken
from fanwire.broker.settings.roles import Role
from fanwire.broker.settings.rule_text import RULE_FIELDS
from fanwire.broker.settings.tls import Tls

_scalars = (
    st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
    | st.sampled_from(["none", "inf", "a.>", "1MiB", "*", "10.0.0.0/8", "cn", "HS256", "required", "0660", "a\0b"])
    | st.just(datetime.date(2020, 1, 1))
)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=2)
)


def _table(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), _values, max_size=4)


def _fields(cls: type[attrs.AttrsInstance]) -> list[str]:
    return [field.name for field in attrs.fields(cls)]


_rules = st.lists(_table(["pattern", *RULE_FIELDS]), max_size=2) | _values
_auth = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(_fields(Auth), _values),
        "keys": st.lists(_table(_fields(AuthKey)), max_size=2),
        "tokens": st.lists(_table(_fields(AuthToken)), max_size=2),
        "certificates": st.lists(_table(_fields(AuthCertificate)), max_size=2),
        "roles": st.lists(_table(_fields(Role)), max_size=2),
    },
)
_documents = st.fixed_dictionaries(
    {},
    optional={
        **{key.name: _values for key in KEYS},
        "rules": _rules,
        "auth_file": _values,
        "auth": _auth | _values,
        "tls": _table(_fields(Tls)) | _values,
    },
)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(name)} = {_toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _text(text: str) -> str:
    return '"' + "".join(f"\\U{ord(character):08x}" for character in text) + '"'


@given(_documents)
@example({"allowed_origins": [1]})
@example({"trusted_proxies": [[]]})
@example({"unlimited_addresses": ""})
@example({"auth": {"tokens": [{"user": [], "sha256": "a1" * 32}]}})
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_is_good_or_its_mistakes_are_told(tmp_path: Path, document: dict[str, Any]) -> None:
    """With the name of the file in front."""
    assert set(document) <= {*(key.name for key in KEYS), *SECTIONS, "rules", "auth_file"}
    _resolve(tmp_path, "\n".join(f"{name} = {_toml(value)}" for name, value in document.items()))


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 10_000,
        "a = " + "[" * 5_000 + "]" * 5_000,
        "port = " + "9" * 10_000,
        "a = {" * 3_000,
        '"' + "a" * 100_000 + '" = 1',
        "a." * 900 + "a = 1",
        "\0",
        "",
    ],
    ids=lambda text: text[:10],
)
def test_a_strange_file_is_no_defect(tmp_path: Path, text: str) -> None:
    """Nesting without end, endless digits."""
    _resolve(tmp_path, text)
    _resolve(tmp_path, "", auth=text)


def _resolve(tmp_path: Path, text: str, auth: str | None = None) -> None:
    file = tmp_path / "fanwire.toml"
    if auth is not None:
        (tmp_path / "auth.toml").write_text(auth, encoding="utf-8")
        text = 'auth_file = "auth.toml"'
    file.write_text(text, encoding="utf-8")
    for problem in _problems(file):
        assert problem.startswith(f"{tmp_path}/")


def _problems(file: Path) -> list[str]:
    try:
        resolve(file, {})
    except BadSettings as error:
        return error.problems or ["none is told"]
    return []
