"""Publishing: one message whose payload is the body, or a batch of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import trio

from fanwire.protocol import Encoding, LocalProtocolError, Publish, PublishOptions

from ..requests.asker import wait_for_subscribers
from ..sessions.handlers import RequestError, publish
from ..timing.turn import Turn
from . import schemas
from .answers import JSON, Answer, HttpError, json_answer
from .endpoints import Parameter
from .history import failed
from .long_json import AT_ONCE, items_of
from .payloads import BYTE_ORDER_MARK, parsed, read

if TYPE_CHECKING:
    from ..sessions.hub import Hub
    from .caller import Caller
    from .request import Request

ENCODING_OF = {
    "application/octet-stream": Encoding.RAW,
    JSON: Encoding.JSON,
    "text/plain": Encoding.TEXT,
    "application/msgpack": Encoding.MSGPACK,
    "application/x-msgpack": Encoding.MSGPACK,
    "application/vnd.msgpack": Encoding.MSGPACK,
}
"""What a body's media type says to the receivers."""

LINES = "application/x-ndjson"

OPTIONS = (
    Parameter("key", "conflation key within the topic", schema=schemas.WORD),
    Parameter("retain", "whether it is the topic's last value from now on", type="boolean"),
    Parameter("msg_id", "a repeated one is answered, and not delivered again", schema=schemas.WORD),
    Parameter("expect", "the offset that must be the topic's head, or nothing is published", type="integer"),
    Parameter("reply_to", "topic for answers", schema=schemas.TOPIC),
)

_line = re.compile(rb"[^\r\n]+").finditer

_OF_AN_ITEM = ("topic", "payload", "encoding", "headers", *(each.name for each in OPTIONS))


async def publish_one(hub: Hub, request: Request) -> Answer:
    """The body is the payload."""
    charset = request.headers.get("content-type", "").lower().partition("charset=")[2].strip(' "')
    if charset not in ("", "utf-8", "utf8"):
        raise HttpError("bad_media_type", "texts are UTF-8 here")
    encoding = ENCODING_OF[request.media_type or "application/octet-stream"]
    payload = request.body
    if encoding in (Encoding.JSON, Encoding.TEXT):
        payload = payload.removeprefix(BYTE_ORDER_MARK)
    return json_answer(await _publish(hub, request.caller, request.topic, payload, encoding, request.query))


async def publish_batch(hub: Hub, request: Request) -> Answer:
    """Each item by itself, in order: what one is answered with says nothing of the others."""
    turn = Turn()
    items = await _items(hub, request, turn)
    # Told while there is time to: what is published by then stays published, and whoever sent it has to know what.
    due = trio.current_effective_deadline() - min(1.0, hub.config.http_request_timeout_s / 10)
    results = []
    for item in items:
        result = None
        if trio.current_time() < due:
            with trio.move_on_at(due):  # cancelled while it waits: then it is not published
                result = await _publish_item(hub, request.caller, item, turn)
        results.append(result or {"error": _TOO_LATE.as_map()})
        await turn.pause()
    bad = sum(["error" in result for result in results])
    status = HTTPStatus.MULTI_STATUS if bad else HTTPStatus.OK
    return json_answer({"published": len(results) - bad, "failed": bad, "results": results}, status)


_TOO_LATE = HttpError("unavailable", "not published: the time of the request was over; send it again")


