"""Every policy against a plain model, step by step, whatever is published, read, changed and left in whatever order."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, TypeAlias

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fanwire.broker.delivery import outbox as outbox_module
from fanwire.protocol import (
    Backlog,
    BrokerEnvelope,
    Error,
    Goodbye,
    Lagging,
    Lost,
    Message,
    Ok,
    Subscribe,
    SubscribeOptions,
    Unsubscribe,
)
from tests.property.slow_model import Expected, Losses, Place, Wanted, matching
from tests.property.slow_stage import Player, Stage
from tests.property.walks import walk

PATTERNS = ["a", "t.*", "t.x", ">"]
TOPICS = ["a", "t.x", "t.y", "t.z"]

# Bytes that a client's stream holds: little, so that it is soon behind. (Frames of what waited are small here, too: so
# part of the line has left and part has not. What is written through in one step is one frame of less than 64 KiB.)
CAPACITY = 100

ALL = 1 << 30

on_slows = st.sampled_from(["disconnect", "unsubscribe", "drop_oldest", "drop_newest", "conflate"])
queues = st.integers(1, 4) | st.integers(5, 12) | st.just(10_000)


@attrs.frozen
class Publish:
    """One run on one topic."""

    topic: str
    sizes: list[int]
    key: str | None


@attrs.frozen
class Join:
    """Subscribe, or subscribe again."""

    pattern: str
    wanted: Wanted


@attrs.frozen
class Part:
    """Unsubscribe, where there is something to unsubscribe from."""

    pattern: str


Action: TypeAlias = Publish | Join | Part

sizes = st.lists(st.integers(0, 40) | st.sampled_from([300, 900]), min_size=1, max_size=5)
publishes = st.builds(Publish, st.sampled_from(TOPICS), sizes, st.none()) | st.builds(
    Publish, st.sampled_from(TOPICS), st.tuples(st.integers(0, 40)).map(list), st.sampled_from(["k", "l"])
)
joins = st.builds(Join, st.sampled_from(PATTERNS), st.builds(Wanted, on_slows, queues))
parts = st.builds(Part, st.sampled_from(PATTERNS))
# Seldom one that is disconnected at once: then there is not much to see.
lasting = st.sampled_from(["drop_oldest", "drop_newest", "conflate"]) | on_slows
beginnings = st.lists(st.builds(Wanted, lasting, queues), min_size=4, max_size=4).map(
    lambda wanted: [Join(pattern, each) for pattern, each in zip(PATTERNS, wanted, strict=True)]
)
actions = st.lists(publishes | publishes | publishes | joins | parts, min_size=1, max_size=5)


class Heard:
    """What a client was sent of one subscription."""

    def __init__(self, expected: Expected) -> None:
        self.expected = expected
        self.messages: list[tuple[int, Losses]] = []
        """Number of each, and what was told to be lost in front of it."""
        self.behind: Losses = Counter()
        self.reasons: set[str] = set()
        self.warnings: list[tuple[int, int]] = []

    def hear(self, envelope: Message | Lost | Lagging) -> None:
        """The next that came."""
        if isinstance(envelope, Message):
            self.messages.append((number_of(envelope), self.behind))
            self.behind = Counter()
        elif isinstance(envelope, Lost):
            assert envelope.topic is not None
            assert envelope.count is not None
            self.behind[envelope.topic] += envelope.count
            self.reasons.add(envelope.reason)
        else:
            self.warnings.append((envelope.queued, envelope.limit))

    def check(self, *, all_of_it: bool) -> None:
        """It is what the model says; or, where the connection was cut off, the beginning of it."""
        expected = self.expected
        sent = [(place.number, place.lost) for place in expected.sent]
        assert self.messages == (sent if all_of_it else sent[: len(self.messages)])
        conflated, dropped = "conflate" in expected.ever, len(expected.ever - {"conflate"}) > 0
        assert self.reasons <= ({"keys"} if conflated else set()) | ({"queue"} if dropped else set())
        assert self.warnings == expected.warnings[: len(self.warnings)]

    def check_drained(self) -> None:
        """Nothing waits any more: it is all that there was."""
        self.check(all_of_it=True)
        assert (self.behind, self.warnings) == (self.expected.behind, self.expected.warnings)
        lost = sum(sum(each.values()) for _, each in self.messages) + sum(self.behind.values())
        assert len(self.messages) + lost + self.expected.replaced == self.expected.published
        assert lost == self.expected.lost


def number_of(message: Message) -> int:
    """The payload begins with it."""
    return int(bytes(message.payload).partition(b" ")[0])


class Connection:
    """One client, and what is expected of it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.player = Player(stage, CAPACITY)
        self.expected: dict[str, Expected] = {}
        """By pattern: what it is subscribed to."""
        self.heard: dict[int, Heard] = {}
        """By route: what its OK has been read of, and no end."""
        self.over: list[tuple[Heard, Expected]] = []
        self.dropped: tuple[Expected, int] | None = None
        """Why it must be disconnected, and how many messages waited."""
        self._pending: list[tuple[Expected, list[Place]]] = []
        self._asked: dict[int, tuple[str, Expected, Wanted | None]] = {}
        self._thrown: deque[tuple[Expected, int]] = deque()
        self._requests = 0
        self._read_up_to = 0

    # ------------------------------------------- what the broker will have done

    def published(self, routes: list[int], run: list[Place]) -> None:
        """Gathered; what becomes of it is decided at the next sweep."""
        by_route = {each.route: each for each in self.expected.values()}
        self._pending += [(by_route[route], run) for route in routes if route in by_route]

    def sweep(self, clear: bool) -> None:
        """What was gathered goes, or waits."""
        pending, self._pending = self._pending, []
        for expected, run in pending:
            if self.dropped is None and expected in self.expected.values():
                self._deliver(expected, [attrs.evolve(place, lost=Counter()) for place in run], clear)

    def _deliver(self, expected: Expected, run: list[Place], clear: bool) -> None:
        if clear:
            expected.write_through(run)
        elif not expected.wait(run, self.stage.now):
            if expected.wanted.on_slow == "unsubscribe":
                self._thrown.append((expected, len(expected.line)))
                del self.expected[self._pattern_of(expected)]
            else:
                self.dropped = (expected, len(expected.line))

    def _pattern_of(self, expected: Expected) -> str:
        return next(pattern for pattern, each in self.expected.items() if each is expected)

    # ------------------------------------------------- what the client does

    def join(self, pattern: str, wanted: Wanted, clear: bool) -> None:
        """Subscribe, or change the options."""
        if self.dropped is not None:
            return
        self._requests += 1
        if pattern in self.expected:
            self.sweep(clear)
        options = SubscribeOptions(on_slow=wanted.on_slow, queue=wanted.queue)
        self.player.ask(Subscribe(self._requests, pattern, options))
        if self.dropped is not None:
            return
        if pattern in self.expected:
            self.expected[pattern].change(wanted, self.stage.now)
        else:
            route = next(n for n, each in self.player.outbox.subscriptions.items() if each.route.pattern == pattern)
            self.expected[pattern] = Expected(route, wanted)
        self._asked[self._requests] = ("subscribe", self.expected[pattern], wanted)

    def part(self, pattern: str, clear: bool) -> None:
        """Unsubscribe."""
        expected = self.expected.get(pattern)
        if expected is None or self.dropped is not None:
            return
        self._requests += 1
        self.sweep(clear)
        self.player.ask(Unsubscribe(self._requests, expected.route))
        self.expected.pop(pattern, None)
        self._asked[self._requests] = ("unsubscribe", expected, None)

    def say_backlog(self, pattern: str, queued: int, limit: int) -> None:
        """BACKLOG."""
        expected = self.expected[pattern]
        self.player.ask(Backlog(0, expected.route, queued, limit))
        expected.hear_backlog(queued, limit, self.stage.now)

    # ------------------------------------------------------- what it is sent

    def read(self, most: int) -> None:
        """Read some of what there is."""
        self.player.read(most)
        self.note_what_left_the_line()
        for envelope in self.player.heard[self._read_up_to :]:
            self._hear(envelope)
        self._read_up_to = len(self.player.heard)

    def note_what_left_the_line(self) -> None:
        """Which the broker alone knows: it depends on the size of frames and buffers."""
        for expected in self.expected.values():
            waiting = self.player.subscription(expected.route).waiting if self.dropped is None else len(expected.line)
            assert waiting <= len(expected.line)
            expected.take(len(expected.line) - waiting)

    def _hear(self, envelope: BrokerEnvelope) -> None:
        if isinstance(envelope, Message | Lost | Lagging):
            self.heard[envelope.route].hear(envelope)  # nothing of a route before its OK, and nothing after its end
        elif isinstance(envelope, Ok):
            self._hear_answer(envelope)
        elif isinstance(envelope, Error):
            self._hear_that_it_was_unsubscribed(envelope)
        else:
            assert isinstance(envelope, Goodbye)
            self._hear_goodbye(envelope)

    def _hear_answer(self, answer: Ok) -> None:
        what, expected, wanted = self._asked.pop(answer.id)
        if what == "unsubscribe":
            self._end(expected.route, expected)
            return
        assert wanted is not None
        granted = {"queue": wanted.queue, "on_slow": wanted.on_slow, "max_rate": None, "route": expected.route}
        assert granted.items() <= answer.result.items()
        if expected.route not in self.heard:
            self.heard[expected.route] = Heard(expected)

    def _hear_that_it_was_unsubscribed(self, error: Error) -> None:
        assert (error.id, error.code) == (0, "slow_consumer")
        expected, queued = self._thrown.popleft()
        limit = expected.wanted.queue
        detail = {"measure": "queue", "route": expected.route, "queued": queued, "limit": limit}
        assert detail.items() <= error.detail.items()
        self._end(expected.route, expected)

    def _end(self, route: int, expected: Expected) -> None:
        heard = self.heard.get(route)
        if heard is not None and heard.expected is expected:
            heard.check(all_of_it=True)  # what had left the line came before
            del self.heard[route]

    def _hear_goodbye(self, goodbye: Goodbye) -> None:
        assert self.dropped is not None, goodbye
        expected, queued = self.dropped
        assert goodbye.code == "slow_consumer"
        facts = {"measure": "queue", "route": expected.route, "queued": queued, "limit": expected.wanted.queue}
        assert facts.items() <= goodbye.detail.items()

    # --------------------------------------------------------------- checking

    def check(self) -> None:
        """What the broker counts is what the model says."""
        outbox = self.player.outbox
        assert (self.player.session.ending is None) == (self.dropped is None)
        if self.dropped is not None:
            assert (outbox.waiting_bytes, outbox.held_bytes, len(outbox.pending)) == (0, 0, 0)
            return
        assert {each.route for each in self.expected.values()} == set(outbox.subscriptions)
        for expected in self.expected.values():
            subscription = outbox.subscriptions[expected.route]
            assert [*self._figures(expected)] == [
                subscription.waiting,
                subscription.lost,
                subscription.replaced,
                subscription.lagging,
            ]
        waiting = sum(entry.size for each in outbox.subscriptions.values() for entry in each.entries)
        assert outbox.waiting_bytes == waiting + outbox.answer_bytes

    def _figures(self, expected: Expected) -> Iterator[int]:
        yield from (len(expected.line), expected.lost, expected.replaced, expected.lagging)

    def check_drained(self) -> None:
        """Everything was read: it is all there, and the broker holds nothing."""
        outbox, stream = self.player.outbox, self.player.stream
        if self.dropped is not None:
            assert self.player.closed_with == 4008
            assert isinstance(self.player.heard[-1], Goodbye)
            for heard in self.heard.values():
                heard.check(all_of_it=False)
            return
        assert not self._asked
        assert not self._thrown
        assert {heard.expected for heard in self.heard.values()} == set(self.expected.values())
        for heard in self.heard.values():
            heard.check_drained()
        assert (outbox.waiting_bytes, outbox.answer_bytes, outbox.held_bytes) == (0, 0, 0)
        assert (stream.clear, stream.queued, len(stream.left)) == (True, False, 0)
        assert not outbox._lossy
        assert not outbox._told


