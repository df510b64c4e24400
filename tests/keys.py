"""Keys and tokens for tests of authentication."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fanwire.broker.settings.auth import AuthKey, AuthToken

SECRET = b"0123456789abcdef0123456789abcdef"


@attrs.frozen
class Pair:
    """A key to sign with, and the one to verify with."""

    algorithm: str
    private: Any
    public: bytes

    def file(self, folder: Path) -> AuthKey:
        """A setting for the key to verify with, in a file."""
        path = folder / f"{self.algorithm}.key"
        path.write_bytes(self.public)
        return AuthKey(file=str(path), algorithm=self.algorithm)

    def sign(self, *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A JWT; good for an hour, unless ``exp`` says something else."""
        return jwt.encode({"exp": int(time.time()) + 3600, **claims}, self.private, self.algorithm, headers)


def _pair(algorithm: str, private: Any) -> Pair:
    return Pair(
        algorithm,
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


HS256 = Pair("HS256", SECRET, SECRET)
RS256 = _pair("RS256", rsa.generate_private_key(65537, 2048))
ES256 = _pair("ES256", ec.generate_private_key(ec.SECP256R1()))
EDDSA = _pair("EdDSA", ed25519.Ed25519PrivateKey.generate())
PAIRS = (HS256, RS256, ES256, EDDSA)


def known(text: str, user: str, *roles: str, expires_in_s: float | None = None) -> AuthToken:
    """A setting for a token that is no JWT."""
    expires = None if expires_in_s is None else datetime.fromtimestamp(time.time() + expires_in_s, UTC)
    return AuthToken(sha256=sha256(text.encode()).hexdigest(), user=user, roles=roles, expires=expires)


def bearer(token: str) -> bytes:
    """A handshake with a token in its header."""
    return _request("/", f"Authorization: Bearer {token}\r\n")


def in_query(token: str) -> bytes:
    """A handshake with a token in its query."""
    return _request(f"/?token={token}", "")


def _request(target: str, header: str) -> bytes:
    return (
        f"GET {target} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{header}"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Sec-WebSocket-Protocol: fanwire.v1\r\n\r\n"
    ).encode()
