"""What the broker tells of itself: figures, who is connected, and who no longer is."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from ..operations import reports
from ..operations.listings import as_maps
from ..operations.reports import connections_now
from .answers import Answer, json_answer
from .endpoints import Parameter

if TYPE_CHECKING:
    from ..sessions.hub import Hub
    from .request import Request

MOST = 1_000
LIMIT = Parameter("limit", "how many at most", type="integer", least=1, most=MOST)
SORT = Parameter("sort", "who comes first: who is furthest behind, or who came first", choices=("lag", "age"))


async def stats(hub: Hub, _request: Request) -> Answer:
    """What `$sys.stats` says."""
    return json_answer(reports.stats(hub))


async def connections(hub: Hub, request: Request) -> Answer:
    """Who is connected."""
    most, by_age = request.query.get("limit", 80), request.query.get("sort") == "age"
    total, lagging, listed = await connections_now(hub, most, by_age=by_age)
    return json_answer({"total": total, "lagging": lagging, "connections": await as_maps(listed)})


async def closed(hub: Hub, request: Request) -> Answer:
    """Who was, and why no longer; the newest first."""
    listed = islice(hub.closed.newest_first(), request.query.get("limit", 80))
    return json_answer({"closed": await as_maps(list(listed))})
