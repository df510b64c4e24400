"""What a client asks for, envelope by envelope: the slow road of dispatch, one handler each.

Publishes without options never come here; `session` takes them over `fanwire.protocol.fastpath`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import msgpack
import trio

from fanwire.protocol import (
    MAX_BATCH,
    Backlog,
    Error,
    Fetch,
    Hello,
    LocalProtocolError,
    Ok,
    Ping,
    Presence,
    Publish,
    PublishOptions,
    Rejected,
    Subscribe,
    SubscribeOptions,
    Unsubscribe,
    encode,
    is_wildcard,
)
from fanwire.protocol.reserved import RESERVED, is_inbox, is_watch, tells_of_the_broker, watched

from ..delivery.subscription import Subscription
from ..limits.refusals import wait_ms, why
from ..options.queue_groups import GroupRoute
from ..options.replay import Wish
from ..settings.rules import grant, keeping, keeps_all, presence_on
from ..store.interface import Stored
from ..telemetry.text import shown
from ..timing.clock import wall_clock_us
from .authentication import RENEWAL_INTERVAL_S, hello, may, too_soon

if TYPE_CHECKING:
    from ..delivery.routes import Registry, Route, Topic
    from ..limits.publish_meter import Meter
    from ..requests.asker import Asker
    from ..store.interface import Kept
    from .session import Session

_pack = msgpack.Packer().pack
_pack_array = msgpack.Packer().pack_array_header

# Bytes of the name of a queue group: as many as those of a topic.
MAX_GROUP = 255

# Messages of one page of FETCH, and what each costs beside its payload and meta: offset, time, array.
MAX_PAGE = 1_000
_LISTED = 20

# What stands around a message of a page: an array of five, and, by the elements of its MESSAGE, encoding and meta where
# what is kept ends before them.
_LISTED_AS, _UINT64 = b"\x95", b"\xcf"
_LEFT_OUT = {6: b"\x00\x80", 7: b"\x80", 8: b""}

_OK = b"\x93\x11"


class RequestError(Exception):
    """A request that is answered with ERROR; the connection lives on."""

    def __init__(self, code: str, message: str, **detail: object) -> None:
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
        about = {} if request else _about(envelope)
        session.reject(Error(request, error.code, str(error), {**about, **error.detail}))
        return
    if request and session.ending is None:
        if isinstance(result, bytes):
            session.answer(b"".join((_OK, _pack(request), result)))
            return
        session.answer(encode(Ok(request, result)))
        if type(envelope) is Subscribe and envelope.options.group is not None:
            _deal(session, result["route"])


def _deal(session: Session, number: int) -> None:
    """Somebody has come to a queue group, or has other options: there may be room for what waits."""
    subscription = session.outbox.subscriptions.get(number)
    if subscription is not None and isinstance(subscription.route, GroupRoute):
        subscription.route.deal(trio.current_time(), session.hub.fanout)


def forbidden(action: str, name: str) -> RequestError:
    """What to say to who may not do that."""
    if tells_of_the_broker(name) and action != "publish":
        return RequestError("forbidden", f"{name}: {_FOR_OPERATORS}")
    what = {"publish": "publish there", "subscribe": "subscribe to all of that"}.get(action, f"{action} that")
    return RequestError("forbidden", f"{name}: you may not {what}")


_FOR_OPERATORS = (
    "this is for operators: it needs a role with operator = true or, where nobody must authenticate, a request to the"
    " operators' own port (admin_port)"
)


def _check_may(session: Asker, action: str, name: str) -> None:
    if not may(session, action, name):
        raise forbidden(action, name)


def _about(envelope: object) -> dict[str, Any]:
    """What tells whoever asked without a number which of its requests has failed."""
    about = {"about": type(envelope).__name__.upper()}
    if isinstance(envelope, Publish) and envelope.options.reply_to is not None:
        about["reply_to"] = envelope.options.reply_to
    return about


def _hello(session: Session, envelope: Hello) -> dict[str, Any]:
    if envelope.token is not None and too_soon(session):
        raise RequestError("rate_limited", f"a token may be renewed every {RENEWAL_INTERVAL_S:g} s")
    _take_client(session, envelope.client)
    session.name = shown(envelope.name or session.name)  # cut before it is kept: a text can be as long as a message
    session.agent = shown(envelope.agent or session.agent)
    most = session.config.max_message_bytes
    if envelope.max_message is not None and (most is None or envelope.max_message < most):
        # Messages between the two never reach the handler there: the operator should know before.
        session.hub.repeats.say(
            session, "warning", "client takes smaller messages", takes=envelope.max_message, max_message=most
        )
    result = hello(session, envelope.token)
    if session.ending is None:
        session.welcome()
    return result


def _take_client(session: Session, client: str | None) -> None:
    """It is settled before anybody is told of the session."""
    if client is None or client == session.client:
        return
    if session.client is not None or session.outbox.subscriptions:
        raise RequestError("bad_option", "'client' is said once, before the first SUBSCRIBE", option="client")
    session.client = client


def _ping(session: Session, envelope: Ping) -> dict[str, Any]:
    return {}


def _subscribe(session: Session, envelope: Subscribe) -> dict[str, Any]:
    _check_options(envelope.options)
    config, subscriptions = session.config, session.outbox.subscriptions
    if not (is_inbox(envelope.pattern) or is_watch(envelope.pattern)):
        _check_may(session, "subscribe", envelope.pattern)
    elif is_inbox(envelope.pattern) and not envelope.pattern.startswith(f"{session.inbox}."):
        raise RequestError("forbidden", f"{envelope.pattern}: only the session whose inbox it is may subscribe to it")
    if is_watch(envelope.pattern) or envelope.options.presence:
        _check_presence(session, watched(envelope.pattern))
    given = grant(
        config.rules,
        envelope.pattern,
        session.user,
        envelope.options,
        queue=config.queue,
        max_queue=config.max_queue,
        queue_grace=config.queue_grace_s,
    )
    group, echo = envelope.options.group, envelope.options.echo
    route = session.registry.route(envelope.pattern, group)
    if route.number in subscriptions:
        session.hub.fanout.flush(session.outbox)  # by the old options
        if session.ending is not None:
            return {}  # that was too much for it, so there is nothing to subscribe, and nobody to answer
        # It may have been the end of the subscription, too.
        route = session.registry.route(envelope.pattern, group)
    subscription = subscriptions.get(route.number)
    wish = _wish(session, envelope, route, subscription)
    if subscription is not None:
        if wish is not None:
            session.replay(subscription, wish)
        subscription.echo = echo
        session.change(subscription, given, acknowledges=envelope.acknowledges)
    else:
        if (refused := _too_many(session, route)) is not None:
            session.registry.release(route)
            session.hub.limits.refuse(refused[0], session=session.id, user=session.user)
            raise RequestError("too_many", refused[1], limit=refused[0])
        # Nothing is published before the answer is in the outbox too.
        session.join(route, given, wish, echo=echo, acknowledges=envelope.acknowledges)
    return {
        "route": route.number,
        "offset": _head(session, envelope.pattern),
        "epoch": session.epoch,
        "replayed": _replayed(session, wish, route),
        "recovered": wish is None or wish.recovered(session.hub.store, route.number),
        "history": keeps_all(config.rules, envelope.pattern),
        "time": wall_clock_us(),
        "queue": given.queue,
        "queue_grace": given.queue_grace,
        "max_rate": given.max_rate,
        "on_slow": given.on_slow,
        "heartbeat": given.heartbeat,
    }


def _too_many(session: Session, route: Route) -> tuple[str, str] | None:
    """Which limit one more subscription of this connection would break, in name and words; None: it may be had."""
    hub = session.hub
    config = hub.config
    own, total, patterns = config.max_subscriptions, config.max_total_subscriptions, config.max_patterns
    if own is not None and len(session.outbox.subscriptions) >= own:
        return "max_subscriptions", f"a connection may have {own} subscriptions; unsubscribe from some first"
    if total is not None and hub.subscriptions >= total:
        return "max_total_subscriptions", "the broker has as many subscriptions as it may have"
    if patterns is not None and not route.outboxes and len(hub.registry.routes) > patterns:
        return "max_patterns", "as many different patterns are subscribed to as may be"
    return None


def _wish(session: Session, envelope: Subscribe, route: Route, subscription: Subscription | None) -> Wish | None:
    """What the subscription begins with, if with anything."""
    options = envelope.options
    if not options.snapshot and options.replay is None:
        return None
    wish = Wish(envelope.pattern, session.epoch, options.snapshot, options.replay)
    try:
        _check_kept(session, envelope)
        _check_offsets(session, wish)
        if subscription is not None and (subscription.replaying or session.outbox.unsent(subscription)):
            name = "replay" if options.replay is not None else "snapshot"
            raise RequestError(
                "bad_option", f"{name!r}: messages of this route still wait; unsubscribe first", option=name
            )
    except RequestError:
        session.registry.release(route)
        raise
    return wish


def _check_offsets(session: Session, wish: Wish) -> None:
    """What is named stays in memory until the subscription is live."""
    if not session.outbox.may_wait(wish.size):
        text = "'replay' names more than may wait for this connection; subscribe again when more has come"
        raise RequestError("too_many", text, option="replay", limit="max_pending")


def _check_kept(session: Session, envelope: Subscribe) -> None:
    options, pattern = envelope.options, envelope.pattern
    if options.replay is None or options.snapshot or is_wildcard(pattern):
        return
    if keeping(session.config.rules, pattern).messages is None:
        raise RequestError("not_kept", f"{pattern} keeps no history, so nothing can be replayed")


def _head(session: Session, pattern: str) -> int:
    kept = session.hub.store.find(pattern)
    return 0 if kept is None else kept.head


def _replayed(session: Session, wish: Wish | None, route: Route) -> int | None:
    """How many messages come first; None: SNAPSHOT_END tells."""
    if wish is None:
        return 0
    kept = session.hub.store.find(wish.pattern)
    if route.wildcard:
        return None
    if kept is None:
        return 0
    if wish.replay is None or not kept.has_history:
        return int(wish.snapshot and kept.newest() is not None)
    return kept.head + 1 - wish.start(kept, route.number).offset


@attrs.frozen
class Page:
    """What FETCH found."""

    head: int
    """The topic's."""
    more: bool
    """Whether the history goes on behind it."""
    messages: list[Stored]


