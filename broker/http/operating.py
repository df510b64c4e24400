"""What operators look for, and what they do about it: topics, subscriptions, and sending a client away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fanwire.protocol import LocalProtocolError, check_pattern, check_topic

from ..operations.kick import kick
from ..operations.listings import as_maps, subscriptions_now, topics_page
from . import schemas
from .answers import Answer, HttpError, json_answer
from .endpoints import Parameter
from .history import failed

if TYPE_CHECKING:
    from ..sessions.hub import Hub
    from .request import Request

PATTERN = Parameter("pattern", "only topics that match it", schema=schemas.PATTERN)
AFTER = Parameter("after", "only topics behind this name: the last one of the page before")
OF_TOPIC = Parameter("topic", "only who gets what is published on it", schema=schemas.TOPIC)
OF_SESSION = Parameter("session", "only those of this connection")
SESSION = Parameter("session", "the connection, as WELCOME and /v1/connections call it", where="path")


async def topics(hub: Hub, request: Request) -> Answer:
    """Topics that were published on, or remember something."""
    query = request.query
    pattern = query.get("pattern", ">")
    try:
        page, more = await topics_page(hub, check_pattern(pattern), query.get("after", ""), query.get("limit", 80))
    except LocalProtocolError as error:
        raise failed(error) from None
    return json_answer({"topics": await as_maps(page), "more": more})


async def subscriptions(hub: Hub, request: Request) -> Answer:
    """Who is subscribed to what, and how that goes."""
    query = request.query
    try:
        topic = check_topic(query["topic"]) if "topic" in query else None
    except LocalProtocolError as error:
        raise failed(error) from None
    total, listed = await subscriptions_now(hub, query.get("limit", 80), topic=topic, session=query.get("session"))
    return json_answer({"total": total, "subscriptions": await as_maps(listed)})


async def disconnect(hub: Hub, request: Request) -> Answer:
    """Send a client away."""
    session, caller = request.path["session"], request.caller
    if not kick(hub, session, by=caller.user or caller.peer.remote):
        raise HttpError("not_found", f"there is no connection {session[:64]!r}")
    return json_answer({"disconnected": session})
