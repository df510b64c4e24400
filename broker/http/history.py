"""What a topic remembers: its last value, and its history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fanwire.protocol import Encoding, Fetch, LocalProtocolError

from ..sessions.authentication import may
from ..sessions.handlers import MAX_PAGE, RequestError, forbidden, page_of
from ..timing.turn import Turn
from ..topics.routes import parts_of_tail
from . import schemas
from .answers import Answer, HttpError, json_answer
from .endpoints import Parameter
from .payloads import shown

if TYPE_CHECKING:
    from ..sessions.hub import Hub
    from .request import Request

HISTORY = (
    Parameter("from", "offset of the first message wanted", type="integer", least=1),
    Parameter(
        "since", "or: microseconds since 1970, of the first message wanted", type="integer", schema=schemas.MOMENT
    ),
    Parameter("last", "or: so many of the newest messages", type="integer", least=1),
    Parameter("limit", "how many at most", type="integer", least=1, most=MAX_PAGE),
)

BEGINNINGS = ("from", "since", "last")


async def last(hub: Hub, request: Request) -> Answer:
    """The last value: the retained one where values are retained, else the newest of the history."""
    topic = request.topic
    if not may(request.caller, "fetch", topic):
        raise failed(forbidden("fetch", topic))
    kept = hub.store.find(topic)
    stored = None if kept is None else kept.newest()
    if stored is None:
        raise HttpError("not_kept", f"{topic} has no last value")
    message = message_map(stored.offset, stored.time_us, *parts_of_tail(stored))
    return json_answer({"topic": topic, "epoch": hub.epoch, **message})


async def history(hub: Hub, request: Request) -> Answer:
    """A page of the history."""
    query = request.query
    after = query["from"] - 1 if "from" in query else None
    try:
        asked = Fetch(1, request.topic, after, query.get("since"), query.get("last"), query.get("limit"))
        page = page_of(request.caller, asked)
    except (RequestError, LocalProtocolError) as error:
        raise failed(error) from None
    messages, turn = [], Turn()
    for stored in page.messages:
        messages.append(message_map(stored.offset, stored.time_us, *parts_of_tail(stored)))
        await turn.pause()
    return json_answer(
        {"topic": request.topic, "epoch": hub.epoch, "head": page.head, "more": page.more, "messages": messages}
    )


def message_map(offset: int, time_us: int, payload: bytes, encoding: int, meta: dict[str, Any]) -> dict[str, Any]:
    """A message, as answers have it."""
    names = {each.value: each.name.lower() for each in Encoding}
    value = shown(payload, encoding)
    return {"offset": offset, "time": time_us, "encoding": names.get(encoding, encoding), "payload": value, **meta}


def failed(error: RequestError | LocalProtocolError) -> HttpError:
    """A request that ERROR would answer, if it had come by WebSocket."""
    if isinstance(error, RequestError):
        return HttpError(error.code, str(error), error.detail)
    return HttpError(error.code, str(error), {"option": error.option} if error.option else None)
