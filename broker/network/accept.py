"""The accept loop: ours, because with trio-websocket's `serve` one hostile peer can end the whole server.

Like `trio.serve_listeners`, each connection gets a task in a nursery; unlike it, no exception of a handler gets here
(`Session.run` sees to that). One connection is accepted in a turn of trio's loop: all others have their turn before the
next one, however many wait.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio

from ..telemetry.log import log
from .admission import TurnedAway

if TYPE_CHECKING:
    from ..limits.addresses import Address
    from .admission import Door

# accept() fails with these when the process or the system is out of descriptors or memory. The waiting connection is
# still there, so trying again at once would spin; wait for somebody to go. (trio does the same, for the same reason.)
# An error that nobody has heard of is waited for in the same way: it must neither spin nor end the broker.
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0

# These are about the connection that was to be accepted: its client is gone, its network is down, a firewall forbids
# the connection.
# "Treat them like EAGAIN by retrying" (accept(2)). trio does so with most of them already.
_GONE_BEFORE = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED", "ECONNRESET", "EPROTO", "EPERM", "EACCES", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET",
        "EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "ENOSR", "ESOCKTNOSUPPORT", "EPROTONOSUPPORT", "ETIMEDOUT",
        "EPIPE", "EINTR", "EAGAIN",
    )
    if hasattr(errno, name)
)  # fmt: skip

# And these say that the listener itself is of no use any more.
_BROKEN = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EFAULT})


async def accept_connections(
    listener: trio.SocketListener,
    nursery: trio.Nursery,
    handle: Callable[[trio.SocketStream, Address | None], Awaitable[None]],
    door: Door[Any],
) -> None:
    """Accept until cancelled; ``handle`` runs for each connection that ``door`` lets in, as a task of ``nursery``.

    Raises:
        OSError: ``listener`` is closed or broken.
    """
    pause = 0.0
    while True:
        try:
            stream = await listener.accept()
        except OSError as error:
            if error.errno in _BROKEN:
                raise
            if error.errno in _GONE_BEFORE:
                await trio.lowlevel.checkpoint()  # one failure in a turn of the loop, as it is with connections
                continue
            if not pause:  # once for each time that it runs out
                log.warning("cannot accept connections for now", error=error.strerror)
            if error.errno in _OUT_OF_RESOURCES:
                door.note_no_files()
            pause = min(2 * pause, _LONGEST_PAUSE_S) or _PAUSE_S
            await trio.sleep(pause)
        else:
            if pause:
                log.info("accepting connections again")
                pause = 0.0
            try:
                address = door.judge(stream)
            except TurnedAway:
                continue
            nursery.start_soon(handle, stream, address)
