"""Queue groups: who of a group gets a message."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from fanwire.broker.delivery.subscription import Subscription
from fanwire.broker.options.queue_groups import GroupRoute
from fanwire.broker.topics.chunks import Chunk
from fanwire.protocol import Message, decode_from_broker
from tests.unit.broker.subscriber import Engine, Subscriber


class Group:
    """An engine, and some members of one group that is subscribed to "a"."""

    def __init__(self, *members: dict[str, Any]) -> None:
        self.engine = Engine()
        self.members = [Subscriber() for _ in members]
        self.subscriptions = [
            self.engine.subscribe(member, "a", group="g", **options)
            for member, options in zip(self.members, members, strict=True)
        ]

    def publish(self, *numbers: int) -> int:
        """One run; how many subscriptions it has reached."""
        return self.engine.publish("a", *[bytes((number,)) for number in numbers])

    def given(self) -> list[list[int]]:
        """What each member has been given and was not sent yet."""
        return [_numbers(member) for member in self.members]


def _numbers(subscriber: Subscriber) -> list[int]:
    envelopes = list(decode_from_broker(b"".join(subscriber.outbox.pending)))
    assert all(isinstance(envelope, Message) for envelope in envelopes)
    return [envelope.payload[0] for envelope in envelopes if isinstance(envelope, Message)]


def _group(count: int) -> Group:
    return Group(*[{} for _ in range(count)])


async def test_it_goes_round_among_equals(autojump_clock: MockClock) -> None:
    """Each gets as many, whether they come one by one or in one run."""
    group = _group(3)

    assert [group.publish(number) for number in range(4)] == [1] * 4
    assert group.publish(4, 5, 6, 7, 8) == 1

    assert group.given() == [[0, 3, 8], [1, 4, 6], [2, 5, 7]]


async def test_it_goes_on_after_who_was_last(autojump_clock: MockClock) -> None:
    """After a sweep, too, when nobody has anything to do any more, the next one is not the first one again."""
    group = _group(3)
    for number in range(4):
        group.publish(number)
        group.engine.fanout._sweeps += 1

    assert group.given() == [[0, 3], [1], [2]]
    for number in (4, 6):
        group.publish(number, number + 1)
        group.engine.fanout._sweeps += 1
    assert group.given() == [[0, 3, 6], [1, 4, 7], [2, 5]]


async def test_it_goes_to_who_has_the_least_to_do(autojump_clock: MockClock) -> None:
    """Who has five messages waiting gets nothing until the other one has been given as many."""
    group = _group(2)
    group.subscriptions[0].waiting = 5

    group.publish(*range(5))
    assert group.given() == [[], [0, 1, 2, 3, 4]]
    group.publish(5)
    group.publish(6)
    assert [len(numbers) for numbers in group.given()] == [1, 6]


async def test_what_waits_at_the_client_counts(autojump_clock: MockClock) -> None:
    """As the client has last said (BACKLOG)."""
    group = _group(2)
    group.subscriptions[1].backlog = (3, 1000)

    group.publish(*range(5))

    assert group.given() == [[0, 1, 2, 3], [4]]


async def test_a_full_member_gets_nothing_while_another_has_room(autojump_clock: MockClock) -> None:
    """Though it has less to do than that one."""
    group = Group({"queue": 2}, {"queue": 100})
    group.subscriptions[1].waiting = 50

    group.publish(*range(10))
    group.publish(10)

    assert group.given() == [[0, 1], [*range(2, 11)]]


@pytest.mark.parametrize("backlog", [(10, 10), (11, 10)])
async def test_a_member_whose_client_is_full_gets_nothing(autojump_clock: MockClock, backlog: tuple[int, int]) -> None:
    """Its own queue at the broker may be empty."""
    group = _group(2)
    group.subscriptions[0].backlog = backlog
    group.subscriptions[1].waiting = 9_000

    group.publish(*range(3))

    assert group.given() == [[], [0, 1, 2]]


async def test_when_all_are_full_it_goes_to_who_has_the_least_to_do(autojump_clock: MockClock) -> None:
    """Then that one's policy decides what becomes of it."""
    group = Group({"queue": 3}, {"queue": 2})
    group.subscriptions[0].waiting, group.subscriptions[1].waiting = 3, 2

    group.publish(0)

    assert group.given() == [[], [0]]


async def test_one_that_lags_is_asked_only_when_all_do(autojump_clock: MockClock) -> None:
    """Also when less waits for it than for the others, since its own queue is small."""
    group = _group(2)
    group.subscriptions[0].lagging, group.subscriptions[1].waiting = True, 50

    group.publish(0, 1)
    assert group.given() == [[], [0, 1]]
    group.subscriptions[1].lagging = True
    group.publish(2)
    assert group.given() == [[2], [0, 1]]


