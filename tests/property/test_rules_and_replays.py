"""Rules change, history is evicted, several publish: every message comes in order, or its loss is told where it stood.

A broker in memory, step by step. What topics remember is changed again and again, also in the middle of a replay;
three publishers write with and without keys, clients read when they like, subscribe with snapshot and replay, are cut,
and come back with the offsets that they had. The model knows only what was published, in which order, and what each
subscription was told: it says of each message whether it may come, and of each gap whether it was told.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import attrs
import pytest
import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from fanwire.broker import TopicRule
from fanwire.broker.delivery import outbox
from fanwire.broker.operations import reload
from fanwire.broker.options import replay
from fanwire.broker.store import expiry
from fanwire.broker.timing import clock
from fanwire.protocol import (
    BrokerEnvelope,
    Error,
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

TOPICS = ["t.a", "t.b", "t.c", "t.d", "u"]
PATTERNS = [">", ">", "t.*", "t.a", "u"]
STORED_BYTES = 5_000
PAGE = 200
ALL = 1 << 30


@attrs.frozen
class Ruled:
    """What the rules say of one topic."""

    retain: bool | None
    history: int | None


@attrs.frozen
class Write:
    """One message of a publisher's, in a read of its own."""

    publisher: int
    topic: str
    size: int
    option: str
    """`none`, `key`, `retain`, `delete`."""
    pause: bool
    """Whether others get their turn afterwards, before the step ends."""


@attrs.frozen
class Ask:
    """SUBSCRIBE."""

    pattern: str
    snapshot: bool
    replay: str | None
    """`last`, `since`, `had`."""
    on_slow: str
    queue: int
    max_rate: float | None

    @property
    def loose(self) -> bool:
        """Whether it passes over messages by its own wish, once it is live."""
        return self.on_slow == "conflate" or self.max_rate is not None


ruled = st.builds(Ruled, st.sampled_from([None, None, True, True, False]), st.sampled_from([None, None, 2, 6, 50]))
rules_of_all = st.fixed_dictionaries(dict.fromkeys(TOPICS, ruled))
writes = st.builds(
    Write,
    st.integers(0, 2),
    st.sampled_from(TOPICS),
    st.integers(0, 30) | st.just(150),
    st.sampled_from(["none", "none", "none", "key", "retain", "delete"]),
    st.booleans(),
)
asks = st.builds(
    Ask,
    st.sampled_from(PATTERNS),
    st.booleans(),
    st.sampled_from([None, "last", "since", "had", "had"]),
    st.sampled_from(["drop_oldest", "drop_newest", "conflate", "disconnect", "unsubscribe"]),
    st.sampled_from([3, 10_000, 10_000]),
    st.sampled_from([None, None, None, 2.0]),
)
clients = st.integers(0, 2)


@attrs.define
class Entry:
    """What was published as one message."""

    number: int
    """On all topics."""
    publisher: int
    key: str | None
    empty: bool


class Log:
    """All that was published, by topic."""

    def __init__(self) -> None:
        self.topics: dict[str, list[Entry]] = {topic: [] for topic in TOPICS}
        self.values: dict[str, int] = {}
        """Where the last value of a topic stands that has one."""
        self.places: dict[int, tuple[str, int]] = {}
        """By number: the topic, and the place there, counted from 1."""
        self.numbered: set[str] = set()
        """Topics with history."""
        self.reloads = 0
        self.evicted = False

    def add(self, topic: str, entry: Entry) -> None:
        """It is the next of its topic."""
        self.topics[topic].append(entry)
        self.places[entry.number] = topic, len(self.topics[topic])

    def heads(self) -> dict[str, int]:
        """How many there are of each topic."""
        return {topic: len(entries) for topic, entries in self.topics.items()}


