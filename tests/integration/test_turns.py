"""What one client asks for at once is done a turn at a time: the others have theirs in between, and order is kept.

The clock of these tests goes on by a millisecond whenever somebody looks at it, so a turn is five looks, whatever the
machine does meanwhile. What is asserted is how much is done between two turns of the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, pairwise
from unittest.mock import Mock

import pytest
import trio
from trio.testing import MockClock

from fanwire.broker import Broker
from fanwire.broker.delivery import fanout
from fanwire.broker.http import payloads
from fanwire.broker.http.sse_events import Events
from fanwire.broker.timing import turn
from fanwire.broker.topics import registry
from fanwire.protocol import (
    BrokerEnvelope,
    ClientEnvelope,
    Encoding,
    Message,
    Ok,
    Ping,
    Publish,
    PublishOptions,
    Subscribe,
    encode,
)

from .http_client import HttpClient, http
from .http_client import serving as http_serving
from .raw import RawClient, connected, serving, subscribed
from .sse_client import streaming

LOOKS = 5


@pytest.fixture(autouse=True)
def looks(monkeypatch: pytest.MonkeyPatch) -> count[int]:
    """Replaces the clock of turns."""
    numbers = count(1)
    monkeypatch.setattr(turn, "clock", lambda: next(numbers) / 1000)
    monkeypatch.setattr(turn, "TURN_S", LOOKS / 1000)
    return numbers


async def _most_at_once(broker: Broker, figure: Callable[[], int], client: RawClient, data: bytes, total: int) -> int:
    """Send a message; how much a figure grows at most between two turns of ours, until it has grown so much.

    trio goes through its tasks in any order: there may be two turns of another one in between.
    """
    begin = before = figure()
    most = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_frame, data)
        while figure() < begin + total:
            await trio.lowlevel.checkpoint()
            most, before = max(most, figure() - before), figure()
    return most


async def test_publishes_on_new_topics(autojump_clock: MockClock) -> None:
    """Each has to be matched with the patterns: the clock is asked for each."""
    async with serving() as broker:
        client, counters = await connected(broker), broker._hub.counters
        data = b"".join(encode(Publish(0, f"a{number}", b"")) for number in range(400))

        assert await _most_at_once(broker, lambda: counters.published, client, data, 400) <= 2 * (LOOKS + 2)


@pytest.mark.parametrize("topics", [1, 2])
async def test_publishes_that_are_answered(autojump_clock: MockClock, topics: int) -> None:
    """They are taken in slices that get smaller when they take long, and all are answered in their order."""
    async with serving() as broker:
        client, counters = await connected(broker), broker._hub.counters
        data = b"".join(encode(Publish(number, "ab"[number % topics], b"")) for number in range(1, 3001))
        most = await _most_at_once(broker, lambda: counters.published, client, data, 3000)

        assert most <= 2 * LOOKS * 4096 // 8
        assert [answer.id for answer in await client.take(3000) if isinstance(answer, Ok)] == [*range(1, 3001)]


async def test_runs_that_wildcards_keep_short(autojump_clock: MockClock) -> None:
    """Runs are given out a few at a time; what waits for the next turn keeps its order, whoever else publishes."""
    async with serving() as broker:
        reader, client, other = await subscribed(broker, ">"), await connected(broker), await connected(broker)
        counters = broker._hub.counters
        await client.publish("a", b"known")
        await client.publish("b", b"known")
        await reader.payloads(2)
        data = b"".join(encode(Publish(0, "ab"[number % 2], b"%d" % number)) for number in range(200))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.publish, "a", *[b"other"] * 50)
            most = await _most_at_once(broker, lambda: counters.published, client, data, 250)
        payloads = [each for each in await reader.payloads(250) if each != b"other"]

        assert most <= 2 * (LOOKS + 2) * 8 + 50
        assert payloads == [b"%d" % number for number in range(200)]


async def test_subscriptions_that_change_between_two_turns(autojump_clock: MockClock) -> None:
    """What is gathered in one turn and given out in a later one reaches those who are subscribed then."""
    async with serving() as broker:
        client, first = await connected(broker), await subscribed(broker, ">")
        await client.send(Publish(0, "a", b"0"), Publish(0, "b", b"0"))
        await first.payloads(2)
        data = b"".join(encode(Publish(0, "ab"[number % 2], b"%d" % number)) for number in range(5000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_frame, data)
            while broker._hub.counters.published < 20:
                await trio.lowlevel.checkpoint()
            late = await connected(broker)
            await late.send(Subscribe(1, "*"))
            begun = (await late.next(), broker._hub.counters.published)
        assert begun[1] < 5000
        assert await first.payloads(5000) == [b"%d" % number for number in range(5000)]
        (number,) = [int(each) for each in await late.payloads(1)]
        assert 20 < number < 5000
        assert await late.payloads(4999 - number) == [b"%d" % each for each in range(number + 1, 5000)]


async def test_requests_of_every_kind(autojump_clock: MockClock) -> None:
    """The clock is asked after each request; another client's ping is answered meanwhile."""
    async with serving() as broker:
        client, other = await connected(broker), await connected(broker)
        requests: list[ClientEnvelope] = [
            Ping(1),
            Subscribe(2, "a.*"),
            Publish(3, "a.b", b"", options=PublishOptions(key="k")),
            Publish(0, "a.b", b"", options=PublishOptions(headers={"a": "b"})),
        ] * 100
        sizes = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, *requests)
            for number in range(1, 20):
                assert await other.ask(Ping(number)) == Ok(number)
                sizes.append(broker._hub.counters.published)
        assert sizes[0] < sizes[10] <= 200
        answers = [each for each in await client.take(500) if not isinstance(each, Message)]
        assert [each.id for each in answers if isinstance(each, Ok)] == [1, 2, 3] * 100


