"""What the log says about patterns that probably do not mean what their author thinks."""

from __future__ import annotations

import logging

from fanwire.protocol import foreign_wildcards

# Patterns that are remembered, so that each is told once; with more different ones than these some are told again.
_REMEMBERED = 256

_log = logging.getLogger("fanwire.client.patterns")
_told: set[str] = set()


def warn_of(pattern: str) -> None:
    """Log a warning for a pattern with the wildcards of another system, once for each pattern."""
    hint = foreign_wildcards(pattern)
    if hint is None or pattern in _told:
        return
    if len(_told) >= _REMEMBERED:
        _told.clear()
    _told.add(pattern)
    _log.warning("%s", hint)
