"""The refusal to believe who somebody says that he is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


class AuthenticationFailed(Exception):
    """A token is not accepted."""

    def __init__(self, reason: str, *, code: str = "unauthenticated") -> None:
        """``reason`` is for the log; ``code`` is what the client is told: "unauthenticated" or "expired"."""
        super().__init__(reason)
        self.reason = reason
        self.code = code

    @property
    def message(self) -> str:
        """For whoever brought the token."""
        return "the token has expired" if self.code == "expired" else "the token is not accepted"
