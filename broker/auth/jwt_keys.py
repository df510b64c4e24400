"""Keys that JWTs are verified with: read from files, each fit for one algorithm and bound to it.

The header of a JWT is written by whoever made it, so it never decides how it is verified. It may choose among keys; the
key says the algorithm. A public key can so never be taken for the secret of an HMAC.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from ..settings.auth import ALGORITHMS, AuthKey

# An HMAC's secret has at least as many bytes as its hash (RFC 7518 section 3.2); an RSA key 2,048 bits (section 3.3).
MIN_SECRET = 32
MIN_RSA_BITS = 2048

# A key file, or a set of keys, over this is no such file.
MAX_FILE = 1024 * 1024


class BadKey(ValueError):
    """A key, or the file of it, cannot be used; says which file, and why."""


@attrs.frozen
class VerifyingKey:
    """A key and the one algorithm that it is for."""

    algorithm: str
    kid: str | None
    material: Any = attrs.field(repr=False)

    def same_as(self, other: VerifyingKey) -> bool:
        """Whether a signature that is good by one of the two is good by the other. Names of keys do not matter."""
        return self.algorithm == other.algorithm and bool(self.material == other.material)


def load_key(key: AuthKey) -> VerifyingKey:
    """Read the file of one key. Raises `BadKey`."""
    data = read_file(key.file)
    try:
        material = _secret(data) if key.algorithm == "HS256" else _public_key(data)
        return _fit(key.algorithm, key.kid, material)
    except BadKey as error:
        raise BadKey(f"{key.file}: {error}") from None


def load_signing_key(path: str, algorithm: str) -> Any:
    """Read the file of a key that JWTs are signed with: a private key as PEM, or for HS256 the secret.

    Raises:
        BadKey: It cannot be read, or a broker would not accept what it signs with that algorithm.
    """
    data = read_file(path)
    try:
        if algorithm == "HS256":
            return _fit(algorithm, None, _secret(data)).material
        private = _private_key(data)
        _fit(algorithm, None, private.public_key())
        return private
    except BadKey as error:
        raise BadKey(f"{path}: {error}") from None


def read_file(path: str) -> bytes:
    """All of a small file. Raises `BadKey`."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise BadKey(f"{path}: {error.strerror or error}") from None
    if len(data) > MAX_FILE:
        raise BadKey(f"{path}: longer than {MAX_FILE} bytes, so no key")
    return data


def _secret(data: bytes) -> bytes:
    if b"-----BEGIN" in data or data.startswith((b"ssh-", b"ecdsa-", b"{")):
        raise BadKey("this is a key of another sort, not the secret of an HMAC: name its own algorithm")
    return data.removesuffix(b"\n").removesuffix(b"\r")


def _public_key(data: bytes) -> Any:
    if b"PRIVATE KEY" in data:
        raise BadKey("this is the private key; the broker only verifies, so give it the public one")
    try:
        return load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey("this is no public key as PEM ('-----BEGIN PUBLIC KEY-----')") from None


def _private_key(data: bytes) -> Any:
    if b"PUBLIC KEY" in data or b"CERTIFICATE" in data:
        raise BadKey("this is a public key; signing needs the private one")
    try:
        return load_pem_private_key(data, None)
    except TypeError:
        raise BadKey("this key needs a password; write it without one first: openssl pkey -in FILE -out NEW") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey("this is not a private key as PEM ('-----BEGIN PRIVATE KEY-----')") from None


def _made_for(material: Any) -> str:
    """The algorithm of a key; an empty text where it is for none of ours."""
    if isinstance(material, RSAPublicKey):
        return "RS256"
    if isinstance(material, EllipticCurvePublicKey) and isinstance(material.curve, SECP256R1):
        return "ES256"
    return "EdDSA" if isinstance(material, Ed25519PublicKey) else ""


def _fit(algorithm: str, kid: str | None, material: Any) -> VerifyingKey:
    """The key, if it is one for that algorithm and strong enough."""
    if algorithm == "HS256":
        if len(material) < MIN_SECRET:
            raise BadKey(f"the secret has {len(material)} bytes; HS256 needs {MIN_SECRET} or more, drawn at random")
        good = isinstance(material, bytes)
    else:
        good = algorithm == _made_for(material)
        if good and algorithm == "RS256" and material.key_size < MIN_RSA_BITS:
            raise BadKey(f"the RSA key has {material.key_size} bits; RS256 needs {MIN_RSA_BITS} or more")
    if not good:
        other = _made_for(material)
        raise BadKey(f"this is no key for {algorithm}{f', but one for {other}' if other else ''}")
    return VerifyingKey(algorithm, kid, material)


# --------------------------------------------------------------------- key sets

_OF_TYPE = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}


def load_jwks(path: str) -> tuple[VerifyingKey, ...]:
    """The keys of a JSON Web Key Set that are for verifying with an algorithm spoken here. Raises `BadKey`."""
    try:
        listed = json.loads(read_file(path))["keys"]
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, BadKey):
            raise
        raise BadKey(f"{path}: this is no JSON Web Key Set: {{'keys': [...]}} is needed") from None
    keys = [key for number, jwk in enumerate(listed) if (key := _of_jwk(f"{path}: keys[{number}]", jwk)) is not None]
    if not keys:
        raise BadKey(f"{path}: none of its {len(listed)} keys is for verifying with {', '.join(ALGORITHMS)}")
    return tuple(keys)


def _of_jwk(where: str, jwk: dict[str, Any]) -> VerifyingKey | None:
    """None: the key is for something else, as some are in the sets of large issuers."""
    kind = jwk.get("kty")
    algorithm = jwk.get("alg") or _OF_TYPE.get((str(kind), jwk.get("crv")))
    if jwk.get("use", "sig") != "sig" or algorithm not in ALGORITHMS:
        return None
    if kind != "oct" and "d" in jwk:
        raise BadKey(f"{where}: holds a private key; the broker only verifies, so give it the public ones")
    kid = jwk.get("kid")
    try:
        material = jwt.PyJWK.from_dict(jwk, algorithm).key
        return _fit(algorithm, kid if isinstance(kid, str) else None, material)
    except BadKey as error:
        raise BadKey(f"{where}: {error}") from None
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
        raise BadKey(f"{where}: cannot be read as a key for {algorithm}: {error}") from None