class Policies(RuleBasedStateMachine):
    """One client reads when it likes, another at once; a publisher waits for neither."""

    def __init__(self) -> None:
        super().__init__()
        self._small = pytest.MonkeyPatch()
        self._small.setattr(outbox_module, "MAX_BATCH", 150)
        self._small.setattr(outbox_module, "CONFLATING_BATCH", 80)
        self.stage = Stage(stall_timeout_s=None, max_age_s=None, queue_grace_s=None)  # times have tests of their own
        self.healthy = Connection(self.stage)
        self.slow = Connection(self.stage)
        self._published = 0
        self._act([(self.healthy, Join(pattern, Wanted("disconnect", 10_000))) for pattern in ("a", "t.*")])

    @initialize(begin=beginnings)
    def begin(self, begin: list[Join]) -> None:
        """Subscriptions of the slow one."""
        self._act([(self.slow, each) for each in begin])

    @precondition(lambda self: self.slow.dropped is None)
    @rule(actions=actions)
    def act(self, actions: list[Action]) -> None:
        """Several things in one turn of the loop, before anything is swept."""
        self._act([(self.slow, each) for each in actions])

    @precondition(lambda self: self.slow.dropped is None)
    @rule(runs=st.lists(publishes, min_size=2, max_size=8))
    def publish(self, runs: list[Publish]) -> None:
        """Nothing else happens."""
        self._act([(self.slow, each) for each in runs])

    @precondition(lambda self: self.slow.dropped is None)
    @rule(change=joins)
    def change(self, change: Join) -> None:
        """Other options; what waits stays."""
        self._act([(self.slow, change)])

    def _act(self, actions: list[tuple[Connection, Action]]) -> None:
        async def act() -> None:
            for connection, action in actions:
                self._do(connection, action)
            self._swept_when_clear = [each.player.stream.clear for each in (self.slow, self.healthy)]

        self.stage.step(act)
        for connection, clear in zip((self.slow, self.healthy), self._swept_when_clear, strict=True):
            connection.sweep(clear)
        self.slow.note_what_left_the_line()
        self.healthy.read(ALL)

    def _do(self, connection: Connection, action: Action) -> None:
        clear = connection.player.stream.clear
        if isinstance(action, Publish):
            self._publish(action)
        elif isinstance(action, Join):
            connection.join(action.pattern, action.wanted, clear)
        else:
            connection.part(action.pattern, clear)

    def _publish(self, publish: Publish) -> None:
        run = []
        for _ in publish.sizes:
            self._published += 1
            key = publish.topic if publish.key is None else (publish.topic, publish.key)
            run.append(Place(self._published, publish.topic, key))
        payloads = [b"%d %b" % (place.number, b"x" * size) for place, size in zip(run, publish.sizes, strict=True)]
        routes = self.stage.publish(publish.topic, payloads, publish.key)
        for connection in (self.slow, self.healthy):
            reached = {each.route for pattern, each in connection.expected.items() if matching(pattern, publish.topic)}
            assert connection.dropped is not None or reached <= set(routes)
            connection.published(routes, run)

    @precondition(lambda self: self.slow.dropped is None)
    @rule(most=st.integers(1, 60) | st.integers(100, 1000) | st.integers(300, 3000) | st.just(ALL))
    def read(self, most: int) -> None:
        """The slow one reads a little, or catches up."""
        self.slow.read(most)
        if most == ALL:
            self.slow.check_drained()

    @precondition(lambda self: self.slow.dropped is None)  # who is closed may take a second to read why
    @rule(seconds=st.sampled_from([0.5, 1.0]))
    def pass_time(self, seconds: float) -> None:
        """Nothing happens by itself; but warnings are told again."""
        self.stage.pass_time(seconds)

    @precondition(lambda self: self.slow.dropped is None and self.slow.expected)
    @rule(data=st.data(), queued=st.integers(0, 10))
    def backlog(self, data: Any, queued: int) -> None:
        """It tells how much waits in its own buffer of ten."""
        pattern = data.draw(st.sampled_from(sorted(self.slow.expected)))

        async def say() -> None:
            self.slow.say_backlog(pattern, queued, 10)

        self.stage.step(say)

    @precondition(lambda self: self.slow.dropped is not None)
    @rule(begin=beginnings)
    def come_back(self, begin: list[Join]) -> None:
        """It was disconnected: it reads why, and comes back."""
        self.slow.read(ALL)
        self.slow.check_drained()
        self.slow = Connection(self.stage)
        self._act([(self.slow, each) for each in begin])

    @invariant()
    def agree(self) -> None:
        """Model and broker."""
        self.slow.check()
        self.healthy.check()
        hub = self.stage.broker._hub
        lagging = [each for each in self.slow.expected.values() if each.lagging and self.slow.dropped is None]
        assert hub.counters.lagging == len(lagging)
        assert {route.number for route in hub.registry.routes.values() if route.lagging} == {
            each.route for each in lagging
        }
        self.stage.assert_nothing_is_left()

    def teardown(self) -> None:
        """All is read in the end; and whoever was healthy has got everything, whatever became of the other."""
        try:
            self.slow.read(ALL)
            self.slow.check_drained()
            self.healthy.check_drained()
        finally:
            self._small.undo()
            self.stage.close()


TestPolicies = walk(Policies, examples=150, steps=30)