class View:
    """What one subscription got of what there was, up to now."""

    def __init__(self, ask: Ask, log: Log, had: dict[str, int]) -> None:
        """``had``: places of the last messages of an earlier connection, of topics whose offsets were sent."""
        self.ask = ask
        self.log = log
        self.live = ask.replay is None and not ask.snapshot
        self.heads = log.heads()
        """At SUBSCRIBE."""
        self.due = {topic: had.get(topic, head) + 1 for topic, head in self.heads.items()}
        """From that place on nothing may be missing."""
        self.last: dict[str, int] = {}
        self.told: dict[str, float] = defaultdict(float)
        """Losses since the last message."""
        self.newest: dict[tuple[str, str | None], int] = {}
        """By key: the last place that came."""
        self.losing: set[str] = set()
        """Topics of which a loss was told, of whatever key."""
        self.exact = not had
        """Whether offsets count as places do: not where history has begun anew."""
        self.reloads = log.reloads
        self.values = {
            topic: at
            for topic, at in log.values.items()
            if matches(ask.pattern, topic) and (ask.replay is None or topic not in log.numbered)
        }
        """Last values that the snapshot has to bring, at SUBSCRIBE."""
        self.retained: set[str] = set()
        """Topics of which it has."""
        self.publishers: dict[tuple[str, int], int] = {}

    def hear(self, envelope: Message | Lost | SnapshotEnd) -> None:
        """The next that came."""
        if isinstance(envelope, SnapshotEnd):
            assert not self.live, "one end, and only where there was a beginning"
            self.live = True
            if self.ask.snapshot and self.reloads == self.log.reloads and not self.log.evicted:
                left = {topic for topic, at in self.values.items() if self.log.values.get(topic) == at}
                assert left <= self.retained, "each last value comes, but those that have been replaced or deleted"
        elif isinstance(envelope, Lost):
            assert envelope.topic is not None
            assert matches(self.ask.pattern, envelope.topic)
            assert envelope.count is None or envelope.count > 0
            assert (envelope.reason in ("evicted", "restart")) != self.live
            self.told[envelope.topic] += math.inf if envelope.count is None else envelope.count
            self.losing.add(envelope.topic)
        else:
            self._hear_message(envelope)

    def _hear_message(self, message: Message) -> None:
        number = int((message.meta.get("headers") or {}).get("n") or bytes(message.payload).partition(b" ")[0])
        topic, place = self.log.places[number]
        entry = self.log.topics[topic][place - 1]
        assert (message.topic or self.ask.pattern) == topic
        assert matches(self.ask.pattern, topic)
        assert message.meta.get("key") == entry.key
        if message.meta.get("retained"):
            assert self.ask.snapshot
            assert not self.live
            assert not entry.empty or message.offset, "of a topic with history it is the last message, whatever that is"
            assert topic not in self.last, "one value of each topic, before all else of it"
            self.due[topic] = max(place, self.heads[topic]) + 1
            self.retained.add(topic)
        elif self.live and self.ask.loose:
            key = topic, entry.key
            assert place > self.newest.get(key, 0), "nothing twice, and in order"
        else:
            self._hear_in_order(topic, place)
        self.last[topic] = max(place, self.last.get(topic, 0))
        self.newest[topic, entry.key] = place
        if not message.meta.get("retained"):
            self.told[topic] = 0
            before = self.publishers.get((topic, entry.publisher), 0)
            assert self.ask.loose or entry.number > before, "of one publisher in the order published"
            self.publishers[topic, entry.publisher] = entry.number

    def _hear_in_order(self, topic: str, place: int) -> None:
        due, last = self.due[topic], self.last.get(topic)
        if last is not None:
            assert place > last, "nothing twice, and in order"
        self._check_gap(topic, min(place, due) if last is None else max(last + 1, min(due, place)), place)

    def _check_gap(self, topic: str, expected: int, place: int) -> None:
        """What lies between was told, or was a value that has been deleted before the snapshot came there."""
        told = self.told[topic]
        missing = place - expected
        if self.ask.snapshot and topic not in self.last:
            entries = self.log.topics[topic]  # the message at this place may be the one that deletes
            deleted = [at for at in range(expected, min(place, len(entries)) + 1) if entries[at - 1].empty]
            if deleted:
                missing = max(0, place - 1 - deleted[-1])
        if missing:
            assert told, f"{topic}: {missing} messages before {place} are missing, and nothing was told"
            if self.exact and self.reloads == self.log.reloads and told != math.inf:
                assert told >= missing, f"{topic}: {missing} messages before {place} are missing, and {told} were told"

    def check_drained(self) -> None:
        """All was read, and nothing is held: so it is up to date."""
        assert self.live
        for topic, entries in self.log.topics.items():
            if not matches(self.ask.pattern, topic):
                continue
            if not self.ask.loose:
                self._check_gap(topic, max(self.due[topic], self.last.get(topic, 0) + 1), len(entries) + 1)
            elif topic not in self.losing:
                self._check_newest(topic, entries)

    def _check_newest(self, topic: str, entries: list[Entry]) -> None:
        """Of each key the newest came."""
        newest = {entry.key: at for at, entry in enumerate(entries, 1)}
        begun = self.due[topic]
        for key, at in newest.items():
            deleted = self.ask.snapshot and any(entry.empty for entry in entries[begun - 1 :])
            conflated = self.ask.snapshot and self.last.get(topic, 0) >= at
            if at >= begun and not deleted and not conflated:
                assert self.newest.get((topic, key), 0) == at, f"{topic}, key {key}: the newest did not come"


