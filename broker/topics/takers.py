"""What a route needs of those who get what is published, and of those who stand before them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .chunks import Chunk

if TYPE_CHECKING:
    pass


class Inlet(Protocol):
    """A connection's way out, as far as a publish goes."""

    pending: list[bytes]
    """What is published to it is appended here."""


class Listener(Protocol):
    """A subscription, as far as a publish looks at it."""

    @property
    def echo(self) -> bool:
        """Whether it gets what its own connection publishes."""

    @property
    def taker(self) -> Taker | None:
        """Who stands before its connection's way out, if somebody does."""


class Taker(Protocol):
    """Stands between a publish and subscribers who do not just get what comes."""

    def offer(self, chunk: Chunk, now: float, source: Inlet | None) -> int:
        """Take what was published.

        Args:
            chunk: What that is.
            now: The time on trio's clock.
            source: The way out of the connection that has published it, if one has.

        Returns:
            How many subscriptions it reaches, beside those in `Route.direct`.
        """
