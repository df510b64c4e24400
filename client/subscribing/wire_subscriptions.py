"""All feeds of a client, by pattern and by route, and the requests that begin and end them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import attrs
import trio

from fanwire.protocol import (
    Backlog,
    Goodbye,
    LocalProtocolError,
    PresenceEvent,
    Subscribe,
    SubscribeOptions,
    Unsubscribe,
    encode,
)
from fanwire.protocol.codes import MAX_NUMBER

from ..config import Options
from ..errors import FanwireError, RequestFailed, SlowConsumer
from ..exchange.answers import Request, Requests, Result
from ..exchange.deadlines import Deadlines
from ..exchange.outgoing import Outgoing
from ..notices import LostMessages, Stale
from .granted import LaggingReport, bears_loss, effective_on_slow
from .inbox import Inbox
from .position import Asked, Beginning
from .queue_groups import GroupFeed
from .slowness import for_slowness, slow_at_broker
from .wire_subscription import Feed

if TYPE_CHECKING:
    from .subscription import Subscription

# What stands around an envelope in a message, and the greater request number.
_ROOM = 64

Key: TypeAlias = tuple[str, str | None]
"""Pattern and queue group: for each pair there is one stream from the broker."""

_log = logging.getLogger("fanwire.client")


class Missing(Protocol):
    """Is told what an outage may have cost."""

    def missing(self, pattern: str) -> None:
        """Messages of a pattern may be missing."""

    def tell_missing(self) -> None:
        """That is all."""


class Feeds:
    """Which patterns this client is subscribed to."""

    def __init__(
        self, requests: Requests, outgoing: Outgoing, options: Options, deadlines: Deadlines, outages: Missing
    ) -> None:
        self._outages = outages
        self._requests = requests
        self._outgoing = outgoing
        self._options = options
        self.deadlines = deadlines
        """The client's timer; it runs while there is a connection."""
        self.home = outgoing.home
        """Where subscriptions may be called."""
        self._by_pattern: dict[Key, Feed] = {}
        self._abandoned: dict[Key, Feed] = {}  # left before the broker had answered their SUBSCRIBE
        self._resuming: set[Feed] = set()  # to be subscribed to again, on a connection that has just begun
        self.by_route: dict[int, Feed] = {}
        self._inbox: Inbox | None = None
        self._closed: FanwireError | None = None
        self._long: set[Subscription] = set()
        self._holding: set[Subscription] = set()
        self._room = trio.lowlevel.ParkingLot()

    # ----------------------------------------------------- for subscriptions

    async def join(self, subscription: Subscription, wanted: SubscribeOptions, beginning: Beginning) -> Feed:
        """Add a subscription; wait until the broker sends its pattern to us.

        Raises:
            LocalProtocolError: The pattern is subscribed to already, with other options.
            FanwireError: The broker refused, or no connection will come.
        """
        if self._closed:
            raise self._closed.with_traceback(None)
        feed = self._find(subscription.pattern, wanted, beginning)
        feed.subscriptions.append(subscription)
        try:
            await trio.lowlevel.checkpoint()
            await feed.subscribed(subscription)
        except BaseException:
            self._remove(feed, subscription)
            raise
        return feed

    def _find(self, pattern: str, wanted: SubscribeOptions, beginning: Beginning) -> Feed:
        feed = self._by_pattern.get((pattern, wanted.group))
        if feed:
            feed.check(wanted, beginning)
            return feed
        plain = wanted.group is None
        feed = Feed(pattern, wanted, beginning) if plain else GroupFeed(self, pattern, wanted, beginning)
        self._by_pattern[pattern, wanted.group] = feed
        if self._outgoing.connected and _key(feed) not in self._abandoned:  # else when that one is answered
            self._subscribe(feed)
        return feed

    async def change(self, feed: Feed, subscription: Subscription, changes: Mapping[str, Any]) -> None:
        """Ask the broker for other options, for all subscriptions of the pattern.

        Without a connection, or when it goes before the answer came, the next one asks for them.

        Raises:
            RequestFailed: The broker refused; it goes on as before.
            LocalProtocolError: An option is wrong.
            FanwireError: What ended ``subscription``.
        """
        async with feed.changing:
            subscription.raise_if_ended()
            changing = _Changing(self, feed, feed.want(**changes))
            if self._outgoing.connected:
                self._ask(feed, changing, changing.wanted)
                await changing.done()
            subscription.raise_if_ended()

    async def leave(self, feed: Feed, subscription: Subscription) -> None:
        """Remove a subscription; if it was the last of its pattern, wait for a moment until the broker knows."""
        request = Request()
        number = self._remove(feed, subscription, request)
        if number:
            with trio.move_on_after(self._options.close_timeout_s, shield=True):
                try:
                    await request.result()
                except FanwireError:
                    pass  # the connection went, or the broker forgot the route: either way nothing comes any more
            self._requests.forget(number)

    def _remove(self, feed: Feed, subscription: Subscription, request: Request | None = None) -> int:
        """Return the number of the request that tells the broker, if one is needed and ``request`` waits for it."""
        if subscription not in feed.subscriptions:
            return 0
        feed.subscriptions.remove(subscription)
        feed.crowded(subscription, False)
        if feed.subscriptions:
            return 0
        self._forget(feed)
        return self._unsubscribe(feed, request)

    def _forget(self, feed: Feed) -> None:
        if self._by_pattern.get(_key(feed)) is feed:  # the pattern may have been subscribed to anew
            del self._by_pattern[_key(feed)]
        if feed.asking:
            self._abandoned[_key(feed)] = feed

    def _unsubscribe(self, feed: Feed, request: Request | None) -> int:
        route, feed.route = feed.route, None
        if route is None or not self._outgoing.connected:
            return 0
        self.by_route.pop(route, None)
        number = self._requests.number() if request else 0
        if request:
            self._requests.expect(number, request)
        self._outgoing.add_control(encode(Unsubscribe(number, route)))
        return number

    def too_slow(self, feed: Feed, subscription: Subscription, error: SlowConsumer) -> None:
        """A subscription's buffer is full and its policy is to end: at once, the others of the client live on."""
        subscription.end(error, at_once=True)
        self._remove(feed, subscription)

    def crowded(self, feed: Feed, subscription: Subscription, crowded: bool, queued: int, limit: int) -> None:
        """A subscription's buffer fills up, or has room again: tell the broker if that is news."""
        if feed.crowded(subscription, crowded) and feed.route is not None:
            self._outgoing.add_control(encode(Backlog(0, feed.route, queued, limit)))

    def acknowledge(self, route: int, queued: int, limit: int, taken: int) -> None:
        """A member of a queue group has finished messages: tell the broker."""
        self._outgoing.add_control_at_once(encode(Backlog(0, route, queued, limit, taken)))

    # ---------------------------------------------------------- for requests

    def open_inbox(self, name: str) -> Inbox:
        """Where replies come in on the present connection, asked for when it is first needed.

        Raises:
            LocalProtocolError: This program has subscribed to that itself.
        """
        if self._inbox is None or self._inbox.error:
            inbox = Inbox(name)
            if _key(inbox) in self._by_pattern:
                raise LocalProtocolError(
                    f"this client is subscribed to {inbox.pattern!r} itself, so its requests cannot be",
                    code="bad_pattern",
                )
            self._inbox = self._by_pattern[_key(inbox)] = inbox
            self._subscribe(inbox)
        return self._inbox

    def request_failed(self, detail: Mapping[str, Any], code: str, message: str) -> bool:
        """An ERROR that answers nothing: if it is about a request that waits for replies, that one has failed."""
        topic = detail.get("reply_to")
        if self._inbox is None or not isinstance(topic, str):
            return False
        self._inbox.fail(topic, RequestFailed(code, message, detail))
        return True

    # ---------------------------------------------------- for the connection

    def resubscribe(self) -> None:
        """A connection begins: ask for every pattern again."""
        feeds = list(self._by_pattern.values())
        self._resuming = set(feeds)
        for feed in feeds:
            self._subscribe(feed)

    def _subscribe(self, feed: Feed) -> None:
        asked, snapshot, replay = feed.position.ask(feed.wanted)
        options = attrs.evolve(feed.wanted, snapshot=snapshot, replay=replay)
        if asked is Asked.REST and len(encode(Subscribe(1, feed.pattern, options))) > self._outgoing.limit - _ROOM:
            feed.position.give_up()
            self._subscribe(feed)
            return
        feed.asking = True
        self._ask(feed, _Subscribing(self, feed, feed.wanted, asked), options)

    def _ask(self, feed: Feed, subscribing: _Subscribing, options: SubscribeOptions) -> None:
        number = self._requests.number()
        self._requests.expect(number, subscribing)
        self._outgoing.add_control(encode(Subscribe(number, feed.pattern, options, feed.acknowledges)))

    def not_kept(self, feed: Feed) -> None:
        """The broker does not keep any more what was missed: that is lost."""
        if self._by_pattern.get(_key(feed)) is feed:
            feed.position.give_up()
            self._subscribe(feed)
        else:
            self.answered(feed)

    def subscribed(self, feed: Feed, wanted: SubscribeOptions, asked: Asked | None, result: Result) -> None:
        """The broker said yes to the options ``wanted``, and to begin with what was ``asked``."""
        route = result.get("route")
        if type(route) is not int or not 0 <= route <= MAX_NUMBER:
            raise TypeError(f"OK to SUBSCRIBE with the route {route!r:.50}")
        if self._by_pattern.get(_key(feed)) is feed:
            self.by_route[route] = feed
            if feed.route is None and (backlog := feed.backlog()):  # this connection has not heard of it
                self._outgoing.add_control(encode(Backlog(0, route, *backlog)))
            if feed.begin(route, wanted, asked, result):
                self._outages.missing(feed.pattern)
        elif asked is not None:  # nobody waited for it to the end
            self._outgoing.add_control(encode(Unsubscribe(0, route)))

    def answered(self, feed: Feed) -> None:
        """The broker has answered a SUBSCRIBE, or nobody will."""
        feed.asking = False
        if self._abandoned.get(_key(feed)) is feed:
            del self._abandoned[_key(feed)]
            waiting = self._by_pattern.get(_key(feed))
            if waiting and self._outgoing.connected:  # it was subscribed to again meanwhile
                self._subscribe(waiting)
        if feed in self._resuming:
            self._resuming.discard(feed)
            if not self._resuming:
                self._outages.tell_missing()

    def refused(self, feed: Feed, error: FanwireError) -> None:
        """The broker said no: the pattern's subscriptions end."""
        self._forget(feed)
        feed.end(error)

    def route_failed(self, detail: Mapping[str, Any], code: str, message: str) -> bool:
        """An ERROR that answers nothing: if it is about a route of ours, that route has ended."""
        route = detail.get("route")
        feed = self.by_route.pop(route, None) if type(route) is int else None
        if feed is None:
            return False
        feed.pause()
        if code != "slow_consumer":
            self.refused(feed, RequestFailed(code, message, detail))
        elif self._too_slow(feed, slow_at_broker(feed.pattern, message, detail), tolerant=False):
            self._subscribe(feed)
        return True

    def lost(self, goodbye: Goodbye | None, error: FanwireError) -> None:
        """The connection is gone; if for slowness, the subscriptions that wanted to know that end.

        The inbox was the connection's, and ends with ``error``.
        """
        if goodbye and for_slowness(goodbye):
            for feed in self._blamed(goodbye.detail):
                self._too_slow(feed, slow_at_broker(feed.pattern, goodbye.message, goodbye.detail), tolerant=True)
        if self._inbox is not None:
            self.refused(self._inbox, error)
            self._inbox = None
        self.by_route.clear()
        self._abandoned.clear()
        self._resuming.clear()
        for feed in self._by_pattern.values():
            feed.pause()

    def _blamed(self, detail: Mapping[str, Any]) -> list[Feed]:
        """Whose messages were not taken: the named route's, or of the whole connection."""
        route = detail.get("route")
        if type(route) is not int:
            return list(self._by_pattern.values())
        return [feed] if (feed := self.by_route.get(route)) else []

    def _too_slow(self, feed: Feed, error: SlowConsumer, *, tolerant: bool) -> bool:
        """The broker ended a feed for its slowness: so do the subscriptions that do not want it to come back.

        Args:
            feed: It.
            error: With the broker's facts.
            tolerant: Whether it was the connection that ended. Then those that may lose messages go on anyhow; a
                broker that unsubscribes even them would do so again and again.

        Returns:
            Whether any are left, for whom to subscribe again.
        """
        if tolerant and bears_loss(feed.wanted):
            staying = feed.subscriptions
        elif not tolerant and effective_on_slow(feed.wanted) == "conflate":
            staying = []
        else:
            staying = [one for one in feed.subscriptions if one.comes_back != "raise"]
        feed.end_some([one for one in feed.subscriptions if one not in staying], error)
        if not feed.subscriptions:
            self._forget(feed)
            return False
        feed.resume_after_slowness(conflated=any(one.comes_back == "conflate" for one in feed.subscriptions))
        _log.warning(
            "the broker ended the subscription of %r for its slowness (%s); subscribing again with on_slow=%r",
            feed.pattern, error.measure, effective_on_slow(feed.wanted),
        )  # fmt: skip
        return True

    def close(self, error: FanwireError) -> None:
        """There will be no other connection."""
        self._closed = error
        for feed in tuple(self._by_pattern.values()):
            feed.end(error)
        self._by_pattern.clear()
        self.by_route.clear()

    def lose(self, route: int, lost: LostMessages) -> None:
        """The broker lost messages of a route."""
        if feed := self.by_route.get(route):
            feed.lose(lost)

    def complete(self, route: int) -> None:
        """Snapshot and replay of a route are over."""
        if feed := self.by_route.get(route):
            feed.complete()
            if feed.resumed and feed.recovered is False:
                self._outages.missing(feed.pattern)
                if not self._resuming:
                    self._outages.tell_missing()

    def renew(self, epoch: object) -> None:
        """The broker's store has begun anew: offsets had so far mean nothing any more."""
        for feed in self._by_pattern.values():
            feed.position.renew(epoch)

    def lag(self, route: int, queued: int, limit: int, oldest_ms: int) -> None:
        """The broker warns: a route's queue fills up. Once an episode, so it may be logged each time."""
        if feed := self.by_route.get(route):
            feed.lagging = LaggingReport(queued, limit, oldest_ms / 1000, trio.current_time())
            _log.warning(
                "%r falls behind: %d messages wait at the broker (of %d that may), the oldest for %.3f s",
                feed.pattern, queued, limit, oldest_ms / 1000,
            )  # fmt: skip

    def quiet(self, route: int, topic: str, silent_ms: int, offset: int) -> None:
        """The broker tells that a topic of a route is silent."""
        if feed := self.by_route.get(route):
            stale = Stale(topic, feed.pattern, silent_ms / 1000, offset, connected=True)
            for subscription in tuple(feed.subscriptions):
                subscription.note_stale(stale)

    def present(self, event: PresenceEvent) -> None:
        """The broker tells that somebody came or went."""
        if feed := self.by_route.get(event.route):
            for subscription in tuple(feed.subscriptions):
                subscription.note_presence(event)

    def should_give_way(self) -> bool:
        """Whether some handler has much to do and only needs its turn."""
        for subscription in tuple(self._long):
            if not subscription.is_long():
                self._long.discard(subscription)
            elif subscription.giving_way:
                return True
        return False

    def holding(self) -> bool:
        """Whether a replay comes more quickly than some handler takes it."""
        for subscription in tuple(self._holding):
            if not subscription.holds():
                self._holding.discard(subscription)
        return bool(self._holding)

    async def make_room(self, until: float) -> None:
        """Wait until handlers have made room for more of their replays; from ``until`` on (trio's clock) no more."""
        while self.holding():
            with trio.move_on_at(until) as scope:
                await self._room.park()
            if scope.cancelled_caught:
                for subscription in self._holding:
                    subscription.hold_no_more()
                self._holding.clear()

    def hold(self, subscription: Subscription) -> None:
        """Much of a replay waits for a subscription's handler: read no more until it has taken some."""
        self._holding.add(subscription)

    def made_room(self) -> None:
        """A handler of those has taken some."""
        self._room.unpark_all()

    def note_long(self, subscription: Subscription) -> None:
        """Much waits for a subscription's handler."""
        self._long.add(subscription)


