"""Inboxes: where the replies to a session's requests go (docs/protocol.md, Requests and replies).

Everybody may publish to an inbox, and only its session may subscribe to it. So its name is a secret between that
session and whom it asks: it is told to nobody else, and nothing is remembered of what is published there.
"""

from __future__ import annotations

import secrets

PREFIX = "$inbox."

HIDDEN = "$inbox.…"
"""What others are told instead of a pattern that names an inbox."""


def new_inbox() -> str:
    """A name that cannot be guessed. Its session may subscribe to what lies below it."""
    return PREFIX + secrets.token_hex(16)


def is_inbox(name: str) -> bool:
    """Whether a topic, or a pattern, lies below some inbox, or below all of them."""
    return name.startswith(PREFIX)


def without_inbox(pattern: str) -> str:
    """A pattern as it may be told to others."""
    return HIDDEN if is_inbox(pattern) else pattern
