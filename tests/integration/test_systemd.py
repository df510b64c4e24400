"""What systemd is told, and what it needs to know of us."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from fanwire.broker.cli.systemd import STATUS_S, Notifier

from .cli_programs import DEADLINE_S, started

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "fanwire.service"


class Manager:
    """The other end."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(DEADLINE_S)
        self.environment = {"NOTIFY_SOCKET": address}

    def told(self) -> list[str]:
        """The lines of the next message."""
        return self.socket.recv(4096).decode().split("\n")

    def told_until(self, line: str) -> list[list[str]]:
        """All messages up to the one that has the line."""
        messages = [self.told()]
        while line not in messages[-1]:
            messages.append(self.told())
        return messages


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """Reached by a path, and by a name without a file."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@fanwire-{os.getpid()}-{time.monotonic_ns()}"
    manager = Manager(address)
    with manager.socket:
        yield manager


def test_start_reload_and_end_are_told(manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """READY when it listens; RELOADING and READY around SIGHUP, also where the file is bad; STOPPING with the time."""
    file = tmp_path / "f.toml"
    file.write_text("port = 0\ndrain_spread = 3\n", encoding="utf-8")
    monkeypatch.setenv("NOTIFY_SOCKET", manager.environment["NOTIFY_SOCKET"])
    monkeypatch.setenv("WATCHDOG_USEC", "600000000")  # its socket takes ten messages: it must not be full of these
    with started("serve", "--config", str(file)) as broker:
        assert manager.told() == ["READY=1", "STATUS=listening"]
        broker.heard("^listening on")
        assert manager.told_until("WATCHDOG=1")[-1][1] == "STATUS=0 connections, 0 subscriptions, 0 lagging"

        broker.process.send_signal(signal.SIGHUP)
        (_, stamp) = manager.told_until("RELOADING=1")[-1]
        name, _, microseconds = stamp.partition("=")
        assert name == "MONOTONIC_USEC"
        assert 0 < int(microseconds) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert manager.told_until("READY=1")[-1][1] == "STATUS=reloaded"

        file.write_text("prot = 0\n", encoding="utf-8")
        broker.process.send_signal(signal.SIGHUP)
        manager.told_until("RELOADING=1")
        assert manager.told_until("READY=1")[-1][1].startswith("STATUS=not reloaded: ")

        broker.process.send_signal(signal.SIGTERM)
        assert manager.told_until("STOPPING=1")[-1] == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=10000000", "STATUS=draining"]
        assert broker.ended()[0] == 0


async def test_the_watchdog_hears_of_us_twice_in_its_time(manager: Manager, autojump_clock: MockClock) -> None:
    """And nobody hears of us while the loop does something else."""
    notifier = Notifier({**manager.environment, "WATCHDOG_USEC": "8000000", "WATCHDOG_PID": f"{os.getpid()}"})
    with trio.move_on_after(11):
        await notifier.keep_telling(lambda: "fine")
    manager.socket.setblocking(False)

    assert [manager.told() for _ in range(3)] == [["WATCHDOG=1", "STATUS=fine"]] * 3
    with pytest.raises(BlockingIOError):
        manager.told()


@pytest.mark.parametrize(
    "others", [{}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}]
)
async def test_without_a_watchdog_of_ours_there_is_the_status_only(
    others: dict[str, str], manager: Manager, autojump_clock: MockClock
) -> None:
    """Another process's watchdog is not fed."""
    with trio.move_on_after(1.5 * STATUS_S):
        await Notifier({**manager.environment, **others}).keep_telling(lambda: "fine")

    assert [manager.told() for _ in range(2)] == [["STATUS=fine"]] * 2


@pytest.mark.parametrize("address", [None, "", "relative", "vsock:2:1234", "/nowhere/at/all"])
async def test_without_systemd_nothing_happens(address: str | None, autojump_clock: MockClock) -> None:
    """Neither an error nor a wait."""
    notifier = Notifier({} if address is None else {"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.stopping(1)
    with trio.move_on_after(60):
        await notifier.keep_telling(lambda: "fine")


def test_a_manager_that_does_not_read_stops_nobody(manager: Manager) -> None:
    """What does not fit into its queue is not said."""
    notifier = Notifier(manager.environment)

    for _ in range(10_000):
        notifier.tell("WATCHDOG=1")

    assert manager.told() == ["WATCHDOG=1"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    """It knows every line, and each is where it belongs."""
    unit = tmp_path / UNIT.name
    text = UNIT.read_text(encoding="utf-8")
    unit.write_text(text.replace("/opt/fanwire/bin/fanwire serve", "/bin/true"), encoding="utf-8")
    ended = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_unit_fits_the_program() -> None:
    """The options are there, its statuses and signals are ours, and there is time for the drain."""
    text = UNIT.read_text(encoding="utf-8")

    assert "RestartPreventExitStatus=78" in text
    assert "Type=notify\n" in text
    assert "NotifyAccess=main" in text
    assert "ExecReload=/bin/kill -HUP $MAINPID" in text
