"""Patterns of those who only watch: ``$presence.`` and a pattern P stands for who is subscribed to what overlaps P.

Nobody can publish there, so such a subscription brings no messages, and nothing but PRESENCE_EVENTs.
"""

from __future__ import annotations

PREFIX = "$presence."


def is_watch(pattern: str) -> bool:
    """Whether a pattern is of this kind."""
    return pattern.startswith(PREFIX)


def watched(pattern: str) -> str:
    """What is watched by it; of any other pattern that is the pattern itself."""
    return pattern.removeprefix(PREFIX)