def page_of(session: Asker, envelope: Fetch) -> Page:
    """A page of history; of a topic without one its last value, if ``last`` asks for that.

    Nothing is unpacked for it: a page of a thousand messages takes a millisecond, its way to the socket included.
    """
    _check_may(session, "fetch", envelope.topic)
    kept = session.hub.store.find(envelope.topic)
    rule = keeping(session.config.rules, envelope.topic)
    if rule.messages is None and not (envelope.last is not None and (kept is not None or rule.retain)):
        raise RequestError("not_kept", f"{envelope.topic} keeps no history")
    if kept is None:
        return Page(0, False, [])
    if not kept.has_history:
        return Page(kept.head, False, [kept.last] if kept.last is not None else [])
    messages, more = _messages(kept, envelope)
    return Page(kept.head, more, messages)


def _messages(kept: Kept, envelope: Fetch) -> tuple[list[Stored], bool]:
    limit, size = min(envelope.limit or MAX_PAGE, MAX_PAGE), 0
    page: list[Stored] = []
    for first, stamp, elements, tails in kept.runs(_first_wanted(kept, envelope)):
        for offset, tail in enumerate(tails, first):
            size += len(tail) + _LISTED
            if page and (len(page) >= limit or size > MAX_BATCH):
                return page, True
            page.append(Stored(offset, stamp, elements, tail))
    return page, False


