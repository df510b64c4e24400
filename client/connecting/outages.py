"""What the log says about an outage: one line when the connection is lost, one when there is one again, and one about
what may be missing. A connection that breaks again and again has its lines every `QUIET_S` seconds."""

from __future__ import annotations

import logging

import trio

from ..errors import FanwireError
from ..url import Address

# The least time between two outages that both have their lines, in seconds.
QUIET_S = 10.0

# Patterns that are named in one line; the others are counted.
NAMED = 3

_log = logging.getLogger("fanwire.client.connection")


class Outages:
    """One for each client."""

    def __init__(self, address: Address) -> None:
        """``address``: what is connected to."""
        self._address = address
        self._since = 0.0
        self._told_at = -QUIET_S
        self._told = True  # whether the log knows how it is at the moment
        self._silent = 0  # outages without a line since the last one
        self._attempts = 0
        self._missing: dict[str, None] = {}
        self._unnamed = 0

    def lost(self, error: FanwireError) -> None:
        """The connection is lost, and another one is to be made."""
        self._since, self._attempts = trio.current_time(), 0
        self._told = False
        self._tell(error)

    def failed(self, error: FanwireError) -> None:
        """Another attempt has failed."""
        self._attempts += 1
        if not self._told:
            self._tell(error)

    def _tell(self, error: FanwireError) -> None:
        now = trio.current_time()
        if now - self._told_at < QUIET_S:
            return
        again = f" ({self._silent} more outages since the last line)" if self._silent else ""
        _log.warning("lost the connection to %s: %s; trying to reach the broker again%s", self._address, error, again)
        self._told, self._told_at, self._silent = True, now, 0

    def back(self) -> None:
        """There is a connection again."""
        if self._told:
            _log.warning(
                "connected to %s again after %.1f s, at attempt %d",
                self._address, trio.current_time() - self._since, self._attempts + 1,
            )  # fmt: skip
        else:
            self._silent += 1
        self._told = True

    def ended(self, error: FanwireError) -> None:
        """The connection has ended, and no other one is made."""
        _log.warning("the connection to %s has ended for good: %s", self._address, error)

    def missing(self, pattern: str) -> None:
        """Messages of a subscription may be missing. `tell_missing` writes the line."""
        if len(self._missing) < NAMED:
            self._missing[pattern] = None
        elif pattern not in self._missing:
            self._unnamed += 1

    def tell_missing(self) -> None:
        """Everything that was subscribed to is subscribed to again."""
        if not self._missing or self._silent:
            return
        names = ", ".join(map(repr, self._missing)) + (f" and {self._unnamed} more" if self._unnamed else "")
        self._missing, self._unnamed = {}, 0
        _log.warning("messages published during the outage may be missing from the subscriptions of %s", names)
