"""The broker's log: structured events through the standard library's logger ``fanwire.broker``.

An embedded broker says nothing unless its host sets up logging; `fanwire serve` does, see `cli.logs`.

Keys become attributes of the `logging.LogRecord`, which refuses those it has itself: ``name``, ``msg``, ``args`` …
"""

from __future__ import annotations

import logging

import structlog

log: structlog.stdlib.BoundLogger = structlog.wrap_logger(
    logging.getLogger("fanwire.broker"),
    processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
    wrapper_class=structlog.stdlib.BoundLogger,
)
