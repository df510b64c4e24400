"""Queue groups and ``echo: false`` through a real broker, seen by clients by hand."""

from __future__ import annotations

from itertools import chain
from typing import Any

import msgpack
import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker
from fanwire.protocol import (
    Backlog,
    Encoding,
    Lost,
    Message,
    Ok,
    Ping,
    Publish,
    PublishOptions,
    Subscribe,
    SubscribeOptions,
)
from tests.integration.raw import CAPACITY, RawClient, code_of, connected, serving, subscribed
from tests.integration.test_demand import _all, _events


async def _heard(client: RawClient) -> list[bytes]:
    """The payloads of all that has come so far."""
    await wait_all_tasks_blocked()
    number = client.number()
    await client.send(Ping(number))
    heard: list[bytes] = []
    while not isinstance(envelope := await client.next(), Ok):
        assert isinstance(envelope, Message), envelope
        heard.append(envelope.payload)
    assert envelope.id == number
    return heard


async def _workers(broker: Broker, count: int, **options: Any) -> list[RawClient]:
    return [await subscribed(broker, "jobs", group="w", **options) for _ in range(count)]


async def test_each_message_goes_to_one_member(autojump_clock: MockClock) -> None:
    """In equal parts among idle ones, while who is in no group gets everything; a publisher counts two subscribers."""
    async with serving() as broker:
        workers, watcher, publisher = (
            await _workers(broker, 3),
            await subscribed(broker, "jobs"),
            await connected(broker),
        )
        jobs = [b"%d" % number for number in range(30)]
        await publisher.publish("jobs", *jobs[:27])
        answers = [await publisher.ask(Publish(1, "jobs", job)) for job in jobs[27:]]

        heard = [await _heard(worker) for worker in workers]
        assert sorted(chain.from_iterable(heard)) == sorted(jobs)
        assert [len(each) for each in heard] == [10, 10, 10]
        assert all(each == sorted(each, key=int) for each in heard)
        assert await _heard(watcher) == jobs
        assert [answer.result for answer in answers if isinstance(answer, Ok)] == [
            {"offset": 0, "subscribers": 2, "lagging": 0}
        ] * 3
        statistics = broker.statistics()
        assert (statistics.routes, statistics.subscriptions, statistics.delivered) == (2, 4, 60)


async def test_routes_of_pattern_and_group(autojump_clock: MockClock) -> None:
    """All members have one; plain subscribers, and other groups, another; subscribing again keeps it."""
    async with serving() as broker:
        one, other = await connected(broker), await connected(broker)
        routes = [await one.subscribe("a.*"), *[await one.subscribe("a.*", group=group) for group in ("g", "h", "g")]]
        assert len(set(routes)) == 3
        assert routes[1] == routes[3] == await other.subscribe("a.*", group="g")
        await other.publish("a.b", b"x")

        await wait_all_tasks_blocked()

        messages = [await one.expect(Message) for _ in range(3)]
        assert {(message.route, message.topic) for message in messages} == {(route, "a.b") for route in routes}
        assert await _heard(other) == []
        assert broker.statistics().subscriptions == 4


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"snapshot": True}, "snapshot"),
        ({"heartbeat": 1.0}, "heartbeat"),
        ({"group": None, "echo": False, "heartbeat": 1.0}, "heartbeat"),
        ({"group": "g" * 256}, "group"),
        ({"group": "é" * 128}, "group"),
    ],
)
async def test_what_a_group_cannot_have(autojump_clock: MockClock, options: dict[str, Any], option: str) -> None:
    """`bad_option`, by name; nothing is subscribed. (`replay` with a group is refused by whoever reads it.)"""
    async with serving() as broker:
        client = await connected(broker)
        answer = await client.ask(Subscribe(1, "a", SubscribeOptions(**{"group": "g", **options})))

        assert code_of(answer) == (1, "bad_option")
        assert not isinstance(answer, Ok)
        assert dict(answer.detail) == {"option": option}
        assert (broker.statistics().subscriptions, broker.statistics().routes) == (0, 0)


async def test_members_come_and_go(autojump_clock: MockClock) -> None:
    """By UNSUBSCRIBE or with their connection: the others get all that is published from then on."""
    async with serving() as broker:
        one, other = await _workers(broker, 2)
        leaver, publisher = await connected(broker), await connected(broker)
        route = await leaver.subscribe("jobs", group="w")
        await leaver.unsubscribe(route)
        await other.close()
        await wait_all_tasks_blocked()
        await publisher.publish("jobs", b"1", b"2", b"3")

        assert await _heard(one) == [b"1", b"2", b"3"]
        assert await _heard(leaver) == []
        await one.close()
        await wait_all_tasks_blocked()
        answer = await publisher.ask(Publish(1, "jobs", b"4"))
        assert isinstance(answer, Ok)
        assert answer.result["subscribers"] == 0
        assert broker.statistics().routes == 0


async def test_a_slow_member_gets_less(autojump_clock: MockClock) -> None:
    """One that does not read gets what fits into its network and a little more; the other one all the rest."""
    async with serving() as broker:
        slow, quick = await _workers(broker, 2)
        publisher = await connected(broker)
        payload, heard = b"p" * 1000, 0
        for _ in range(1000):
            await publisher.publish("jobs", payload)
            heard += len(await _heard(quick))

        assert heard > 1000 - 2 * CAPACITY // 1000
        [waiting] = [each.queued for each in broker.connections() if each.queued]
        assert waiting <= 2
        assert await slow.payloads(1000 - heard) == [payload] * (1000 - heard)


