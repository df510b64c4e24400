"""A broker that asks nobody who they are is not opened to the network by mistake."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..settings.networks import address_of
from ..telemetry.log import log

if TYPE_CHECKING:
    from ..settings.config import Config


def check_host(config: Config) -> None:
    """Raise ValueError if an address to listen on is one of the network, and nobody must say who they are.

    Names are looked up when the broker listens: see `check_bound`.
    """
    if not config.listen or _is_asked(config) or config.insecure:
        return
    for host in (config.host, config.admin_host if config.admin_port is not None else None):
        if host is not None and _is_open(host):
            raise ValueError(why(host))


def check_bound(config: Config, host: str, addresses: Iterable[str]) -> None:
    """The same for what ``host`` has become."""
    if not (config.insecure or _is_asked(config)) and any(map(_is_open, addresses)):
        raise ValueError(why(host))


def warn_of(config: Config, addresses: Iterable[str]) -> None:
    """Log which of the addresses that the broker listens on are open to the network without authentication.

    Only where the operator allows that: see `check_bound`.
    """
    opened = [address for address in addresses if _is_open(address)]
    if opened and not _is_asked(config):
        log.warning("open to the network, and nobody must authenticate", addresses=" ".join(opened))


def why(host: str) -> str:
    """What to say of it."""
    return (
        f"{host or 'every address'} is open to the network and nobody must authenticate; say in [auth] who may come in"
        " (docs/authentication.md), or pass --insecure (insecure = true, Config(insecure=True))"
    )


def _is_open(host: str) -> bool:
    """Whether others than this machine reach it; a name that has not been looked up counts as not."""
    address = address_of(host)
    return host == "" if address is None else not address.is_loopback


def _is_asked(config: Config) -> bool:
    return config.auth is not None or (config.tls is not None and config.tls.client_certs == "required")
