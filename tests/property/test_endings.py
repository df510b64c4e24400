"""Connections that end in every state and in every way: the figures stay right, nothing is kept, and nobody else loses
a message."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from trio.testing import wait_all_tasks_blocked

from fanwire.broker import TopicRule
from fanwire.broker.delivery.outbox import Outbox
from fanwire.broker.options.throttle import Limiter
from fanwire.broker.sessions.session import Session
from fanwire.protocol import (
    Backlog,
    ClientEnvelope,
    Hello,
    Message,
    Ok,
    Ping,
    Presence,
    Publish,
    PublishOptions,
    Subscribe,
    SubscribeOptions,
    Unsubscribe,
    encode,
)
from fanwire.protocol.frames import Opcode, close_payload, masked_frame
from fanwire.transport import memory_stream_pair
from fanwire.transport.memory import MemoryStream
from tests.integration.raw import KEY, REQUEST, RawClient
from tests.property.slow_stage import Stage
from tests.property.walks import walk

RULES = (
    TopicRule(pattern="w.*", publisher_wait_s=5.0),
    TopicRule(pattern="h.*", history=20, retain=True, presence=True),
    TopicRule(pattern="s.*", retain=True, presence=True),
    TopicRule(pattern=">", presence=True),
)
SETTINGS: dict[str, Any] = {
    "rules": RULES,
    "require_hello": True,
    "hello_timeout_s": 20.0,
    "handshake_timeout_s": 10.0,
    "message_timeout_s": 8.0,
    "ping_interval_s": 25.0,
    "ping_timeout_s": 10.0,
    "stall_timeout_s": 15.0,
    "max_age_s": 40.0,
    "max_pending_bytes": 60_000,
    "presence_grace_s": 3.0,
    "drain_spread_s": 2.0,
    "drain_timeout_s": 3.0,
    "linger_s": 1.0,
    "max_envelopes": 500,
}

TOPICS = ("w.a", "w.b", "h.a", "h.b", "s.a", "plain")
PATTERNS = ("w.*", "w.a", "h.*", "h.a", ">", "*.a", "plain", "$presence.>", "$sys.slow", "$sys.demand")

on_slows = st.sampled_from(("disconnect", "unsubscribe", "drop_oldest", "drop_newest", "conflate"))
queues = st.integers(1, 5) | st.just(10_000) | st.none()
plain = st.builds(lambda on_slow, queue: {"on_slow": on_slow, "queue": queue}, on_slows, queues)
special = st.sampled_from(
    (
        {"snapshot": True},
        {"replay": {"last": 5}},
        {"snapshot": True, "max_rate": 2.0},
        {"max_rate": 1.0},
        {"max_rate": 0.2, "queue": 1},
        {"echo": False, "on_slow": "drop_oldest", "queue": 2},
        {"heartbeat": 1.0},
        {"group": "g"},
        {"group": "g", "on_slow": "drop_newest", "queue": 2},
        {"presence": True},
    )
)
options = plain | special

Wish = tuple[str, dict[str, Any]]

# Ends: what a client does, or what is done to it.
ENDS = ("cut", "close", "half a frame", "garbage", "not msgpack", "kick", "gone within a turn", "slow within a turn")

# How far a client gets by itself.
BEGINNINGS = ("nothing", "half a request", "request", *["hello"] * 6)

sizes = st.sampled_from((0, 10, 500, 500, 4_000, 20_000))
capacities = st.sampled_from((300, 300, 3_000, 65_536))
wishes = st.lists(st.tuples(st.sampled_from(PATTERNS), options), min_size=1, max_size=4)


class Client:
    """A raw one, which reads only when told to."""

    def __init__(self, stage: Stage, name: str, beginning: str, capacity: int) -> None:
        self.stage = stage
        self.name = name
        self.ended = False
        self.requests = 1
        stage.step(self._connect, beginning, capacity)

    stream: MemoryStream

    async def _connect(self, beginning: str, capacity: int) -> None:
        ours, self.stream = memory_stream_pair(capacity)
        broker = self.stage.broker
        assert broker._connections is not None
        broker._connections.start_soon(broker._handle, ours)
        if beginning == "half a request":
            await self.stream.send_all(REQUEST[:30])
        elif beginning != "nothing":
            await self.stream.send_all(REQUEST)
        if beginning == "hello":
            await wait_all_tasks_blocked()
            await self.read(1000)
            await self.send(Hello(1, name=self.name, client="c" * 32))

    async def send(self, *envelopes: ClientEnvelope, cut_at: int | None = None) -> None:
        """As one message, or the beginning of one."""
        frame = masked_frame(b"".join([encode(each) for each in envelopes]), KEY)
        await self.send_bytes(frame[:cut_at])

    async def send_bytes(self, data: bytes) -> None:
        """As much as there is room for: nobody reads from who publishes too much."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            self.stream.accept(data)
        await trio.lowlevel.checkpoint()

    async def read(self, most: int) -> None:
        """So many bytes, as far as there are any; what they are does not matter."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while most > 0 and self.stream._incoming.buffer:
                most -= len(await self.stream.receive_some(most))
                await wait_all_tasks_blocked()

    async def close(self) -> None:
        """The end of the stream."""
        self.ended = True
        await self.stream.aclose()


class Endings(RuleBasedStateMachine):
    """The walk."""

    def __init__(self) -> None:
        super().__init__()
        gc.disable()
        self.stage = Stage(**SETTINGS)
        self.clients: list[Client] = []
        self.number = self.coming = 0
        self.sent: list[bytes] = []
        self.heard: list[bytes] = []

    @initialize(first=st.lists(st.tuples(capacities, wishes), min_size=2, max_size=4))
    def bystander_comes(self, first: list[tuple[int, list[Wish]]]) -> None:
        """One that reads everything at once, and must lose nothing; and some who do not."""
        self.stage.step(self._let_bystander_in)
        for capacity, wishes in first:
            self._come("hello", capacity, wishes)

    async def _let_bystander_in(self) -> None:
        ours, theirs = memory_stream_pair(1 << 20)
        broker = self.stage.broker
        assert broker._connections is not None
        broker._connections.start_soon(broker._handle, ours)
        self.bystander = await RawClient(theirs).open(
            Hello(1, name="bystander"), Subscribe(2, "*.a", SubscribeOptions(queue=10_000))
        )
        await wait_all_tasks_blocked()

    async def _bystander_reads(self) -> None:
        raw = self.bystander
        while raw.stream._incoming.buffer:  # type: ignore[attr-defined]
            await raw.read()
            await wait_all_tasks_blocked()
        while (frame := raw._cut()) is not None:
            if frame.opcode == Opcode.PING:
                await raw.send_frame(frame.payload, Opcode.PONG)
            else:
                assert frame.opcode == Opcode.BINARY, frame
                raw._take(frame)
        self.heard += [bytes(each.payload) for each in raw.envelopes if isinstance(each, Message)]
        assert all(isinstance(each, Message | Ok) or type(each).__name__ == "Welcome" for each in raw.envelopes)
        raw.envelopes.clear()

    # ---------------------------------------------------------------- what happens

    @rule(beginning=st.sampled_from(BEGINNINGS), capacity=capacities, wishes=wishes)
    def somebody_comes(self, beginning: str, capacity: int, wishes: list[Wish]) -> None:
        """And gets that far."""
        if len(self.clients) < 6:
            self._come(beginning, capacity, wishes)

    @rule(
        beginning=st.sampled_from(BEGINNINGS),
        capacity=capacities,
        wishes=wishes,
        topics=st.lists(st.tuples(st.sampled_from(TOPICS), sizes), min_size=1, max_size=8),
        most=st.sampled_from((0, 400, 5_000)),
        end=st.sampled_from(ENDS),
    )
    def somebody_lives(
        self, beginning: str, capacity: int, wishes: list[Wish], topics: list[tuple[str, int]], most: int, end: str
    ) -> None:
        """A whole life in one step: it comes, gets behind, reads a little perhaps, and ends."""
        client = self._come(beginning, capacity, wishes)
        for topic, size in topics:
            self.stage.step(self._publish, topic, size, 1)
        self.stage.step(client.read, most)
        self.stage.step(self._end, client, end)

    def _come(self, beginning: str, capacity: int, wishes: list[Wish]) -> Client:
        self.clients = [each for each in self.clients if not each.ended]
        self.coming += 1
        client = Client(self.stage, f"c{self.coming}", beginning, capacity)
        self.clients.append(client)
        if beginning == "hello":
            for pattern, chosen in wishes:
                self._subscribe(client, pattern, chosen)
        return client

    def _subscribe(self, client: Client, pattern: str, chosen: dict[str, Any]) -> None:
        client.requests += 1
        wanted = SubscribeOptions.from_map({key: each for key, each in chosen.items() if each is not None})
        self.stage.step(client.send, Subscribe(client.requests, pattern, wanted))

    def _client(self, which: int) -> Client | None:
        there = [each for each in self.clients if not each.ended]
        return there[which % len(there)] if there else None

    @rule(which=st.integers(0, 5), pattern=st.sampled_from(PATTERNS), chosen=options)
    def subscribes(self, which: int, pattern: str, chosen: dict[str, Any]) -> None:
        """Or changes its options; what is refused is refused."""
        if client := self._client(which):
            self._subscribe(client, pattern, chosen)

    @rule(which=st.integers(0, 5), route=st.integers(1, 12))
    def unsubscribes(self, which: int, route: int) -> None:
        """From some route, which may not be its own."""
        if client := self._client(which):
            self.stage.step(client.send, Unsubscribe(50, route), Backlog(0, route, 90, 100))

    @rule(which=st.integers(0, 5), topic=st.sampled_from(TOPICS), size=sizes, count=st.integers(1, 8))
    def publishes(self, which: int, topic: str, size: int, count: int) -> None:
        """A client does; without an answer, with one, and with a key. On some topics it may have to wait."""
        if client := self._client(which):
            self.stage.step(
                client.send,
                *[Publish(0, f"own.{topic}", bytes(size))] * count,
                Publish(70, "w.b", b"asks"),
                Publish(71, "plain", b"k", options=PublishOptions(key=f"k{count}")),
                Ping(72),
                Presence(73, ">"),
            )

    @rule(which=st.integers(0, 5), pattern=st.sampled_from(PATTERNS), count=st.integers(1, 6))
    def publishes_and_subscribes_in_one_message(self, which: int, pattern: str, count: int) -> None:
        """To the very same: what comes first may be the end of the connection."""
        if client := self._client(which):
            publishes = [Publish(0, "plain", b"x"), Publish(0, "h.b", b"y")] * count
            change = Subscribe(80, pattern, SubscribeOptions(queue=1))
            self.stage.step(client.send, *publishes, change, *publishes, Subscribe(81, "new.*", SubscribeOptions()))

    @rule(
        topic=st.sampled_from(TOPICS), size=sizes, count=st.integers(1, 6), key=st.none() | st.sampled_from(("k", "l"))
    )
    def broker_publishes(self, topic: str, size: int, count: int, key: str | None) -> None:
        """Numbered messages; the bystander gets those of some topics."""
        self.stage.step(self._publish, topic, size, count, key)

    async def _publish(self, topic: str, size: int, count: int, key: str | None = None) -> None:
        for _ in range(count):
            self.number += 1
            payload = b"%d " % self.number + bytes(size)
            if topic.endswith(".a"):
                self.sent.append(payload)
            self.stage.broker.publish(topic, payload, key=key)

    @rule(which=st.integers(0, 5), most=st.sampled_from((100, 5_000, 1 << 20)))
    def reads(self, which: int, most: int) -> None:
        """Some, or all."""
        if client := self._client(which):
            self.stage.step(client.read, most)

    @rule(which=st.integers(0, 5), cut_at=st.integers(1, 20))
    def sends_half_a_message(self, which: int, cut_at: int) -> None:
        """The rest never comes; what follows is taken for it."""
        if client := self._client(which):
            self.stage.step(lambda: client.send(Publish(0, "plain", bytes(200)), cut_at=cut_at))

    @rule(which=st.integers(0, 5), end=st.sampled_from(ENDS))
    def ends(self, which: int, end: str) -> None:
        """In one of the ways, whatever state it is in."""
        if client := self._client(which):
            self.stage.step(self._end, client, end)

    async def _end(self, client: Client, end: str) -> None:
        if end == "cut":
            await client.close()
        elif end == "close":
            await client.send_bytes(masked_frame(close_payload(1000), KEY, opcode=Opcode.CLOSE))
        elif end == "half a frame":
            await client.send(Ping(1), cut_at=5)
            await client.close()
        elif end == "garbage":
            await client.send_bytes(b"\xff" * 10)
        elif end == "not msgpack":
            await client.send_bytes(masked_frame(b"\xc1", KEY))
        else:
            await self._end_from_within(client, end)

    async def _end_from_within(self, client: Client, end: str) -> None:
        """In the turn in which something was gathered for it."""
        hub = self.stage.broker._hub
        session = next((each for each in hub.sessions if each.name == client.name), None)
        if session is None:
            return
        for topic in ("h.a", "w.b", "plain"):
            await self._publish(topic, 500, 6)
        if end == "kick":
            self.stage.broker.kick(session.id)
        elif end == "gone within a turn":
            session.gone()
        elif session.ending is None:
            session.too_slow(session.outbox.verdict("max_age", None))
        await self._publish("w.a", 500, 3)

    @rule(seconds=st.sampled_from((0.1, 1.0, 2.5, 6.0, 12.0, 31.0)))
    def time_passes(self, seconds: float) -> None:
        """Whoever is due ends, is looked at, or is sent what was held. The bystander shows life all the while."""
        while seconds > 0:
            self.stage.pass_time(min(seconds, 5.0))
            self.stage.step(self._bystander_reads)
            seconds -= 5.0

    @precondition(lambda self: self.clients)
    @rule()
    def all_hang_up(self) -> None:
        """Then nothing of them is left, without the collector."""
        for client in self.clients:
            if not client.ended:
                self.stage.step(client.close)
        self.clients.clear()
        self.stage.pass_time(5.0)
        self.stage.step(self._bystander_reads)

        hub = self.stage.broker._hub
        assert [each.name for each in hub.sessions] == ["bystander"]
        assert _alive() == (1, 1)
        statistics = self.stage.broker.statistics()
        assert (statistics.connections, statistics.subscriptions, statistics.routes) == (1, 1, 1)
        assert (statistics.lagging, statistics.opening, hub.counters.loss_bytes) == (0, 0, 0)
        assert not hub.pressure._behind
        assert not hub.presence._watches
        assert hub.heartbeats._alive == 0
        assert hub.watchdog._watched.keys() >= {next(iter(hub.sessions))._watch}

    # ---------------------------------------------------------------- what holds

    @invariant()
    def nobody_else_loses_anything(self) -> None:
        """The bystander has got every message, in order."""
        if hasattr(self, "bystander"):
            self.stage.step(self._bystander_reads)
            assert self.heard == self.sent

    @invariant()
    def figures_are_those_of_who_is_there(self) -> None:
        """What is counted as it comes and goes is what there is."""
        self.stage.step(self._check_figures)

    async def _check_figures(self) -> None:
        hub = self.stage.broker._hub
        there = [each for each in hub.sessions if each.ending is None]
        outboxes = [each.outbox for each in there]
        subscriptions = [each for outbox in outboxes for each in outbox.subscriptions.values()]
        routes = {each.route.number: each.route for each in subscriptions}

        assert hub.subscriptions == len(subscriptions)
        assert hub.registry.routes == routes
        assert hub.counters.lagging == sum(each.lagging for each in subscriptions)
        for route in routes.values():
            ours = [each for each in subscriptions if each.route is route]
            assert route.lagging == sum(each.lagging for each in ours)
            assert set(route.outboxes.values()) == set(ours)
            assert all(outbox in outboxes for outbox in route.direct)
        assert hub.heartbeats._alive == len(hub.heartbeats._of)
        assert {*hub.heartbeats._of, *hub.presence._member_of, *hub.presence._watch_of} <= set(subscriptions)
        assert hub.door.opening == len(hub.door._opening)
        assert all(not each.welcomed for each in hub.door._opening)
        for outbox in outboxes:
            _check_outbox(outbox)
        gone = [each.outbox for each in hub.sessions if each.ending is not None and hasattr(each, "outbox")]
        unlisted = hub.counters.loss_bytes - sum(each.loss_bytes for each in (*outboxes, *gone))
        assert unlisted == 0
        self._check_waiting()

    def _check_waiting(self) -> None:
        """Nobody waits for subscribers that do not lag."""
        hub = self.stage.broker._hub
        for session in hub.sessions:
            waiting = session._ingress._waiting
            if waiting is not None and session.ending is None:
                assert hub.registry.topic_named(waiting.topic).lagging > 0

    def teardown(self) -> None:
        """A drain ends those who are left, in whatever state; nothing of them is left, either."""
        try:
            self.stage.close()
        finally:
            hub = self.stage.broker._hub
            self.clients.clear()
            counted = (hub.subscriptions, len(hub.registry.routes), hub.counters.lagging, hub.counters.loss_bytes)
            left = _alive()
            gc.enable()
            gc.collect()
        assert counted == (0, 0, 0, 0)
        assert left == (0, 0)


def _check_outbox(outbox: Outbox) -> None:
    """Its sums are those of what is in it."""
    subscriptions = outbox.subscriptions.values()
    entries = [each for subscription in subscriptions for each in subscription.entries]
    assert outbox.waiting_bytes == sum(each.size for each in entries) + outbox.answer_bytes
    for subscription in subscriptions:
        assert subscription.waiting == sum(each.count for each in subscription.entries)
    places = [place for each in subscriptions for place in (each.front, each.back)] + [each.lost for each in entries]
    limiters = [each.limiter for each in subscriptions if isinstance(each.limiter, Limiter)]
    assert len(limiters) == sum(each.limiter is not None for each in subscriptions)
    places += [limiter._losses for limiter in limiters]
    told = sum(len(envelope) for _, envelope in outbox._told or ())
    assert outbox.loss_bytes == told + sum(place.size for place in places if place is not None)
    assert outbox.budgets == sum(len(each._recent) for each in limiters)


def _alive() -> tuple[int, int]:
    """Sessions and outboxes that exist."""
    kinds = [type(each) for each in gc.get_objects()]
    return kinds.count(Session), kinds.count(Outbox)


@pytest.fixture(scope="module", autouse=True)
def frozen() -> Iterator[None]:
    """What was there before is not looked at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.enable()


TestEndings = walk(Endings, examples=40, steps=25)
