"""Sending one client away because an operator wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..sessions import disconnects
from ..telemetry.log import log_of

if TYPE_CHECKING:
    from ..sessions.hub import Hub


def kick(hub: Hub, session_id: str, by: str) -> bool:
    """End a connection: GOODBYE `forbidden`, 4003, so that the client does not come back by itself.

    Nothing keeps it from coming back otherwise: that takes a change of its permissions, or of its token.

    Args:
        hub: Of the broker.
        session_id: As WELCOME, `Broker.connections` and the log call it.
        by: Who wants that, for the log.

    Returns:
        Whether there is such a connection.
    """
    session = next((each for each in hub.sessions if each.id == session_id), None)
    if session is None or session.ending is not None:
        return False
    log_of(session).warning("kicked", by=by)
    session.end(disconnects.kicked())
    return True
