"""Queue groups: whoever comes and goes, each message goes to exactly one member."""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from fanwire.broker import Broker
from fanwire.protocol import BrokerEnvelope, Message, Ok, Ping, Publish, Subscribe, SubscribeOptions, Unsubscribe
from tests.integration.raw import RawClient, connected, serving

CLIENTS = 4

PATTERNS = ["jobs.a", "jobs.*"]

Step: TypeAlias = tuple[str, int, int]
"""What is done; by which client, or how many messages; to which pattern, or in which way."""

steps = st.lists(
    st.tuples(st.just("join"), st.integers(0, CLIENTS - 1), st.integers(0, 1))
    | st.tuples(st.just("part"), st.integers(0, CLIENTS - 1), st.integers(0, 1))
    | st.tuples(st.just("publish"), st.integers(1, 12), st.integers(0, 1))
    | st.tuples(st.just("pause"), st.just(0), st.just(0)),
    max_size=30,
)


class Crowd:
    """Some clients, that come to two groups and leave them; and two that stay."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._published = 0
        self._routes: dict[tuple[int, int], int] = {}
        self.heard: list[BrokerEnvelope] = []

    async def begin(self) -> None:
        """Connect all."""
        self._publisher = await connected(self._broker)
        self._clients = [await connected(self._broker) for _ in range(CLIENTS + 1)]
        self._groups = [await self._clients[-1].subscribe(pattern, group="g") for pattern in PATTERNS]

    async def _answer(self, client: RawClient, request: Subscribe | Unsubscribe | Ping) -> Ok:
        """What comes before the answer is noted."""
        await client.send(request)
        while not isinstance(envelope := await client.next(), Ok):
            self.heard.append(envelope)
        return envelope

    async def act(self, what: str, who: int, which: int) -> None:
        """Take one step."""
        if what == "publish":
            numbers = range(self._published, self._published + who)
            self._published += who
            ids = [0 if which else 1 + number for number in numbers]
            payloads = [b"%d" % number for number in numbers]
            await self._publisher.send(*[Publish(*each) for each in zip(ids, ["jobs.a"] * who, payloads, strict=True)])
        elif what == "join":
            request = Subscribe(1, PATTERNS[which], SubscribeOptions(group="g"))
            self._routes[who, which] = (await self._answer(self._clients[who], request)).result["route"]
        elif what == "part" and (who, which) in self._routes:
            await self._answer(self._clients[who], Unsubscribe(1, self._routes.pop((who, which))))
        elif what == "pause":
            await trio.testing.wait_all_tasks_blocked()

    async def end(self) -> int:
        """Hear all that is left; how much was published."""
        await self._answer(self._publisher, Ping(1 << 40))
        await trio.testing.wait_all_tasks_blocked()
        for client in self._clients:
            await self._answer(client, Ping(1 << 40))
        return self._published

    def heard_by_group(self) -> list[Counter[int]]:
        """How often each message came to each group."""
        messages = [envelope for envelope in self.heard if isinstance(envelope, Message)]
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
