"""Where a connection comes from, for the log."""

from __future__ import annotations

import trio

from .unix_socket import AF_UNIX


def remote_of(stream: trio.abc.Stream) -> str:
    """The other end: ``192.0.2.7:49152``, ``[2001:db8::7]:49152``, ``unix``; empty for one in memory or gone."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if not isinstance(stream, trio.SocketStream):
        return ""
    if stream.socket.family == AF_UNIX:
        return "unix"
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError:
        return ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
