"""``echo: false``: what a connection itself published is not sent to it.

A publish is appended for all subscribers first, in one quick loop. If it came from one who wants no echo, it is taken
back from that one: so nobody pays for this but they.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .chunks import Chunk
    from .takers import Inlet


class Echoes:
    """Of those subscribers of one route who get what is published as it comes."""

    __slots__ = ("_silent",)

    def __init__(self, silent: Set[Inlet]) -> None:
        """``silent``: those who want none."""
        self._silent = silent

    def offer(self, chunk: Chunk, now: float, source: Inlet | None) -> int:
        """See `Taker`. Called before all others, as often as something was appended just now."""
        if source is None or source not in self._silent:
            return 0
        source.pending.pop()
        return -1
