"""The topics on which the broker itself publishes. Nobody else can, and nothing may keep the broker from doing so."""

from __future__ import annotations

from typing import Final

STATS: Final = "$sys.stats"
CONNECTIONS: Final = "$sys.connections"
SLOW: Final = "$sys.slow"
DEMAND: Final = "$sys.demand"

OWN: Final = frozenset((STATS, CONNECTIONS, SLOW, DEMAND))
"""All of them. A rule may have them remembered: their places do not count against ``max_stored_topics``."""


def tells_of_the_broker(pattern: str) -> bool:
    """Whether a pattern, or a topic, begins with ``$sys``: what it brings is about the broker and its clients."""
    return pattern == "$sys" or pattern.startswith("$sys.")
