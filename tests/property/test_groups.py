"""Queue groups: whoever comes, goes and hangs, each message goes to one member, and to another one if that is told."""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from fanwire.broker import Broker
from fanwire.broker.delivery.hands import LEAST
from fanwire.broker.options.queue_groups import STALL_S
from fanwire.protocol import (
    Backlog,
    BrokerEnvelope,
    Lost,
    Message,
    Ok,
    Ping,
    Publish,
    Subscribe,
    SubscribeOptions,
    Unsubscribe,
)
from tests.integration.raw import RawClient, connected, serving

CLIENTS = 4

PATTERNS = ["jobs.a", "jobs.*"]

Step: TypeAlias = tuple[str, int, int]
"""What is done; by which client, or how many messages; to which pattern, or in which way."""

_CLIENT, _PATTERN = st.integers(0, CLIENTS - 1), st.integers(0, 1)
_COMES_AND_GOES = (
    st.tuples(st.just("join"), _CLIENT, _PATTERN)
    | st.tuples(st.just("part"), _CLIENT, _PATTERN)
    | st.tuples(st.just("publish"), st.integers(1, 12), _PATTERN)
    | st.tuples(st.just("pause"), st.just(0), st.just(0))
)
steps = st.lists(_COMES_AND_GOES, max_size=30)
working_steps = st.lists(
    _COMES_AND_GOES
    | st.tuples(st.just("work"), _CLIENT, st.integers(1, 20))
    | st.tuples(st.just("cut"), _CLIENT, st.just(0))
    | st.tuples(st.just("stall"), st.just(0), st.just(0)),
    max_size=40,
)


class Crowd:
    """Some clients, that come to two groups and leave them; and one that stays in both."""

    def __init__(self, broker: Broker, *, acknowledging: bool = False) -> None:
        self._broker = broker
        self._acknowledging = acknowledging
        self._published = 0
        self._routes: dict[tuple[int, int], int] = {}
        self._finished: Counter[tuple[int, int]] = Counter()  # by client and route, as heard: all that came is done
        self._had: Counter[tuple[int, int]] = Counter()
        self.heard: list[BrokerEnvelope] = []

    async def begin(self) -> None:
        """Connect all."""
        self._publisher = await connected(self._broker)
        self._clients = [await connected(self._broker) for _ in range(CLIENTS + 1)]
        for which in range(len(PATTERNS)):
            await self.act("join", CLIENTS, which)
        self._groups = [self._routes[CLIENTS, which] for which in range(len(PATTERNS))]

    async def _answer(self, client: RawClient, request: Subscribe | Unsubscribe | Ping) -> Ok:
        """What comes before the answer is noted."""
        await client.send(request)
        while not isinstance(envelope := await client.next(), Ok):
            self.heard.append(envelope)
            if isinstance(envelope, Message) and client in self._clients:
                self._had[self._clients.index(client), envelope.route] += 1
        return envelope

    async def act(self, what: str, who: int, which: int) -> None:
        """Take one step."""
        if what == "publish":
            await self._publish(who, which)
        elif what == "join":
            options = SubscribeOptions(group="g")
            request = Subscribe(1, PATTERNS[which], options, acknowledges=self._acknowledging)
            answer = await self._answer(self._clients[who], request)
            if (who, which) not in self._routes:
                self._begin_to_count(who, answer.result["route"])
            self._routes[who, which] = answer.result["route"]
        elif what == "part" and (who, which) in self._routes:
            await self._answer(self._clients[who], Unsubscribe(1, self._routes.pop((who, which))))
        elif what == "pause":
            await trio.testing.wait_all_tasks_blocked()
        elif what == "work":
            await self.work(who, which)
        elif what == "cut":
            await self._cut(who)
        elif what == "stall":
            await trio.sleep(STALL_S + 2)

    async def _publish(self, count: int, which: int) -> None:
        numbers = range(self._published, self._published + count)
        self._published += count
        ids = [0 if which else 1 + number for number in numbers]
        payloads = [b"%d" % number for number in numbers]
        await self._publisher.send(*[Publish(*each) for each in zip(ids, ["jobs.a"] * count, payloads, strict=True)])

    def _begin_to_count(self, who: int, route: int) -> None:
        self._finished[who, route] = self._had[who, route] = 0

    async def work(self, who: int, most: int = 1 << 30) -> bool:
        """A client says that it has finished some of what came; whether there was anything."""
        await self._answer(self._clients[who], Ping(1))
        worked = False
        for (client, _), route in self._routes.items():
            done = min(self._had[who, route] - self._finished[who, route], most)
            if client == who and done:
                worked = True
                self._finished[who, route] += done
                await self._clients[who].send(Backlog(0, route, 0, 1 << 20, self._finished[who, route]))
        await trio.testing.wait_all_tasks_blocked()
        return worked

    async def _cut(self, who: int) -> None:
        await self._clients[who].stream.aclose()
        self._routes = {key: route for key, route in self._routes.items() if key[0] != who}
        await trio.testing.wait_all_tasks_blocked()
        self._clients[who] = await connected(self._broker)

    async def end(self) -> int:
        """Hear all that is left; how much was published."""
        await self._answer(self._publisher, Ping(1 << 40))
        await trio.testing.wait_all_tasks_blocked()
        for client in self._clients:
            await self._answer(client, Ping(1 << 40))
        return self._published

    def unfinished(self, who: int, which: int) -> int:
        """How much a member holds, as far as it has heard."""
        route = self._routes[who, which]
        return self._had[who, route] - self._finished[who, route]

    def members(self) -> list[tuple[int, int]]:
        """Clients and patterns."""
        return list(self._routes)

    def heard_by_group(self, *, again: bool = False) -> list[Counter[int]]:
        """How often each message came to each group: for the first time, or ``again``."""
        messages = [each for each in self.heard if isinstance(each, Message)]
        messages = [each for each in messages if bool(each.meta.get("redelivered")) is again]
        return [Counter(int(each.payload) for each in messages if each.route == route) for route in self._groups]


