"""Whatever is published, kept, evicted, read, cut and asked for again: a view has no gap that it was not told of.

A broker in memory, step by step. Publishers write on topics that keep little (in messages, seconds, bytes, and of all
together); clients that read when they like subscribe with snapshot and replay, leave, are cut, and come back with the
offsets they had. Every envelope that a client got is held against the log of all that was ever published.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import attrs
import pytest
import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from fanwire.broker import TopicRule
from fanwire.broker.delivery import outbox
from fanwire.broker.options import replay
from fanwire.broker.store import expiry
from fanwire.broker.store.memory import MemoryStore
from fanwire.broker.timing import clock
from fanwire.protocol import (
    BrokerEnvelope,
    Error,
    Fetch,
    Goodbye,
    Lagging,
    Lost,
    Message,
    Ok,
    Publish,
    PublishOptions,
    SnapshotEnd,
    Subscribe,
    SubscribeOptions,
    Unsubscribe,
    encode,
    matches,
)
from tests.property.slow_stage import Player, Stage
from tests.property.walks import walk

RULES = (
    TopicRule(pattern="h.s", history=50, history_s=2.0),
    TopicRule(pattern="h.y", history=50, history_bytes=900),
    TopicRule(pattern="h.r", history=5, retain=True),
    TopicRule(pattern="h.*", history=4),
    TopicRule(pattern="r.*", retain=True),
)
TOPICS = ["h.a", "h.b", "h.s", "h.y", "h.r", "r.a", "r.b", "n.a"]
PATTERNS = [">", "h.*", "h.a", "h.y", "r.*", "n.a"]
HISTORY = {"h.a", "h.b", "h.s", "h.y", "h.r"}
EXACT_HISTORY = {"h.a", "h.y"}

STORED_BYTES = 9_000
PAGE = 200
ALL = 1 << 30


@attrs.frozen
class Write:
    """One message of a publisher's: on one topic, some payloads."""

    topic: str
    sizes: list[int]
    option: str
    """`none`, `delete`, `retain`, `id`, `expect`, `json`."""
    pause: bool
    """Whether others get their turn afterwards, before the step ends."""


@attrs.frozen
class Ask:
    """SUBSCRIBE."""

    pattern: str
    snapshot: bool
    replay: str | None
    """`last`, `since`, `had`, `strange` (another epoch, or offsets that never were)."""
    on_slow: str
    queue: int
    max_rate: float | None


writes = st.builds(
    Write,
    st.sampled_from(TOPICS),
    st.lists(st.integers(0, 30) | st.just(300), min_size=1, max_size=6),
    st.sampled_from(["none", "none", "none", "delete", "retain", "id", "expect", "json"]),
    st.booleans(),
)
asks = st.builds(
    Ask,
    st.sampled_from([">", ">", *PATTERNS]),
    st.booleans(),
    st.sampled_from([None, "last", "since", "had", "had", "strange"]),
    st.sampled_from(["drop_oldest", "drop_newest", "conflate", "disconnect", "unsubscribe"]),
    st.sampled_from([2, 8, 10_000]),
    st.sampled_from([None, None, None, 2.0]),
)
connections = st.integers(0, 2)


class Log:
    """All that was published, by topic: numbers, in order; None where a value was deleted."""

    def __init__(self) -> None:
        self.topics: dict[str, list[int | None]] = {topic: [] for topic in TOPICS}
        self.where: dict[int, tuple[str, int]] = {}
        """By number: the topic, and its place there, counted from 1. Where there is history that is its offset."""
        self.last_retained: int | None = None
        """Of `n.a`."""

    def add(self, topic: str, number: int | None) -> int:
        """Its place."""
        entries = self.topics[topic]
        entries.append(number)
        if number is not None:
            self.where[number] = (topic, len(entries))
        return len(entries)

    def heads(self) -> dict[str, int]:
        """How many there are of each topic."""
        return {topic: len(entries) for topic, entries in self.topics.items()}


