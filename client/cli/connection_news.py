"""Tells people on standard error when the connection goes and comes back."""

import logging

from fanwire.client import Client

from .output import note


async def tell_states(client: Client) -> None:
    """One line for each change between connected and not; nothing for the first connection, nor for the end."""
    logging.getLogger("fanwire.client.connection").disabled = True  # it would say the same again
    was_connected = True
    async for state in client.states():
        connected = state == "connected"
        if connected != was_connected and state != "closed":
            note("connected again" if connected else "connection lost: trying to reach the broker again")
            was_connected = connected