def _fetch(session: Session, envelope: Fetch) -> bytes:
    """The same as the result of OK, put together from the bytes in which it is kept."""
    page = page_of(session, envelope)
    result = _pack({"epoch": session.epoch, "offset": page.head, "more": page.more, "messages": None})
    pieces = [result[:-1], _pack_array(len(page.messages))]  # an array in the place of the nil
    for offset, stamp, elements, tail in page.messages:
        pieces += (_LISTED_AS, _pack(offset), _UINT64, stamp, tail, _LEFT_OUT[elements])
    return b"".join(pieces)


def _first_wanted(kept: Kept, envelope: Fetch) -> int:
    if envelope.last is not None:
        return kept.head + 1 - envelope.last
    if envelope.since is not None:
        return kept.first_since(envelope.since)
    return (envelope.offset or 0) + 1


def _check_options(options: SubscribeOptions) -> None:
    if options.group is not None:
        _check_group(options.group, options)
    if options.heartbeat is not None and (options.group is not None or not options.echo):
        name = "group" if options.group is not None else "echo"
        text = f"'heartbeat' cannot be had with {name!r}: who gets nothing could not tell it from silence"
        raise RequestError("bad_option", text, option="heartbeat")


def _check_group(group: str, options: SubscribeOptions) -> None:
    if len(group.encode()) > MAX_GROUP:
        raise RequestError("bad_option", f"'group' is longer than {MAX_GROUP} bytes", option="group")
    if options.snapshot:
        text = "'snapshot' cannot be had with 'group': what is remembered would come to every member"
        raise RequestError("bad_option", text, option="snapshot")


