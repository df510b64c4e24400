"""Where connections come from: how many of one address, how often, how many tokens it has guessed at.

A connection is judged as soon as it is accepted, before TLS and before a byte of it is read: that is the cheapest
moment. What has no address (a stream in memory, a Unix socket) is not judged, nor are `Config.unlimited_addresses`.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

from ..settings.networks import networks_of
from .parties import Ledger, Party
from .token_bucket import Bucket

if TYPE_CHECKING:
    from ..settings.config import Config

# Connections of one address that may come at once: so many seconds' worth of `connect_rate`.
BURST_S = 10

# What one customer of a provider has at least. Who has one address of it has all.
_PREFIX = 64

_MINUTE_S = 60.0


@lru_cache(maxsize=1024)
def source_of(host: str) -> str:
    """Who that is, for counting: an IPv4 address; of IPv6 the network of 64 bits, which is one customer's."""
    address = ip_address(host)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ip_network((int(address) >> _PREFIX << _PREFIX, _PREFIX)))
    return str(address)


class Address(Party):
    """One source of connections."""

    __slots__ = ("arrivals", "guesses")

    def __init__(self, key: str, config: Config) -> None:
        super().__init__(key)
        self.change(config)

    def change(self, config: Config) -> None:
        """Go by these settings; budgets are full at first."""
        rate, guesses = config.connect_rate, config.auth_failures
        self.arrivals = Bucket("connect_rate", rate, rate * BURST_S) if rate is not None else None
        self.guesses = Bucket("auth_failures", guesses / _MINUTE_S, guesses) if guesses is not None else None

    def settled(self, now: float) -> bool:
        """See `Party`."""
        return all(bucket is None or bucket.full(now) for bucket in (self.arrivals, self.guesses))


class Addresses:
    """All of them. One for each broker."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._ledger = Ledger(lambda key: Address(key, self._config))
        self._unlimited = networks_of(config.unlimited_addresses)

    def change(self, config: Config) -> None:
        """Go by these settings from now on."""
        before, self._config = self._config, config
        self._unlimited = networks_of(config.unlimited_addresses)
        if (before.connect_rate, before.auth_failures) != (config.connect_rate, config.auth_failures):
            for address in self._ledger.everybody():
                address.change(config)

    def __len__(self) -> int:
        return len(self._ledger)

    def find(self, host: str | None, now: float) -> Address | None:
        """Where a connection comes from; None: nothing is limited there."""
        if host is None or self._exempt(host):
            return None
        return self._ledger.find(source_of(host), now)

    def _exempt(self, host: str) -> bool:
        address = ip_address(host)
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._unlimited)

    def refusal(self, address: Address, now: float) -> str | None:
        """Which limit one more connection of this address would break; None: it may come, and has been counted."""
        most = self._config.max_connections_per_address
        if address.guesses is not None and address.guesses.owed_s(now):
            return address.guesses.name
        if address.arrivals is not None:
            if address.arrivals.owed_s(now):
                return address.arrivals.name
            address.arrivals.take(1, now)
        if most is not None and address.connections >= most:
            return "max_connections_per_address"
        self._ledger.join(address)
        return None

    def leave(self, address: Address, now: float) -> None:
        """A connection that `refusal` had nothing against has ended."""
        self._ledger.leave(address, now)
