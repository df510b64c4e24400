"""How a broker sends its clients away: in small groups, so that they do not all come to another one at once.

Ten thousand that are told in the same moment are ten thousand handshakes in the next. So the groups are spread over
``drain_spread_s``; and each client is told to come back at a moment drawn from the same time since the drain began, but
not before it was sent away. By the end of that time all of them may be back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import trio

from ..sessions import disconnects

if TYPE_CHECKING:
    from ..sessions.hub import Hub
    from ..sessions.session import Session

# Clients told in one turn: some 100 µs each, so others wait 5 ms. So many and fewer are told at once.
GROUP = 50


async def send_away(hub: Hub) -> None:
    """Tell all clients to go (GOODBYE, 1001). Whoever comes in meanwhile is told by `Hub.enter`."""
    hub.parting = True
    spread_s, began = hub.config.drain_spread_s, trio.current_time()
    for share, group in _groups(list(hub.sessions)):
        if share:
            await trio.sleep_until(began + share * spread_s)
        for session in group:
            session.end(disconnects.draining(spread_s, share * spread_s))


def _groups(sessions: list[Session]) -> Iterator[tuple[float, list[Session]]]:
    """Each with the share of the time that is over when its turn comes."""
    for first in range(0, len(sessions), GROUP):
        yield first / len(sessions), sessions[first : first + GROUP]
