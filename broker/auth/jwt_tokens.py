"""Verifying JWTs (RFC 7519, with the advice of RFC 8725).

Imported only where there are keys: with the cryptography that it needs it costs 60 ms and 15 MiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import jwt

from ..settings.auth import Auth
from .failure import AuthenticationFailed
from .jwt_keys import VerifyingKey, load_jwks, load_key


@attrs.frozen(eq=False)
class VerifiedJwt:
    """What is remembered of a JWT whose signature was good: not the token itself."""

    claims: Mapping[str, Any] = attrs.field(repr=False)
    """Its claims; ``sub`` and ``exp`` are among them."""
    kid: object
    """The key id in its header, if there is one."""
    key: VerifyingKey
    """The key that its signature is by."""


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

    def verify(self, token: str) -> VerifiedJwt:
        """Verify a JWT: its signature by one of the keys, and the claims that every JWT is judged by.

        Args:
            token: The JWT, as it was sent.

        Returns:
            What is known of it.

        Raises:
            AuthenticationFailed: It is not a JWT, or not good (any more, or yet).
        """
        try:
            return self._verified(token)
        except AuthenticationFailed:
            raise
        except jwt.ExpiredSignatureError:  # only looked at behind a good signature
            raise AuthenticationFailed("expired", code="expired") from None
        except Exception as error:  # whatever a strange token makes the library raise: it is not accepted
            raise AuthenticationFailed(f"bad JWT: {type(error).__name__}") from None

    def check_again(self, known: VerifiedJwt) -> None:
        """See whether a JWT that other settings accepted would be accepted by these, without its signature.

        Its key must still be there (under its key id, and for the same algorithm), and issuer and audience must be the
        ones that are asked for.

        Raises:
            AuthenticationFailed: It would not be.
        """
        candidates = self._candidates({"alg": known.key.algorithm, "kid": known.kid})
        if not any(key.same_as(known.key) for key in candidates):
            raise AuthenticationFailed("its key is not there any more")
        auth, audience = self._auth, known.claims.get("aud")
        if auth.issuer is not None and known.claims.get("iss") != auth.issuer:
            raise AuthenticationFailed("bad JWT: another issuer than the settings want now")
        named = audience if isinstance(audience, list) else [audience] if audience else []
        if (auth.audience is None and named) or (auth.audience is not None and auth.audience not in named):
            raise AuthenticationFailed("bad JWT: another audience than the settings want now")

    def _verified(self, token: str) -> VerifiedJwt:
        failure = "no key of ours is for its algorithm and key id"
        header = jwt.get_unverified_header(token)
        for key in self._candidates(header):
            try:
                return VerifiedJwt(self._decoded(token, key), header.get("kid"), key)
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
