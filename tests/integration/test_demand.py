"""Demand: the broker tells which patterns somebody is subscribed to, and a publisher's client follows."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire import Broker, Client, Demand, LocalProtocolError
from fanwire.broker.presence.demand import PART_BYTES, PORTION
from fanwire.client.cli.on_demand import OnDemand
from fanwire.client.cli.prices import read_bars
from fanwire.client.cli.ticker import Feed, Progress, publish_bars
from fanwire.protocol import Message, Ok, Subscribe
from fanwire.testing import broker_in_memory, client_of
from tests.integration.raw import RawClient, connected, serving, subscribed


async def _events(client: RawClient, count: int) -> list[dict[str, Any]]:
    """The next ones of demand; who listens to all of `$sys` gets reports between them."""
    events: list[dict[str, Any]] = []
    with trio.fail_after(60):
        while len(events) < count:
            event = msgpack.unpackb((await client.expect(Message)).payload)
            events += [event] if "event" in event else []
    return events


def _all(*patterns: str) -> dict[str, Any]:
    return {"event": "all", "patterns": [*patterns], "part": 0, "more": False}


async def _next(demand: Demand) -> tuple[str, bool]:
    with trio.fail_after(60):
        return await anext(demand)


async def _more(demand: Demand, seen: list[tuple[str, bool]]) -> None:
    async for change in demand:
        seen.append(change)  # noqa: PERF401, they are looked at while this runs


async def test_the_first_subscriber_and_the_last_one_are_told(autojump_clock: MockClock) -> None:
    """Not those between; nor patterns of the broker's own."""
    async with serving() as broker:
        listener, one, other = await subscribed(broker, "$sys.demand"), await connected(broker), await connected(broker)
        assert await _events(listener, 1) == [_all()]
        route = await one.subscribe("a.*")
        await other.subscribe("a.*")
        await other.subscribe("$sys.slow")
        await wait_all_tasks_blocked()
        await one.unsubscribe(route)
        await wait_all_tasks_blocked()
        await other.close()
        await wait_all_tasks_blocked()
        await one.subscribe("b")

        assert await _events(listener, 3) == [
            {"event": "wanted", "pattern": "a.*"},
            {"event": "unwanted", "pattern": "a.*"},
            {"event": "wanted", "pattern": "b"},
        ]


async def test_who_subscribes_learns_what_is_wanted_behind_the_answer(autojump_clock: MockClock) -> None:
    """Also by a pattern that matches the topic, and again when it subscribes again."""
    async with serving() as broker:
        await subscribed(broker, "a.*")
        listener = await connected(broker)
        for number in (1, 2):
            assert isinstance(await listener.ask(Subscribe(number, "$sys.demand")), Ok)
            assert await _events(listener, 1) == [_all("a.*")]
        other = await subscribed(broker, "$sys.>")

        assert await _events(other, 1) == [_all("a.*")]


async def test_a_long_list_comes_in_parts(autojump_clock: MockClock) -> None:
    """None over the limit, together all of them, and nothing twice; the last says that it is."""
    patterns = [f"{number:03}." + "x" * 246 for number in range(300)]
    async with serving(max_subscriptions=None) as broker:
        wanting = await connected(broker)
        for pattern in patterns:
            await wanting.subscribe(pattern)
        listener = await subscribed(broker, "$sys.demand")
        parts = await _events(listener, 3)

        assert [(part["part"], part["more"]) for part in parts] == [(0, True), (1, True), (2, False)]
        assert all(sum(len(msgpack.packb(each)) for each in part["patterns"]) <= PART_BYTES for part in parts)
        assert [each for part in parts for each in part["patterns"]] == patterns


async def test_what_ends_in_a_sweep_is_told(autojump_clock: MockClock) -> None:
    """A subscriber that a sweep finds too slow, with hundreds of wildcard patterns: each is told, and all goes on."""
    patterns = {f"p{number}.*" for number in range(PORTION + 50)}
    async with serving(max_pending_bytes=200_000) as broker:
        slow, publisher = await connected(broker), await connected(broker)
        for pattern in (*patterns, ">"):
            await slow.subscribe(pattern)
        listener = await subscribed(broker, "$sys.demand")
        [listed] = await _events(listener, 1)
        for _ in range(40):
            await publisher.publish("a", b"x" * 10_000)
            await wait_all_tasks_blocked()
        told = await _events(listener, len(patterns) + 1)

        assert set(listed["patterns"]) == {*patterns, ">"}
        assert {(each["event"], each["pattern"]) for each in told} == {("unwanted", p) for p in (*patterns, ">")}
        assert broker.statistics().slow_consumers == 1


async def test_coming_and_going_at_once_is_not_told(autojump_clock: MockClock) -> None:
    """What is as it was by the time that it could be told is no news."""
    async with serving() as broker:
        listener, client = await subscribed(broker, "$sys.demand"), await connected(broker)
        await _events(listener, 1)
        hub = broker._hub
        hub.demand.changed("flicker", True)
        hub.demand.changed("flicker", False)
        await client.subscribe("b")

        assert await _events(listener, 1) == [{"event": "wanted", "pattern": "b"}]


async def test_nothing_is_published_while_nobody_listens(autojump_clock: MockClock) -> None:
    """Nor after the last listener has gone."""
    async with serving() as broker:
        listener, client = await connected(broker), await connected(broker)
        route = await listener.subscribe("$sys.demand")
        await _events(listener, 1)
        await listener.unsubscribe(route)
        before = broker.statistics().published
        await client.subscribe("b")
        await wait_all_tasks_blocked()

        assert broker.statistics().published == before


# ------------------------------------------------------------------ the client


