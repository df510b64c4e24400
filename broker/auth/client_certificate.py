"""What a client's certificate says of who it is. That an authority of ours signed it, TLS has made sure of."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import attrs
import trio


@attrs.frozen
class ClientCertificate:
    """The names in one."""

    cn: tuple[str, ...] = ()
    email: tuple[str, ...] = ()
    uri: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    expires_at: float | None = None
    """When it ends: seconds since 1970."""

    def name(self, kind: str) -> str:
        """The one name of a kind.

        Raises:
            ValueError: There is none, or there are several: which of them would count?
        """
        names: tuple[str, ...] = getattr(self, kind)
        if len(names) != 1:
            raise ValueError(f"the certificate has {len(names) or 'no'} names of the kind {kind!r}, not one")
        return names[0]


def certificate_of(stream: trio.SSLStream[Any]) -> ClientCertificate | None:
    """The client's, after the handshake; None: it showed none."""
    seen: Mapping[str, Any] | None = stream.getpeercert()
    return read_certificate(seen) if seen else None


def read_certificate(seen: Mapping[str, Any]) -> ClientCertificate:
    """As `ssl.SSLSocket.getpeercert` has it."""
    subject = [pair for part in seen.get("subject", ()) for pair in part]
    others = seen.get("subjectAltName", ())
    return ClientCertificate(
        cn=tuple(value for name, value in subject if name == "commonName"),
        email=tuple(value for kind, value in others if kind == "email"),
        uri=tuple(value for kind, value in others if kind == "URI"),
        dns=tuple(value for kind, value in others if kind == "DNS"),
        expires_at=float(ssl.cert_time_to_seconds(seen["notAfter"])) if "notAfter" in seen else None,
    )
