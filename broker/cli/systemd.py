"""Telling systemd how the broker is: sd_notify(3) in a few lines. Elsewhere nothing is told and nothing happens.

systemd sets NOTIFY_SOCKET for services with ``Type=notify`` (and WATCHDOG_USEC for those with ``WatchdogSec=``).
"""

import os
import socket
import time
from collections.abc import Callable, Mapping

import trio

STATUS_S = 10.0
"""How often the line of `systemctl status` is renewed; more often if the watchdog wants to hear from us."""


class Notifier:
    """The way to systemd, or to nobody."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address_of(environment.get("NOTIFY_SOCKET", ""))
        self._watchdog_s = _watchdog_of(environment) if self._address else None

    def tell(self, *lines: str) -> None:
        """Send assignments, such as ``READY=1``. Never waits, never fails: no broker ends for want of a listener."""
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as way:
                way.setblocking(False)
                way.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            pass

    def ready(self) -> None:
        """Clients can come."""
        self.tell("READY=1", "STATUS=listening")

    def reloading(self) -> None:
        """The settings are being read again; `reloaded` has to follow."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def reloaded(self, problem: str | None = None) -> None:
        """They hold now, or (``problem``) those from before."""
        status = "reloaded" if problem is None else f"not reloaded: {problem}"
        self.tell("READY=1", f"STATUS={' '.join(status.split())}")  # one line, whatever a file's mistake looks like

    def stopping(self, within_s: float) -> None:
        """The broker drains; it needs no longer than that."""
        self.tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(within_s * 1e6)}", "STATUS=draining")

    async def keep_telling(self, status: Callable[[], str]) -> None:
        """Say regularly that the event loop turns, and how things are. Runs until cancelled; the caller's task.

        This is a task of that loop: when the loop stands, nothing is said, and systemd starts the broker anew.

        Args:
            status: One line for `systemctl status`.
        """
        if self._address is None:
            return
        beat = () if self._watchdog_s is None else ("WATCHDOG=1",)
        every_s = STATUS_S if self._watchdog_s is None else min(STATUS_S, self._watchdog_s / 2)
        while True:
            self.tell(*beat, f"STATUS={status()}")
            await trio.sleep(every_s)


def _address_of(name: str) -> str | None:
    """A path, or ``@`` and a name of Linux' abstract name space, whose first byte is NUL."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _watchdog_of(environment: Mapping[str, str]) -> float | None:
    """After how many seconds of silence we are restarted; None: never, or it is another process that is meant."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) > 0 else None
