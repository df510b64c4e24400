"""A client behind a proxy that cuts, stalls, refuses and closes as it likes, while the broker restarts now and then.

Messages carry numbers. A witness beside the proxy keeps the log of all that the broker has taken. When all is over and
the connection stands: what each subscription got is in order, nothing twice, and every gap was told; what was
acknowledged is in the log once; nothing hangs, and nothing is left.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import trio
from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker, TopicRule
from fanwire.client import Client, ConnectionLost, LostMessages, Message, connect
from fanwire.protocol import matches
from fanwire.testing import client_of
from tests.integration.raw import serving
from tests.peers.cutting import REFUSALS, CuttingProxy
from tests.property.walks import walk

RULES = (
    TopicRule(pattern="kept.*", history=1000),
    TopicRule(pattern="few.*", history=3),
    TopicRule(pattern="last.*", retain=True),
)
TOPICS = ("kept.a", "kept.b", "few.a", "last.a", "last.b", "live.a")

KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("kept.a", {}),
    ("kept.*", {}),
    ("few.a", {}),
    ("live.a", {}),
    (">", {}),
    ("kept.b", {"snapshot": True}),
    ("few.*", {"replay": {"last": 2}}),
    ("kept.*", {"replay": {"last": 3}, "on_slow": "drop_oldest"}),
    ("kept.b", {"recover": False}),
    ("last.*", {"snapshot": True, "on_slow": "conflate"}),
)

# In virtual seconds: until all clients are back, whatever has happened (waits of 5 s, timeouts of 10 s and 30 s).
PATIENCE_S = 120.0


@define(eq=False)
class Reading:
    """One subscription, and what came."""

    pattern: str
    options: dict[str, Any]
    got: list[Message | LostMessages] = field(factory=list)
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    entered: bool = False
    closed: bool = False

    async def run(self, client: Client) -> None:
        """Until it is left."""
        subscription = client.subscribe(self.pattern, report_loss=True, on_slow_reconnect="resume", **self.options)
        try:
            with self.scope:
                async with subscription as messages:
                    self.entered = True
                    async for message in messages:
                        self.got.append(message)
        finally:
            self.closed = True

    @property
    def conflates(self) -> bool:
        return self.options.get("on_slow") == "conflate"

    def check(self, log: dict[str, list[int]], kept_last: dict[str, int]) -> None:
        """Hold it against the log."""
        for topic in TOPICS:
            if matches(self.pattern, topic):
                self._check_topic(topic, log[topic], kept_last.get(topic))

    def _check_topic(self, topic: str, log: list[int], kept_last: int | None) -> None:
        places = {number: place for place, number in enumerate(log)}
        last: int | None = None
        unknown, told = False, 0
        for each in self.got:
            if isinstance(each, LostMessages):
                if each.topic in (None, topic):
                    unknown |= each.count is None or each.topic is None
                    told += each.count or 0
                continue
            if each.topic != topic:
                continue
            place = places[each.data]
            if self.conflates:
                assert last is None or place >= last, (self, topic, each.data, "is older than what came before")
            elif last is not None:
                assert place > last, (self, topic, each.data, "comes twice, or too late")
                self._check_gap(topic, place - last - 1, told, unknown)
            last, unknown, told = place, False, 0
        if self.conflates:
            if kept_last is not None and not self.closed and self.entered:
                assert last is not None, (self, topic, "never came")
                assert log[last] == kept_last, (self, topic, "is not the newest")
        elif last is not None and not self.closed:
            self._check_gap(topic, len(log) - 1 - last, told, unknown)

    def _check_gap(self, topic: str, missing: int, told: int, unknown: bool) -> None:
        assert unknown or told >= missing, (self, topic, missing, "are missing", told, "are told")


class Scene:
    """Broker, proxy and clients."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._numbers = count(1)
        self._stop = trio.Event()
        self._stopped = trio.Event()
        self.broker: Broker | None = None
        self.life = 0
        self.proxy = CuttingProxy(nursery, self._open_upstream)
        self.log: dict[str, list[int]] = defaultdict(list)
        self.lives: dict[int, list[int]] = defaultdict(list)  # in which lives of the broker a number was taken
        self.kept_last: dict[str, int] = {}
        self.readings: list[Reading] = []
        self.sent_in_order: dict[str, list[int]] = defaultdict(list)
        self.outcomes: dict[int, str] = {}
        self.named: set[int] = set()
        self.pending = 0
        self.victim: Client
        self.writer: Client

    async def _open_upstream(self) -> trio.abc.Stream:
        if self.broker is None:
            raise OSError("the broker is away")
        return await self.broker.open_stream()

    async def run_broker(self, *, task_status: trio.TaskStatus[None]) -> None:
        """One life."""
        self._stop, self._stopped = trio.Event(), trio.Event()
        quick = {"drain_spread_s": 0.01, "linger_s": 0.1}
        async with (
            serving(rules=RULES, **quick) as broker,
            client_of(broker, reconnect=False) as witness,
            witness.subscribe(">") as everything,
            trio.open_nursery() as nursery,
        ):
            self.life += 1
            self.kept_last.clear()
            self.broker = broker
            nursery.start_soon(self._witness, everything)
            task_status.started()
            await self._stop.wait()
            self.broker = None
            self.proxy.cut()
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        self._stopped.set()

    async def _witness(self, everything: Any) -> None:
        async for message in everything:
            self.log[message.topic].append(message.data)
            self.lives[message.data].append(self.life)
            if message.topic.startswith("last."):
                self.kept_last[message.topic] = message.data

    # ------------------------------------------------------------------ steps

    async def publish(self, topic: int, how: int, many: int) -> None:
        """By the client behind the proxy: at once, acknowledged, or named."""
        name = TOPICS[topic]
        for _ in range(many):
            number = next(self._numbers)
            if how == 0:
                self.sent_in_order[name].append(number)
                self.outcomes[number] = "unknown"
                self.writer.publish_nowait(name, number)
            else:
                self.pending += 1
                self._nursery.start_soon(self._publish, name, number, how == 2 and name.startswith("kept."))

    async def _publish(self, topic: str, number: int, named: bool) -> None:
        self.outcomes[number] = "unknown"
        if named:
            self.named.add(number)
        try:
            await self.writer.publish(topic, number, msg_id=str(number) if named else None)
            self.outcomes[number] = "taken"
        except ConnectionLost:
            pass
        self.pending -= 1

    async def publish_beside(self, topic: int, many: int) -> None:
        """By somebody who has no proxy."""
        if self.broker is not None:
            async with client_of(self.broker) as client:
                for _ in range(many):
                    number = next(self._numbers)
                    await client.publish(TOPICS[topic], number)
                    self.outcomes[number] = "taken"

    async def subscribe(self, kind: int, cancelled: bool) -> None:
        """Anew; perhaps after one that was given up at once."""
        pattern, options = KINDS[kind]
        if any(not each.closed and each.pattern == pattern for each in self.readings):
            return  # one that is still being left, too
        if cancelled:
            with trio.move_on_after(0):
                await Reading(pattern, options).run(self.victim)
        self.readings.append(Reading(pattern, options))
        self._nursery.start_soon(self.readings[-1].run, self.victim)

    async def leave(self, which: int) -> None:
        """One of the subscriptions."""
        if self.readings:
            self.readings[which % len(self.readings)].scope.cancel()

    async def restart(self) -> None:
        """The broker; its memory is gone."""
        if self.broker is not None:
            self._stop.set()
            await self._stopped.wait()
            await self._nursery.start(self.run_broker)

    async def settle(self) -> None:
        """Until nothing moves but time."""
        await wait_all_tasks_blocked()

    # ---------------------------------------------------------------- the end

    async def check(self) -> None:
        """What must hold at the end."""
        self.proxy.flow()
        await trio.sleep(PATIENCE_S)
        for client in (self.victim, self.writer):
            with trio.fail_after(PATIENCE_S):
                await client.ping()
                await client.flush()
        await trio.sleep(1)
        assert self.pending == 0
        for reading in self.readings:
            if not reading.scope.cancel_called:
                assert reading.entered, (reading, "hangs")
            reading.check(self.log, self.kept_last)
        self._check_published()
        self._check_nothing_is_left()

    def _check_published(self) -> None:
        taken = Counter(number for log in self.log.values() for number in log)
        for number, outcome in self.outcomes.items():
            if number in self.named:
                assert max(Counter(self.lives[number]).values(), default=0) <= 1, (number, "taken twice in one life")
                assert outcome != "taken" or taken[number] >= 1, (number, "acknowledged, and not taken")
            else:
                assert taken[number] <= 1, (number, "taken twice")
                assert outcome != "taken" or taken[number] == 1, (number, "acknowledged, and not taken")
        for topic, numbers in self.sent_in_order.items():
            arrived = [number for number in self.log[topic] if number in set(numbers)]
            assert arrived == sorted(arrived), (topic, "out of order")

    def _check_nothing_is_left(self) -> None:
        for client in (self.victim, self.writer):
            outgoing, feeds = client._outgoing, client._feeds
            assert (len(client._requests), outgoing.waiting_bytes, outgoing.accepted - outgoing.written) == (0, 0, 0)
            assert (outgoing._in_hand, outgoing._control, feeds._abandoned, feeds._resuming) == ([], [], {}, set())
        open_ones = {each.pattern for each in self.readings if not each.scope.cancel_called}
        assert {pattern for pattern, _ in self.victim._feeds._by_pattern} == open_ones
        assert self.broker is not None
        figures = self.broker.statistics()
        assert (figures.connections, figures.subscriptions) == (3, len(open_ones) + 1), figures