def _presence(session: Session, envelope: Presence) -> dict[str, Any]:
    """A page of those who are subscribed to something that overlaps."""
    _check_presence(session, envelope.pattern)
    return session.hub.presence.page(envelope.pattern, envelope.after or 0)


def _check_presence(session: Session, pattern: str) -> None:
    if not may(session, "presence", pattern):
        raise RequestError("forbidden", f"{pattern}: you may not see who is subscribed to this")
    if not presence_on(session.config.rules, pattern):
        raise RequestError(
            "forbidden", f"{pattern}: presence is off; the broker's operator turns it on by a rule with presence=yes"
        )


def _unsubscribe(session: Session, envelope: Unsubscribe) -> dict[str, Any]:
    session.part(_subscription(session, envelope.route))
    return {}


def _backlog(session: Session, envelope: Backlog) -> dict[str, Any]:
    subscription = _subscription(session, envelope.route)
    subscription.backlog = (envelope.queued, envelope.limit)
    session.outbox.note_backlog(subscription)
    if isinstance(route := subscription.route, GroupRoute):
        now = trio.current_time()
        route.finished(session.outbox, envelope.taken, envelope.queued, envelope.limit, now, session.hub.fanout)
    return {}


def _subscription(session: Session, route: int) -> Subscription:
    subscription = session.outbox.subscriptions.get(route)
    if subscription is None:
        raise RequestError("unknown_route", f"this connection is not subscribed to route {route}")
    return subscription


def publish(session: Asker, envelope: Publish) -> dict[str, Any]:
    """A PUBLISH with options, or in a form that the fast road does not know."""
    options = envelope.options
    if envelope.id and session.meter is not None:
        _check_rate(session, session.meter)
    tail, elements = message_tail(envelope.payload, envelope.encoding, options)
    try:
        check_publishable(envelope.topic)
        for name in filter(None, (envelope.topic, options.reply_to)):  # who replies may do more than who asks
            _check_may(session, "publish", name)
        topic = session.registry.topic(_pack(envelope.topic))
        settle_retain(session.registry, topic, options.retain)
    except LocalProtocolError as error:
        raise RequestError(error.code, str(error)) from None
    msg_id = _own_id(session, options.msg_id)
    if (repeated := _repeated(topic, options, msg_id)) is not None:
        return {"offset": repeated, "subscribers": 0, "lagging": 0, "repeated": True}
    if options.reply_to is not None and not any(route.outboxes for route in topic.routes):
        raise RequestError("no_responders", f"nobody is subscribed to {topic.name}")
    subscribers = session.publish(topic, elements, tail, options.key, options.retain)
    kept = topic.kept
    offset = kept.head if kept is not None else 0
    if kept is not None and msg_id is not None:
        kept.remember_id(msg_id, offset)
    return {"offset": offset, "subscribers": subscribers, "lagging": topic.lagging}


