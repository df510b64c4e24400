"""How a replay gets to its end: past other rules, past eviction, past a busy publisher."""

from typing import Any

import attrs
import msgpack
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker, TopicRule
from fanwire.broker.options.replay import AT_ONCE, Replaying
from fanwire.broker.timing import turn
from fanwire.protocol import (
    MAX_MAP,
    Error,
    Fetch,
    Lost,
    Message,
    Ok,
    Publish,
    PublishOptions,
    SnapshotEnd,
    Subscribe,
    SubscribeOptions,
)
from fanwire.protocol.frames import masked_frame

from .raw import KEY, RawClient, code_of, connected, serving
from .test_broker_memory import seen, up_to_the_end

HISTORY = TopicRule(pattern="h.>", history=1000)
RETAIN = TopicRule(pattern="r.>", retain=True)


async def under_way(broker: Broker, pattern: str, **options: Any) -> tuple[RawClient, int]:
    """A client whose subscription has begun, and stands still because the stream is full; and its route."""
    client = await connected(broker)
    answer = await client.ask(Subscribe(1, pattern, SubscribeOptions(**options)))
    assert isinstance(answer, Ok), answer
    await wait_all_tasks_blocked()
    return client, answer.result["route"]


async def go_by(broker: Broker, *rules: TopicRule) -> None:
    await broker.reload(attrs.evolve(broker.config, rules=rules))


def losses(envelopes: list[object]) -> list[Lost]:
    return [each for each in envelopes if isinstance(each, Lost)]


# ----------------------------------------------------------------- other rules


async def test_a_topic_that_loses_its_history_while_it_is_replayed_does_not_shorten_the_next(
    autojump_clock: MockClock,
) -> None:
    """How far the cursor has come in one topic means nothing in another; the rest of the first is told as lost."""
    async with serving(rules=(HISTORY,)) as broker:
        for topic in ("h.a", "h.b"):
            for _ in range(40):
                broker.publish(topic, bytes(10_000))
        client, route = await under_way(broker, "h.>", replay={"since": 0})
        await go_by(broker, attrs.evolve(HISTORY, pattern="h.b"))
        got = await up_to_the_end(client)

        offsets = {topic: [at for name, at, _ in seen(got) if name == topic] for topic in ("h.a", "h.b")}
        come = len(offsets["h.a"])
        assert 0 < come < 40
        assert offsets == {"h.a": [*range(1, come + 1)], "h.b": [*range(1, 41)]}
        assert losses(got) == [Lost(route, 40 - come, "evicted", "h.a", come + 1, 40)]


async def test_what_was_left_to_a_replay_is_told_when_other_rules_drop_it(autojump_clock: MockClock) -> None:
    """What has come since SUBSCRIBE, and what the client had the offsets for: once, in front of what comes next."""
    async with serving(rules=(HISTORY,)) as broker:
        for topic in ("h.a", "h.b", "h.c", "h.d"):
            for _ in range(40 if topic == "h.a" else 3):
                broker.publish(topic, bytes(10_000))
        wish = {"offsets": {"h.a": 0, "h.b": 1, "h.c": 3}, "epoch": broker._hub.epoch, "since": 0}
        client, route = await under_way(broker, "h.>", replay=wish)
        for topic in ("h.c", "h.d"):
            broker.publish(topic, b"left")
        await go_by(broker, attrs.evolve(HISTORY, pattern="h.a"))
        broker.publish("h.d", b"live")
        got = await up_to_the_end(client)

        assert losses(got) == [
            Lost(route, 2, "evicted", "h.b", 2, 3),
            Lost(route, 1, "evicted", "h.c", 4, 4),
            Lost(route, 1, "evicted", "h.d", 4, 4),
        ]
        assert [(topic, payload) for topic, _, payload in seen(got) if topic != "h.a"] == [("h.d", b"live")]
        assert [at for topic, at, _ in seen(got) if topic == "h.a"] == [*range(1, 41)]


