"""The topic registry: who gets what is published. A pure data structure, no socket, no await.

Both directions are indexed: pattern to route to outboxes here, connection to its subscriptions in the outbox. Costs: a
publish on a topic seen before is one look-up; on a new topic, or after the wildcard patterns changed, a walk over its
tokens (`pattern_tree`). Nothing here calls back; nothing is called while a publish walks over a route.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeAlias

import msgpack

from fanwire.protocol import check_topic, is_wildcard
from fanwire.protocol.errors import LocalProtocolError
from fanwire.protocol.fastpath import Heads
from fanwire.protocol.reserved import OWN, is_inbox, is_watch

from ..settings.rules import Keeping, TopicRule, keeping, publisher_wait
from ..store.interface import Kept, Store
from ..store.memory import MemoryStore
from .deferred_free import Retired
from .pattern_tree import PatternTree
from .routes import In, Route, Sub, Topic

# Topics remembered with their matching routes. Beyond that all are forgotten and looked up again: publishers can name
# topics without end. About 500 bytes each, so 64 MiB.
MAX_TOPICS = 131_072

# Routes in the lists of all these topics, 8 bytes each: 32 MiB. Topics that the same wildcards match share a list, so
# mostly there are a few hundred. Beyond that, too, all topics are forgotten: lists that nobody needs go with them.
MAX_LISTED = 4 * 1024 * 1024

# What a route that is gone counts as: topics that nobody publishes on any more keep it (half a KiB) until then.
GONE = 64

# Routes of one topic from which on its list is not made anew whenever one of them comes or goes.
MANY_GROUPS = 64

# A topic's version that the registry never has.
STALE = -1

# Beginnings of PUBLISH remembered, with and without an encoding. A publisher who writes id 0 and the name in all the
# forms that msgpack has could have twenty for each topic.
MAX_HEADS = 2 * MAX_TOPICS

Routes: TypeAlias = dict[str | None, Route[In, Sub]]
"""Those of one pattern, by queue group; None: without one."""


GroupRoutes: TypeAlias = Callable[[int, str, bool, str], Route[In, Sub]]


def _no_group(number: int, pattern: str, wildcard: bool, group: str) -> Route[In, Sub]:
    raise ValueError(f"{pattern}: there are no queue groups here, so there is no {group!r}")


class Registry(Generic[In, Sub]):
    """Patterns, routes, and the topics they match."""

    def __init__(
        self,
        rules: tuple[TopicRule, ...] = (),
        store: Store | None = None,
        group_route: GroupRoutes[In, Sub] | None = None,
    ) -> None:
        """Nothing is subscribed to yet.

        Args:
            rules: The operator's.
            store: What topics remember; without one they remember nothing.
            group_route: Makes the route of a queue group, from a number, a pattern, whether that is a wildcard, and the
                group; without it there are no groups.
        """
        self._group_route = group_route or _no_group
        self.store: Store = store or MemoryStore("", 0, 0)
        self._rules = rules
        self.publishers_wait = any(rule.publisher_wait_s is not None for rule in rules)
        """Whether a publish may have to wait for subscribers on some topic."""
        self.routes: dict[int, Route[In, Sub]] = {}
        self._by_pattern: dict[str, Routes[In, Sub]] = {}
        self._wildcards: PatternTree[Routes[In, Sub]] = PatternTree()
        self.heads: Heads[Topic[In, Sub]] = {}
        """For `take_publishes`. Only fresh topics are in it: there is another one when wildcard patterns change."""
        self.work = 0
        """How often a topic had to be matched with the patterns: what took longer than a look-up."""
        self._retired = Retired()
        self._shared: dict[tuple[int, ...], list[Route[In, Sub]]] = {}  # lists of routes, by the wildcards that matched
        self._listed = 0  # in lists made since all topics were forgotten
        self._topics: dict[bytes, Topic[In, Sub]] = {}
        self._by_name: dict[str, Topic[In, Sub]] = {}
        self._version = 0
        self._numbers = 0

    def change_rules(self, rules: tuple[TopicRule, ...]) -> None:
        """Go by other rules: topics are looked up anew, and those that remember something are told.

        Takes 1 µs or so for each topic remembered and each rule.
        """
        self._rules = rules
        self.publishers_wait = any(rule.publisher_wait_s is not None for rule in rules)
        self._begin_anew()
        self.store.change(lambda name: keeping(rules, name))

    def topic(self, packed: bytes) -> Topic[In, Sub]:
        """The topic of a msgpack-encoded name, with its routes up to date.

        Raises:
            LocalProtocolError: The name is no topic (`bad_topic`).
        """
        topic = self._topics.get(packed)
        if topic is None or topic.fresh != self._version:
            topic = self._renew(packed)
        if len(self.heads) >= MAX_HEADS:
            self._forget_heads()
        if self._retired:
            self._retired.free_some()
        return topic

    def keeping(self, topic: Topic[In, Sub]) -> Keeping:
        """What the operator says that the topic remembers."""
        return keeping(self._rules, topic.name) if topic.kept is None else topic.kept.keeping

    def keep(self, topic: Topic[In, Sub]) -> Kept:
        """Have the topic remember its last value, because a publisher asks for that.

        Raises:
            LocalProtocolError: Too many topics do (`too_many`).
        """
        if topic.kept is None:
            topic.kept = self.store.topic(topic.name, self.keeping(topic))
        return topic.kept

    def topic_named(self, name: str) -> Topic[In, Sub]:
        """As `topic`, by name."""
        return self.topic(msgpack.packb(check_topic(name)))

    def look_up(self, name: str) -> Topic[In, Sub]:
        """A topic with its routes up to date, for those who only look: nothing is remembered of it, nothing refused.

        Args:
            name: A valid topic.
        """
        topic = self._by_name.get(name)
        if topic is None:
            topic = Topic(name, publisher_wait(self._rules, name), self.store.find(name))
            topic.passing = True
        if topic.fresh != self._version:
            self._refresh(topic)
        return topic

    def topic_names(self) -> list[str]:
        """Topics that were published on, as far as they are remembered; in no order."""
        return list(self._by_name)

    def route(self, pattern: str, group: str | None = None) -> Route[In, Sub]:
        """The route of a (valid) pattern and a queue group, made if there is none. Call `release` when a subscriber
        leaves it."""
        routes = self._by_pattern.get(pattern, {})
        if (route := routes.get(group)) is not None:
            return route
        self._numbers += 1  # never reused while the broker lives
        number, wildcard = self._numbers, is_wildcard(pattern)
        if group is None:
            route = Route(number, pattern, wildcard)
        else:
            route = self._group_route(number, pattern, wildcard, group)
        self.routes[number] = routes[group] = route
        if len(routes) == 1:
            self._by_pattern[pattern] = routes
            if wildcard:
                self._wildcards.add(pattern, routes)
        self._changed(route)
        return route

    def subscribers(self, pattern: str, most: int) -> int:
        """How many subscriptions a pattern has, in all its queue groups, of which there may be very many: counting ends
        as soon as there are ``most``."""
        count = 0
        for route in self._by_pattern.get(pattern, {}).values():
            count += len(route.outboxes)
            if count >= most:
                break
        return count

    def release(self, route: Route[In, Sub]) -> None:
        """Forget the route if nobody is left on it, and nothing waits for somebody to come back."""
        if route.outboxes or route.lingers or self.routes.get(route.number) is not route:
            return
        routes = self._by_pattern[route.pattern]
        del self.routes[route.number], routes[route.group]
        if not routes:
            del self._by_pattern[route.pattern]
            if route.wildcard:
                self._wildcards.remove(route.pattern)
        if route.wildcard:
            self._listed += GONE
        self._changed(route)

    def _changed(self, route: Route[In, Sub]) -> None:
        if is_inbox(route.pattern) or is_watch(route.pattern):
            return  # no topic that it matches is remembered
        if route.wildcard:
            self._version += 1
            self._shared = {}
            self._forget_heads()
        elif topic := self._by_name.get(route.pattern):
            if len(topic.routes) <= MANY_GROUPS:
                self._refresh(topic)  # an exact pattern concerns one topic; the others stay fresh
            elif topic.fresh != STALE:  # with its next publish, and not with each of so many groups that comes or goes
                topic.fresh = STALE
                self._forget_heads()

    def _renew(self, packed: bytes) -> Topic[In, Sub]:
        """Match a topic with the patterns as they are now."""
        if self._listed > MAX_LISTED:
            self._begin_anew()
        topic = self._topics.get(packed) or self._learn(packed)
        if topic.fresh != self._version:
            self._refresh(topic)
        return topic

    def _learn(self, packed: bytes) -> Topic[In, Sub]:
        try:
            name = packed[1 + (packed[0] == 0xD9) :].decode()
        except UnicodeDecodeError:
            raise LocalProtocolError("topic is not valid UTF-8", code="bad_topic") from None
        check_topic(name)
        if is_inbox(name):  # each reply has a topic of its own: to remember those would push out all others
            topic: Topic[In, Sub] = Topic(name, publisher_wait(self._rules, name))
            topic.passing = True
            return topic
        kept = self._kept(name)
        if len(self._topics) >= MAX_TOPICS:
            self._begin_anew()
        topic = self._topics[packed] = self._by_name.setdefault(
            name, Topic(name, publisher_wait(self._rules, name), kept)
        )
        return topic

    def _begin_anew(self) -> None:
        self._retired.add(self._topics)
        self._retired.add(self._by_name)
        self._topics, self._by_name = {}, {}
        self._shared, self._listed = {}, 0
        self._forget_heads()

    def _forget_heads(self) -> None:
        self._retired.add(self.heads)
        self.heads = {}

    def _kept(self, name: str) -> Kept | None:
        wanted = keeping(self._rules, name)
        if not wanted.anything:
            return self.store.find(name)
        return self.store.topic(name, wanted, always=name in OWN)

    def _refresh(self, topic: Topic[In, Sub]) -> None:
        self.work += 1
        wildcards = self._wildcards.match(topic.name)
        routes = _listed(wildcards) if topic.passing else self._shared_by(wildcards)
        if exact := self._by_pattern.get(topic.name):
            routes = [*routes, *exact.values()]
            self._listed += len(routes)
        topic.routes = routes
        topic.in_order = bool(wildcards)
        topic.fresh = self._version

    def _shared_by(self, wildcards: list[Routes[In, Sub]]) -> list[Route[In, Sub]]:
        """One list for all topics that the same wildcards match: a pattern may have very many routes, of its groups."""
        key = tuple(map(id, wildcards))
        routes = self._shared.get(key)
        if routes is None:
            routes = self._shared[key] = _listed(wildcards)
            self._listed += len(routes) + len(key)
        return routes


def _listed(patterns: list[Routes[In, Sub]]) -> list[Route[In, Sub]]:
    return [route for routes in patterns for route in routes.values()]