def _check_rate(session: Asker, meter: Meter) -> None:
    """Of publishes that want an answer; the others are let in, and slow their connection."""
    if (bucket := meter.debt(trio.current_time())) is not None:
        session.hub.limits.refuse(bucket.name, session=session.id, user=session.user)
        raise RequestError("rate_limited", why(bucket), limit=bucket.name, retry_after_ms=wait_ms(bucket))
    meter.acknowledged += 1


def _own_id(session: Asker, msg_id: str | None) -> str | None:
    """A `msg_id` as it is remembered: by user, so that nobody can guess one and keep another user's message away."""
    user = session.identity.user if session.identity is not None else None
    return msg_id if msg_id is None or user is None else f"{user}\n{msg_id}"  # a user's name has no line break


def _repeated(topic: Topic, options: PublishOptions, msg_id: str | None) -> int | None:
    """The offset of a publish that was taken in before; None: it is a new one. ``msg_id``: see `_own_id`."""
    if options.msg_id is None and options.expect is None:
        return None
    kept = topic.kept
    if kept is None or not kept.has_history:
        name = "msg_id" if options.msg_id is not None else "expect"
        raise RequestError("not_kept", f"{topic.name} keeps no history, so there is no {name!r}", option=name)
    before = kept.offset_of(msg_id) if msg_id is not None else None
    if before is None and options.expect is not None and options.expect != kept.head:
        raise RequestError("conflict", f"{topic.name}: the head is {kept.head}, not {options.expect}", offset=kept.head)
    return before


def settle_retain(registry: Registry, topic: Topic, retain: bool | None) -> None:
    """See to it that the topic can remember its last value, if a publish asks for it.

    Raises:
        LocalProtocolError: The topic's rule says something else, or it is an inbox (`bad_option`), or too many topics
            are remembered.
    """
    if retain is None:
        return
    if retain and is_inbox(topic.name):
        raise LocalProtocolError(f"{topic.name}: inboxes remember nothing", code="bad_option")
    ruled = registry.keeping(topic).retain
    if ruled not in (None, retain):
        says = "are" if ruled else "are not"
        raise LocalProtocolError(f"{topic.name}: by its rule values {says} retained", code="bad_option")
    if retain:
        registry.keep(topic)


def message_tail(payload: bytes, encoding: int, options: PublishOptions) -> tuple[bytes, int]:
    """What a MESSAGE ends with, from the payload on, and how many elements it has with that."""
    meta: dict[str, Any] = {}
    if options.headers:
        meta["headers"] = dict(options.headers)
    if options.key is not None:
        meta["key"] = options.key
    if options.reply_to is not None:
        meta["reply_to"] = options.reply_to
    tail, elements = _pack(payload), 6
    if encoding or meta:
        tail, elements = tail + _pack(int(encoding)), 7
    if meta:
        tail, elements = tail + _pack(meta), 8
    return tail, elements


def check_publishable(name: str) -> None:
    """Raise LocalProtocolError (`forbidden`) for topics that only the broker publishes on."""
    if name.startswith(RESERVED) and not is_inbox(name):
        raise LocalProtocolError(f"{name}: topics that begin with '$' are the broker's own", code="forbidden")


_HANDLERS: dict[type, Callable[[Session, Any], dict[str, Any] | bytes]] = {
    Hello: _hello,
    Ping: _ping,
    Subscribe: _subscribe,
    Unsubscribe: _unsubscribe,
    Backlog: _backlog,
    Publish: publish,
    Fetch: _fetch,
    Presence: _presence,
}
