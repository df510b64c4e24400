"""Who may ask for what an endpoint has."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from .answers import Reply

if TYPE_CHECKING:
    from ..sessions.hub import Hub
    from .request import Request

    Handler: TypeAlias = Callable[[Hub, Request], Awaitable[Reply]]


class Who(enum.Enum):
    """Who may ask."""

    EVERYBODY = "everybody"
    """Also without a token."""
    OPERATOR = "operators"
    """Who has a role with `operator`; without authentication, who is on the same machine. Like everybody, they are
    answered also when the broker has no room for more clients."""
    PERMITTED = "who may do that on the topic"
    """Whoever is known; the handler asks for the permission on the topic."""
