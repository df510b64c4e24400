"""The endpoint that Prometheus asks. What it needs is imported with the first request, and in a thread.

That takes 20 ms, and 3 MiB that a broker nobody scrapes does not need. In a thread it lets the event loop have its turn
every few milliseconds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import trio

if TYPE_CHECKING:
    from ..sessions.hub import Hub
    from .answers import Answer
    from .request import Request

Exposition = Callable[["Hub"], "Answer"]

_known: list[Exposition] = []
_one_of_run = trio.lowlevel.RunVar[trio.Lock]("fanwire.broker.http.scraping")


async def metrics(hub: Hub, _request: Request) -> Answer:
    """The figures, as text."""
    if not _known:
        await _load()
    return _known[0](hub)


async def _load() -> None:
    """Once: who comes meanwhile waits. Not by the import's own lock, which would stop the event loop or take a thread
    for each of them."""
    try:
        one = _one_of_run.get()
    except LookupError:
        one = trio.Lock()
        _one_of_run.set(one)
    async with one:
        if not _known:
            _known.append(await trio.to_thread.run_sync(_imported))


def _imported() -> Exposition:
    module = importlib.import_module(".metrics", __package__)
    return cast("Exposition", module.exposition)
