"""Where the broker's log goes and how it looks: coloured for people, one parsable line an event for programs."""

import logging
import sys
from typing import Literal

import structlog

from .log_text import clean, shorten
from .log_writer import handler_for

LogFormat = Literal["auto", "console", "plain", "json"]
FORMATS: tuple[LogFormat, ...] = ("auto", "console", "plain", "json")
LEVELS = ("debug", "info", "warning", "error")


def configure_logs(form: LogFormat, level: str) -> None:
    """Send our events to standard error; standard output is for what other programs read.

    Args:
        form: `console` is coloured, `plain` is key=value, `json` an object a line; `auto` is `console` on a terminal
            and `plain` elsewhere.
        level: the least level that is written, one of `LEVELS`.
    """
    if form == "auto":
        form = "console" if sys.stderr.isatty() else "plain"
    handler = handler_for(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.ExtraAdder(),
                structlog.processors.TimeStamper(fmt="iso" if form != "console" else "%H:%M:%S", utc=form != "console"),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,  # the plain one: prettier ones show variables, and tokens in them
                *_renderers(form),
            ],
        )
    )
    broker = logging.getLogger("fanwire")
    for before in broker.handlers:
        before.close()
    broker.handlers[:] = [handler]
    broker.propagate = False
    change_level(level)


def change_level(level: str) -> None:
    """Write what is at least this important, from now on."""
    logging.getLogger("fanwire").setLevel(level.upper())


def _renderers(form: LogFormat) -> list[structlog.typing.Processor]:
    if form == "console":
        plain = structlog.dev.plain_traceback
        return [clean, structlog.dev.ConsoleRenderer(colors=True, pad_event_to=24, exception_formatter=plain)]
    if form == "json":
        return [shorten, structlog.processors.JSONRenderer(default=str)]
    return [
        clean,
        structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False),
    ]
