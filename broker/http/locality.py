"""Where a request comes from: whether its sender is on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from ..network.unix_socket import AF_UNIX

if TYPE_CHECKING:
    from ..network.peer import Peer
    from ..settings.config import Config

# A proxy in front of the broker says by these that it asks for somebody else.
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def on_this_machine(stream: trio.abc.Stream, peer: Peer, config: Config) -> bool:
    """Whether who asks is here: over loopback, a Unix socket, or in memory.

    A trusted proxy is not, since it asks for others; unless each of its connections says by the PROXY protocol for
    whom, and this one for the proxy itself.
    """
    if peer.trusted and not config.proxy_protocol:
        return False
    return peer.is_local and _ends_here(stream)


def _ends_here(stream: trio.abc.Stream) -> bool:
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if not isinstance(stream, trio.SocketStream):
        return True  # `Broker.open_stream`: the same process
    if stream.socket.family == AF_UNIX:
        return True
    try:
        address: str = stream.socket.getpeername()[0]
    except OSError:
        return False  # it has gone
    return _is_loopback(address)


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def forwarded(headers: Mapping[str, str]) -> bool:
    """Whether a proxy passed the request on."""
    return any(name in headers for name in _FORWARDED)


def names_this_machine(host: str) -> bool:
    """Whether a Host header names it as no stranger's DNS could: by an address, or as localhost."""
    name = _host_of(f"//{host}")
    if name is None:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
