"""The accept loop: ours, because with trio-websocket's `serve` one hostile peer can end the whole server.

Like `trio.serve_listeners`, each connection gets a task in a nursery; unlike it, no exception of a handler gets here
(`Session.run` sees to that).
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import trio

from .log import log

# accept() fails with these when the process or the system is out of descriptors or memory. The waiting connection is
# still there, so trying again at once would spin; wait for somebody to go. (trio does the same, for the same reason.)
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_PAUSE_S = 0.1


async def accept_connections(
    listener: trio.SocketListener,
    nursery: trio.Nursery,
    handle: Callable[[trio.SocketStream], Awaitable[None]],
) -> None:
    """Accept until cancelled; ``handle`` runs for each connection as a task of ``nursery``."""
    while True:
        try:
            stream = await listener.accept()
        except OSError as error:
            if error.errno not in _OUT_OF_RESOURCES:
                raise
            log.warning("cannot accept connections for now", error=error.strerror, retry_in_s=_PAUSE_S)
            await trio.sleep(_PAUSE_S)
        else:
            nursery.start_soon(handle, stream)