async def test_a_last_value_that_other_rules_drop_is_told(autojump_clock: MockClock) -> None:
    """It was left to the snapshot, since a newer value replaces it there. One that a publisher deletes is not lost."""
    async with serving(rules=(RETAIN,)) as broker:
        for number in range(20):
            broker.publish(f"r.{number:02}", bytes(10_000))
        for topic in ("r.x", "r.y"):
            broker.publish(topic, b"before")
        client, route = await under_way(broker, "r.>", snapshot=True)
        for topic, payload in (("r.x", b"1"), ("r.x", b"2"), ("r.y", b"1"), ("r.y", b"")):
            broker.publish(topic, payload)
        await go_by(broker, TopicRule(pattern="r.x", retain=False), RETAIN)
        got = await up_to_the_end(client)

        assert losses(got) == [Lost(route, 2, "evicted", "r.x")]
        assert {topic for topic, _, _ in seen(got)} == {f"r.{number:02}" for number in range(20)}


async def test_a_value_that_a_live_message_replaces_is_told(autojump_clock: MockClock) -> None:
    """It was left to the snapshot by a rule that is no more; the one that has replaced it comes live, and stands for
    itself alone."""
    async with serving(rules=(RETAIN,)) as broker:
        for number in range(20):
            broker.publish(f"r.{number:02}", bytes(10_000))
        broker.publish("r.x", b"before")
        client, route = await under_way(broker, "r.>", snapshot=True)
        broker.publish("r.x", b"left")
        await go_by(broker)
        broker.publish("r.x", b"live", retain=True)
        got = await up_to_the_end(client)

        assert losses(got) == [Lost(route, 1, "evicted", "r.x")]
        assert [payload for topic, _, payload in seen(got) if topic == "r.x"] == [b"live"]


# -------------------------------------------------------------------- eviction


async def test_a_value_that_stands_for_a_history_that_is_gone_is_told_when_it_is_evicted(
    autojump_clock: MockClock,
) -> None:
    """The rule lets the history go and keeps the last value, which then goes before the snapshot has come to it."""
    both = TopicRule(pattern="r.z", retain=True, history=9)
    async with serving(rules=(both, RETAIN)) as broker:
        for number in range(20):
            broker.publish(f"r.{number:02}", bytes(10_000))
        broker.publish("r.z", b"before")
        client, route = await under_way(broker, "r.>", snapshot=True)
        for payload in (b"1", b"2"):
            broker.publish("r.z", payload)
        await go_by(broker, RETAIN)
        broker.publish("r.other", b"x")
        await wait_all_tasks_blocked()
        broker._hub.store.resize(0, 1_000)
        assert not broker._hub.store.shrink(1_000)
        got = await up_to_the_end(client)

        assert losses(got) == [Lost(route, 2, "evicted", "r.z")]


async def test_a_last_value_that_is_evicted_before_the_snapshot_comes_to_it_is_told(autojump_clock: MockClock) -> None:
    """If it has come since SUBSCRIBE."""
    async with serving(rules=(RETAIN,)) as broker:
        for number in range(20):
            broker.publish(f"r.{number:02}", bytes(10_000))
        client, route = await under_way(broker, "r.>", snapshot=True)
        broker.publish("r.19", b"newer")
        store = broker._hub.store
        store.resize(0, 1_000)
        assert not store.shrink(1_000)
        got = await up_to_the_end(client)

        assert losses(got) == [Lost(route, 1, "evicted", "r.19")]
        assert 0 < len(seen(got)) < 19


# ----------------------------------------------------------- which value it is


@pytest.mark.parametrize("live", [b"ends with \xc4\x05value", b"value"])
async def test_a_live_message_is_not_taken_for_the_retained_one(live: bytes, autojump_clock: MockClock) -> None:
    """Not even one with the same bytes: the value comes first, marked as retained."""
    async with serving() as broker:
        publisher = await connected(broker)
        await publisher.ask(Publish(1, "a", b"value", options=PublishOptions(retain=True)))
        client = await connected(broker)
        await client.send(Subscribe(1, "a", SubscribeOptions(snapshot=True)), Publish(0, "a", live))
        await client.expect(Ok)
        got = await up_to_the_end(client)

        assert [(each.payload, bool(each.meta)) for each in got if isinstance(each, Message)] == [
            (b"value", True),
            (live, False),
        ]


