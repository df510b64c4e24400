"""Who somebody is, and the refusal to believe it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import attrs

from .client_certificate import ClientCertificate
from .permissions import Permissions

if TYPE_CHECKING:
    from .jwt_tokens import VerifiedJwt


@attrs.frozen
class Identity:
    """Who somebody is, and what they may do."""

    user: str | None
    """None: nobody in particular, who brought no token."""
    permissions: Permissions
    expires_at: float | None = None
    """When that ends, in seconds since 1970, leeway included; None: never."""
    proof: bytes | VerifiedJwt | ClientCertificate | None = attrs.field(default=None, eq=False, repr=False)
    """For when the settings change: the hash of a token, the claims and the key of a JWT, or a certificate."""

    @property
    def expires_in_s(self) -> float | None:
        """How long from now, by the wall clock."""
        return None if self.expires_at is None else max(0.0, self.expires_at - time.time())

    def as_map(self) -> dict[str, Any]:
        """For WELCOME, and for the answer to HELLO."""
        left = self.expires_in_s
        expires_in = None if left is None else round(left, 3)
        return {"user": self.user, "expires_in": expires_in, "permissions": self.permissions.as_map()}