async def test_order_where_all_topics_are_forgotten_in_the_middle_of_a_read(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One name is one topic within one read, with and without answers, however many names come in between."""
    monkeypatch.setattr(turn, "clock", lambda: 0.0)
    monkeypatch.setattr(registry, "MAX_TOPICS", 5)
    async with serving() as broker:
        reader, client = await subscribed(broker, "a"), await connected(broker)
        envelopes = []
        for number in range(60):
            if number % 3 == 1:
                envelopes += [encode(Publish(0, f"new{number}.{each}", b"")) for each in range(3)]
            if number % 4 == 3:
                envelopes.append(b"\x94\x04\x00\xd9\x01a\xc4\x02%02d" % number)  # the name in a longer form
            else:
                envelopes.append(encode(Publish(number % 2 * (number + 1), "a", b"%02d" % number)))
        await client.send_frame(b"".join(envelopes))

        assert await reader.payloads(60) == [b"%02d" % number for number in range(60)]


async def _subscribe_to_255_patterns(reader: RawClient) -> str:
    """All match one topic, which is returned."""
    for number in range(1, 256):
        await reader.subscribe(".".join("*" if number >> bit & 1 else "a" for bit in range(8)))
    return ".".join("a" * 8)


async def test_a_publish_on_a_topic_of_very_many_patterns(autojump_clock: MockClock) -> None:
    """It is copied for each pattern, so it goes on in other turns; what comes later comes behind it, on each route."""
    async with serving() as broker:
        reader, client, other = await connected(broker), await connected(broker), await connected(broker)
        topic = await _subscribe_to_255_patterns(reader)
        hub, delivered = broker._hub, []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, Publish(1, topic, b"0"), Publish(2, topic, b"1"), Ping(3))
            while not hub.fanout.spreading:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(other.send, Publish(4, topic, b"2"))
            while hub.fanout.spreading:
                delivered.append(hub.counters.delivered)
                await trio.lowlevel.checkpoint()
        by_route: dict[int, list[bytes]] = {}
        for _ in range(3 * 255):
            message = await reader.expect(Message)
            by_route.setdefault(message.route, []).append(message.payload)
        orders = {tuple(each) for each in by_route.values()}

        assert max(after - before for before, after in pairwise(delivered)) <= 2 * 2 * (LOOKS + 2)
        assert (len(by_route), len(orders)) == (255, 1)
        assert [each for each in orders.pop() if each != b"2"] == [b"0", b"1"]
        for number in (1, 2):
            answer = await client.expect(Ok)
            assert (answer.id, answer.result["subscribers"]) == (number, 255)
        assert await client.expect(Ok) == Ok(3)


async def test_who_publishes_nothing_is_served_while_a_publish_is_spread(autojump_clock: MockClock) -> None:
    """Only those whose publishes fill the broker are not read from meanwhile."""
    async with serving() as broker:
        reader, client, other = await connected(broker), await connected(broker), await connected(broker)
        topic = await _subscribe_to_255_patterns(reader)
        hub, answered = broker._hub, 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.publish, topic, *[b"x"] * 3)
            while not hub.fanout.spreading:
                await trio.lowlevel.checkpoint()
            while hub.fanout.spreading:
                answered += 1
                assert await other.ask(Ping(answered)) == Ok(answered)
        assert answered > 3


async def test_who_subscribes_while_a_publish_is_spread(autojump_clock: MockClock) -> None:
    """A subscription that comes meanwhile gets what is published after its OK, and nothing from before."""
    async with serving() as broker:
        reader, client, late = await connected(broker), await connected(broker), await connected(broker)
        topic = await _subscribe_to_255_patterns(reader)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.publish, topic, b"before")
            while not broker._hub.fanout.spreading:
                await trio.lowlevel.checkpoint()
            await late.subscribe("*" + ".a" * 7)
            assert not broker._hub.fanout.spreading
        await client.publish(topic, b"after")

        assert (await late.expect(Message)).payload == b"after"


async def test_a_large_publish_for_very_many_patterns_is_not_copied_for_all_at_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is gathered stays within its bound while it is spread; who gets a thousand copies is dropped as too slow."""
    monkeypatch.setattr(turn, "clock", lambda: 0.0)
    async with serving(max_pending_bytes=8_000_000) as broker:
        reader, client, other = await connected(broker), await connected(broker), await connected(broker)
        topic = await _subscribe_to_255_patterns(reader)
        hub, delivered = broker._hub, [0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, Publish(1, topic, bytes(500_000)))
            while hub.counters.published < 1 or hub.fanout.spreading:
                delivered.append(hub.counters.delivered)
                await trio.lowlevel.checkpoint()
        steps = [after - before for before, after in pairwise(delivered)]

        assert fanout.MAX_GATHERED // 500_000 < max(steps) <= 2 * (1 + fanout.MAX_GATHERED // 500_000)
        assert hub.counters.delivered < 50
        assert broker.statistics().slow_consumers == 1
        assert await other.ask(Ping(1)) == Ok(1)
        assert not hub.fanout.full


async def test_a_publish_for_very_many_limited_subscribers(autojump_clock: MockClock) -> None:
    """Those who get so many messages a second are served a few at a time, too, and all get it once."""
    async with serving() as broker:
        many = 2 * fanout.MANY_TAKERS
        readers = [await subscribed(broker, "a", max_rate=1.0) for _ in range(many)]
        plain, client = await subscribed(broker, "a"), await connected(broker)
        hub, delivered = broker._hub, []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, Publish(1, "a", b"x"))
            while hub.counters.published < 1 or hub.fanout.spreading:
                delivered.append(hub.counters.delivered)
                await trio.lowlevel.checkpoint()

        assert max(after - before for before, after in pairwise(delivered)) <= 2 * (LOOKS + 2) * fanout.TAKERS
        assert (await client.expect(Ok)).result["subscribers"] == many + 1
        assert [await each.payloads(1) for each in (plain, *readers)] == [[b"x"]] * (many + 1)
        assert hub.counters.delivered == many + 1


