"""Topics and patterns whose first name begins with ``$``: the broker's own, inboxes, and watching who is subscribed.

Nobody may publish there but the broker itself, and everybody to an inbox. A wildcard in the first place matches none of
them (docs/protocol.md, Topics).
"""

from __future__ import annotations

from typing import Final

RESERVED: Final = "$"
"""What all of them begin with."""

# ------------------------------------------------------------------------ about the broker

SYSTEM: Final = "$sys"

STATS: Final = "$sys.stats"
CONNECTIONS: Final = "$sys.connections"
SLOW: Final = "$sys.slow"
DEMAND: Final = "$sys.demand"

OWN: Final = frozenset((STATS, CONNECTIONS, SLOW, DEMAND))
"""The topics on which the broker itself publishes. Nothing may keep it from doing so: where a rule has them remembered,
their places do not count against ``max_stored_topics``."""


def tells_of_the_broker(pattern: str) -> bool:
    """Whether a pattern, or a topic, begins with ``$sys``: what it brings is about the broker and its clients."""
    return pattern == SYSTEM or pattern.startswith(f"{SYSTEM}.")


# ----------------------------------------------------------------------------------- inboxes

INBOX: Final = "$inbox."
"""What inboxes begin with: where the replies to a session's requests go (docs/protocol.md, Requests and replies).

Everybody may publish to an inbox, and only its session may subscribe to it. So its name is a secret between that
session and whom it asks: it is told to nobody else, and nothing is remembered of what is published there.
"""

HIDDEN_INBOX: Final = "$inbox.…"
"""What others are told instead of a pattern that names an inbox."""


def is_inbox(name: str) -> bool:
    """Whether a topic, or a pattern, lies below some inbox, or below all of them."""
    return name.startswith(INBOX)


def without_inbox(pattern: str) -> str:
    """A pattern as it may be told to others."""
    return HIDDEN_INBOX if is_inbox(pattern) else pattern


# --------------------------------------------------------------- who is subscribed to what

PRESENCE: Final = "$presence."
"""With a pattern behind it: who is subscribed to what overlaps that.

Nobody can publish there, so such a subscription brings no messages, and nothing but PRESENCE_EVENTs.
"""


def is_watch(pattern: str) -> bool:
    """Whether a pattern only watches who is subscribed."""
    return pattern.startswith(PRESENCE)


def watched(pattern: str) -> str:
    """What is watched by it; of any other pattern that is the pattern itself."""
    return pattern.removeprefix(PRESENCE)
