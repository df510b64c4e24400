"""The PROXY protocol, version 2: what a proxy that only passes bytes on says before them of whom they are from.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt. Version 1, which is text, is not spoken here.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import trio

from ..settings.networks import UNKNOWN, address_of

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

# Signature, version and command, family, length.
_FIXED = 16

# After that come at most so many bytes of addresses and TLVs. The format allows 64 KiB; what proxies send is under
# 300 bytes, or 1 to 2 KiB with a client's certificate in it. (nginx allows 4 KiB, too.)
MOST_BYTES = 4096

_LOCAL, _PROXY = 0, 1
_UNSPECIFIED = 0x00

# Family and transport: bytes of the two addresses and ports. Datagrams have no business here.
_SIZES = {0x11: 12, 0x21: 36, 0x31: 216}


class BadProxyHeader(Exception):
    """There is none, or none that could be read; says why."""


async def read_proxy_header(stream: trio.abc.ReceiveStream) -> str | None:
    """Read one, and not a byte more. The caller sets the deadline.

    Returns:
        The client's address; "unknown": it has none of IP, or the proxy does not know; None: the proxy speaks for
        itself.

    Raises:
        BadProxyHeader: It is none.
    """
    fixed = await _exactly(stream, _FIXED, SIGNATURE)
    size = announced(fixed)
    return parse(fixed, await _exactly(stream, size))


async def _exactly(stream: trio.abc.ReceiveStream, size: int, beginning: bytes = b"") -> bytes:
    received = bytearray()
    while len(received) < size:
        data = await stream.receive_some(size - len(received))
        if not data:
            raise BadProxyHeader("the connection ended inside the PROXY header")
        received += data
        if not received.startswith(beginning[: len(received)]):
            raise BadProxyHeader("this is no PROXY header of version 2")
    return bytes(received)


def announced(fixed: bytes) -> int:
    """How many bytes follow the first 16. Raises `BadProxyHeader`."""
    if not fixed.startswith(SIGNATURE) or fixed[12] >> 4 != 2:
        raise BadProxyHeader("this is no PROXY header of version 2")
    size = int.from_bytes(fixed[14:16], "big")
    if size > MOST_BYTES:
        raise BadProxyHeader(f"a PROXY header of {size} bytes: more than {MOST_BYTES} are not taken")
    return size


def parse(fixed: bytes, rest: bytes) -> str | None:
    """What a whole header says; see `read_proxy_header`. TLVs are passed over."""
    command, family = fixed[12] & 0x0F, fixed[13]
    if command == _LOCAL:  # a health check; whatever else it says does not count
        return None
    if command != _PROXY:
        raise BadProxyHeader(f"a PROXY header with the unknown command {command}")
    if family == _UNSPECIFIED:
        return UNKNOWN
    if family not in _SIZES:
        raise BadProxyHeader(f"a PROXY header of the family 0x{family:02x}, which is none of TCP or Unix")
    if len(rest) < _SIZES[family]:
        raise BadProxyHeader(f"a PROXY header that is too short for its family: {len(rest)} bytes")
    if family == 0x11:
        return str(IPv4Address(rest[:4]))
    return str(address_of(str(IPv6Address(rest[:16])))) if family == 0x21 else UNKNOWN
