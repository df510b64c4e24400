"""Where Unix is missing, as on Windows: nothing of ours asks for what is not there. (Here, names are hidden.)"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fanwire.broker.network import unix_socket

from .cli_programs import COMMAND, DEADLINE_S, serving

HIDING = """
import signal, socket, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in ("resource", "fcntl", "termios", "pwd", "grp"):
            frame = sys._getframe(1)
            while "importlib" in frame.f_code.co_filename:
                frame = frame.f_back
            if "fanwire" in frame.f_globals.get("__name__", ""):  # other packages have ways of their own
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in ("resource", "fcntl", "termios", "pwd", "grp"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Hidden())
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD"):
    delattr(signal, name)
"""


@pytest.fixture
def hidden(tmp_path: Path) -> dict[str, str]:
    """The environment of a program for which they are hidden."""
    (tmp_path / "sitecustomize.py").write_text(HIDING, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A broker's."""
    with serving() as (_broker, url):
        yield url


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False, env=environment)
    return ended.returncode, ended.stderr


def test_the_sdk_and_an_embedded_broker(hidden: dict[str, str]) -> None:
    """They serve and publish; Unix sockets alone are missing."""
    program = (
        "import fanwire, socket, trio\n"
        "from fanwire.testing import broker_in_memory, client_of\n"
        "async def main():\n"
        "    async with fanwire.Broker(fanwire.Config(port=0)).serving() as broker:\n"
        "        async with fanwire.connect(broker.urls[0]) as client, client.subscribe('t') as messages:\n"
        "            await client.publish('t', 1)\n"
        "            assert (await anext(aiter(messages))).data == 1\n"
        "trio.run(main)\n"
    )

    assert _run([sys.executable, "-c", program], hidden) == (0, "")


@pytest.mark.parametrize("arguments", [["pub", "t", "x"], ["watch", "t", "--plain", "--seconds", "0.2"], ["topics"]])
def test_commands(arguments: list[str], hidden: dict[str, str], url: str) -> None:
    """Work as ever."""
    assert _run([*COMMAND, *arguments], {**hidden, "FANWIRE_URL": url}) == (0, "")


def test_serve(hidden: dict[str, str]) -> None:
    """It listens, and ends as it is told to."""
    with subprocess.Popen(
        [*COMMAND, "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=hidden
    ) as broker:
        assert broker.stdout is not None
        assert broker.stdout.readline().startswith("listening on ws://127.0.0.1:")
        broker.terminate()
        _, log = broker.communicate(timeout=DEADLINE_S)

    assert broker.returncode == 0
    assert "event=drained" in log


def test_a_system_without_unix_sockets_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for every other reason for which one cannot be had."""
    monkeypatch.setattr(unix_socket, "AF_UNIX", None)

    with pytest.raises(OSError, match="this system has no Unix sockets"):
        unix_socket.listen_on(f"{tmp_path}/s", "0660", 10)
