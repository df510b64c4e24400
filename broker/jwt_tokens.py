"""Verifying JWTs (RFC 7519, with the advice of RFC 8725).

Imported only where there are keys: with the cryptography that it needs it costs 60 ms and 15 MiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jwt

from .auth import Auth
from .identity import AuthenticationFailed
from .jwt_keys import VerifyingKey, load_jwks, load_key


class JwtVerifier:
    """Knows the keys, and what issuer and audience must be."""

    def __init__(self, auth: Auth) -> None:
        """Reads the keys. Raises ValueError, which says the file."""
        self._auth = auth
        jwks = load_jwks(auth.jwks_file) if auth.jwks_file is not None else ()
        self._keys = (*map(load_key, auth.keys), *jwks)
        named = [(key.algorithm, key.kid) for key in self._keys if key.kid is not None]
        for algorithm, kid in named:
            if named.count((algorithm, kid)) > 1:
                raise ValueError(f"two keys for {algorithm} have the key id {kid!r}")

    def claims_of(self, token: str) -> dict[str, Any]:
        """The claims of a JWT that one of our keys has signed; ``sub`` and ``exp`` are among them.

        Raises:
            AuthenticationFailed: It is none, or not good (any more, or yet).
        """
        try:
            return self._verified(token)
        except AuthenticationFailed:
            raise
        except jwt.ExpiredSignatureError:  # only looked at behind a good signature
            raise AuthenticationFailed("expired", code="expired") from None
        except Exception as error:  # whatever a strange token makes the library raise: it is not accepted
            raise AuthenticationFailed(f"bad JWT: {type(error).__name__}") from None

    def _verified(self, token: str) -> dict[str, Any]:
        failure = "no key of ours is for its algorithm and key id"
        for key in self._candidates(jwt.get_unverified_header(token)):
            try:
                return self._decoded(token, key)
            except jwt.InvalidSignatureError:
                failure = "wrong signature"
        raise AuthenticationFailed(failure)

    def _candidates(self, header: Mapping[str, Any]) -> list[VerifyingKey]:
        """Keys that it could be signed with: of its key id if we have one of that, and for its algorithm."""
        if "crit" in header:  # it asks for extensions of which we know none (RFC 7515 section 4.1.11)
            return []
        algorithm, kid = header.get("alg"), header.get("kid")
        keys = [key for key in self._keys if key.algorithm == algorithm]
        if kid is None:
            return keys
        return [key for key in keys if key.kid == kid] or [key for key in keys if key.kid is None]

    def _decoded(self, token: str, key: VerifyingKey) -> dict[str, Any]:
        auth = self._auth
        claims: dict[str, Any] = jwt.decode(
            token,
            key.material,
            algorithms=[key.algorithm],
            issuer=auth.issuer,
            audience=auth.audience,
            leeway=auth.leeway_s,
            options={"require": ["exp", "sub"]},
        )
        claims["exp"] = float(claims["exp"])  # an integer of JSON can be too large for that
        return claims
