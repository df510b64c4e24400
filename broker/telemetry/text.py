"""Texts of clients, as others may see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

# Characters of a text that a client chose: its own could be as long as a message.
SHOWN = 64


def shown(text: str) -> str:
    """A text of a client's, cut so that many of them can be kept."""
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
