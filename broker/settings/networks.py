"""Proxies whose word counts, and what they say of whom they speak for.

The word of anybody else is never looked at: who connects directly could claim any address.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network


UNIX = "unix"
"""The address of whoever comes through the Unix socket; among trusted proxies: all of them."""

UNKNOWN = "unknown"
"""The address of somebody for whom a proxy speaks without knowing more: on no machine that would be ours."""

# Proxies in a row whose addresses are looked at. Nobody has more.
MOST_HOPS = 32

Address = IPv4Address | IPv6Address


def address_of(text: str) -> Address | None:
    """An address; one of IPv4 in the dress of IPv6 is undressed, a zone is left out. None: it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


class Proxies:
    """The trusted ones."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        """Raises ValueError if one is no network."""
        self._unix = UNIX in texts
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in texts:
            if text != UNIX:
                try:
                    self._networks.append(ip_network(text))
                except ValueError as error:
                    raise ValueError(f"trusted_proxies: {error}; write 10.0.0.0/8, 192.0.2.7, or unix") from None

    def trusts(self, address: str) -> bool:
        """Whether the word of who has this address counts."""
        if address == UNIX:
            return self._unix
        numeric = address_of(address)
        return numeric is not None and any(numeric in network for network in self._networks)

    def client_behind(self, nearest: str, forwarded: str | None) -> str:
        """Whose request it is: of those that X-Forwarded-For lists, from the right, the first that is not trusted.

        Args:
            nearest: Who handed it to us.
            forwarded: The header, repeated ones joined by commas.
        """
        client = nearest
        for text in reversed((forwarded or "").rsplit(",", MOST_HOPS)[-MOST_HOPS:]):
            if not self.trusts(client):
                break
            address = address_of(_without_port(text.strip()))
            if address is None:  # "unknown", or whatever the one before was told: nothing left of it can be believed
                break
            client = str(address)
        return client


def _without_port(text: str) -> str:
    """Some proxies add it."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


@lru_cache(maxsize=8)
def proxies_of(texts: tuple[str, ...]) -> Proxies:
    """Those of a configuration, read once."""
    return Proxies(texts)


def networks_of(text: str | None) -> list[IPv4Network | IPv6Network]:
    """``127.0.0.0/8, ::1`` in pieces. Raises ValueError if one of them is none."""
    return [ip_network(part.strip()) for part in (text or "").split(",") if part.strip()]