class View:
    """What one subscription got, up to now."""

    def __init__(self, ask: Ask, log: Log, had: dict[str, int]) -> None:
        self.ask = ask
        self.log = log
        self.heads = log.heads()
        """At SUBSCRIBE."""
        self.retained = log.last_retained
        self.had = had
        self.loose = ask.on_slow == "conflate" or ask.max_rate is not None
        """Whether it passes over messages by its own wish, once it is live."""
        self.next: dict[str, int] = {}
        """The place that must come next, where that is known."""
        self.last: dict[str, int] = {}
        self.lost: dict[str, int] = defaultdict(int)
        self.uncounted: set[str] = set()
        """Topics of which something is lost, and nobody knows how much."""
        self.count = 0
        self.live = ask.replay is None and not ask.snapshot
        self.told_lost = self.recovered = False
        for topic, head in self.heads.items():
            if not matches(ask.pattern, topic):
                continue
            if topic in HISTORY and ask.replay is not None:
                if topic in had:
                    self.next[topic] = had[topic] + 1
            elif topic == "n.a" or not ask.snapshot:
                self.next[topic] = head + 1

    def hear(self, envelope: Message | Lost | SnapshotEnd) -> None:
        """The next that came."""
        if isinstance(envelope, SnapshotEnd):
            assert not self.live, "one end, and only where there was a beginning"
            assert envelope.count == self.count
            assert self.recovered or self.told_lost, "what is not recovered is told"
            self.live = True
        elif isinstance(envelope, Lost):
            self._hear_lost(envelope)
        else:
            self.count += not self.live
            self._hear_message(envelope, envelope.topic or self.ask.pattern)

    def _hear_lost(self, lost: Lost) -> None:
        topic = lost.topic
        assert topic is not None
        assert matches(self.ask.pattern, topic)
        self.told_lost = True
        if lost.count is None:
            assert not self.live
            assert lost.reason == "restart" or self.ask.replay == "since"
            self.next.pop(topic, None)
            self.uncounted.add(topic)
            return
        assert lost.count
        if lost.reason == "evicted":
            assert not self.live
            assert lost.first is not None
            assert lost.last == lost.first + lost.count - 1
            assert lost.last <= len(self.log.topics[topic])
            if topic in self.next:
                assert lost.first == self.next[topic] + self.lost[topic]
            else:
                assert lost.first <= self.heads[topic] + 1, "from what was there, or from the first that came since"
                self.next[topic] = lost.first
        else:
            assert self.live
            assert lost.reason in ("queue", "keys")
        self.lost[topic] += lost.count

    def _hear_message(self, message: Message, topic: str) -> None:
        assert matches(self.ask.pattern, topic)
        place = self._place_of(message, topic)
        if message.meta.get("retained"):
            self._hear_retained(message, topic, place)
        elif place is not None:
            self._hear_in_order(topic, place)
        if place is not None:
            self.last[topic] = place

    def _place_of(self, message: Message, topic: str) -> int | None:
        """None: a deletion on a topic without offsets, and it is not known which."""
        assert (message.offset > 0) == (topic in HISTORY)
        if not message.payload:
            place = message.offset or (0 if self.loose and self.live else self.next.get(topic, 0) + self.lost[topic])
            assert not place or self.log.topics[topic][place - 1] is None
            return place or None
        there, place = self.log.where[int(bytes(message.payload).partition(b" ")[0])]
        assert (there, message.offset) == (topic, place if topic in HISTORY else 0)
        return place

    def _hear_retained(self, message: Message, topic: str, place: int | None) -> None:
        assert self.ask.snapshot
        assert not self.live
        assert message.payload
        assert place is not None
        assert topic not in self.last, "one value of each topic, before all else of it"
        if topic == "n.a":
            assert place == self.retained
        else:
            assert place >= self.heads[topic], (topic, place, self.heads[topic], self.ask)
            self.next[topic] = place + 1

    def _hear_in_order(self, topic: str, place: int) -> None:
        assert place > self.last.get(topic, 0) or topic == "n.a", "nothing twice, and in order"
        expected, lost = self.next.get(topic), self.lost.pop(topic, 0)
        if self.loose and self.live:
            assert expected is None or place >= expected
        elif expected is not None:
            assert place == expected + lost
        elif self.ask.replay is not None and topic in HISTORY - self.uncounted:
            assert place - lost <= self.heads[topic] + 1, (
                "it begins with what was there, or with the first that came since"
            )
        self.next[topic] = place + 1

    def check_drained(self, stage: Stage) -> None:
        """All was read, and nothing is held: so the view is up to date."""
        assert self.live
        for topic, entries in self.log.topics.items():
            if not matches(self.ask.pattern, topic):
                continue
            if not self.loose and topic in self.next:
                assert self.next[topic] + self.lost[topic] == len(entries) + 1, topic
            kept = stage.broker._hub.store.find(topic)
            newer = self.ask.replay != "since" or len(entries) > self.heads[topic]
            begun = newer if topic in HISTORY and self.ask.replay is not None else self.ask.snapshot
            if kept is None or topic in self.next or not begun:
                continue
            if kept.first <= kept.head or (self.ask.replay is None and kept.newest() is not None):
                assert topic in self.had or self.lost[topic], f"{topic} is kept, and was not sent"