async def test_who_has_told_of_a_backlog_gets_less(autojump_clock: MockClock) -> None:
    """Until it tells that it has worked it off."""
    async with serving() as broker:
        slow, quick = await _workers(broker, 2)
        publisher = await connected(broker)
        route = await slow.subscribe("jobs", group="w")
        await slow.send(Backlog(0, route, 8, 100))
        await wait_all_tasks_blocked()
        for _ in range(10):
            await publisher.publish("jobs", b"x")
            await wait_all_tasks_blocked()
        assert (await _heard(slow), len(await _heard(quick))) == ([], 10)

        await slow.send(Backlog(0, route, 0, 100))
        await wait_all_tasks_blocked()
        for _ in range(10):
            await publisher.publish("jobs", b"x")
            await wait_all_tasks_blocked()
        assert (len(await _heard(slow)), len(await _heard(quick))) == (5, 5)


async def test_when_all_are_full_the_chosen_ones_policy_counts(autojump_clock: MockClock) -> None:
    """Of ten jobs for two members that read nothing and have room for two each, six are lost, and told."""
    async with serving() as broker:
        workers = await _workers(broker, 2, queue=2, on_slow="drop_newest")
        publisher = await connected(broker)
        for worker in workers:  # its network is full now
            await worker.subscribe("plug")
        await publisher.publish("plug", b"p" * 2 * CAPACITY)
        await wait_all_tasks_blocked()
        await publisher.publish("jobs", *[b"%d" % number for number in range(10)])
        await wait_all_tasks_blocked()

        assert broker.statistics().lost == {"drop_newest": 6}
        jobs: list[bytes] = []
        for worker in workers:
            assert len((await worker.expect(Message)).payload) == 2 * CAPACITY
            *messages, lost = [envelope for envelope in await worker.take(4) if not hasattr(envelope, "oldest_ms")]
            assert isinstance(lost, Lost)
            assert lost.count == 3
            jobs += [message.payload for message in messages if isinstance(message, Message)]
        assert sorted(jobs) == [b"0", b"1", b"2", b"3"]


async def test_demand_is_for_patterns(autojump_clock: MockClock) -> None:
    """A pattern is wanted while anybody is subscribed to it, in whatever group, and is listed once."""
    async with serving() as broker:
        listener, client = await subscribed(broker, "$sys.demand"), await connected(broker)
        assert await _events(listener, 1) == [_all()]
        routes = [await client.subscribe("a.*", group=group) for group in ("g", None, "h")]
        await wait_all_tasks_blocked()
        late = await subscribed(broker, "$sys.demand")
        assert await _events(late, 1) == [_all("a.*")]
        for route in routes:
            await client.unsubscribe(route)
            await wait_all_tasks_blocked()

        assert await _events(listener, 3) == [
            {"event": "wanted", "pattern": "a.*"},
            _all("a.*"),
            {"event": "unwanted", "pattern": "a.*"},
        ]


@pytest.mark.parametrize("options", [PublishOptions(), PublishOptions(key="k")], ids=["fast road", "slow road"])
async def test_no_echo(autojump_clock: MockClock, options: PublishOptions) -> None:
    """Not to the subscription that said so; to other subscriptions of the same connection, and to others."""
    async with serving() as broker:
        client, other = await connected(broker), await subscribed(broker, "a", echo=False)
        await client.subscribe("a", echo=False)
        wild = await client.subscribe("*")
        answer = Publish(7, "a", b"x", Encoding.RAW, options)
        await client.send(Publish(0, "a", b"w", Encoding.RAW, options), answer)
        await wait_all_tasks_blocked()

        envelopes = await client.take(3)
        assert [(each.route, each.payload) for each in envelopes if isinstance(each, Message)] == [
            (wild, b"w"),
            (wild, b"x"),
        ]
        assert [each.result["subscribers"] for each in envelopes if isinstance(each, Ok)] == [2]
        assert await _heard(other) == [b"w", b"x"]
        assert await _heard(client) == []
        await other.publish("a", b"y")
        await wait_all_tasks_blocked()
        broker.publish("a", b"z")
        assert await _heard(other) == [b"z"]
        assert await _heard(client) == [b"y", b"y", b"z", b"z"]


async def test_echo_can_be_changed(autojump_clock: MockClock) -> None:
    """By subscribing again, as every option."""
    async with serving() as broker:
        client = await subscribed(broker, "a", echo=False)
        await client.publish("a", b"1")
        await client.subscribe("a")
        await client.publish("a", b"2")
        assert await _heard(client) == [b"2"]
        await client.subscribe("a", echo=False)
        await client.publish("a", b"3")

        assert await _heard(client) == []


async def test_what_the_broker_tells_is_nobodys_echo(autojump_clock: MockClock) -> None:
    """A publisher whose message is too much for somebody hears of that, also where it wants no echo."""
    async with serving(max_pending_bytes=1000) as broker:
        publisher = await subscribed(broker, "$sys.slow", echo=False)
        await publisher.subscribe("a", echo=False)
        limited = await subscribed(broker, "a", max_rate=0.1)
        await publisher.publish("a", b"sent")
        assert await limited.payloads(1) == [b"sent"]
        await publisher.publish("a", b"held" * 1000)

        [event] = [msgpack.unpackb(payload) for payload in await _heard(publisher)]
        assert (event["event"], event["measure"]) == ("disconnected", "max_pending")


async def test_slow_members_are_told_with_their_group(autojump_clock: MockClock) -> None:
    """On `$sys.slow`: its name is cut, since the client chose it."""
    async with serving() as broker:
        operator = await subscribed(broker, "$sys.slow")
        slow = await connected(broker)
        route = await slow.subscribe("a", group="g" * 100)
        await slow.send(Backlog(0, route, 8, 10))

        event = msgpack.unpackb((await operator.expect(Message)).payload)
        assert (event["event"], event["pattern"], event["route"]) == ("lagging", "a", route)
        assert 60 < len(event["group"]) < 70