async def _play(steps: list[Step]) -> None:
    async with serving() as broker:
        crowd = Crowd(broker)
        await crowd.begin()
        for step in steps:
            await crowd.act(*step)
        published = await crowd.end()

        assert crowd.heard_by_group() == [Counter(range(published))] * 2
        assert broker.statistics().delivered == 2 * published
        assert broker._hub.fanout._gathered == 0


@settings(deadline=None)
@given(steps)
def test_each_message_goes_to_exactly_one_member(steps: list[Step]) -> None:
    """Of each group, as long as no queue is full and nobody is cut off; two groups of patterns that overlap."""
    trio.run(_play, steps, clock=MockClock(autojump_threshold=0))


async def _work(steps: list[Step]) -> None:
    async with serving() as broker:
        crowd = Crowd(broker, acknowledging=True)
        await crowd.begin()
        for step in steps:
            await crowd.act(*step)
        await crowd.end()
        while any([await crowd.work(who) for who in range(CLIENTS + 1)]):
            pass
        published = await crowd.end()

        groups, lost = broker._hub.groups, broker.statistics().lost.get("group", 0)
        first, again = crowd.heard_by_group(), crowd.heard_by_group(again=True)
        for once, more in zip(first, again, strict=True):
            assert not once or max(once.values()) == 1, "who had it for the second time was told"
            assert not more or max(more.values()) <= 3
            missing = set(range(published)) - set(once) - set(more)
            assert len(missing) <= lost, "what nobody heard of was lost on the way to too many"
        assert all(crowd.unfinished(*member) == 0 for member in crowd.members())
        assert groups.kept == 0
        assert all(route.waiting == 0 for route in broker._hub.registry.routes.values() if hasattr(route, "waiting"))
        assert broker._hub.fanout._gathered == 0


@settings(deadline=None)
@given(working_steps)
def test_each_message_is_finished_by_some_member(steps: list[Step]) -> None:
    """Though members finish late or never, are cut off, or stall: what they had comes to others, and says so."""
    trio.run(_work, steps, clock=MockClock(autojump_threshold=0))


async def _burst(working: int, hanging: int, count: int) -> None:
    async with serving() as broker:
        crowd = Crowd(broker, acknowledging=True)
        await crowd.begin()
        for who in range(working + hanging - 1):
            await crowd.act("join", who, 0)
        await crowd.act("publish", count, 1)
        await crowd.act("pause", 0, 0)
        workers = [CLIENTS, *range(working - 1)]
        while any([await crowd.work(who) for who in workers]):
            pass
        await crowd.end()

        held = [crowd.unfinished(who, 0) for who in range(working - 1, working + hanging - 1)]
        assert max(held, default=0) <= LEAST
        assert crowd.heard_by_group()[0] == Counter(range(count))
        assert not any(isinstance(envelope, Lost) for envelope in crowd.heard)


@settings(deadline=None)
@given(st.integers(1, 2), st.integers(0, 2), st.integers(1, 400))
def test_a_member_that_hangs_holds_no_more_than_its_window(working: int, hanging: int, count: int) -> None:
    """However large the burst: the others have had the rest."""
    trio.run(_burst, working, hanging, count, clock=MockClock(autojump_threshold=0))
