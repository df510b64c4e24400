"""All endpoints."""

from __future__ import annotations

from .endpoints import Endpoint, Who
from .health import healthz, readyz

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        method="GET",
        path="/healthz",
        who=Who.EVERYBODY,
        summary="Whether the broker lives",
        handle=healthz,
        answers={200: "It does."},
    ),
    Endpoint(
        method="GET",
        path="/readyz",
        who=Who.EVERYBODY,
        summary="Whether to send clients here",
        handle=readyz,
        answers={200: "Clients can come.", 503: "The broker drains."},
    ),
)