Step = Callable[[Scene], Any]


async def play(steps: list[Step]) -> None:
    """All of it, from the first connection to the last word."""
    async with trio.open_nursery() as nursery:
        scene = Scene(nursery)
        await nursery.start(scene.run_broker)
        draws = iter([0.1, 0.9, 0.5, 0.3] * 10_000)
        connecting = partial(connect, open_stream=scene.proxy.open_stream, draw=lambda: next(draws))
        async with connecting("ws://victim/") as scene.victim, connecting("ws://writer/") as scene.writer:
            for step in steps:
                result = step(scene)
                if result is not None:
                    await result
            await scene.check()
            with trio.fail_after(10):
                for reading in scene.readings:
                    reading.scope.cancel()
                await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def _wait(seconds: float, _scene: Scene) -> None:
    await trio.sleep(seconds)


class Cutting(RuleBasedStateMachine):
    """Collects steps; at its end they are played, in a fresh loop on a mock clock."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []

    @rule(topic=st.integers(0, len(TOPICS) - 1), how=st.integers(0, 2), many=st.integers(1, 5))
    def publish(self, topic: int, how: int, many: int) -> None:
        self.steps.append(lambda scene: scene.publish(topic, how, many))

    @rule(topic=st.integers(0, len(TOPICS) - 1), many=st.integers(1, 6))
    def publish_beside(self, topic: int, many: int) -> None:
        self.steps.append(lambda scene: scene.publish_beside(topic, many))

    @rule(kind=st.integers(0, len(KINDS) - 1), cancelled=st.booleans())
    def subscribe(self, kind: int, cancelled: bool) -> None:
        self.steps.append(lambda scene: scene.subscribe(kind, cancelled))

    @rule(which=st.integers(0, 20))
    def leave(self, which: int) -> None:
        self.steps.append(lambda scene: scene.leave(which))

    @rule()
    def cut(self) -> None:
        self.steps.append(lambda scene: scene.proxy.cut())

    @rule(size=st.integers(1, 60) | st.integers(1, 3000))
    def cut_after(self, size: int) -> None:
        self.steps.append(lambda scene: scene.proxy.cut_after(size))

    @rule()
    def stall(self) -> None:
        self.steps.append(lambda scene: scene.proxy.stall())

    @rule()
    def flow(self) -> None:
        self.steps.append(lambda scene: scene.proxy.flow())

    @rule(refusal=st.sampled_from((None, *REFUSALS)))
    def refuse(self, refusal: bytes | None) -> None:
        def step(scene: Scene) -> None:
            scene.proxy.refusal, scene.proxy.down = refusal, refusal is None

        self.steps.append(step)

    @rule(code=st.sampled_from((1000, 1001, 1006, 1011, 1014, 4001)))
    def close(self, code: int) -> None:
        self.steps.append(lambda scene: scene.proxy.close(code))

    @rule()
    def restart(self) -> None:
        self.steps.append(lambda scene: scene.restart())

    @rule(seconds=st.sampled_from((0.01, 0.3, 2.0, 7.0, 40.0)))
    def wait(self, seconds: float) -> None:
        self.steps.append(partial(_wait, seconds))

    @rule()
    def settle(self) -> None:
        self.steps.append(lambda scene: scene.settle())

    def teardown(self) -> None:
        trio.run(partial(play, self.steps), clock=MockClock(autojump_threshold=0))


TestCutting = walk(Cutting, examples=40, steps=30)
