"""Commands on a terminal of a certain width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest

from .cli_programs import COMMAND, DEADLINE_S, ran, serving


def _on_terminal(*arguments: str, url: str, columns: int, **variables: str) -> tuple[int, str]:
    """Run a command whose output is a terminal: its status, and all that it drew."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment |= {"FANWIRE_URL": url, "TERM": "xterm", **variables}
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, env=environment
    ) as command:
        os.close(theirs)
        drawn = b""
        try:
            while chunk := os.read(ours, 65_536):
                drawn += chunk
        except OSError:  # EIO: nobody has the terminal open any more
            pass
        os.close(ours)
        status = command.wait(DEADLINE_S)
    return status, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode())


@pytest.mark.parametrize("columns", [80, 160])
def test_top_once_fits_the_terminal(columns: int) -> None:
    """The table of the terminal, once, with rates; the narrow one has fewer columns."""
    with serving() as (_broker, url):
        status, drawn = _on_terminal("top", "--once", url=url, columns=columns)

    lines = drawn.splitlines()
    assert status == 0
    assert max(map(len, lines)) <= columns
    assert "published 0/s, delivered 0/s" in " ".join(drawn.split())
    assert re.search(r"│ CLIENT .*│ STATE .*│ QUEUED │ BYTES │ OLDEST │", drawn)
    assert ("SESSION" in drawn) is (columns == 160)


def test_connections_fit_the_terminal() -> None:
    """Names of sessions whole, since `fanwire kick` needs them."""
    with serving() as (_broker, url):
        status, drawn = _on_terminal("connections", url=url, columns=60)
        _, piped, _ = ran("connections", url=url)

    assert status == 0
    assert max(map(len, drawn.splitlines())) <= 60
    assert "SUBSCRIPTIONS" not in drawn
    assert "SUBSCRIPTIONS" in piped


def test_a_terminal_without_utf_8_gets_a_table_of_ascii() -> None:
    """Also the live one, which has arrows and a trend elsewhere."""
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    with serving("--rule", "p.> retain=yes") as (_broker, url):
        for price in ("1.5", "-1.5"):
            ran("pub", "p.a", "--json", price, url=url)
        status, drawn = _on_terminal("watch", "p.>", "--seconds", "0.5", url=url, columns=100, **ascii_only)

    assert status == 0
    assert drawn.isascii()
    assert "\\u" not in drawn
