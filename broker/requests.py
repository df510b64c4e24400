"""What a client asks for, envelope by envelope: the slow road of dispatch, one handler each.

Publishes without options never come here; `session` takes them over `fanwire.protocol.fastpath`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgpack

from fanwire.protocol import (
    Backlog,
    Error,
    Hello,
    LocalProtocolError,
    Ok,
    Ping,
    Publish,
    PublishOptions,
    Rejected,
    Subscribe,
    SubscribeOptions,
    Unsubscribe,
    encode,
)

from .rules import grant
from .subscription import Subscription

if TYPE_CHECKING:
    from .session import Session

_pack = msgpack.Packer().pack

_PLAIN = SubscribeOptions()
# Options of protocol.md that this broker does not do yet; asking for one is answered `bad_option`, never ignored.
_PLAIN_PUBLISH = PublishOptions()
_NOT_YET_PUBLISHED = ("reply_to", "retain", "msg_id", "expect")
_NOT_YET = ("heartbeat", "snapshot", "replay", "group", "echo", "presence")


class RequestError(Exception):
    """A request that is answered with ERROR; the connection lives on."""

    def __init__(self, code: str, message: str, **detail: str) -> None:
        """``detail``: what a program may want to know beside the code, such as ``option``."""
        super().__init__(message)
        self.code = code
        self.detail = detail


def handle(session: Session, envelope: object) -> None:
    """Do what one envelope asks for, and answer it."""
    if isinstance(envelope, Rejected):
        session.reject(envelope.to_error())
        return
    request: int = getattr(envelope, "id", 0)
    try:
        handler = _HANDLERS.get(type(envelope))
        if handler is None:
            raise RequestError("unknown_type", f"{type(envelope).__name__.upper()} is not served by this broker yet")
        if not session.welcomed and not isinstance(envelope, Hello):
            raise RequestError("unauthenticated", "HELLO comes first")
        result = handler(session, envelope)
    except RequestError as error:
        about = {} if request else {"about": type(envelope).__name__.upper()}
        session.reject(Error(request, error.code, str(error), {**about, **error.detail}))
        return
    if request:
        session.answer(encode(Ok(request, result)))


def _hello(session: Session, envelope: Hello) -> dict[str, Any]:
    session.name = envelope.name or session.name
    session.agent = envelope.agent or session.agent
    session.welcome()
    return {}


def _ping(session: Session, envelope: Ping) -> dict[str, Any]:
    return {}


def _subscribe(session: Session, envelope: Subscribe) -> dict[str, Any]:
    _check_options(envelope.options)
    config, subscriptions = session.config, session.outbox.subscriptions
    if envelope.pattern.startswith("$inbox."):
        raise RequestError("forbidden", f"{envelope.pattern}: only the session whose inbox it is may subscribe to it")
    given = grant(
        config.rules, envelope.pattern, session.name, envelope.options, queue=config.queue, max_queue=config.max_queue
    )
    route = session.registry.route(envelope.pattern)
    if route.number in subscriptions:
        session.hub.fanout.flush(session.outbox)  # by the old options; that may be the end of the subscription
        route = session.registry.route(envelope.pattern)
    subscription = subscriptions.get(route.number)
    if subscription is not None:
        session.change(subscription, given)
    else:
        limit = config.max_subscriptions
        if limit is not None and len(subscriptions) >= limit:
            session.registry.release(route)
            raise RequestError("too_many", f"a connection may have {limit} subscriptions; unsubscribe from some first")
        session.join(route, given)  # nothing is published before the answer is in the outbox too
    return {
        "route": route.number,
        "offset": 0,
        "epoch": session.epoch,
        "replayed": 0,
        "recovered": True,
        "queue": given.queue,
        "max_rate": given.max_rate,
        "on_slow": given.on_slow,
    }


def _check_options(options: SubscribeOptions) -> None:
    for name in _NOT_YET:
        if getattr(options, name) != getattr(_PLAIN, name):
            raise RequestError("bad_option", f"{name!r} is not served by this broker yet; leave it out", option=name)


def _unsubscribe(session: Session, envelope: Unsubscribe) -> dict[str, Any]:
    session.part(_subscription(session, envelope.route))
    return {}


def _backlog(session: Session, envelope: Backlog) -> dict[str, Any]:
    subscription = _subscription(session, envelope.route)
    subscription.backlog = (envelope.queued, envelope.limit)
    session.outbox.note_backlog(subscription)
    return {}


def _subscription(session: Session, route: int) -> Subscription:
    subscription = session.outbox.subscriptions.get(route)
    if subscription is None:
        raise RequestError("unknown_route", f"this connection is not subscribed to route {route}")
    return subscription


def _publish(session: Session, envelope: Publish) -> dict[str, Any]:
    """A PUBLISH with options, or in a form that the fast road does not know."""
    options = envelope.options
    for name in _NOT_YET_PUBLISHED:
        if getattr(options, name) != getattr(_PLAIN_PUBLISH, name):
            raise RequestError("bad_option", f"{name!r} is not served by this broker yet; leave it out", option=name)
    tail, elements = message_tail(envelope.payload, envelope.encoding, options)
    try:
        topic = session.registry.topic(_pack(envelope.topic))
        check_publishable(topic.name)
    except LocalProtocolError as error:
        raise RequestError(error.code, str(error)) from None
    subscribers = session.publish(topic, elements, tail, options.key)
    return {"offset": 0, "subscribers": subscribers, "lagging": topic.lagging}


def message_tail(payload: bytes, encoding: int, options: PublishOptions) -> tuple[bytes, int]:
    """What a MESSAGE ends with, from the payload on, and how many elements it has with that."""
    meta: dict[str, Any] = {}
    if options.headers:
        meta["headers"] = dict(options.headers)
    if options.key is not None:
        meta["key"] = options.key
    tail, elements = _pack(payload), 6
    if encoding or meta:
        tail, elements = tail + _pack(int(encoding)), 7
    if meta:
        tail, elements = tail + _pack(meta), 8
    return tail, elements


def check_publishable(name: str) -> None:
    """Raise LocalProtocolError (`forbidden`) for topics that only the broker publishes on."""
    if name.startswith("$") and not name.startswith("$inbox."):
        raise LocalProtocolError(f"{name}: topics that begin with '$' are the broker's own", code="forbidden")


_HANDLERS: dict[type, Callable[[Session, Any], dict[str, Any]]] = {
    Hello: _hello,
    Ping: _ping,
    Subscribe: _subscribe,
    Unsubscribe: _unsubscribe,
    Backlog: _backlog,
    Publish: _publish,
}
