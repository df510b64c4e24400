"""Whether the broker lives, and whether it wants more clients."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from .answers import Answer, json_answer

if TYPE_CHECKING:
    from ..hub import Hub
    from .request import Request


async def healthz(_hub: Hub, _request: Request) -> Answer:
    """It lives: an answer is all that there is to say."""
    return json_answer({"status": "ok"})


async def readyz(hub: Hub, _request: Request) -> Answer:
    """Whether to send clients here."""
    if hub.draining:
        return json_answer({"status": "draining"}, HTTPStatus.SERVICE_UNAVAILABLE)
    return json_answer({"status": "ready"})