async def test_a_group_lags_when_all_of_it_do(autojump_clock: MockClock) -> None:
    """To publishers it is one subscriber."""
    group = _group(2)
    topic = group.engine.registry.topic_named("a")
    lagging = []
    for subscription in group.subscriptions:
        subscription.lagging = True
        subscription.route.lagging += 1
        lagging.append(topic.lagging)

    assert lagging == [0, 1]


async def test_members_are_given_the_very_bytes_of_the_route(autojump_clock: MockClock) -> None:
    """A message is encoded once, before it is known who gets it; a run's are cut out of one encoding."""
    group = _group(2)
    group.publish(1)
    [alone] = group.members[0].outbox.pending
    group.publish(2, 3, 4)
    (_, last), [both] = [member.outbox.pending for member in group.members]

    assert both + last == b"".join([alone[:-1] + bytes((number,)) for number in (2, 3, 4)])
    chunks = group.engine.fanout._chunks
    assert [chunks[id(data)].count for data in (alone, both, last)] == [1, 2, 1]
    assert group.engine.fanout._gathered == 4 * len(alone)


async def test_a_run_that_has_to_wait_waits_message_by_message(autojump_clock: MockClock) -> None:
    """A member's share of a run can be dropped in part, as any run can."""
    group = Group({"on_slow": "drop_oldest", "queue": 3}, {"on_slow": "drop_oldest", "queue": 3})
    for member in group.members:
        member.stream.keep(b"x" * 100, 0)  # its socket takes nothing more
    group.publish(*range(10))
    group.engine.fanout.flush(*[member.outbox for member in group.members])

    assert [subscription.waiting for subscription in group.subscriptions] == [3, 3]
    assert [subscription.lost for subscription in group.subscriptions] == [2, 2]


async def test_who_has_gone_gets_nothing(autojump_clock: MockClock) -> None:
    """Nor is it held on to; a group that nobody is left of is no subscriber."""
    group = _group(2)
    group.publish(0)
    route = group.subscriptions[0].route
    route.remove(group.members[0].outbox)
    group.publish(1, 2)

    assert group.given() == [[0], [1, 2]]
    route.remove(group.members[1].outbox)
    assert isinstance(route, GroupRoute)
    assert route._members == []
    assert group.publish(3) == 0


async def test_a_publish_under_way_reaches_those_who_are_left(autojump_clock: MockClock) -> None:
    """A member that goes in the middle of it takes nothing from the others."""
    group = _group(2)
    route = group.subscriptions[0].route
    route.appends()
    [taker] = route.takers
    route.remove(group.members[0].outbox)
    chunk = Chunk(route, "a", b"x", 1, 0.0)

    assert taker.offer(chunk, 0.0, None) == 1
    assert group.members[1].outbox.pending == [b"x"]
    route.remove(group.members[1].outbox)
    assert taker.offer(chunk, 0.0, None) == 0


async def test_groups_and_plain_subscribers_of_one_pattern_are_apart(autojump_clock: MockClock) -> None:
    """Each group gets every message, and so does who is in none; one connection may be in several."""
    engine, one, other = Engine(), Subscriber(), Subscriber()
    routes = [
        engine.subscribe(one, "a.*").route,
        engine.subscribe(one, "a.*", group="g").route,
        engine.subscribe(other, "a.*", group="g").route,
        engine.subscribe(other, "a.*", group="h").route,
    ]

    assert [engine.publish("a.b", bytes((number,))) for number in range(4)] == [3] * 4

    assert len({route.number for route in routes}) == 3
    assert engine.registry.subscribers("a.*", 100) == 4
    assert sorted(_numbers(one)) == [0, 0, 1, 2, 2, 3]
    assert sorted(_numbers(other)) == [0, 1, 1, 2, 3, 3]


async def test_nothing_of_the_registry_is_left_of_groups(autojump_clock: MockClock) -> None:
    """The last member's leaving ends the route, the last route's end that of the pattern."""
    engine, one = Engine(), Subscriber()
    subscriptions: list[Subscription] = [
        engine.subscribe(one, pattern, group=group) for pattern in ("a.*", "a.b") for group in (None, "g", "h")
    ]
    for subscription in subscriptions:
        subscription.route.remove(one.outbox)
        engine.registry.release(subscription.route)

    assert engine.registry.routes == {}
    assert engine.registry._by_pattern == {}
    assert engine.publish("a.b", b"x") == 0