async def test_a_live_message_that_is_retained_itself_comes_once(autojump_clock: MockClock) -> None:
    """As the live message that it is; the value before it has been replaced."""
    async with serving() as broker:
        client = await connected(broker)
        retained = PublishOptions(retain=True)
        await client.ask(Publish(1, "a", b"old", options=retained))
        await client.send(Subscribe(2, "a", SubscribeOptions(snapshot=True)), Publish(0, "a", b"new", options=retained))
        await client.expect(Ok)
        got = await up_to_the_end(client)

        assert [(each.payload, dict(each.meta)) for each in got if isinstance(each, Message)] == [(b"new", {})]


# --------------------------------------------------------------- catching up


async def _caught_up(broker: Broker, client: RawClient, topics: list[str]) -> int:
    """The turns of the loop that it takes until the subscription is live, with 16 KiB published in each."""
    end: list[object] = []

    async def read() -> None:
        end.extend(await up_to_the_end(client))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for turn in range(2_000):
            broker.publish(topics[turn % len(topics)], bytes(16 * 1024))
            await trio.lowlevel.checkpoint()
            if end:
                return turn
        nursery.cancel_scope.cancel()
    raise AssertionError("it has fallen behind for ever")


async def test_a_replay_overtakes_a_busy_topic(autojump_clock: MockClock) -> None:
    """However much is published meanwhile: it sends more than that."""
    async with serving(rules=(attrs.evolve(HISTORY, history=100_000, history_bytes=1 << 30),)) as broker:
        for _ in range(100):
            broker.publish("h.a", bytes(16 * 1024))
        client = await connected(broker)
        await client.send(Subscribe(1, "h.a", SubscribeOptions(replay={"last": 100})))
        await client.expect(Ok)

        assert await _caught_up(broker, client, ["h.a"]) < 1_000


async def test_a_snapshot_comes_to_its_end_though_topics_that_it_has_passed_are_busy(
    autojump_clock: MockClock,
) -> None:
    """What is live there goes out with it, and does not push out the rest."""
    async with serving(rules=(RETAIN,)) as broker:
        for number in range(300):
            broker.publish(f"r.{number:03}", bytes(1_000))
        client = await connected(broker)
        await client.send(Subscribe(1, "r.>", SubscribeOptions(snapshot=True)))
        await client.expect(Ok)

        assert await _caught_up(broker, client, ["r.000", "r.001", "new"]) < 1_000


