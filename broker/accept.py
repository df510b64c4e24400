"""The accept loop: ours, because with trio-websocket's `serve` one hostile peer can end the whole server.

Like `trio.serve_listeners`, each connection gets a task in a nursery; unlike it, no exception of a handler gets here
(`Session.run` sees to that). One connection is accepted in a turn of trio's loop: all others have their turn before the
next one, however many wait.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from .door import TurnedAway
from .log import log

if TYPE_CHECKING:
    from .addresses import Address
    from .door import Door

# accept() fails with these when the process or the system is out of descriptors or memory. The waiting connection is
# still there, so trying again at once would spin; wait for somebody to go. (trio does the same, for the same reason.)
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0


async def accept_connections(
    listener: trio.SocketListener,
    nursery: trio.Nursery,
    handle: Callable[[trio.SocketStream, Address | None], Awaitable[None]],
    door: Door,
) -> None:
    """Accept until cancelled; ``handle`` runs for each connection that ``door`` lets in, as a task of ``nursery``."""
    pause = 0.0
    while True:
        try:
            stream = await listener.accept()
        except OSError as error:
            if error.errno not in _OUT_OF_RESOURCES:
                raise
            if not pause:  # once for each time that it runs out
                log.warning("cannot accept connections for now", error=error.strerror)
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