class Client:
    """One client; it is connected again when it was cut."""

    def __init__(self, stage: Stage, log: Log, capacity: int) -> None:
        self.stage = stage
        self.log = log
        self.capacity = capacity
        self.offsets: dict[str, int] = {}
        self.epoch = stage.broker._hub.epoch
        self.failed = False
        self.connect()

    def connect(self) -> None:
        """A new connection."""
        self.player = Player(self.stage, self.capacity)
        self._asked: dict[int, View | int] = {}
        self._views: dict[int, View] = {}
        self._requests = self._heard = 0

    def subscribe(self, ask: Ask) -> None:
        """Ask for it, with the offsets of the last messages had: only within a step."""
        if self.player.session.ending is not None:
            return
        self._requests += 1
        options: dict[str, Any] = {"on_slow": ask.on_slow, "queue": ask.queue, "snapshot": ask.snapshot}
        wish, had = self._wish(ask)
        if wish is not None:
            options["replay"] = wish
        if ask.max_rate is not None:
            options["max_rate"] = ask.max_rate
        view = View(ask, self.log, had)
        self._asked[self._requests] = view
        self.player.ask(Subscribe(self._requests, ask.pattern, SubscribeOptions(**options)))

    def _wish(self, ask: Ask) -> tuple[dict[str, Any] | None, dict[str, int]]:
        if ask.replay is None:
            return None, {}
        if ask.replay == "last":
            return {"last": 2}, {}
        if ask.replay == "since":
            return {"since": wall_clock_us(self.stage) - 1_000_000}, {}
        had = {topic: offset for topic, offset in self.offsets.items() if matches(ask.pattern, topic)}
        if ask.replay == "strange":
            strange = {topic: offset + 100 for topic, offset in had.items()}
            if ask.pattern == "h.a":
                return {"offset": 200, "epoch": self.epoch}, {}
            return {"offsets": {**strange, "x.y": 3}, "epoch": self.epoch}, {}
        if ask.pattern in EXACT_HISTORY:
            return {"offset": had.get(ask.pattern, 0), "epoch": self.epoch}, {ask.pattern: 0, **had}
        return {"offsets": had, "epoch": self.epoch}, had

    def unsubscribe(self, pattern: str) -> None:
        """Leave, where it is subscribed: only within a step."""
        for route, view in self._views.items():
            if view.ask.pattern == pattern and self.player.session.ending is None:
                self._requests += 1
                self._asked[self._requests] = route
                self.player.ask(Unsubscribe(self._requests, route))

    def read(self, most: int) -> None:
        """Read some of what there is, and look at it."""
        self.player.read(most)
        heard = self.player.heard
        while self._heard < len(heard) and not self.failed:
            self.failed = True  # then there is no sense in going on
            self._hear(heard[self._heard])
            self.failed = False
            self._heard += 1

    def _hear(self, envelope: BrokerEnvelope) -> None:
        if isinstance(envelope, Message | Lost | SnapshotEnd):
            view = self._views[envelope.route]  # nothing before its OK, and nothing after its end
            view.hear(envelope)
            if isinstance(envelope, Message) and envelope.offset:
                self.offsets[envelope.topic or view.ask.pattern] = envelope.offset
        elif isinstance(envelope, Ok):
            self._hear_ok(envelope)
        elif isinstance(envelope, Error):
            self._hear_error(envelope)
        else:
            assert isinstance(envelope, Goodbye | Lagging)

    def _hear_ok(self, answer: Ok) -> None:
        asked = self._asked.pop(answer.id)
        if isinstance(asked, int):
            del self._views[asked]
            return
        asked.recovered = answer.result["recovered"]
        assert answer.result["epoch"] == self.epoch
        before = self._views.get(answer.result["route"])
        if before is not None and asked.live:
            before.loose |= asked.loose  # other options from now on; what it began with goes on
        else:
            self._views[answer.result["route"]] = asked

    def _hear_error(self, error: Error) -> None:
        if error.id:
            assert error.code in ("bad_option", "not_kept", "unknown_route")
            del self._asked[error.id]
        else:
            assert error.code == "slow_consumer"
            assert isinstance(error.detail["route"], int)
            del self._views[error.detail["route"]]

    def cut(self) -> None:
        """The connection breaks; what was not read is gone."""
        self.stage.step(self.player.raw.stream.aclose)
        self.connect()

    def check_drained(self) -> None:
        """All was read."""
        self.read(ALL)
        if self.failed:
            return
        ended = self.player.closed_with is not None or self.player.session.ending is not None
        if not ended:
            assert not self._asked
            for view in self._views.values():
                view.check_drained(self.stage)
            waiting = self.player.outbox
            assert (waiting.waiting_bytes, waiting.answer_bytes, waiting.held_bytes) == (0, 0, 0)


