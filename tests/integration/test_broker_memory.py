"""Snapshot, replay, history and compare-and-publish, against a broker in memory, envelope by envelope."""

from typing import Any

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import TopicRule
from fanwire.broker.store.memory import MemoryStore
from fanwire.protocol import Fetch, Lost, Message, Ok, Publish, PublishOptions, SnapshotEnd, Subscribe, SubscribeOptions

from .raw import RawClient, code_of, connected, serving

HISTORY = TopicRule(pattern="h.>", history=3)
RETAIN = TopicRule(pattern="r.>", retain=True)
RULES = (HISTORY, RETAIN)
LONG = TopicRule(pattern="h.>", history=1000)


async def begun(client: RawClient, pattern: str, **options: Any) -> tuple[dict[str, Any], list[object]]:
    """Subscribe; what OK says, and all that comes up to SNAPSHOT_END."""
    answer = await client.ask(Subscribe(client.number(), pattern, SubscribeOptions(**options)))
    assert isinstance(answer, Ok), answer
    return dict(answer.result), await up_to_the_end(client)


async def up_to_the_end(client: RawClient) -> list[object]:
    """What comes, up to SNAPSHOT_END."""
    got: list[object] = []
    while not (got and isinstance(got[-1], SnapshotEnd)):
        got.append(await client.next())
    return got


def seen(envelopes: list[object]) -> list[tuple[str | None, int, bytes]]:
    return [(each.topic, each.offset, each.payload) for each in envelopes if isinstance(each, Message)]


async def publish(client: RawClient, topic: str, payload: bytes, **options: Any) -> Any:
    return await client.ask(Publish(client.number(), topic, payload, options=PublishOptions(**options)))


async def test_messages_of_a_topic_with_history_have_offsets(autojump_clock: MockClock) -> None:
    """For subscribers and in the answers to their publisher, however many travel together."""
    async with serving(rules=RULES) as broker:
        client = await connected(broker)
        await client.subscribe("h.*")
        await client.send(*(Publish(request, "h.a", b"x") for request in (101, 102, 103)))
        got = await client.take(6)

        assert [each.offset for each in got if isinstance(each, Message)] == [1, 2, 3]
        assert [each.result["offset"] for each in got if isinstance(each, Ok)] == [1, 2, 3]


async def test_snapshot_of_a_wildcard_gives_each_last_value_then_live(autojump_clock: MockClock) -> None:
    """Marked as retained; deleted ones are not in it; an end mark with the count."""
    async with serving(rules=RULES) as broker:
        client = await connected(broker)
        for topic, payload in (("r.a", b"1"), ("r.b", b"1"), ("r.a", b"2"), ("r.b", b""), ("other", b"x")):
            broker.publish(topic, payload)
        _, got = await begun(client, "r.>", snapshot=True)
        assert seen(got) == [("r.a", 0, b"2")]
        assert isinstance(got[0], Message)
        assert got[0].meta == {"retained": True}
        assert isinstance(got[-1], SnapshotEnd)
        assert got[-1].count == 1
        broker.publish("r.a", b"3")
        live = await client.expect(Message)

        assert (live.payload, live.meta) == (b"3", {})


async def test_a_large_snapshot_is_complete_though_publishers_write_meanwhile(autojump_clock: MockClock) -> None:
    """Every topic's run of values up to the last one, none twice, whatever comes between."""
    topics = [f"r.{number}" for number in range(3000)]
    async with serving(rules=RULES) as broker:
        client = await connected(broker)
        for topic in topics:
            broker.publish(topic, b"0" + bytes(40))
        await client.send(Subscribe(1, "r.>", SubscribeOptions(snapshot=True)))
        newest: dict[str, bytes] = {}
        ended, written = False, 0
        while not ended or len(newest) < len(topics) or any(value[:1] != b"1" for value in newest.values()):
            if written < len(topics):
                for topic in reversed(topics[written : written + 100]):
                    broker.publish(topic, b"1" + bytes(40))
                written += 100
            envelope = await client.next()
            if isinstance(envelope, Message):
                assert envelope.topic is not None
                assert newest.get(envelope.topic) != envelope.payload, "twice"
                assert envelope.payload > newest.get(envelope.topic, b""), "older than what came before"
                newest[envelope.topic] = envelope.payload
            ended = ended or isinstance(envelope, SnapshotEnd)

        assert set(newest) == set(topics)


