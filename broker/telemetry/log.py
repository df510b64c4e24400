"""The broker's log: structured events through the standard library's logger ``fanwire.broker``.

An embedded broker says nothing unless its host sets up logging; `fanwire serve` does, see `cli.logs`.

Keys become attributes of the `logging.LogRecord`, which refuses those it has itself: ``name``, ``msg``, ``args`` …
Tokens, payloads and the names of inboxes are never logged.
"""

from __future__ import annotations

import logging
from typing import Protocol

import structlog

_logger = logging.getLogger("fanwire.broker")

log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
    _logger,
    processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
    wrapper_class=structlog.stdlib.BoundLogger,
)

# Characters of a name that a client gives itself: it could be as long as a message.
_NAME = 64


class Speaker(Protocol):
    """Whom a line of the log is about: a session, or who sends HTTP requests."""

    id: str
    """The broker's name for the connection."""

    @property
    def name(self) -> str:
        """What the client calls itself; empty: nothing."""

    @property
    def account_name(self) -> str | None:
        """The user whose token it has presented; None: anonymous, or nobody asks."""

    @property
    def remote(self) -> str:
        """Where it comes from, with the port."""

    @property
    def request_id(self) -> str | None:
        """What its HTTP request is called, if it sends one."""


def log_of(session: Speaker) -> structlog.stdlib.BoundLogger:
    """The log, bound to one connection: every line says which it is, whose, and where it comes from.

    Bound by hand and not by context variables: much of what concerns a connection is found out in another one's task.
    """
    facts = {
        "client": session.name[:_NAME],
        "user": session.account_name,
        "remote": session.remote,
        "request": session.request_id,
    }
    return log.bind(session=session.id, **{key: value for key, value in facts.items() if value})


def debugging() -> bool:
    """Whether lines of the level debug are written: asked where making one would cost too much."""
    return _logger.isEnabledFor(logging.DEBUG)
