"""The installed wheel works beside a user's own `client.py`, `broker/` and `protocol.py`."""

import re
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from .installation import Installation

THE_USERS = "MINE = True\n"

EMBEDDED = """
    import broker, client, fanwire, protocol, trio

    async def main():
        async with fanwire.Broker(fanwire.Config(port=0)).serving() as server:
            async with fanwire.connect(server.urls[0]) as connection, connection.subscribe("stocks.>") as prices:
                await connection.publish("stocks.AAPL", {"price": 1.5})
                async for message in prices:
                    print(message.topic, message.data, broker.MINE, client.MINE, protocol.MINE)
                    break

    trio.run(main)
"""

CONNECTED = """
    import broker, client, fanwire, protocol, sys, trio

    async def main(url):
        async with fanwire.connect(url) as connection, connection.subscribe("stocks.>") as prices:
            await connection.publish("stocks.AAPL", {"price": 1.5})
            async for message in prices:
                print(message.topic, message.data, broker.MINE, client.MINE, protocol.MINE)
                break

    trio.run(main, sys.argv[1])
"""

PRINTED = "stocks.AAPL {'price': 1.5} True True True\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder whose names are those of our own folders."""
    (tmp_path / "broker").mkdir()
    for name in ("broker/__init__.py", "client.py", "protocol.py"):
        (tmp_path / name).write_text(THE_USERS)
    return tmp_path


@pytest.fixture
def serving(complete: Installation, project: Path) -> Iterator[str]:
    """The URL of a `fanwire serve` that was started in the user's folder and must end well on SIGTERM."""
    command = [str(complete.python), "-m", "fanwire", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield _printed_url(process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


def _printed_url(process: "subprocess.Popen[str]") -> str:
    """Read on until the broker names its URL."""
    assert process.stdout is not None
    read = []
    for line in process.stdout:
        read.append(line)
        if found := re.search(r"ws://[^\s\x1b'\"]+", line):
            return found.group()
    raise AssertionError(f"fanwire serve named no URL: {''.join(read)}")


def test_a_users_own_names_shadow_nothing_in_one_program(complete: Installation, project: Path) -> None:
    """A broker and a client in one program work in a folder with a client.py and a broker/ of its own."""
    (project / "app.py").write_text(textwrap.dedent(EMBEDDED))

    assert complete.run("app.py", cwd=project) == PRINTED


def test_a_users_own_names_shadow_nothing_on_the_command_line(
    complete: Installation, project: Path, serving: str
) -> None:
    """`python -m fanwire serve` puts the user's folder on the path, and serves a program that stands there."""
    (project / "app.py").write_text(textwrap.dedent(CONNECTED))

    assert complete.run("app.py", serving, cwd=project) == PRINTED


def test_the_command_is_installed(complete: Installation, tmp_path: Path) -> None:
    """The wheel brings the command `fanwire`, which explains itself."""
    command = complete.python.with_name("fanwire")

    ended = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "serve" in ended.stdout


def test_the_client_needs_no_extra(bare: Installation, tmp_path: Path) -> None:
    """Without any extra the client can be imported."""
    assert bare.run("-c", "from fanwire import connect; print(connect.__name__)", cwd=tmp_path) == "connect\n"


def test_the_command_says_which_extra_is_missing(bare: Installation, tmp_path: Path) -> None:
    """Without the extra `cli` the command names it and shows no traceback."""
    command = bare.python.with_name("fanwire")

    ended = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert ended.returncode != 0
    assert ended.stderr.startswith("error: ")
    assert "fanwire[" in ended.stderr
    assert "Traceback" not in ended.stderr