class Client:
    """One client; it is connected again when it was cut."""

    def __init__(self, stage: Stage, log: Log, capacity: int) -> None:
        self.stage = stage
        self.log = log
        self.capacity = capacity
        self.offsets: dict[str, tuple[int, int]] = {}
        """Of each topic: the offset of the last message, and its place."""
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
        """Ask for it, if it is not subscribed to that already: only within a step."""
        if self.player.session.ending is not None or any(
            each.ask.pattern == ask.pattern for each in (*self._views.values(), *self._asked.values())
            if isinstance(each, View)
        ):  # fmt: skip
            return
        options: dict[str, Any] = {"on_slow": ask.on_slow, "queue": ask.queue, "snapshot": ask.snapshot}
        had: dict[str, int] = {}
        if ask.replay == "had":
            sent = {topic: offset for topic, (offset, _) in self.offsets.items() if matches(ask.pattern, topic)}
            had = {topic: place for topic, (_, place) in self.offsets.items() if topic in sent}
            options["replay"] = {"offsets": sent, "epoch": self.epoch}
        elif ask.replay is not None:
            begin = 3 if ask.replay == "last" else wall_clock_us(self.stage) - 1_000_000
            options["replay"] = {ask.replay: begin}
        if ask.max_rate is not None:
            options["max_rate"] = ask.max_rate
        self._requests += 1
        self._asked[self._requests] = View(ask, self.log, had)
        self.player.ask(Subscribe(self._requests, ask.pattern, SubscribeOptions(**options)))

    def unsubscribe(self) -> None:
        """Leave what it came to first: only within a step."""
        if self._views and self.player.session.ending is None:
            route = min(self._views)
            if route not in self._asked.values():
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
                topic = envelope.topic or view.ask.pattern
                self.offsets[topic] = envelope.offset, view.last[topic]
        elif isinstance(envelope, Ok):
            asked = self._asked.pop(envelope.id)
            if isinstance(asked, int):
                del self._views[asked]
            else:
                self._views[envelope.result["route"]] = asked
        elif isinstance(envelope, Error):
            if envelope.id:
                assert envelope.code in ("not_kept", "unknown_route"), envelope
                del self._asked[envelope.id]
            else:
                assert envelope.code == "slow_consumer", envelope
                del self._views[int(str(envelope.detail["route"]))]
        else:
            assert isinstance(envelope, Goodbye | Lagging)

    def cut(self) -> None:
        """The connection breaks; what was not read is gone."""
        self.stage.step(self.player.raw.stream.aclose)
        self.connect()

    def check_drained(self) -> None:
        """All was read."""
        self.read(ALL)
        if not self.failed and self.player.closed_with is None and self.player.session.ending is None:
            assert not self._asked
            for view in self._views.values():
                view.check_drained()
            waiting = self.player.outbox
            assert (waiting.waiting_bytes, waiting.answer_bytes, waiting.held_bytes) == (0, 0, 0)


