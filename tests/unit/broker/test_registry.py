"""The registry: routes and their numbers, and the cache of topics, under any order of coming and going."""

from __future__ import annotations

import gc
from collections import Counter
from functools import partial
from unittest.mock import Mock

import msgpack
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from fanwire.broker.delivery.fanout import Fanout
from fanwire.broker.delivery.outbox import Outbox
from fanwire.broker.delivery.routes import Registry, Route, Topic
from fanwire.broker.delivery.subscription import Subscription
from fanwire.broker.options.queue_groups import GroupRoute
from fanwire.broker.telemetry.statistics import Counters
from fanwire.broker.topics import registry as registry_module
from fanwire.protocol import LocalProtocolError, encode, is_wildcard, matches
from fanwire.protocol.envelopes import Publish
from fanwire.protocol.fastpath import Run, take_publishes

PATTERNS = ["a", "b", "a.b", "a.b.c", "$sys.x", "*", ">", "a.*", "a.>", "*.b", "*.*", "$sys.*", "a.*.c"]
TOPICS = ["a", "b", "a.b", "a.b.c", "b.b", "$sys.x", "c.c.c"]


def _outbox() -> Outbox:
    return Mock(spec=["pending"], pending=[])


def _publish(registry: Registry, topic: str) -> list[Run[Topic]]:
    """As a session does: over the fast road, which remembers the beginning of the envelope."""
    runs: list[Run[Topic]] = []
    take_publishes([encode(Publish(0, topic, b"x"))], 0, registry.heads, registry.topic, runs)
    for run in runs:
        run[0].tails = None
    return runs


def _reached(topic: Topic) -> Counter[int]:
    return Counter(route.number for route in topic.routes for _ in route.outboxes)


def test_a_route_is_the_same_for_all_who_subscribe_to_its_pattern() -> None:
    """One number for each pattern, also for those who come later."""
    registry = Registry()

    assert registry.route("a.>") is registry.route("a.>")
    assert registry.route("a.>") is not registry.route("a.b")


def test_route_numbers_are_not_used_again() -> None:
    """A pattern that was forgotten gets a new number when it comes back."""
    registry = Registry()
    first = registry.route("a")
    registry.release(first)

    assert registry.route("a").number > first.number
    assert list(registry.routes) == [registry.route("a").number]


def test_releasing_a_route_that_somebody_is_on_does_nothing() -> None:
    """Only an empty route is forgotten."""
    registry = Registry()
    route = registry.route("a")
    route.add(_outbox(), Subscription(route, 1))
    registry.release(route)

    assert registry.route("a") is route


def test_releasing_an_old_route_leaves_its_successor() -> None:
    """A route released twice does not take with it the one that has its pattern now."""
    registry = Registry()
    old = registry.route("a.>")
    registry.release(old)
    new = registry.route("a.>")
    registry.release(old)

    assert registry.topic_named("a.b").routes == [new]


def test_a_name_that_is_no_topic_is_refused() -> None:
    """Whatever was packed as a topic: wildcards, nothing, bytes that are no UTF-8."""
    registry = Registry()
    for packed in (msgpack.packb("a.*"), msgpack.packb(""), b"\xa2\xff\xfe", b"\xd9\x02\xff\xfe"):
        with pytest.raises(LocalProtocolError) as caught:
            registry.topic(packed)
        assert caught.value.code == "bad_topic"


@pytest.mark.parametrize("name", ["x" * 256, "x" * 70_000, "\ud800", "ä" * 128, ""])
def test_a_name_from_inside_the_program_is_refused_by_its_own_name(name: str) -> None:
    """`topic_named` says what is wrong with the name it was given, however long or broken that is."""
    with pytest.raises(LocalProtocolError, match=r"^topic ") as caught:
        Registry().topic_named(name)
    assert caught.value.code == "bad_topic"
    assert ascii(name[:1]).strip("'") in ascii(str(caught.value))


def test_two_spellings_of_a_name_are_one_topic() -> None:
    """msgpack has several forms of a short string; they name the same topic."""
    registry = Registry()

    assert registry.topic(b"\xa1a") is registry.topic(b"\xd9\x01a")


def test_the_topic_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishers that name topics without end fill a cache of bounded size, and everybody still gets theirs."""
    monkeypatch.setattr(registry_module, "MAX_TOPICS", 8)
    registry = Registry()
    route = registry.route("t.*")
    for number in range(100):
        ((topic, *_),) = _publish(registry, f"t.{number}")
        assert topic.routes == [route]
        assert len(registry._topics) <= 8
        assert len(registry._by_name) <= 8
        assert len(registry.heads) <= 8


def test_the_cache_of_envelope_heads_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One topic can be written in many ways (long forms of id 0 and of the name): they do not multiply the cache."""
    monkeypatch.setattr(registry_module, "MAX_HEADS", 16)
    registry = Registry()
    zeros = [b"\x00", b"\xcc\0", b"\xcd\0\0", b"\xce" + bytes(4), b"\xcf" + bytes(8)]
    names = [form + name for name in (b"a", b"b", b"c", b"d") for form in (b"\xa1", b"\xd9\x01")]
    envelopes = [
        first + b"\x04" + zero + name + b"\xc4\x01x" + rest
        for zero in zeros
        for name in names
        for first, rest in ((b"\x94", b""), (b"\x95", b"\x01"))
    ]
    runs: list[Run[Topic]] = []

    assert take_publishes(envelopes, 0, registry.heads, registry.topic, runs) == (len(envelopes), 0, False)
    assert sum(len(tails) for _, _, tails, _ in runs) == len(envelopes) == 80
    assert len(registry.heads) <= 16