async def test_replay_from_an_offset_goes_on_without_a_seam(autojump_clock: MockClock) -> None:
    """Nothing twice, nothing missing."""
    async with serving(rules=RULES) as broker:
        client = await connected(broker)
        for payload in (b"1", b"2", b"3"):
            broker.publish("h.a", payload)
        epoch = (await begun(client, "h.b", replay={"last": 1}))[0]["epoch"]
        result, got = await begun(client, "h.a", replay={"offset": 1, "epoch": epoch})
        broker.publish("h.a", b"4")
        live = await client.expect(Message)

        assert (result["recovered"], result["replayed"], result["offset"]) == (True, 2, 3)
        assert [*seen(got), (live.topic, live.offset, live.payload)] == [
            (None, 2, b"2"), (None, 3, b"3"), (None, 4, b"4"),
        ]  # fmt: skip


async def test_what_is_no_longer_kept_is_told_as_lost(autojump_clock: MockClock) -> None:
    """With count and offsets, before what is kept; another life's offsets with neither."""
    async with serving(rules=RULES) as broker:
        client = await connected(broker)
        for _ in range(10):
            broker.publish("h.a", b"x")
        epoch = (await begun(client, "h.b", replay={"last": 1}))[0]["epoch"]
        result, got = await begun(client, "h.*", replay={"offsets": {"h.a": 2}, "epoch": epoch})
        other, strange = await begun(client, "h.a", replay={"offset": 2, "epoch": "another"})

        assert (result["recovered"], other["recovered"]) == (False, False)
        assert got[0] == Lost(result["route"], 5, "evicted", "h.a", 3, 7)
        assert [offset for _, offset, _ in seen(got)] == [8, 9, 10]
        assert strange[0] == Lost(other["route"], None, "restart", "h.a")


async def test_fetch_gives_pages(autojump_clock: MockClock) -> None:
    """By offset, newest, with more to come; a topic without history says so."""
    async with serving(rules=RULES) as broker:
        client = await connected(broker)
        for payload in (b"1", b"2", b"3"):
            broker.publish("h.a", payload)
        page = await client.ask(Fetch(1, "h.a", offset=0, limit=2))
        last = await client.ask(Fetch(2, "h.a", last=1))
        none = await client.ask(Fetch(3, "x", last=1))

        assert isinstance(page, Ok)
        assert isinstance(last, Ok)
        assert [message[2] for message in page.result["messages"]] == [b"1", b"2"]
        assert (page.result["more"], page.result["offset"]) == (True, 3)
        assert [message[0] for message in last.result["messages"]] == [3]
        assert code_of(none) == (3, "not_kept")


async def test_compare_and_publish(autojump_clock: MockClock) -> None:
    """Only onto the head that the publisher knows; a repeated id is answered and not delivered again."""
    async with serving(rules=RULES) as broker:
        client, reader = await connected(broker), await connected(broker)
        await reader.subscribe("h.a")
        first = await publish(client, "h.a", b"1", expect=0, msg_id="m")
        conflict = await publish(client, "h.a", b"2", expect=0)
        again = await publish(client, "h.a", b"1", msg_id="m")
        await publish(client, "h.a", b"2", expect=1)
        nowhere = await publish(client, "x", b"2", expect=1)

        assert (first.result["offset"], again.result["offset"]) == (1, 1)
        assert code_of(conflict)[1] == "conflict"
        assert conflict.detail["offset"] == 1
        assert code_of(nowhere)[1] == "not_kept"
        assert await reader.payloads(2) == [b"1", b"2"]


@pytest.mark.parametrize(("topic", "retain", "code"), [("x", True, None), ("r.a", False, "bad_option")])
async def test_a_publish_may_ask_to_be_retained(
    topic: str, retain: bool, code: str | None, autojump_clock: MockClock
) -> None:
    """Where no rule settles it."""
    async with serving(rules=RULES) as broker:
        client = await connected(broker)
        answer = await publish(client, topic, b"1", retain=retain)
        _, got = await begun(client, topic, snapshot=True)

        assert (code_of(answer)[1] if code else None) == code
        assert [payload for *_, payload in seen(got)] == ([] if code else [b"1"])


async def test_a_value_that_may_not_be_retained_takes_no_room(autojump_clock: MockClock) -> None:
    """Refused by rule, and the topic is not counted as one that remembers anything."""
    async with serving(rules=(TopicRule(pattern=">", retain=False),)) as broker:
        client = await connected(broker)

        assert code_of(await publish(client, "a", b"x", retain=True))[1] == "bad_option"
        assert broker.statistics().stored_topics == 0