def wall_clock_us(stage: Stage) -> int:
    """The broker's wall clock goes with the mock clock."""
    return 1_700_000_000_000_000 + int(stage.now * 1_000_000)


class MemoryOfTopics(RuleBasedStateMachine):
    """Three clients with buffers of different size; one publisher, whose messages are many publishers'."""

    def __init__(self) -> None:
        super().__init__()
        self._small = pytest.MonkeyPatch()
        self._small.setattr(outbox, "MAX_BATCH", PAGE)
        self._small.setattr(replay, "PAGE_BYTES", PAGE)
        self._small.setattr(outbox, "CONFLATING_BATCH", PAGE // 2)
        self._small.setattr(replay, "PORTION", 2)
        self.stage = Stage(rules=RULES, max_stored_bytes=STORED_BYTES, report_interval_s=None)
        for module in (clock, expiry):
            self._small.setattr(module, "wall_clock_us", lambda: wall_clock_us(self.stage))
        self.log = Log()
        self.publisher = Player(self.stage, 1 << 20)
        self.clients = [Client(self.stage, self.log, capacity) for capacity in (150, 1000, 65536)]
        self._numbers = 0
        self._ids: set[tuple[str, str]] = set()
        self._answers: list[tuple[int, int | None]] = []

    def _publish(self, write: Write) -> None:
        take = self.publisher.session._ingress.on_messages
        if write.option == "id":  # whether one is remembered has to be known right before the next
            for size in write.sizes:
                take([encode(self._one(write, size))])
        else:
            take([b"".join([encode(self._one(write, size)) for size in write.sizes])])

    def _one(self, write: Write, size: int) -> Publish:
        topic, option = write.topic, write.option
        self._numbers += 1
        number: int | None = self._numbers
        payload, options, request = b"%d " % self._numbers + b"x" * size, PublishOptions(), 0
        if option == "delete" and topic in ("r.a", "h.r", "n.a"):
            number, payload = None, b""
            options = PublishOptions(retain=True) if topic == "n.a" else options
        elif option == "retain" and topic == "n.a":
            options = PublishOptions(retain=True)
        elif option in ("id", "expect") and topic in HISTORY:
            request, head = self._numbers, len(self.log.topics[topic])
            name = f"id {size % 4}"
            options = (
                PublishOptions(msg_id=name) if option == "id" else PublishOptions(expect=head - size % 2 if head else 0)
            )
            if (option == "id" and self._remembered(topic, name)) or (
                options.expect is not None and options.expect != head
            ):
                self._answers.append((request, None))
                return Publish(request, topic, payload, options=options)
            if option == "id":
                self._ids.add((topic, name))
        place = self.log.add(topic, number)
        if request:
            self._answers.append((request, place))
        if topic == "n.a" and options.retain:
            self.log.last_retained = None if number is None else place
        return Publish(request, topic, payload, 1 if option == "json" else 0, options)

    def _remembered(self, topic: str, msg_id: str) -> bool:
        """Ids go with evicted messages, and not before."""
        store = self.stage.broker._hub.store
        if store.evicted and (kept := store.find(topic)) is not None and kept.offset_of(msg_id) is None:
            self._ids.discard((topic, msg_id))
        return (topic, msg_id) in self._ids

    @rule(writes=st.lists(writes, min_size=1, max_size=6), asks=st.lists(st.tuples(connections, asks), max_size=2))
    def publish(self, writes: list[Write], asks: list[tuple[int, Ask]]) -> None:
        """Some publishes; perhaps somebody subscribes in the middle of them."""

        async def act() -> None:
            for index, write in enumerate(writes):
                self._publish(write)
                if index == 0:
                    for client, ask in asks:
                        self.clients[client].subscribe(ask)
                if write.pause:
                    await pause()

        self.stage.step(act)
        self._look_at_answers()

    def _look_at_answers(self) -> None:
        self.publisher.read(ALL)
        for answer in self.publisher.heard:
            assert isinstance(answer, Ok | Error)
            request, place = self._answers.pop(0)
            assert answer.id == request
            if place is None:
                assert answer.code == "conflict" if isinstance(answer, Error) else answer.result["repeated"]
            else:
                assert isinstance(answer, Ok)
                assert answer.result["offset"] == place
        assert not self._answers
        self.publisher.heard.clear()

    @rule(client=connections, asks=st.lists(asks, min_size=1, max_size=3))
    def subscribe(self, client: int, asks: list[Ask]) -> None:
        """Somebody subscribes, perhaps to what it is subscribed to."""

        async def act() -> None:
            for ask in asks:
                self.clients[client].subscribe(ask)

        self.stage.step(act)

    @rule(client=connections, pattern=st.sampled_from(PATTERNS))
    def unsubscribe(self, client: int, pattern: str) -> None:
        """Somebody leaves."""

        async def act() -> None:
            self.clients[client].unsubscribe(pattern)

        self.clients[client].read(0)
        self.stage.step(act)

    @rule(client=connections, most=st.sampled_from([50, 200, 1000, ALL]))
    def read(self, client: int, most: int) -> None:
        """Somebody reads."""
        self.clients[client].read(most)

    @rule(client=connections, ask=asks)
    def cut(self, client: int, ask: Ask) -> None:
        """A connection breaks, and its client comes back for what it missed."""
        self.clients[client].cut()
        self.subscribe(client, [attrs.evolve(ask, replay="had")])

    @rule(seconds=st.sampled_from([0.2, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        """History gets old; what a rate holds goes out."""
        self.stage.pass_time(seconds)

    @rule(topic=st.sampled_from(sorted(HISTORY)), offset=st.integers(0, 20), limit=st.integers(1, 4))
    def fetch(self, topic: str, offset: int, limit: int) -> None:
        """A page is the run of messages from the offset on, or from the oldest one that is kept."""

        async def act() -> None:
            self.publisher.ask(Fetch(1, topic, offset=offset, limit=limit))

        self.stage.step(act)
        self.publisher.read(ALL)
        answer = self.publisher.heard.pop()
        assert isinstance(answer, Ok)
        head, page = len(self.log.topics[topic]), answer.result["messages"]
        assert answer.result["offset"] == head
        if page:
            first, last = page[0][0], page[-1][0]
            assert [each[0] for each in page] == list(range(first, last + 1))
            assert first > offset
            assert answer.result["more"] == (last < head)
            for place, _, payload, encoding, meta in page:
                assert (self.log.topics[topic][place - 1], meta) == (int(payload.split()[0]) if payload else None, {})
                assert encoding in (0, 1)

    def teardown(self) -> None:
        """Everybody reads all there is: whoever was not dropped is up to date."""
        try:
            for client in self.clients:
                client.read(ALL)
            self.stage.pass_time(5)
            for client in self.clients:
                client.check_drained()
            store = self.stage.broker._hub.store
            assert isinstance(store, MemoryStore)
            assert store.size <= STORED_BYTES
            kept = [each for each in store.topics if each.blocks]
            lasts = [each.last for each in store.topics if each.last is not None]
            assert sum([each.size for each in kept]) <= store.size
            assert bool(store.size) == bool(kept or lasts)
        finally:
            self._small.undo()
            self.stage.close()


async def pause() -> None:
    """Let other tasks run, a little."""
    await trio.lowlevel.checkpoint()


TestMemoryOfTopics = walk(MemoryOfTopics, examples=40, steps=25)