class Clock:
    """The broker's wall clock: it goes with the mock clock, and never gives a time twice."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._last = 0

    def __call__(self) -> int:
        """Microseconds since 1970, or so."""
        self._last = max(self._last + 1, wall_clock_us(self._stage))
        return self._last


def wall_clock_us(stage: Stage) -> int:
    """The time without that."""
    return 1_700_000_000_000_000 + int(stage.now * 1_000_000)


class RulesAndReplays(RuleBasedStateMachine):
    """Three publishers, three clients with buffers of different size, and an operator who cannot make up his mind."""

    def __init__(self) -> None:
        super().__init__()
        self._small = pytest.MonkeyPatch()
        for module, name, value in (
            (outbox, "MAX_BATCH", PAGE),
            (outbox, "CONFLATING_BATCH", PAGE // 2),
            (replay, "PAGE_BYTES", PAGE // 2),
            (replay, "LARGE_PAGE", PAGE // 2),
            (replay, "PORTION", 2),
        ):
            self._small.setattr(module, name, value)
        self.stage = Stage(max_stored_bytes=STORED_BYTES, report_interval_s=None)
        for module in (clock, expiry):
            self._small.setattr(module, "wall_clock_us", Clock(self.stage))
        self.log = Log()
        self.ruled = dict.fromkeys(TOPICS, Ruled(None, None))
        self.publishers = [Player(self.stage, 1 << 20) for _ in range(3)]
        self.clients = [Client(self.stage, self.log, capacity) for capacity in (150, 1000, 65536)]
        self._numbers = 0

    # ------------------------------------------------------------- publishing

    def _publish(self, write: Write) -> None:
        """A retained value where the rule has it otherwise is refused, and so never was."""
        retain = True if write.option == "retain" or write.option == "delete" else None
        self._numbers += 1
        empty = write.option == "delete"
        key = f"k{write.size % 2}" if write.option == "key" else None
        headers = {"n": str(self._numbers)} if empty or key is not None else {}
        payload = b"" if empty else b"%d " % self._numbers + b"x" * write.size
        options = PublishOptions(key=key, retain=retain, headers=headers)
        ruled = self.ruled[write.topic].retain
        if not (retain and ruled is False):
            self.log.add(write.topic, Entry(self._numbers, write.publisher, key, empty))
            if retain or ruled:
                self._keep(write.topic, empty)
        data = encode(Publish(0, write.topic, payload, options=options))
        self.publishers[write.publisher].session._ingress.on_messages([data])

    def _keep(self, topic: str, empty: bool) -> None:
        """What was published last is the topic's value, or deletes it."""
        if empty:
            self.log.values.pop(topic, None)
        else:
            self.log.values[topic] = len(self.log.topics[topic])

    @rule(writes=st.lists(writes, min_size=1, max_size=8), asks=st.lists(st.tuples(clients, asks), max_size=2))
    def publish(self, writes: list[Write], asks: list[tuple[int, Ask]]) -> None:
        """Some publishes; perhaps somebody subscribes in the middle of them."""

        async def act() -> None:
            for index, write in enumerate(writes):
                self._publish(write)
                if index == 0:
                    for client, ask in asks:
                        self.clients[client].subscribe(ask)
                if write.pause:
                    await trio.lowlevel.checkpoint()

        self.stage.step(act)
        self._look_for_evictions()

    def _look_for_evictions(self) -> None:
        self.log.evicted = self.log.evicted or self.stage.broker._hub.store.evicted > 0

    @rule(publisher=st.integers(0, 2), topics=st.lists(st.sampled_from(TOPICS), min_size=2, max_size=12))
    def publish_many(self, publisher: int, topics: list[str]) -> None:
        """Plain ones in one read, which are gathered topic by topic."""

        async def act() -> None:
            data = b""
            for topic in topics:
                self._numbers += 1
                self.log.add(topic, Entry(self._numbers, publisher, None, False))
                if self.ruled[topic].retain:
                    self._keep(topic, False)
                data += encode(Publish(0, topic, b"%d " % self._numbers))
            self.publishers[publisher].session._ingress.on_messages([data])

        self.stage.step(act)
        self._look_for_evictions()

    # ------------------------------------------------------------------ rules

    @rule(wanted=rules_of_all, before=st.lists(writes, max_size=3), after=st.lists(writes, max_size=3))
    def change_rules(self, wanted: dict[str, Ruled], before: list[Write], after: list[Write]) -> None:
        """The operator says something else about what topics remember, in the middle of what goes on."""
        rules = tuple(
            TopicRule(pattern=topic, retain=each.retain, history=each.history)
            for topic, each in wanted.items()
            if each.retain is not None or each.history is not None
        )

        async def act() -> None:
            for write in before:
                self._publish(write)
            hub = self.stage.broker._hub
            reload._apply(hub, attrs.evolve(hub.config, rules=rules))
            self.ruled = wanted
            self.log.reloads += 1
            self.log.numbered = {topic for topic, each in wanted.items() if each.history is not None}
            for topic in TOPICS:
                if wanted[topic].retain is False:
                    self.log.values.pop(topic, None)
            for write in after:
                self._publish(write)

        self.stage.step(act)

    @rule(limit=st.sampled_from([0, 1_000, 2_000]), before=st.lists(writes, max_size=3), pause=st.booleans())
    def squeeze(self, limit: int, before: list[Write], pause: bool) -> None:
        """For a moment little may be remembered."""

        async def act() -> None:
            for write in before:
                self._publish(write)
                if pause:
                    await trio.lowlevel.checkpoint()
            store = self.stage.broker._hub.store
            store.resize(limit, 100)
            assert not store.shrink(10_000)
            store.resize(STORED_BYTES, 100)
            self.log.evicted = True

        self.stage.step(act)

    # ---------------------------------------------------------------- clients

    @rule(client=clients, wanted=st.lists(asks, min_size=1, max_size=3))
    def subscribe(self, client: int, wanted: list[Ask]) -> None:
        """Somebody subscribes."""

        async def act() -> None:
            for ask in wanted:
                self.clients[client].subscribe(ask)

        self.stage.step(act)

    @rule(client=clients)
    def unsubscribe(self, client: int) -> None:
        """Somebody leaves."""

        async def act() -> None:
            self.clients[client].unsubscribe()

        self.clients[client].read(0)
        self.stage.step(act)

    @rule(client=clients, most=st.sampled_from([50, 200, 1000, ALL]))
    def read(self, client: int, most: int) -> None:
        """Somebody reads."""
        self.clients[client].read(most)

    @rule(client=clients, ask=asks)
    def cut(self, client: int, ask: Ask) -> None:
        """A connection breaks, and its client comes back for what it missed."""
        self.clients[client].cut()
        self.subscribe(client, [attrs.evolve(ask, replay="had")])

    @rule(seconds=st.sampled_from([0.2, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        """What a rate holds goes out."""
        self.stage.pass_time(seconds)

    def teardown(self) -> None:
        """Everybody reads all there is: whoever was not dropped is up to date."""
        try:
            for client in self.clients:
                client.read(ALL)
            self.stage.pass_time(5)
            for client in self.clients:
                client.check_drained()
            assert self.stage.broker._hub.store.size <= STORED_BYTES
        finally:
            self._small.undo()
            self.stage.close()


TestRulesAndReplays = walk(RulesAndReplays, examples=100, steps=25)