def _check_number(hub: Hub, request: Request, count: int) -> None:
    most = hub.config.max_envelopes
    if most is not None and count > most:
        hub.limits.refuse("max_envelopes", session=request.caller.id, user=request.caller.user)
    most = schemas.MAX_ITEMS if most is None else min(most, schemas.MAX_ITEMS)
    if count > most:
        text = f"a batch may have {most} messages, not {count}"
        raise HttpError("too_many", text, status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


async def _items(hub: Hub, request: Request, turn: Turn) -> list[Any]:
    """All of them, parsed: of a batch that is no JSON nothing is published."""
    if request.media_type == LINES:
        return await _of_lines(hub, request, turn)
    body = request.body.removeprefix(BYTE_ORDER_MARK)
    if len(body) > AT_ONCE:
        return await _piecewise(body, turn, lambda count: _check_number(hub, request, count))
    items = parsed(body)
    if not isinstance(items, list):
        raise HttpError("bad_envelope", "a batch is an array of messages")
    _check_number(hub, request, len(items))
    await turn.pause()
    return items


async def _piecewise(body: bytes, turn: Turn, count: Callable[[int], None]) -> list[Any]:
    values = []
    for number, item in enumerate(await items_of(body, turn, count=count), 1):
        values.append(parsed(item, f"message {number}"))
        await turn.pause()
    return values


async def _of_lines(hub: Hub, request: Request, turn: Turn) -> list[Any]:
    """Of those that are not empty, counted as they are cut off, and not before: there may be a million."""
    values: list[Any] = []
    for found in _line(request.body):
        if line := found.group().strip():
            number = len(values) + 1
            _check_number(hub, request, number)
            values.append(await _of_line(line.removeprefix(BYTE_ORDER_MARK), number, turn))
        await turn.pause()
    return values


async def _of_line(line: bytes, number: int, turn: Turn) -> Any:
    if len(line) > AT_ONCE:
        [line] = await items_of(b"[" + line + b"]", turn, number, count=_only_one)
    return parsed(line, f"message {number}")


def _only_one(count: int) -> None:
    if count > 1:
        raise HttpError("malformed", "this is no JSON: a line has one message")


async def _publish_item(hub: Hub, caller: Caller, item: Any, turn: Turn) -> dict[str, Any]:
    try:
        if not isinstance(item, dict) or not {"topic", "payload"} <= item.keys():
            raise HttpError("bad_envelope", "a message of a batch is a map with topic and payload")
        if unknown := next((name for name in item if name not in _OF_AN_ITEM), None):
            raise HttpError("bad_option", f"a message has no {unknown[:64]!r}", {"option": unknown[:64]})
        payload, encoding = read(item["payload"], item.get("encoding"))
        await turn.pause()  # to write it may have taken as long as to parse it
        options = {name: value for name, value in item.items() if name not in ("topic", "payload", "encoding")}
        return await _publish(hub, caller, item["topic"], payload, encoding, options)
    except HttpError as error:
        return {"error": error.as_map()}
    except Exception:  # a defect of ours with this one: who sent the batch has to know what became of the others
        event = "defect: a message of a batch could not be published"
        hub.repeats.say(caller, "error", event, exc_info=True)
        return {"error": HttpError("internal", "a defect of the broker; its log has the rest").as_map()}


async def _publish(
    hub: Hub, caller: Caller, topic: str, payload: bytes, encoding: Encoding, options: Mapping[str, Any]
) -> dict[str, Any]:
    if hub.parting:
        raise HttpError("shutting_down", "the broker is shutting down")
    most = hub.config.max_message_bytes
    if len(payload) > most:
        raise _too_large(hub, caller, most)
    try:
        envelope = Publish(1, topic, payload, encoding, PublishOptions.from_map(options))
        if (size := _size_of(envelope)) > most:
            raise _too_large(hub, caller, most)
        await hub.fanout.swept()
        if hub.registry.publishers_wait and (caller.permissions is None or caller.permissions.may_publish(topic)):
            await wait_for_subscribers(hub, topic)
        result = publish(caller, envelope)
        caller.charge(1, size)
    except (RequestError, LocalProtocolError) as error:
        raise failed(error) from None
    return {"topic": topic, "epoch": hub.epoch, **result}


def _size_of(envelope: Publish) -> int:
    """Bytes of all that it says: what a PUBLISH would have, but for a few of msgpack's own."""
    options = envelope.options
    texts = (envelope.topic, options.key, options.msg_id, options.reply_to)
    size = len(envelope.payload) + sum([len(text.encode()) for text in texts if text is not None])
    return size + sum([len(name.encode()) + len(value.encode()) for name, value in options.headers.items()])


def _too_large(hub: Hub, caller: Caller, most: int) -> HttpError:
    hub.limits.refuse("max_message", session=caller.id, user=caller.user)
    return HttpError("too_large", f"a message may have {most} bytes, with its headers and all else that it says")
