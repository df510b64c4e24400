"""A misspelt variable is told, and nothing is started with half of what was meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fanwire.broker.cli.config_file import EX_CONFIG, KEYS
from fanwire.broker.cli.environment import unread
from fanwire.broker.cli.serve import serve
from fanwire.commandline import run

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FANWIRE_PROT", "FANWIRE_PORT"),
        ("FANWIRE_AUTH_FLIE", "FANWIRE_AUTH_FILE"),
        ("FANWIRE_AUTHFILE", "FANWIRE_AUTH_FILE"),
        ("FANWIRE_MAX_PENDING_BYTES", "FANWIRE_MAX_PENDING"),
        ("FANWIRE_STALL_TIMEOUT_S", "FANWIRE_STALL_TIMEOUT"),
        ("FANWIRE_port", "FANWIRE_PORT"),
        ("FANWIRE_COLOUR", None),
    ],
)
def test_what_was_probably_meant(name: str, meant: str | None) -> None:
    """By the names of the settings."""
    assert list(unread(serve, {name: "1", "PATH": "/bin"})) == [(name, meant)]


def test_every_setting_and_what_clients_read_is_known() -> None:
    """No variable that somebody reads is told of."""
    known = {key.variable for key in KEYS if key.variable}
    others = {"FANWIRE_CONFIG", "FANWIRE_AUTH_FILE", "FANWIRE_URL", "FANWIRE_TOKEN", "FANWIREX", "OTHER_PORT"}

    assert list(unread(serve, dict.fromkeys(known | others, "x"))) == []


def test_every_variable_that_the_code_names_is_known() -> None:
    """Whoever adds a command that reads one adds it to those that are known."""
    texts = [path.read_text(encoding="utf-8") for part in ("broker", "client") for path in (ROOT / part).rglob("*.py")]
    named = {name for text in texts for name in re.findall(r"\"(FANWIRE_[A-Z_]+[A-Z])\"", text)}

    assert len(named) > 3
    assert list(unread(serve, dict.fromkeys(named, "x"))) == []


@pytest.mark.parametrize(
    "name",
    [
        "FANWIRE_SERVICE_HOST",
        "FANWIRE_SERVICE_PORT",
        "FANWIRE_SERVICE_PORT_WS",
        "FANWIRE_PORT_9473_TCP",
        "FANWIRE_PORT_9473_TCP_ADDR",
        "FANWIRE_BROKER_PORT",
        "FANWIRE_BROKER_SERVICE_HOST",
    ],
)
def test_what_kubernetes_sets_is_passed_over(name: str) -> None:
    """It does so for every service, also for one of our name."""
    assert list(unread(serve, {name: "tcp://10.0.0.1:9473"})) == []


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["config", "check", "f.toml"], ["config", "show"]])
def test_serve_and_check_refuse_a_misspelt_variable(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 78, with what was meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.toml").write_text("port = 1\n", encoding="utf-8")
    monkeypatch.setenv("FANWIRE_AUTH_FLIE", "auth.toml")

    assert run(command) == EX_CONFIG
    assert (
        capsys.readouterr().err
        == "error: FANWIRE_AUTH_FLIE: no setting has this variable (did you mean FANWIRE_AUTH_FILE?)\n"
    )


def test_a_variable_that_is_like_none_is_only_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be somebody else's."""
    (tmp_path / "f.toml").write_text("port = 1\n", encoding="utf-8")
    monkeypatch.setenv("FANWIRE_COLOUR", "blue")

    assert run(["config", "check", str(tmp_path / "f.toml")]) == 0
    assert capsys.readouterr().err == "warning: FANWIRE_COLOUR: no setting has this variable; nobody reads it\n"
