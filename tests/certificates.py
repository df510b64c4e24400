"""An authority, and certificates in files, for tests of TLS."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme

from fanwire.broker import Tls

AUTHORITY = trustme.CA(key_type=trustme.KeyType.ECDSA)
"""Of brokers, and of their clients."""


def issue(folder: Path, *names: str, days: float = 90, name: str = "broker") -> Tls:
    """A broker's certificate for ``names`` (localhost) that is good for so many days, as files of that name."""
    certificate = AUTHORITY.issue_cert(
        *(names or ("localhost",)),
        not_before=datetime.now(UTC) - timedelta(days=10),
        not_after=datetime.now(UTC) + timedelta(days=days),
        key_type=trustme.KeyType.ECDSA,
    )
    tls = Tls(cert=str(folder / f"{name}.pem"), key=str(folder / f"{name}.key"))
    Path(tls.cert).write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    assert tls.key is not None
    Path(tls.key).write_bytes(certificate.private_key_pem.bytes())
    return tls


def authority_file(folder: Path) -> str:
    """The authority's own certificate, in a file."""
    AUTHORITY.cert_pem.write_to_path(folder / "ca.pem")
    return str(folder / "ca.pem")


def client_context(certificate: trustme.LeafCert | None = None, **settings: Any) -> ssl.SSLContext:
    """A client's, which trusts the authority and perhaps shows a certificate."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    for name, value in settings.items():
        setattr(context, name, value)
    return context


def client_certificate(*names: str, authority: trustme.CA = AUTHORITY, **settings: Any) -> trustme.LeafCert:
    """One of a client's: names with an @ are mail addresses, others hosts; ``common_name`` is what it says."""
    return authority.issue_cert(*names, key_type=trustme.KeyType.ECDSA, **settings)
