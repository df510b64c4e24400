"""Who brings a token: one that the settings have the hash of, or a JWT.

What is wrong with a token goes to the log, in words of our own and never with the token; who brought it is only told
that it is not accepted, or that it has expired, which only the holder of a good one can find out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ..settings.auth import Auth, AuthToken, check_user
from .client_certificate import ClientCertificate
from .failure import AuthenticationFailed
from .identity import Identity
from .permissions import Permissions, Rights, Unusable, rights_of

if TYPE_CHECKING:
    from .jwt_tokens import JwtVerifier, VerifiedJwt

# A longer token is not looked at: hashing and parsing it would cost too much before anything is known of who sent it.
MAX_TOKEN = 8192


class Authenticator:
    """Judges tokens by one set of settings. Keys are read once, when it is made."""

    def __init__(self, auth: Auth) -> None:
        """Raises ValueError, which says the file, if a key cannot be used."""
        self._auth = auth
        self._jwts = _verifier(auth)
        self._tokens = {bytes.fromhex(token.sha256): token for token in auth.tokens}
        self._certificates = {each.user: each.roles for each in auth.certificates}
        self._permissions: WeakValueDictionary[Rights, Permissions] = WeakValueDictionary()
        self.anonymous: Identity | None = None
        """Who brings no token; None: nobody may come in without one."""
        if auth.anonymous_roles:
            self.anonymous = Identity(None, self._permissions_of(auth.anonymous_roles, {}))
        for digest, token in self._tokens.items():
            try:
                self._identity_of(token, digest)
            except Unusable as error:
                raise ValueError(f"the token of {token.user!r}: {error}") from None

    def authenticate(self, token: str) -> Identity:
        """Who brings this token.

        Raises:
            AuthenticationFailed: It is not accepted.
        """
        if not 0 < len(token) <= MAX_TOKEN or not token.isascii():
            raise AuthenticationFailed("no token: empty, too long, or not ASCII")
        digest = sha256(token.encode()).digest()
        if self._known(digest) is None and self._jwts is not None:
            return self._of_jwt(self._jwts.verify(token))
        return self._of_digest(digest)

    def knows(self, certificate: ClientCertificate | None) -> bool:
        """Whether users are known by such certificates."""
        return certificate is not None and self._auth.certificate_user is not None

    def by_certificate(self, certificate: ClientCertificate) -> Identity:
        """Who shows this certificate, which TLS has verified. Only if it `knows` them.

        Raises:
            AuthenticationFailed: It is not accepted.
        """
        kind = self._auth.certificate_user
        try:
            user = check_user(certificate.name(kind or "cn"))
            roles = (*self._certificates.get(user, ()), *self._auth.default_roles)
            if kind is None or not roles:
                raise ValueError(f"there are no roles for {user!r}")
            permissions = self._permissions_of(roles, {"sub": user})
        except ValueError as error:
            raise AuthenticationFailed(f"client certificate: {error}") from None
        return _live(Identity(user, permissions, certificate.expires_at, certificate))

    def again(self, identity: Identity) -> Identity:
        """Who it is by these settings, that was known by others.

        A JWT is judged as a new one would be, but for its signature, which was good: its key must still be there.

        Raises:
            AuthenticationFailed: Nobody, by these.
        """
        proof = identity.proof
        if isinstance(proof, bytes):
            return self._of_digest(proof)
        if isinstance(proof, ClientCertificate):
            return self.by_certificate(proof)
        if proof is not None:
            if self._jwts is None:
                raise AuthenticationFailed("no key is there any more")
            self._jwts.check_again(proof)
            return self._of_jwt(proof)
        if self.anonymous is None:
            raise AuthenticationFailed("no token")
        return self.anonymous

    def _known(self, digest: bytes) -> AuthToken | None:
        """Found by its hash. What the time of that tells of a hash is of no use to who cannot choose the hash."""
        found = self._tokens.get(digest)
        return found if found is not None and compare_digest(bytes.fromhex(found.sha256), digest) else None

    def _of_digest(self, digest: bytes) -> Identity:
        token = self._known(digest)
        if token is None:
            raise AuthenticationFailed("unknown token")
        return _live(self._identity_of(token, digest))

    def _identity_of(self, token: AuthToken, digest: bytes) -> Identity:
        permissions = self._permissions_of((*token.roles, *self._auth.default_roles), {"sub": token.user})
        expires_at = token.expires.timestamp() if token.expires is not None else None
        return Identity(token.user, permissions, expires_at, digest)

    def _of_jwt(self, known: VerifiedJwt) -> Identity:
        claims = known.claims
        try:
            user = check_user(claims.get("sub"))
            roles = (*_names(claims.get(self._auth.roles_claim)), *self._auth.default_roles)
            permissions = self._permissions_of(roles, claims)
        except ValueError as error:
            raise AuthenticationFailed(f"bad claim: {error}") from None
        expires = claims["exp"]
        assert isinstance(expires, float)
        return _live(Identity(user, permissions, expires + self._auth.leeway_s, known))

    def _permissions_of(self, roles: Iterable[str], claims: Mapping[str, object]) -> Permissions:
        rights = rights_of(self._auth.named(roles), claims)
        return self._permissions.setdefault(rights, Permissions(rights))


def _verifier(auth: Auth) -> JwtVerifier | None:
    if not auth.keys and auth.jwks_file is None:
        return None
    from .jwt_tokens import JwtVerifier  # what it costs stands there

    return JwtVerifier(auth)


def _live(identity: Identity) -> Identity:
    if identity.expires_in_s == 0:
        raise AuthenticationFailed("expired", code="expired")
    return identity


def _names(claim: object) -> list[str]:
    """The roles that a JWT names."""
    names = claim.split() if isinstance(claim, str) else [] if claim is None else claim
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("roles are a list of names, or a text")
    return names
