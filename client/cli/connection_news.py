"""Tells people on standard error when the connection goes and comes back."""

import logging

from fanwire.client import Client

from .output import note


def leave_connections_to_commands() -> None:
    """Keep the client's log lines on its connection from the terminal: a command says the same in its own words."""
    logging.getLogger("fanwire.client.connection").disabled = True


def leave_the_screen_alone() -> None:
    """Keep all log lines of the client from a terminal on which a table is drawn."""
    logging.getLogger("fanwire.client").addHandler(logging.NullHandler())


async def tell_states(client: Client) -> None:
    """One line for each change between connected and not; nothing for the first connection, nor for the end."""
    was_connected = True
    async for state in client.states():
        connected = state == "connected"
        if connected != was_connected and state != "closed":
            note("connected again" if connected else "connection lost: trying to reach the broker again")
            was_connected = connected
