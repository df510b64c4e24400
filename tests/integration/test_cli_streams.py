"""Standard streams that are closed, full, or have no reader any more: one line, a status, and no traceback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cli_programs import COMMAND, DEADLINE_S, ran, serving

FULL = Path("/dev/full")

# A command of each kind that prints a result, with a broker that remembers something.
PRINTING = [
    "--help",
    "--version",
    "config",
    "token",
    "serve --help",
    "pub h.a x",
    "history h.a",
    "sub h.a --last 1 --count 1",
    "watch h.a --plain --seconds 0.2",
    "top --once",
    "top --once --json",
    "connections",
    "topics",
    "token new --user a",
    "config show",
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A broker's, with one message on h.a."""
    with serving("--rule", "h.> history=10 presence=yes", "--report-interval", "0.1") as (_broker, url):
        assert ran("pub", "h.a", "x", "--quiet", url=url)[0] == 0
        yield url


def _run(url: str, command: str, redirections: str, **variables: str) -> tuple[int, str, str]:
    """Run a command with redirections as a shell does them: status, standard output, standard error."""
    ended = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", *COMMAND, *command.split()],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE_S, check=False,
        env={**os.environ, "FANWIRE_URL": url, **variables},
    )  # fmt: skip
    return ended.returncode, ended.stdout.decode(), ended.stderr.decode()


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", PRINTING)
def test_a_full_disk_is_one_line(url: str, command: str) -> None:
    """The result cannot be written: status 1."""
    status, _, err = _run(url, command, ">/dev/full")

    assert status == 1
    assert err.splitlines()[-1] == "error: standard output cannot be written: No space left on device"
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["--help", "pub h.a x", "history h.a", "token new --user a"])
def test_a_closed_standard_output_is_one_line(url: str, command: str) -> None:
    """Nothing else that is opened takes its number."""
    status, _, err = _run(url, command, ">&-")

    assert status == 1
    assert err.splitlines()[-1] == "error: standard output cannot be written: Bad file descriptor"


@pytest.mark.parametrize("command", ["--help", "history h.a", "config docs", "serve --help"])
def test_a_reader_that_has_gone_is_the_end(url: str, command: str) -> None:
    """As for every program in a pipe; nothing is said."""
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "wb") as nobody:
        ended = subprocess.run(
            [*COMMAND, *command.split()], stdout=nobody, stderr=subprocess.PIPE, timeout=DEADLINE_S, check=False,
            env={**os.environ, "FANWIRE_URL": url},
        )  # fmt: skip

    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize(
    ("command", "status"), [("sub h.a --last 1 --count 1", 0), ("feed --seconds 0.2", 0), ("request h.none x", 1)]
)
def test_notes_that_cannot_be_written_are_dropped(url: str, command: str, status: int, redirection: str) -> None:
    """What people are told on standard error is not worth an end; the status says whether it worked."""
    if "full" in redirection and not FULL.exists():
        pytest.skip("needs /dev/full")

    assert _run(url, command, redirection)[0] == status


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_broker_needs_no_standard_streams(redirection: str, tmp_path: Path) -> None:
    """It serves, and ends as it is told to. That it listens is heard as systemd would hear it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"{tmp_path}/n")
        systemd.settimeout(DEADLINE_S)
        serve = [*COMMAND, "serve", "--host", "none", "--unix-path", f"{tmp_path}/s"]
        environment = {**os.environ, "NOTIFY_SOCKET": f"{tmp_path}/n"}
        with subprocess.Popen(["sh", "-c", f'exec "$@" {redirection}', "sh", *serve], env=environment) as broker:
            try:
                assert systemd.recv(1000).startswith(b"READY=1")
                status, _, err = ran("pub", "t", "x", "-q", url=f"ws+unix:{tmp_path}/s")
                broker.send_signal(signal.SIGTERM)
                ended = broker.wait(DEADLINE_S)
            finally:
                broker.kill()

    assert (status, err, ended) == (0, "", 0)


def test_a_closed_standard_input_is_one_line(url: str, tmp_path: Path) -> None:
    """Nothing else that is opened takes its number."""
    (tmp_path / "auth.toml").write_text(
        '[auth]\nanonymous_roles = ["r"]\n[[auth.roles]]\nname = "r"\n', encoding="utf-8"
    )

    for command in ("pub h.a -", f"token check --auth-file {tmp_path}/auth.toml"):
        status, _, err = _run(url, command, "<&-")

        assert (status, err) == (1, "error: standard input cannot be read: Bad file descriptor\n")


def test_a_line_that_no_message_can_hold_is_one_line(url: str) -> None:
    """It ends before all of it is in memory."""
    status, _, err = ran("pub", "h.a", "-", url=url, stdin=b"x" * (16 * 1024 * 1024 + 65_536))

    assert status == 1
    assert err.startswith("error: standard input has a line of more than 16777216 bytes: use --file")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize(
    "command", ["--help", "serve --help", "feed --help", "config show", "sub h.a --last 1 --count 1"]
)
def test_a_terminal_without_utf_8_gets_what_it_can_show(url: str, command: str, encoding: str) -> None:
    """A character that it does not have is no reason to end."""
    settings = {"PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    status, _, err = _run(url, command, "", **settings)

    assert status == 0
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "data"), [(["--json"], b'\xef\xbb\xbf{"n": 1}\r\n'), ([], b"\xef\xbb\xbfAAPL\r\n")]
)
def test_a_byte_order_mark_is_not_data(url: str, arguments: list[str], data: bytes) -> None:
    """Text from Windows arrives as text."""
    status, _, err = ran("pub", "h.mark", "-", *arguments, url=url, stdin=data)
    _, out, _ = ran("history", "h.mark", "--last", "1", url=url)

    assert (status, err) == (0, "")
    assert out in ('h.mark  {"n": 1}\n', "h.mark  AAPL\n")