async def test_a_publisher_follows_what_is_wanted(
    autojump_clock: MockClock, fanwire_broker: Broker, fanwire_client: Client
) -> None:
    """Those wanted already first, then changes; only patterns that overlap."""
    async with (
        client_of(fanwire_broker) as other,
        other.subscribe("ticker.A"),
        other.subscribe("news"),
        fanwire_client.demand("ticker.*") as demand,
    ):
        assert await _next(demand) == ("ticker.A", True)
        async with other.subscribe("elsewhere"), other.subscribe(">"):
            assert await _next(demand) == (">", True)
        assert await _next(demand) == (">", False)


async def test_each_demand_of_a_client_begins_with_what_is_wanted(
    autojump_clock: MockClock, fanwire_broker: Broker, fanwire_client: Client
) -> None:
    """Though they share one stream from the broker; and the first is told nothing twice."""
    seen: list[tuple[str, bool]] = []
    async with (
        client_of(fanwire_broker) as other,
        other.subscribe("a"),
        fanwire_client.demand() as first,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_more, first, seen)
        await wait_all_tasks_blocked()
        assert seen == [("a", True)]
        async with fanwire_client.demand("a") as second:
            assert await _next(second) == ("a", True)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert seen == [("a", True)]


async def test_after_a_reconnect_only_differences_are_given(autojump_clock: MockClock) -> None:
    """What went meanwhile as not wanted, what came as wanted, what stayed not at all."""
    streams: list[trio.abc.Stream] = []
    away = trio.Event()
    async with broker_in_memory() as broker, client_of(broker) as other:

        async def open_stream() -> trio.abc.Stream:
            if streams:
                await away.wait()
            streams.append(await broker.open_stream())
            return streams[-1]

        gone, stays = other.subscribe("t.gone"), other.subscribe("t.stays")
        async with client_of(broker, open_stream=open_stream) as client, stays, client.demand("t.*") as demand:
            async with gone:
                assert {await _next(demand), await _next(demand)} == {("t.stays", True), ("t.gone", True)}
                await trio.aclose_forcefully(streams[0])
                await wait_all_tasks_blocked()
            async with other.subscribe("t.new"):
                away.set()
                assert [await _next(demand), await _next(demand)] == [("t.gone", False), ("t.new", True)]
            assert await _next(demand) == ("t.new", False)


async def test_a_long_list_is_taken_as_one(autojump_clock: MockClock, fanwire_broker: Broker) -> None:
    """A list in parts is no reason to think that what the other parts have is not wanted."""
    patterns = {f"t.{number:03}." + "x" * 240 for number in range(300)}
    async with client_of(fanwire_broker) as other, client_of(fanwire_broker) as client, trio.open_nursery() as nursery:
        for pattern in patterns:
            nursery.start_soon(_enter_and_stay, other, pattern)
        await wait_all_tasks_blocked()
        async with client.demand("t.>") as demand, client.demand("t.>") as again:
            for each in (demand, again):
                assert {await _next(each) for _ in patterns} == {(pattern, True) for pattern in patterns}
            with trio.move_on_after(1) as scope:
                await anext(demand)
            assert scope.cancelled_caught
        nursery.cancel_scope.cancel()


async def _enter_and_stay(client: Client, pattern: str) -> None:
    async with client.subscribe(pattern):
        await trio.sleep_forever()


async def test_the_end_of_a_list_alone_says_nothing(
    autojump_clock: MockClock, fanwire_broker: Broker, fanwire_client: Client
) -> None:
    """Whose beginning went to others: what it does not name may be wanted all the same."""
    async with client_of(fanwire_broker) as other, other.subscribe("a"), fanwire_client.demand() as demand:
        assert await _next(demand) == ("a", True)
        await fanwire_broker._hub.demand._publish([{**_all(), "part": 1}])
        async with other.subscribe("b"):
            assert await _next(demand) == ("b", True)


async def test_a_wrong_pattern_is_refused_at_once(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """As by `subscribe`."""
    with pytest.raises(LocalProtocolError):
        fanwire_client.demand("a..b")


async def test_a_feed_on_demand_publishes_only_what_is_wanted(
    autojump_clock: MockClock, fanwire_broker: Broker, fanwire_client: Client
) -> None:
    """Nothing before somebody comes, then that topic alone, and nothing any more when nobody is left."""
    said: list[str] = []
    chosen, progress = Feed(("AAPL", "IBM"), rate=10, seed=1), Progress()
    wanted = OnDemand("stocks.*", chosen.topics(), said.append)
    async with client_of(fanwire_broker) as other, trio.open_nursery() as nursery:
        await nursery.start(wanted.follow, fanwire_client)
        nursery.start_soon(publish_bars, fanwire_client, chosen.schedule(), progress, wanted.wants)
        await trio.sleep(10)
        assert (progress.published, said) == (0, [])
        async with other.subscribe("elsewhere.>"), other.subscribe("*.IBM") as subscription:
            with trio.fail_after(60):
                topics = {(await anext(subscription)).topic for _ in range(10)}
            async with other.subscribe("stocks.>"):
                await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        published = progress.published
        await trio.sleep(10)
        nursery.cancel_scope.cancel()

    assert topics == {"stocks.IBM"}
    assert (progress.published, published >= 10) == (published, True)
    assert said == ["somebody is subscribed: publishing", "nobody is subscribed: pausing"]


async def test_a_late_feed_lets_others_run_though_nothing_is_wanted(
    autojump_clock: MockClock, fanwire_client: Client
) -> None:
    """Bars that are passed over count for the next checkpoint, too."""
    turns, progress, wanted = 0, Progress(), iter((True,))

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    late = [(-1.0, bar) for bar in read_bars()[:2560]]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        await publish_bars(fanwire_client, iter(late), progress, lambda _: next(wanted, False))
        nursery.cancel_scope.cancel()

    assert progress.published == 1
    assert turns >= 8
