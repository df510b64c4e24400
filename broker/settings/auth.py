"""Settings of authentication: who may come in, as the operator says it. `authenticator` does it.

Nothing is read here: `AuthKey.file` and `Auth.jwks_file` are opened when the broker is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import attrs

from fanwire.protocol.ranges import Range

from .roles import Role, listed

ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")
"""What JWTs may be signed with. `none` is no algorithm."""

LEEWAY = Range(0, 3600)
"""How many seconds clocks may be apart."""

_is_digest = re.compile(r"[0-9a-f]{64}").fullmatch
_text = attrs.validators.instance_of(str)
_text_or_none = attrs.validators.optional(_text)


def _algorithm(_instance: object, _attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in ALGORITHMS:
        raise ValueError(f"algorithm is {value!r}; it must be one of {', '.join(ALGORITHMS)}")


def _digest(_instance: object, _attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not _is_digest(value):
        raise ValueError(
            "sha256 must be 64 hexadecimal digits in lower case, the hash of the token and never the token itself;"
            " `fanwire token new` makes both"
        )


def _names(_instance: object, attribute: attrs.Attribute[Any], value: tuple[Any, ...]) -> None:
    if not all(isinstance(name, str) for name in value):
        raise ValueError(f"{attribute.name} must be a list of roles' names, not {value!r}")


def _moment(_instance: object, _attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not (isinstance(value, datetime) and value.tzinfo is not None):
        raise ValueError(f"expires must be a moment with its time zone, such as 2030-01-01T00:00:00Z, not {value!r}")


NAMES = ("cn", "email", "uri", "dns")
"""Where a user's name may stand in a client's certificate: the subject's common name, or a subject alternative name."""