class Churn(RuleBasedStateMachine):
    """Subscribers come and go while topics are published on; a naive model says who must be reached."""

    subscriptions = Bundle("subscriptions")

    @initialize(most=st.sampled_from([3, 65_536]))
    def start(self, most: int) -> None:
        """With a cache of topics that overflows, or one that does not."""
        self._most = registry_module.MAX_TOPICS
        registry_module.MAX_TOPICS = most
        self.registry = Registry()
        self.model: dict[tuple[int, Outbox], str] = {}

    def teardown(self) -> None:
        """The constant as it was."""
        registry_module.MAX_TOPICS = self._most

    @rule(target=subscriptions, pattern=st.sampled_from(PATTERNS))
    def subscribe(self, pattern: str) -> tuple[int, Outbox]:
        """One more."""
        route, outbox = self.registry.route(pattern), _outbox()
        route.add(outbox, Subscription(route, 1))
        self.model[route.number, outbox] = pattern
        return route.number, outbox

    @rule(subscription=subscriptions)
    def unsubscribe(self, subscription: tuple[int, Outbox]) -> None:
        """One less, if it is still there."""
        if self.model.pop(subscription, None) is not None:
            number, outbox = subscription
            route = self.registry.routes[number]
            route.remove(outbox)
            self.registry.release(route)

    @rule(topic=st.sampled_from(TOPICS), spelling=st.booleans())
    def publish(self, topic: str, spelling: bool) -> None:
        """By the fast road or by name: those are reached who should be, and order is kept where it matters."""
        expected = Counter(number for (number, _), pattern in self.model.items() if matches(pattern, topic))
        found = _publish(self.registry, topic)[0][0] if spelling else self.registry.topic_named(topic)

        assert _reached(found) == expected
        assert found.in_order == any(is_wildcard(p) and matches(p, topic) for p in self.model.values())

    @invariant()
    def routes_are_those_in_use(self) -> None:
        """No route outlives its last subscriber."""
        if hasattr(self, "model"):
            assert set(self.registry.routes) == {number for number, _ in self.model}
            assert len(self.registry._topics) <= registry_module.MAX_TOPICS


TestChurn = Churn.TestCase
TestChurn.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_topics_that_the_same_wildcards_match_share_their_list_of_routes() -> None:
    """A pattern of a thousand queue groups costs a topic nothing, however many topics it matches."""
    registry = Registry(group_route=partial(GroupRoute, fanout=Fanout(Counters())))
    routes = [registry.route("a.>", f"g{number}") for number in range(1000)]
    lists = {id(registry.topic_named(f"a.{number}").routes) for number in range(100)}

    assert len(lists) == 1
    assert registry.topic_named("a.0").routes == routes


def test_topics_do_not_keep_routes_that_are_gone_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of patterns that come and go a bounded number stays in memory, also where nobody publishes again."""
    monkeypatch.setattr(registry_module, "MAX_LISTED", 1000)
    registry = Registry()
    for number in range(200):
        route = registry.route(f"*.gone{number}")
        registry.topic_named(f"a.gone{number}")
        registry.release(route)
    for number in range(100):  # what was forgotten is freed a few at a time
        registry.topic_named(f"b.{number}")
    kept = [each for each in gc.get_objects() if type(each) is Route and ".gone" in each.pattern]

    assert len(kept) <= 1000 // registry_module.GONE + 1


def test_lists_of_routes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Topics with subscribers of their own have lists of their own: of these, too, only so many are remembered."""
    monkeypatch.setattr(registry_module, "MAX_LISTED", 100)
    registry = Registry(group_route=partial(GroupRoute, fanout=Fanout(Counters())))
    wide = [registry.route(">", f"g{number}") for number in range(10)]
    for number in range(50):
        own = registry.route(f"t.{number}")
        assert registry.topic_named(f"t.{number}").routes == [*wide, own]
        assert sum({id(each.routes): len(each.routes) for each in registry._topics.values()}.values()) <= 150


def test_inboxes_that_come_and_go_never_get_the_routes_of_others() -> None:
    """Patterns of inboxes do not make topics stale, and are never taken for others that were in their place."""
    registry = Registry()
    for number in range(100):
        route = registry.route(f"$inbox.{number}.>")
        assert registry.topic_named(f"$inbox.{number}.x").routes == [route]
        registry.release(route)
        assert registry.topic_named(f"$inbox.{number}.x").routes == []


def test_groups_that_come_and_go_do_not_make_a_long_list_anew_each_time() -> None:
    """A topic of very many groups is matched again with its next publish, once; nobody on it is missed or kept."""
    registry = Registry(group_route=partial(GroupRoute, fanout=Fanout(Counters())))
    outbox = _outbox()
    registry.topic_named("a")
    routes = [registry.route("a", f"g{number}") for number in range(500)]
    for route in routes:
        route.add(outbox, Subscription(route, 1))
    before = registry.work
    ((topic, *_),) = _publish(registry, "a")
    assert registry.work == before + 1
    assert topic.routes == routes

    for route in routes[:400]:
        route.remove(outbox)
        registry.release(route)
    assert registry.work == before + 1
    ((topic, *_),) = _publish(registry, "a")
    assert topic.routes == routes[400:]
    assert registry.subscribers("a", 1_000_000) == 100
    assert 2 <= registry.subscribers("a", 2) < 100
