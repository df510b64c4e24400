"""Where a client belongs: to trio, and to the one thread in which its connection runs.

A call from another thread would change lists that the event loop is using, and could not wake a task up: the client
would hang. So every way into the client checks the thread before it touches anything.
"""

from __future__ import annotations

import threading
from threading import get_ident

import trio


class Home:
    """The thread in which a client was made."""

    __slots__ = ("_name", "thread")

    def __init__(self) -> None:
        self.thread = get_ident()
        """Compared with `threading.get_ident` where a call of `check` would cost too much."""
        self._name = threading.current_thread().name

    def check(self) -> None:
        """Raise `elsewhere` unless this is the client's own thread."""
        if get_ident() != self.thread:
            raise self.elsewhere()

    def elsewhere(self) -> RuntimeError:
        """The error for a call from another thread."""
        return RuntimeError(
            f"this client belongs to the trio loop in thread {self._name!r} and was called from thread"
            f" {threading.current_thread().name!r}; call it by way of the loop: trio.from_thread.run(client.publish, …)"
            " for async methods, trio.from_thread.run_sync(client.publish_nowait, …) for others (with trio_token=… in"
            " a thread that trio has not started)"
        )


def check_trio() -> None:
    """Check that a task of trio is running.

    Raises:
        RuntimeError: None is; the text says what to do.
    """
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise RuntimeError(
            "fanwire runs on trio, and no trio task is running here: start the program with trio.run(main). Under"
            " anyio choose the backend: anyio.run(main, backend='trio'). asyncio alone is not supported: keep the"
            " client in a thread of its own with trio.run, and call it with trio.from_thread.run(…, trio_token=…)"
        ) from None
