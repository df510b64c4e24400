"""Whether the broker lives, and whether it wants more clients."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from fanwire.version import __version__

from .answers import Answer, json_answer

if TYPE_CHECKING:
    from ..sessions.hub import Hub
    from .request import Request


async def healthz(_hub: Hub, _request: Request) -> Answer:
    """It lives: that it answers is what counts. It also says which release it is."""
    return json_answer({"status": "ok", "version": __version__})


async def readyz(hub: Hub, _request: Request) -> Answer:
    """Whether to send clients here."""
    if hub.draining:
        return json_answer({"status": "draining"}, HTTPStatus.SERVICE_UNAVAILABLE)
    return json_answer({"status": "ready"})
