"""All endpoints."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from . import figures, health, history, operating, publish, schemas, scraping, sse_stream
from .answers import JSON, json_answer
from .endpoints import Endpoint, Parameter
from .openapi import describe
from .sse_events import MEDIA_TYPE
from .who import Who

if TYPE_CHECKING:
    from ..sessions.hub import Hub
    from .answers import Answer
    from .request import Request

TOPIC = Parameter("topic", "a topic, percent-encoded where it has to be", where="path", schema=schemas.TOPIC)

PATTERN = Parameter(
    "pattern", "a topic, or a pattern with wildcards, percent-encoded where it has to be", where="path",
    schema=schemas.PATTERN,
)  # fmt: skip


async def _openapi(_hub: Hub, request: Request) -> Answer:
    return _description(FOR_CLIENTS is request.served)


@cache
def _description(for_clients: bool) -> Answer:
    """The document is always the same, and takes some milliseconds to make."""
    return json_answer(describe(FOR_CLIENTS if for_clients else ENDPOINTS))


_OF_A_TOPIC = {400: "It is no topic, or a parameter is wrong.", 404: "The topic remembers nothing of the kind."}
_OF_A_PUBLISH = {
    404: "The topic keeps no history, which msg_id and expect need; or nobody is there to answer (reply_to).",
    409: "The topic's head is not what expect says; the detail has its offset.",
    413: "The body, or the message, is larger than the broker takes.",
    415: "The body's media type is none of these.",
    429: "As many topics remember something as may.",
    503: "The broker is full, or shuts down, or did not get to an answer in time.",
}

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        method="GET",
        path="/healthz",
        who=Who.EVERYBODY,
        summary="Whether the broker lives",
        handle=health.healthz,
        schema="Status",
        answers={200: "It does."},
    ),
    Endpoint(
        method="GET",
        path="/readyz",
        who=Who.EVERYBODY,
        summary="Whether to send clients here",
        handle=health.readyz,
        schema="Status",
        shaped=(503,),
        answers={200: "Clients can come.", 503: "The broker drains."},
    ),
    Endpoint(
        method="GET",
        path="/metrics",
        who=Who.OPERATOR,
        summary="Figures for Prometheus",
        handle=scraping.metrics,
        answers={200: "The text format."},
        produces="text/plain",
    ),
    Endpoint(
        method="GET",
        path="/v1/openapi.json",
        who=Who.EVERYBODY,
        summary="This description",
        handle=_openapi,
        schema="OpenApi",
        answers={200: "OpenAPI 3.1."},
    ),
    Endpoint(
        method="GET",
        path="/v1/stats",
        who=Who.OPERATOR,
        summary="What $sys.stats says",
        handle=figures.stats,
        schema="Stats",
        answers={200: "The figures."},
    ),
    Endpoint(
        method="GET",
        path="/v1/connections",
        who=Who.OPERATOR,
        summary="Who is connected, and how far behind",
        handle=figures.connections,
        schema="Connections",
        parameters=(figures.SORT, figures.LIMIT),
        answers={200: "total, lagging, and the connections asked for."},
    ),
    Endpoint(
        method="GET",
        path="/v1/connections/closed",
        who=Who.OPERATOR,
        summary="The last connections that ended, and why",
        handle=figures.closed,
        schema="Closed",
        parameters=(figures.LIMIT,),
        answers={200: "The newest first."},
    ),
    Endpoint(
        method="DELETE",
        path="/v1/connections/{session}",
        who=Who.OPERATOR,
        summary="Send a client away",
        handle=operating.disconnect,
        schema="Disconnected",
        parameters=(operating.SESSION,),
        answers={200: "It is told to go.", 404: "There is no such connection."},
    ),
    Endpoint(
        method="GET",
        path="/v1/subscriptions",
        who=Who.OPERATOR,
        summary="Who is subscribed to what, and how far behind",
        handle=operating.subscriptions,
        schema="Subscriptions",
        parameters=(operating.OF_TOPIC, operating.OF_SESSION, figures.LIMIT),
        answers={200: "total, and the subscriptions asked for."},
    ),
    Endpoint(
        method="GET",
        path="/v1/topics",
        who=Who.OPERATOR,
        summary="Topics that were published on, or remember something",
        handle=operating.topics,
        schema="Topics",
        parameters=(operating.PATTERN, operating.AFTER, figures.LIMIT),
        answers={200: "A page of them, by name, and whether there are more."},
    ),
    Endpoint(
        method="GET",
        path="/v1/topics/{topic}/last",
        who=Who.PERMITTED,
        summary="The last value of a topic",
        handle=history.last,
        schema="Last",
        parameters=(TOPIC,),
        answers={200: "The message.", **_OF_A_TOPIC},
    ),
    Endpoint(
        method="GET",
        path="/v1/topics/{topic}/history",
        who=Who.PERMITTED,
        summary="A page of the history of a topic",
        handle=history.history,
        schema="History",
        parameters=(TOPIC, *history.HISTORY),
        alternatives=history.BEGINNINGS,
        answers={200: "Messages, and whether there are more of them.", **_OF_A_TOPIC},
    ),
    Endpoint(
        method="GET",
        path="/v1/topics/{pattern}/stream",
        who=Who.PERMITTED,
        summary="A topic, or a pattern, as Server-Sent Events",
        handle=sse_stream.stream,
        parameters=(PATTERN, *sse_stream.PARAMETERS),
        alternatives=sse_stream.BEGINNINGS,
        answers={
            200: "Events, until either side ends it.",
            400: "It is no pattern, or a parameter is wrong.",
            404: "The topic keeps no history, so nothing can be replayed.",
            429: "This user has as many connections as one may have.",
            503: "The broker is full, or shuts down.",
        },
        produces=MEDIA_TYPE,
    ),
    Endpoint(
        method="POST",
        path="/v1/publish/{topic}",
        who=Who.PERMITTED,
        summary="Publish one message",
        handle=publish.publish_one,
        schema="Published",
        parameters=(TOPIC, *publish.OPTIONS),
        answers={200: "Published: offset, subscribers, lagging.", **_OF_A_PUBLISH},
        consumes=tuple(publish.ENCODING_OF),
    ),
    Endpoint(
        method="POST",
        path="/v1/publish",
        who=Who.PERMITTED,
        summary="Publish a batch of messages",
        handle=publish.publish_batch,
        schema="Results",
        body="Batch",
        answers={
            200: "All are published; the results stand in the order of the messages.",
            207: "Some are not: their results have an error.",
            413: "The body, or the JSON of a message beside its texts, is larger, or the batch longer, than may be.",
            415: _OF_A_PUBLISH[415],
        },
        consumes=(JSON, publish.LINES),
    ),
)

FOR_CLIENTS = tuple(each for each in ENDPOINTS if each.who is not Who.OPERATOR)
"""What is served beside an operators' port."""
