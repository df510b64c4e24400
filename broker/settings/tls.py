"""TLS: its settings, and what is made of them. The files are read when the broker is made and with each reload."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any

import attrs

CLIENT_CERTS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
MIN_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

# Of TLS 1.2 only what has forward secrecy and authenticated encryption (RFC 9325 section 4.2); 1.3 has nothing else.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

_text = attrs.validators.instance_of(str)
_text_or_none = attrs.validators.optional(_text)


def _one_of(names: dict[str, Any]) -> Callable[[object, attrs.Attribute[Any], object], None]:
    def check(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if value not in names:
            raise ValueError(f"{attribute.name} is {value!r}; it must be one of {', '.join(names)}")

    return check


@attrs.frozen(kw_only=True)
class Tls:
    """What TLS is spoken with."""

    cert: str = attrs.field(validator=_text, metadata={"path": True})
    """The certificate, as PEM, and behind it those that lead to its authority."""
    key: str | None = attrs.field(default=None, validator=_text_or_none, metadata={"path": True})
    """Its private key, as PEM, without a password; None: it stands in the file of the certificate."""
    client_ca: str | None = attrs.field(default=None, validator=_text_or_none, metadata={"path": True})
    """Authorities whose client certificates are taken, as PEM. The system's are never."""
    client_certs: str = attrs.field(default="none", validator=_one_of(CLIENT_CERTS))
    """Whether clients are asked for a certificate: none, optional, or required."""
    min_version: str = attrs.field(default="1.2", validator=_one_of(MIN_VERSIONS))
    """The oldest TLS that is spoken: 1.2 or 1.3."""

    def __attrs_post_init__(self) -> None:
        if (self.client_certs == "none") is not (self.client_ca is None):
            raise ValueError(
                f"client_certs is {self.client_certs!r} and client_ca is {self.client_ca!r}: either both are given,"
                " or neither is"
            )


@attrs.frozen
class LoadedTls:
    """Settings that can be used."""

    context: ssl.SSLContext
    expires_at: float
    """When the certificate, or the first of those behind it, ends: seconds since 1970."""

    @property
    def expires_in_s(self) -> float:
        """How long from now, by the wall clock; negative: it has ended."""
        return self.expires_at - time.time()


def load(tls: Tls | None) -> LoadedTls | None:
    """Read the files.

    Raises:
        ValueError: One cannot be used; says which, and why.
    """
    if tls is None:
        return None
    expires_at = _end_of(_read("tls.cert", tls.cert), tls.cert)
    if tls.key is not None:
        _read("tls.key", tls.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = MIN_VERSIONS[tls.min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    _load_key(context, tls)
    if tls.client_ca is not None:
        _trust(context, tls.client_ca)
    context.verify_mode = CLIENT_CERTS[tls.client_certs]
    return LoadedTls(context, expires_at)


def _read(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"{name}: {path}: {error.strerror or error}") from None


def _end_of(pem: bytes, path: str) -> float:
    from cryptography import x509  # 60 ms and 15 MiB, which nobody without TLS needs

    try:
        return min(each.not_valid_after_utc.timestamp() for each in x509.load_pem_x509_certificates(pem))
    except ValueError:
        raise ValueError(f"tls.cert: {path}: there is no certificate in it, as PEM") from None


def _load_key(context: ssl.SSLContext, tls: Tls) -> None:
    path = tls.key or tls.cert

    def no_password() -> str:
        raise ValueError(f"tls.key: {path}: the key has a password; the broker cannot ask for it")

    try:
        context.load_cert_chain(tls.cert, path, no_password)
    except ssl.SSLError as error:
        why = f"it does not belong to the certificate {tls.cert}" if error.reason == "KEY_VALUES_MISMATCH" else ""
        raise ValueError(
            f"tls.key: {path}: {why or 'there is no private key in it, as PEM, that could be used'}"
        ) from None
    except OSError as error:
        raise ValueError(f"tls.key: {path}: {error.strerror or error}") from None


def _trust(context: ssl.SSLContext, path: str) -> None:
    _read("tls.client_ca", path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise ValueError(f"tls.client_ca: {path}: there is no certificate in it, as PEM") from None
