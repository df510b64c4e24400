"""All feeds of a client, by pattern and by route, and the requests that begin and end them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trio

from fanwire.protocol import Backlog, Goodbye, Subscribe, SubscribeOptions, Unsubscribe, encode

from .config import Options
from .errors import FanwireError, RequestFailed, SlowConsumer
from .feed import Feed
from .message import LostMessages
from .outgoing import Outgoing
from .requests import Request, Requests, Result

if TYPE_CHECKING:
    from .subscription import Subscription


class Feeds:
    """Which patterns this client is subscribed to."""

    def __init__(self, requests: Requests, outgoing: Outgoing, options: Options) -> None:
        self._requests = requests
        self._outgoing = outgoing
        self._options = options
        self._by_pattern: dict[str, Feed] = {}
        self.by_route: dict[int, Feed] = {}
        self._closed: FanwireError | None = None
        self._long: set[Subscription] = set()

    # ----------------------------------------------------- for subscriptions

    async def join(self, subscription: Subscription, wanted: SubscribeOptions) -> Feed:
        """Add a subscription; wait until the broker sends its pattern to us.

        Raises:
            LocalProtocolError: The pattern is subscribed to already, with other options.
            FanwireError: The broker refused, or no connection will come.
        """
        if self._closed:
            raise self._closed.with_traceback(None)
        feed = self._find(subscription.pattern, wanted)
        feed.subscriptions.append(subscription)
        try:
            await trio.lowlevel.checkpoint()
            await feed.subscribed(subscription)
        except BaseException:
            self._remove(feed, subscription)
            raise
        return feed

    def _find(self, pattern: str, wanted: SubscribeOptions) -> Feed:
        feed = self._by_pattern.get(pattern)
        if feed:
            feed.check(wanted)
            return feed
        feed = self._by_pattern[pattern] = Feed(pattern, wanted)
        if self._outgoing.connected:
            self._subscribe(feed)
        return feed

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
        self._by_pattern.pop(feed.pattern, None)
        return self._unsubscribe(feed, request)

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

    # ---------------------------------------------------- for the connection

    def resubscribe(self) -> None:
        """A connection begins: ask for every pattern again."""
        for feed in self._by_pattern.values():
            self._subscribe(feed)

    def _subscribe(self, feed: Feed) -> None:
        number = self._requests.number()
        self._requests.expect(number, _Subscribing(self, feed))
        self._outgoing.add_control(encode(Subscribe(number, feed.pattern, feed.wanted)))

    def subscribed(self, feed: Feed, result: Result) -> None:
        """The broker said yes."""
        route = result.get("route")
        if type(route) is not int:
            raise TypeError("OK to SUBSCRIBE without a route")
        if self._by_pattern.get(feed.pattern) is feed:
            self.by_route[route] = feed
            feed.begin(route)
        elif feed.pattern not in self._by_pattern:  # nobody waited for it to the end
            self._outgoing.add_control(encode(Unsubscribe(0, route)))

    def refused(self, feed: Feed, error: FanwireError) -> None:
        """The broker said no: the pattern's subscriptions end."""
        if self._by_pattern.get(feed.pattern) is feed:
            del self._by_pattern[feed.pattern]
        feed.end(error)

    def route_failed(self, detail: Mapping[str, Any], code: str, message: str) -> bool:
        """An ERROR that answers nothing: if it is about a route of ours, that route has ended."""
        route = detail.get("route")
        feed = self.by_route.pop(route, None) if type(route) is int else None
        if feed is None:
            return False
        feed.route = None
        slow = code == "slow_consumer"
        error = _slow_at_broker(feed, message, detail) if slow else RequestFailed(code, message, detail)
        self.refused(feed, error)
        return True

    def lost(self, goodbye: Goodbye | None) -> None:
        """The connection is gone; if for slowness, the subscriptions that wanted to know that end."""
        if goodbye and goodbye.code == "slow_consumer" and "queued" in goodbye.detail:
            self._end_slow(goodbye)
        self.by_route.clear()
        for feed in self._by_pattern.values():
            feed.route = None

    def _end_slow(self, goodbye: Goodbye) -> None:
        named = self.by_route.get(goodbye.detail.get("route", -1))
        feeds = [named] if named else list(self._by_pattern.values())
        for feed in feeds:
            if feed.wanted.on_slow == "disconnect":
                self._by_pattern.pop(feed.pattern, None)
                feed.end(_slow_at_broker(feed, goodbye.message, goodbye.detail))

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

    def should_give_way(self) -> bool:
        """Whether some handler has much to do and only needs its turn."""
        for subscription in tuple(self._long):
            if not subscription.is_long():
                self._long.discard(subscription)
            elif subscription.giving_way:
                return True
        return False

    def note_long(self, subscription: Subscription) -> None:
        """Much waits for a subscription's handler."""
        self._long.add(subscription)


def _slow_at_broker(feed: Feed, message: str, detail: Mapping[str, Any]) -> SlowConsumer:
    oldest_ms = detail.get("oldest_ms")
    return SlowConsumer(
        f"the broker ended the subscription of {feed.pattern!r}: {message}; this process read too slowly for what"
        " is sent to it: keep its event loop free, subscribe to less, or use another process",
        pattern=feed.pattern,
        queued=detail.get("queued"),
        queued_bytes=detail.get("queued_bytes"),
        oldest_s=oldest_ms / 1000 if isinstance(oldest_ms, int) else None,
        limit=detail.get("limit"),
        at_broker=True,
    )


class _Subscribing:
    """Waits for the answer to one SUBSCRIBE."""

    def __init__(self, feeds: Feeds, feed: Feed) -> None:
        self._feeds = feeds
        self._feed = feed

    def answered(self, number: int, result: Result) -> None:
        self._feeds.subscribed(self._feed, result)

    def failed(self, number: int, error: FanwireError) -> None:
        if isinstance(error, RequestFailed):
            self._feeds.refused(self._feed, error)
        # else the connection went: the next one asks again