async def test_what_is_evicted_in_the_middle_of_a_replay_is_told_once(autojump_clock: MockClock) -> None:
    """Even when nothing of the topic is left: the replay comes to an end."""
    async with serving(rules=(LONG,)) as broker:
        client = await connected(broker)
        for _ in range(40):
            broker.publish("h.a", bytes(10_000))
        answer = await client.ask(Subscribe(1, "h.*", SubscribeOptions(replay={"last": 40})))
        await wait_all_tasks_blocked()  # the stream is full
        store = broker._hub.store
        assert isinstance(store, MemoryStore)
        store.resize(0, 100)
        assert not store.shrink(100)
        store.resize(1_000_000, 100)
        got = await up_to_the_end(client)
        broker.publish("h.a", b"x")
        live = await client.expect(Message)

        assert isinstance(answer, Ok)
        offsets = [offset for _, offset, _ in seen(got)]
        assert offsets == list(range(1, len(offsets) + 1))
        assert 0 < len(offsets) < 40
        lost = Lost(answer.result["route"], 40 - len(offsets), "evicted", "h.a", len(offsets) + 1, 40)
        assert [each for each in got if isinstance(each, Lost)] == [lost]
        assert live.offset == 41


@pytest.mark.parametrize("replay", [{"last": 1}, {"since": 10**17}, {"offsets": {}}])
async def test_what_came_since_subscribe_and_is_evicted_before_its_turn_is_told(
    replay: dict[str, Any], autojump_clock: MockClock
) -> None:
    """Whatever was asked for: from the OK on nothing is passed over in silence."""
    async with serving(rules=RULES) as broker:
        client = await connected(broker)
        broker.publish("h.a", b"1")
        epoch = {"epoch": broker._hub.epoch} if "offsets" in replay else {}
        options = SubscribeOptions(replay={**replay, **epoch})
        await client.send(Subscribe(1, "h.*", options), *[Publish(0, "h.a", b"x") for _ in range(5)])
        answer = await client.expect(Ok)
        got = await up_to_the_end(client)

        assert got[0] == Lost(answer.result["route"], 2, "evicted", "h.a", 2, 3)
        assert [offset for _, offset, _ in seen(got)] == [4, 5, 6]


async def test_what_ok_says_of_a_topic_is_what_comes(autojump_clock: MockClock) -> None:
    """`replayed` messages up to `offset`, also when more are published before the first of them is sent."""
    async with serving(rules=(LONG,)) as broker:
        client = await connected(broker)
        for payload in (b"1", b"2", b"3"):
            broker.publish("h.a", payload)
        options = SubscribeOptions(replay={"last": 2})
        await client.send(Subscribe(1, "h.a", options), Publish(0, "h.a", b"4"), Publish(0, "h.a", b"5"))
        answer = await client.expect(Ok)
        got = await up_to_the_end(client)

        assert (answer.result["replayed"], answer.result["offset"]) == (2, 3)
        assert [offset for _, offset, _ in seen(got)] == [2, 3, 4, 5]


async def test_a_page_of_one_live_message_is_not_taken_for_that_message(autojump_clock: MockClock) -> None:
    """Else it waits in line for a slow client, and SNAPSHOT_END overtakes it. (Tasks run in any order: try often.)"""
    async with serving(rules=RULES) as broker:
        direct = await connected(broker)
        await direct.subscribe("x")
        for number in range(10):
            slow = await connected(broker)
            await slow.subscribe("fill")
            broker.publish("fill", bytes(200_000))
            await wait_all_tasks_blocked()
            await slow.send(Subscribe(9, "x", SubscribeOptions(snapshot=True)), Publish(0, "x", b"%d" % number))
            await wait_all_tasks_blocked()
            await slow.expect(Message)
            await slow.expect(Ok)
            first = await slow.next()
            second = await slow.next()

            assert isinstance(first, Message)
            assert first.payload == b"%d" % number
            assert isinstance(second, SnapshotEnd)
            assert second.count == 1


async def test_what_a_rate_holds_must_not_come_behind_a_newer_snapshot(autojump_clock: MockClock) -> None:
    """So the snapshot is refused while something of the route is held, as while something waits."""
    async with serving(rules=RULES) as broker:
        client = await connected(broker)
        await client.subscribe("r.*", max_rate=1.0)
        broker.publish("r.a", b"1")
        broker.publish("r.a", b"2")
        assert await client.payloads(1) == [b"1"]
        answer = await client.ask(Subscribe(7, "r.*", SubscribeOptions(snapshot=True)))

        assert code_of(answer) == (7, "bad_option")
        assert await client.payloads(1) == [b"2"]


async def test_offsets_of_topics_that_the_pattern_does_not_match_are_none_of_its_business(
    autojump_clock: MockClock,
) -> None:
    """`recovered` speaks of what was asked for."""
    async with serving(rules=RULES) as broker:
        client = await connected(broker)
        broker.publish("h.a", b"x")
        wish = {"offsets": {"h.a": 1, "other": 5}, "epoch": broker._hub.epoch}
        result, got = await begun(client, "h.*", replay=wish)

        assert (result["recovered"], len(got)) == (True, 1)
