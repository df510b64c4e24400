"""Presence against a plain model: whoever connects, breaks off, comes back and leaves, in whatever order."""

from __future__ import annotations

from typing import TypeAlias

import attrs
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire import Member, PresenceWatch
from fanwire.broker import Broker, Config, TopicRule
from fanwire.protocol import Hello, Ok, Ping, Presence, PresenceEvent
from fanwire.testing import broker_in_memory, client_of
from tests.integration.raw import RawClient, connected

GRACE = 5.0
PATTERNS = ["a.x", "a.*", ">", "b.x"]  # all but the last one overlap with what is watched
WATCHED = "a.>"
CLIENTS = range(3)

Present: TypeAlias = set[tuple[str, str]]
"""Patterns and names."""


@attrs.frozen
class Connect:
    """A client gets one connection more, and subscribes to some patterns."""

    client: int
    patterns: list[str]


@attrs.frozen
class End:
    """One of a client's connections ends, if it has any: the oldest or the newest, in good order or not."""

    client: int
    newest: bool
    cut: bool


@attrs.frozen
class Leave:
    """A client leaves a pattern on its newest connection, if it is there."""

    client: int
    pattern: str


@attrs.frozen
class Sleep:
    """Time goes by. No sum of these is the grace."""

    seconds: float


@attrs.frozen
class CutWatcher:
    """The watcher's own connection breaks."""


clients = st.sampled_from(CLIENTS)
actions = st.one_of(
    st.builds(Connect, clients, st.lists(st.sampled_from(PATTERNS), unique=True, max_size=3)),
    st.builds(End, clients, st.booleans(), st.booleans()),
    st.builds(Leave, clients, st.sampled_from(PATTERNS)),
    st.builds(Sleep, st.sampled_from([0.7, 2.1, 10.0])),
    st.builds(CutWatcher),
)


@attrs.define
class Connection:
    """One of a client's, and its routes by pattern."""

    raw: RawClient
    routes: dict[str, int]


class Player:
    """Does what a schedule says, and knows what should come of it."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.connections: dict[int, list[Connection]] = {client: [] for client in CLIENTS}
        self.watching: trio.abc.Stream | None = None
        self._left: dict[tuple[int, str], float] = {}

    async def open_stream(self) -> trio.abc.Stream:
        """For the watcher."""
        self.watching = await self.broker.open_stream()
        return self.watching

    async def do(self, action: Connect | End | Leave | Sleep | CutWatcher) -> None:
        """One step, to its end."""
        match action:
            case Connect():
                await self._connect(action)
            case End():
                await self._end(action)
            case Leave():
                await self._leave(action)
            case Sleep():
                await trio.sleep(action.seconds)
            case CutWatcher():
                assert self.watching is not None
                await trio.aclose_forcefully(self.watching)
        await wait_all_tasks_blocked()

    async def _connect(self, action: Connect) -> None:
        raw = await connected(self.broker)
        await raw.send(Hello(0, name=str(action.client), client=f"client {action.client}"))
        routes = {pattern: await raw.subscribe(pattern) for pattern in action.patterns}
        self.connections[action.client].append(Connection(raw, routes))

    async def _end(self, action: End) -> None:
        connections = self.connections[action.client]
        if connections:
            connection = connections.pop(-1 if action.newest else 0)
            self._note(action.client, *connection.routes)
            if action.cut:
                await trio.aclose_forcefully(connection.raw.stream)
            else:
                await connection.raw.close()

    async def _leave(self, action: Leave) -> None:
        connections = self.connections[action.client]
        if connections and action.pattern in connections[-1].routes:
            await connections[-1].raw.unsubscribe(connections[-1].routes.pop(action.pattern))
            self._note(action.client, action.pattern)

    def _note(self, client: int, *patterns: str) -> None:
        self._left |= dict.fromkeys([(client, pattern) for pattern in patterns], trio.current_time())

    def present(self) -> Present:
        """Those subscribed now, or a grace ago."""
        subscribed = {
            (pattern, str(client))
            for client, connections in self.connections.items()
            for connection in connections
            for pattern in connection.routes
        }
        now = trio.current_time()
        away = {(pattern, str(client)) for (client, pattern), at in self._left.items() if now < at + GRACE}
        return {each for each in subscribed | away if each[0] != "b.x"}


async def _listed(client: RawClient) -> Present:
    answer = await client.ask(Presence(client.number(), WATCHED))
    assert isinstance(answer, Ok), answer
    assert answer.result["next"] is None
    members = [(member[0], member[2]) for member in answer.result["members"]]
    assert len(members) == len(set(members)), "somebody is there twice"
    return set(members)


async def _fold(client: RawClient, present: Present) -> None:
    """Take in what the broker has told; each event must change something."""
    await client.send(Ping(client.number()))
    while not isinstance(event := await client.next(), Ok):
        assert isinstance(event, PresenceEvent), event
        who = (event.topic, event.name or "")
        assert (who in present) == (event.change == "leave"), "told twice"
        (present.discard if event.change == "leave" else present.add)(who)


async def _follow(watch: PresenceWatch, present: set[Member]) -> None:
    async for member, is_there in watch:
        assert (member in present) != is_there, "given twice"
        (present.add if is_there else present.discard)(member)


async def _play(schedule: list[Connect | End | Leave | Sleep | CutWatcher]) -> None:
    rules = (TopicRule(pattern=">", presence=True),)
    async with broker_in_memory(Config(rules=rules, presence_grace_s=GRACE, ping_interval_s=None)) as broker:
        player, asking, told = Player(broker), await connected(broker), await connected(broker)
        await told.subscribe(f"$presence.{WATCHED}")
        folded: Present = set()
        given: set[Member] = set()
        async with (
            client_of(broker, open_stream=player.open_stream) as client,
            client.watch_presence(WATCHED) as watch,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(_follow, watch, given)
            for action in [*schedule, Sleep(10.0)]:
                await player.do(action)
                await _fold(told, folded)
                assert await _listed(asking) == folded == player.present()
            await trio.sleep(30)  # the watcher is back, and has no doubts
            assert {(member.pattern, member.name) for member in given} == await _listed(asking) == player.present()
            nursery.cancel_scope.cancel()


@settings(deadline=None, max_examples=60)
@given(schedule=st.lists(actions, max_size=12))
def test_whatever_happens_list_and_events_say_who_is_there(
    schedule: list[Connect | End | Leave | Sleep | CutWatcher],
) -> None:
    """The list is those subscribed, or gone for less than the grace; the events fold to it, and none says nothing new;
    so do those of the client, over breaks of its own."""
    trio.run(_play, schedule, clock=MockClock(autojump_threshold=0))