async def test_a_replay_takes_little_of_one_turn(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far behind it is, it looks at the clock, and others have their turn."""
    seconds = iter(range(1_000_000))
    async with serving(rules=(attrs.evolve(HISTORY, history_bytes=1 << 30),)) as broker:
        for _ in range(400):
            broker.publish("h.a", bytes(1_000))
        client = await connected(broker)
        await client.send(Subscribe(1, "h.a", SubscribeOptions(replay={"last": 400})))
        await client.expect(Ok)
        (session,) = broker._hub.sessions
        (subscription,) = session.outbox.subscriptions.values()
        replaying = subscription.replaying
        assert isinstance(replaying, Replaying)
        replaying._due = 1 << 30
        pages: list[int] = []
        monkeypatch.setattr(broker._hub.fanout, "answer", lambda _outbox, data: pages.append(len(data)))
        monkeypatch.setattr(turn, "clock", lambda: next(seconds) / 1_000)
        monkeypatch.setattr(turn, "first_end", lambda now: now + turn.TURN_S)  # others may have begun in this round
        assert replaying._send_some()

        assert len(pages) == 5  # at a millisecond each


async def test_many_replays_share_the_turns_of_the_loop(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many clients come back at once, only some of them have a page in one round of the loop; all get all."""
    pages = 0
    page = Replaying._page

    def counted(self: Replaying, room: int) -> list[bytes]:
        nonlocal pages
        pages += 1
        return page(self, room)

    monkeypatch.setattr(Replaying, "_page", counted)
    async with serving(rules=(HISTORY,)) as broker:
        for _ in range(20):
            broker.publish("h.a", bytes(1_000))
        clients = [await connected(broker) for _ in range(100)]
        async with trio.open_nursery() as nursery:
            most = before = 0
            for client in clients:
                nursery.start_soon(client.send, Subscribe(1, "h.a", SubscribeOptions(replay={"last": 20})))
            while pages < 500:
                await trio.lowlevel.checkpoint()
                most, before = max(most, pages - before), pages
        for client in clients:
            await client.expect(Ok)
            assert len(await client.payloads(20)) == 20

        # trio may run us after all others in one round, and before them in the next.
        assert most <= 2 * AT_ONCE


# -------------------------------------------------------------------- offsets


def _with_offsets(request: int, count: int, pattern: str) -> bytes:
    """A SUBSCRIBE, as a client might pack it that knows no bound."""
    offsets = {f"t.{number:06}": 1 for number in range(count)}
    return bytes(msgpack.packb([2, request, pattern, {"replay": {"offsets": offsets, "epoch": "other"}}]))


async def test_a_subscribe_may_name_so_many_topics_and_no_more(autojump_clock: MockClock) -> None:
    """It is refused before it is unpacked, by its number; and the connection lives on."""
    async with serving(rules=(HISTORY,)) as broker:
        client = await connected(broker)
        await client.stream.send_all(masked_frame(_with_offsets(7, MAX_MAP + 1, "t.*"), KEY))
        refused = await client.expect(Error)
        await client.stream.send_all(masked_frame(_with_offsets(8, MAX_MAP, "t.*"), KEY))
        answer = await client.expect(Ok)
        got = await up_to_the_end(client)

        assert code_of(refused) == (7, "bad_envelope")
        assert "16,384" in refused.message
        assert answer.id == 8
        assert len(losses(got)) == MAX_MAP
        assert isinstance(got[-1], SnapshotEnd)


async def test_offsets_of_subscriptions_that_have_not_begun_count_as_what_waits(autojump_clock: MockClock) -> None:
    """A client that does not read cannot make the broker remember more than may wait for it."""
    async with serving(rules=(HISTORY,), max_pending_bytes=5_000_000) as broker:
        client = await connected(broker)
        for number, pattern in enumerate(("t.*", "t.>", "*.*"), 1):
            await client.stream.send_all(masked_frame(_with_offsets(number, 15_000, pattern), KEY))
        await wait_all_tasks_blocked()
        (session,) = broker._hub.sessions
        assert 2 * 15_000 * 150 < session.outbox.held_bytes < 5_000_000
        got: list[object] = []
        while len(got) < 2 * 15_000 + 5:  # both told of each topic, two OKs, two ends and a refusal
            got.append(await client.next())

        (refused,) = [each for each in got if isinstance(each, Error)]
        assert code_of(refused) == (3, "too_many")
        assert "subscribe again" in refused.message
        assert session.outbox.held_bytes == 0


# ----------------------------------------------------------------------- FETCH


async def test_a_page_has_each_message_in_the_form_in_which_it_was_published(autojump_clock: MockClock) -> None:
    """With and without encoding and meta, of runs and alone: offset, time, payload, encoding, meta."""
    async with serving(rules=(HISTORY,)) as broker:
        client = await connected(broker)
        keyed = PublishOptions(key="k", headers={"a": "b"})
        await client.send(Publish(0, "h.a", b"1"), Publish(0, "h.a", b"2"))
        await client.send(Publish(0, "h.a", b"3", 2), Publish(0, "h.a", b"4", 1, keyed))
        answer = await client.ask(Fetch(5, "h.a", offset=0))

        assert isinstance(answer, Ok)
        assert (answer.result["offset"], answer.result["more"], answer.result["epoch"]) == (4, False, broker._hub.epoch)
        assert [[each[0], *each[2:]] for each in answer.result["messages"]] == [
            [1, b"1", 0, {}],
            [2, b"2", 0, {}],
            [3, b"3", 2, {}],
            [4, b"4", 1, {"key": "k", "headers": {"a": "b"}}],
        ]
        times = [each[1] for each in answer.result["messages"]]
        assert times == sorted(times)
        assert times[0] > 1_600_000_000_000_000