def _certificate_name(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and value not in NAMES:
        raise ValueError(f"{attribute.name} is {value!r}; it must be one of {', '.join(NAMES)}")


def check_user(user: object) -> str:
    """Return a user's name as it is, if it can be one: it goes into logs and reports.

    Raises:
        ValueError: It is no text, empty, longer than 255 characters, or has characters that are not printable.
    """
    if not isinstance(user, str) or not 0 < len(user) <= 255 or not user.isprintable():
        raise ValueError("a user is a text of 1 to 255 printable characters")
    return user


@attrs.frozen(kw_only=True)
class AuthKey:
    """A key that JWTs are verified with. It is good for its own algorithm and no other one."""

    file: str = attrs.field(validator=_text, metadata={"path": True})
    """RS256, ES256, EdDSA: the public key, as PEM. HS256: the secret, at least 32 bytes; a last newline is cut off."""
    algorithm: str = attrs.field(validator=_algorithm)
    """HS256, RS256, ES256 or EdDSA."""
    kid: str | None = attrs.field(default=None, validator=_text_or_none)
    """The key's name, where the header of a JWT says one."""


@attrs.frozen(kw_only=True)
class AuthToken:
    """A token that is no JWT: a random text, which its user keeps and of which only the hash is here.

    A plain SHA-256 is enough, where a password would need a slow hash with salt: 256 random bits cannot be guessed,
    however fast, and no two are alike.
    """

    sha256: str = attrs.field(validator=_digest, repr=False)
    """The hash of the token, in hexadecimal."""
    user: str = attrs.field(validator=lambda _instance, _attribute, value: check_user(value) and None)
    """Whose it is."""
    roles: tuple[str, ...] = attrs.field(default=(), converter=listed, validator=_names)
    """What they may do, beside ``default_roles``."""
    expires: datetime | None = attrs.field(default=None, validator=_moment)
    """When it ends; None: when it is taken out of the settings."""


@attrs.frozen(kw_only=True)
class AuthCertificate:
    """What a user may do who is known by a client certificate."""

    user: str = attrs.field(validator=lambda _instance, _attribute, value: check_user(value) and None)
    """As the certificate has it."""
    roles: tuple[str, ...] = attrs.field(default=(), converter=listed, validator=_names)
    """What they may do, beside ``default_roles``."""


@attrs.frozen(kw_only=True)
class Auth:
    """Who may come in, and what they may do. Nobody may do anything that no role of theirs allows."""

    keys: tuple[AuthKey, ...] = attrs.field(default=(), converter=listed, metadata={"of": AuthKey})
    """Keys that JWTs are verified with."""
    jwks_file: str | None = attrs.field(default=None, validator=_text_or_none, metadata={"path": True})
    """More of them, as a JSON Web Key Set (RFC 7517)."""
    issuer: str | None = attrs.field(default=None, validator=_text_or_none)
    """What a JWT's ``iss`` must be; None: it is not looked at."""
    audience: str | None = attrs.field(default=None, validator=_text_or_none)
    """What a JWT's ``aud`` must be or contain; None: only JWTs without one are taken."""
    leeway_s: float = attrs.field(default=10.0, validator=LEEWAY)
    """How far the clocks of issuer and broker may be apart."""
    roles_claim: str = attrs.field(default="roles", validator=_text)
    """The claim of a JWT with the names of its roles: a list, or a text with spaces between them. Names that
    are not defined here are passed over: they may mean something elsewhere."""
    tokens: tuple[AuthToken, ...] = attrs.field(default=(), converter=listed, metadata={"of": AuthToken})
    """Tokens that are no JWTs."""
    certificate_user: str | None = attrs.field(default=None, validator=_certificate_name)
    """Where the user stands in a client certificate: cn, email, uri or dns. None: certificates say nobody's name."""
    certificates: tuple[AuthCertificate, ...] = attrs.field(
        default=(), converter=listed, metadata={"of": AuthCertificate}
    )
    """Roles of users who are known by a certificate. Others of them have the ``default_roles``."""
    roles: tuple[Role, ...] = attrs.field(default=(), converter=listed, metadata={"of": Role})
    """What there is to be allowed."""
    default_roles: tuple[str, ...] = attrs.field(default=(), converter=listed, validator=_names)
    """Roles of everybody who has a token, or a client certificate with a user."""
    anonymous_roles: tuple[str, ...] = attrs.field(default=(), converter=listed, validator=_names)
    """Roles of who brings no token; none: nobody comes in without one."""

    def __attrs_post_init__(self) -> None:
        if not (self.keys or self.jwks_file or self.tokens or self.anonymous_roles or self.certificate_user):
            raise ValueError("nobody could come in: give keys, jwks_file, tokens, certificate_user or anonymous_roles")
        self._check_certificates()
        _check_unique("roles", [role.name for role in self.roles])
        _check_unique("tokens", [token.sha256 for token in self.tokens], "the same token stands there twice")
        self._check_roles("default_roles", self.default_roles)
        self._check_roles("anonymous_roles", self.anonymous_roles)
        for number, token in enumerate(self.tokens):
            self._check_roles(f"tokens[{number}].roles", token.roles)
            if not (token.roles or self.default_roles):
                raise ValueError(f"tokens[{number}] ({token.user}) has no roles, and there are no default_roles")
            self._check_variables(f"tokens[{number}] ({token.user})", (*token.roles, *self.default_roles), {"sub"})
        self._check_variables("anonymous_roles", self.anonymous_roles, set())

    def _check_certificates(self) -> None:
        if self.certificates and self.certificate_user is None:
            raise ValueError('certificates need certificate_user, such as "cn": where users stand in them')
        _check_unique("certificates", [each.user for each in self.certificates])
        for number, each in enumerate(self.certificates):
            self._check_roles(f"certificates[{number}].roles", each.roles)
            if not (each.roles or self.default_roles):
                raise ValueError(f"certificates[{number}] ({each.user}) has no roles, and there are no default_roles")
            self._check_variables(f"certificates[{number}] ({each.user})", (*each.roles, *self.default_roles), {"sub"})

    def _check_roles(self, name: str, roles: Iterable[str]) -> None:
        known = {role.name for role in self.roles}
        for role in roles:
            if role not in known:
                there = f"there are {', '.join(sorted(known))}" if known else "none is defined: add [[auth.roles]]"
                raise ValueError(f"{name}: there is no role {role!r}; {there}")

    def _check_variables(self, name: str, roles: Iterable[str], given: set[str]) -> None:
        for role in self.named(roles):
            if missing := role.variables - given:
                raise ValueError(f"{name}: role {role.name!r} needs the claim {min(missing)!r}, which is not there")

    def named(self, names: Iterable[str]) -> list[Role]:
        """The roles of these names; those that are not defined are passed over."""
        wanted = set(names)
        return [role for role in self.roles if role.name in wanted]


def _check_unique(name: str, values: list[str], message: str = "") -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{name}: {message or f'{value!r} stands there twice'}")
        seen.add(value)