async def test_lines_of_a_batch_are_counted_as_they_are_read(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of half a million lines no more are parsed than a batch may have, and lines that are empty let others in, too."""
    parsed = Mock(side_effect=payloads.parsed)
    monkeypatch.setattr("fanwire.broker.http.publish.parsed", parsed)
    async with http_serving() as broker:
        client = await http(broker)
        body = b"1\n" * 250_000
        answer = await client.ask("POST", "/v1/publish", "Content-Type: application/x-ndjson", body=body)
        assert (answer.status, parsed.call_count) == (413, 1000)

        turns = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_blank_lines, await http(broker), nursery.cancel_scope)
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1
        assert turns > 20_000 / LOOKS / 2


async def _blank_lines(client: HttpClient, scope: trio.CancelScope) -> None:
    body = b" \n" * 20_000 + b"{}"
    answer = await client.ask("POST", "/v1/publish", "Content-Type: application/x-ndjson", body=body)
    assert answer.status == 207
    scope.cancel()


async def test_listings_let_others_have_their_turn(autojump_clock: MockClock) -> None:
    """Topics, subscriptions and connections, however many each connection has."""
    async with http_serving() as broker:
        peers = [await connected(broker) for _ in range(5)]
        for peer in peers:
            await peer.send(*(Subscribe(number, f"t{number}.>") for number in range(1, 41)))
            await peer.take(40)
        await peers[0].publish("t1.x", b"")
        for number in range(2, 41):
            await peers[0].publish(f"t{number}.x", b"")
        for path, looks in (("topics?limit=40", 80), ("subscriptions?limit=200", 200), ("connections?limit=5", 15)):
            client = await http(broker)
            answer: list[object] = []
            turns = 0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_got, client, f"/v1/{path}", answer)
                while not answer:
                    await trio.lowlevel.checkpoint()
                    turns += 1
            assert turns > looks / LOOKS / 2


async def _got(client: HttpClient, path: str, answer: list[object]) -> None:
    answer.append((await client.ask("GET", path)).json)


async def test_many_clients_that_ask_for_much(autojump_clock: MockClock) -> None:
    """What twenty clients bring at once costs the others no more than two turns, and the beginnings of twenty."""
    async with serving() as broker:
        clients, counters = [await connected(broker) for _ in range(20)], broker._hub.counters
        datas = [
            b"".join([encode(Publish(0, f"{client}.{number}", b"")) for number in range(200)]) for client in range(20)
        ]
        most = before = 0
        async with trio.open_nursery() as nursery:
            for client, data in zip(clients, datas, strict=True):
                nursery.start_soon(client.send_frame, data)
            while counters.published < 4000:
                await trio.lowlevel.checkpoint()
                most, before = max(most, counters.published - before), counters.published

        # The clock is asked for each of these publishes. Each client begins with one; and trio may run us after all
        # others in one round, and before them in the next.
        assert most <= 2 * (2 * (LOOKS + 2) + 2 * 20)


async def test_events_of_a_stream(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream makes events for as long as a turn lasts; all of them come, in order."""
    made = 0
    make = Events.of

    def of(self: Events, envelope: BrokerEnvelope) -> bytes:
        nonlocal made
        made += 1
        return make(self, envelope)

    monkeypatch.setattr(Events, "of", of)
    async with http_serving() as broker:
        stream, client = await streaming(broker, "/v1/topics/a/stream"), await connected(broker)
        await stream.expect("subscribed")
        data = b"".join([encode(Publish(0, "a", b"%d" % number, Encoding.TEXT)) for number in range(300)])
        most = await _most_at_once(broker, lambda: made, client, data, 300)

        assert most <= 2 * (LOOKS + 1)
        assert await stream.payloads(300) == [str(number) for number in range(300)]