def _key(feed: Feed) -> Key:
    return feed.pattern, feed.wanted.group


class _Subscribing:
    """Waits for the answer to one SUBSCRIBE."""

    def __init__(self, feeds: Feeds, feed: Feed, wanted: SubscribeOptions, asked: Asked | None) -> None:
        self._feeds = feeds
        self._feed = feed
        self.wanted = wanted
        self._asked = asked

    def answered(self, number: int, result: Result) -> None:
        self._feeds.subscribed(self._feed, self.wanted, self._asked, result)
        self._feeds.answered(self._feed)

    def failed(self, number: int, error: FanwireError) -> None:
        if isinstance(error, RequestFailed) and error.code == "not_kept" and self._asked is Asked.REST:
            self._feeds.not_kept(self._feed)
            return
        self._feeds.answered(self._feed)
        if isinstance(error, RequestFailed):
            self._feeds.refused(self._feed, error)
        # else the connection went: the next one asks again


class _Changing(_Subscribing):
    """The same for a SUBSCRIBE that changes options. Whether or not somebody still waits for it, it counts."""

    def __init__(self, feeds: Feeds, feed: Feed, wanted: SubscribeOptions) -> None:
        super().__init__(feeds, feed, wanted, None)
        self._request = Request()

    def answered(self, number: int, result: Result) -> None:
        try:
            self._feeds.subscribed(self._feed, self.wanted, None, result)
        finally:  # an answer that is not in the protocol ends the connection, and the next one asks again
            self._request.answered(number, result)

    def failed(self, number: int, error: FanwireError) -> None:
        if isinstance(error, RequestFailed):
            self._feed.stay_with(self.wanted)
            self._request.failed(number, error)
        else:  # the next connection asks for it
            self._request.answered(number, {})

    async def done(self) -> None:
        """Wait for the answer, or for the end of the connection. Raises `RequestFailed`."""
        await self._request.result()
