"""What a subscriber asked to become of it when it is slow: each policy over a whole broker, seen from the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker, TopicRule
from fanwire.protocol import (
    Backlog,
    BrokerEnvelope,
    Error,
    Hello,
    Lagging,
    Lost,
    Message,
    Ok,
    Ping,
    Publish,
    PublishOptions,
    Subscribe,
    SubscribeOptions,
    Unsubscribe,
)
from tests.integration.raw import CAPACITY, RawClient, connected, serving, subscribed

# What a subscriber's stream takes whole: after it, nothing more goes out until the subscriber reads.
PLUG = b"p" * (CAPACITY - 30)
HALF = b"h" * 1000


class Scene:
    """A subscriber whose socket is full, and a publisher."""

    def __init__(self, broker: Broker, slow: RawClient, publisher: RawClient, route: int) -> None:
        self.broker = broker
        self.slow = slow
        self.publisher = publisher
        self.route = route

    async def publish(self, topic: str, *payloads: bytes, key: str | None = None) -> None:
        """One at a time, each swept before the next."""
        for payload in payloads:
            await self.publisher.send(Publish(0, topic, payload, options=PublishOptions(key=key)))
            await wait_all_tasks_blocked()

    async def read_all(self) -> list[BrokerEnvelope]:
        """All that comes out when the slow one reads on at last, after what had plugged its socket."""
        seen: list[BrokerEnvelope] = []
        await self.slow.send(Ping(99))
        await self.publish("end", b"end")
        while not seen or not (isinstance(seen[-1], Message) and seen[-1].payload == b"end"):
            seen.append(await self.slow.next())
        plugs = [each for each in seen[:-1] if isinstance(each, Message) and each.payload in (PLUG, HALF)]
        assert [each.payload for each in plugs] == [PLUG, HALF]
        return [each for each in seen[:-1] if each not in plugs and each != Ok(99)]


@asynccontextmanager
async def _plugged(pattern: str = "a", settings: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Scene]:
    async with serving(**settings or {}) as broker:
        slow, publisher = await connected(broker), await connected(broker)
        plug = await slow.subscribe("plug")
        route = await slow.subscribe(pattern, **options)
        await slow.subscribe("end")
        assert plug != route
        for payload in (PLUG, HALF):
            await publisher.publish("plug", payload)
            await wait_all_tasks_blocked()
        yield Scene(broker, slow, publisher, route)


def _short(envelopes: list[BrokerEnvelope]) -> list[object]:
    """Payloads of messages; count, reason and topic of losses."""
    short: list[object] = []
    for each in envelopes:
        if isinstance(each, Message):
            short.append(each.payload)
        elif isinstance(each, Lost):
            short.append((each.count, each.reason, each.topic))
        elif not isinstance(each, Lagging):
            short.append(each)
    return short


async def test_drop_oldest_tells_what_went_in_front_of_what_stayed(autojump_clock: MockClock) -> None:
    """Queue of 3, six messages: LOST 3, then the newest three."""
    async with _plugged(on_slow="drop_oldest", queue=3) as scene:
        await scene.publish("a", b"1", b"2", b"3", b"4", b"5", b"6")

        assert _short(await scene.read_all()) == [(3, "queue", "a"), b"4", b"5", b"6"]


async def test_drop_newest_tells_what_went_behind_what_stayed(autojump_clock: MockClock) -> None:
    """Queue of 3, six messages: the oldest three, then LOST 3."""
    async with _plugged(on_slow="drop_newest", queue=3) as scene:
        await scene.publish("a", b"1", b"2", b"3", b"4", b"5", b"6")

        assert _short(await scene.read_all()) == [b"1", b"2", b"3", (3, "queue", "a")]


async def test_a_batch_is_cut_where_the_queue_ends(autojump_clock: MockClock) -> None:
    """Messages that travelled as one chunk are dropped one by one."""
    async with _plugged(on_slow="drop_oldest", queue=3) as scene:
        await scene.publisher.publish("a", b"1", b"2")
        await scene.publisher.publish("a", b"3", b"4", b"5")
        await wait_all_tasks_blocked()

        assert _short(await scene.read_all()) == [(2, "queue", "a"), b"3", b"4", b"5"]


async def test_losses_are_told_topic_by_topic(autojump_clock: MockClock) -> None:
    """Through a wildcard several topics are lost at one place: a LOST for each, adjoining ones of a topic in one."""
    async with _plugged("a.*", on_slow="drop_oldest", queue=1) as scene:
        await scene.publish("a.x", b"1")
        await scene.publish("a.y", b"2")
        await scene.publish("a.x", b"3", b"4")

        assert _short(await scene.read_all()) == [(2, "queue", "a.x"), (1, "queue", "a.y"), b"4"]


async def test_conflate_keeps_the_newest_in_the_place_of_the_first(autojump_clock: MockClock) -> None:
    """Each topic once, in the order in which they began to wait; what was replaced is no loss."""
    async with _plugged("a.*", on_slow="conflate") as scene:
        for topic, payload in (("a.x", b"1"), ("a.y", b"2"), ("a.x", b"3"), ("a.z", b"4"), ("a.x", b"5")):
            await scene.publish(topic, payload)

        assert _short(await scene.read_all()) == [b"5", b"2", b"4"]


async def test_conflate_looks_at_the_key(autojump_clock: MockClock) -> None:
    """Messages of one topic with different keys do not replace each other."""
    async with _plugged(on_slow="conflate") as scene:
        await scene.publish("a", b"1", key="x")
        await scene.publish("a", b"2", key="y")
        await scene.publish("a", b"3", key="x")
        await scene.publish("a", b"4")

        assert _short(await scene.read_all()) == [b"3", b"2", b"4"]


async def test_the_brokers_own_program_gives_keys_too(autojump_clock: MockClock) -> None:
    """`Broker.publish(…, key=…)` conflates as a client's publish does, and tells the key."""
    async with _plugged(on_slow="conflate") as scene:
        for key, payload in (("x", b"1"), ("y", b"2"), ("x", b"3")):
            scene.broker.publish("a", payload, key=key)
            await wait_all_tasks_blocked()
        seen = [each for each in await scene.read_all() if isinstance(each, Message)]

        assert [(each.payload, dict(each.meta)) for each in seen] == [(b"3", {"key": "x"}), (b"2", {"key": "y"})]


async def test_more_keys_than_may_wait_lose_the_oldest(autojump_clock: MockClock) -> None:
    """LOST with the reason `keys`, in front of what stayed."""
    async with _plugged("a.*", on_slow="conflate", queue=2) as scene:
        for topic in ("a.x", "a.y", "a.z", "a.y"):
            await scene.publish(topic, topic.encode())

        assert _short(await scene.read_all()) == [(1, "keys", "a.x"), b"a.y", b"a.z"]


async def test_unsubscribe_ends_one_route_and_nothing_else(autojump_clock: MockClock) -> None:
    """ERROR with the facts; the session lives, its other subscriptions too."""
    async with _plugged(on_slow="unsubscribe", queue=3) as scene:
        await scene.publish("a", b"1", b"2", b"3", b"4", b"5")
        seen = await scene.read_all()

        [error] = [each for each in seen if isinstance(each, Error)]
        assert (error.id, error.code) == (0, "slow_consumer")
        detail = {"measure": "queue", "route": scene.route, "queued": 3, "limit": 3}
        assert detail.items() <= dict(error.detail).items()
        assert set(error.detail) == {*detail, "queued_bytes", "oldest_ms"}
        assert [each for each in seen if isinstance(each, Message)] == []
        assert scene.broker.statistics().subscriptions == 2
        assert await scene.slow.subscribe("a") != scene.route


async def test_warned_before_the_limit_and_once(autojump_clock: MockClock) -> None:
    """LAGGING overtakes what waits, when more than three quarters of the queue do; a publisher hears of it, too."""
    async with _plugged(queue=8) as scene:
        answers = []
        for number in range(8):
            await scene.publisher.send(Publish(number + 1, "a", b"x"))
            await wait_all_tasks_blocked()
            answers.append((await scene.publisher.expect(Ok)).result)
        seen = await scene.read_all()

        assert isinstance(seen[0], Lagging)
        assert (seen[0].route, seen[0].queued, seen[0].limit) == (scene.route, 7, 8)
        assert len([each for each in seen if isinstance(each, Lagging)]) == 1
        assert [answer["lagging"] for answer in answers] == [0] * 7 + [1]
        assert scene.broker.publish("a", b"x") == 1
        await scene.publisher.send(Publish(9, "a", b"x"))
        assert (await scene.publisher.expect(Ok)).result["lagging"] == 0


async def test_a_clients_own_backlog_counts_as_lagging(autojump_clock: MockClock) -> None:
    """BACKLOG over three quarters, and again below one half."""
    async with serving() as broker:
        client = await connected(broker)
        route = await client.subscribe("a")
        lagging = []
        for queued in (75, 76, 50, 49):
            await client.send(Backlog(0, route, queued, 100), Publish(5, "a", b"x"))
            while not isinstance(answer := await client.next(), Ok):
                pass
            lagging.append(answer.result["lagging"])

        assert lagging == [0, 1, 1, 0]


async def test_nothing_of_a_route_follows_the_ok_to_unsubscribe(autojump_clock: MockClock) -> None:
    """Neither messages nor LOST."""
    async with _plugged("a.*", on_slow="drop_oldest", queue=2) as scene:
        for number in range(5):
            await scene.publish(f"a.{number}", b"x")
        await scene.slow.send(Unsubscribe(7, scene.route))
        seen = await scene.read_all()

        answered = seen.index(Ok(7))
        assert all(isinstance(each, Lagging) for each in seen[:answered])
        assert seen[answered + 1 :] == []


# ---------------------------------------------------------------------------------------------------------- max_rate


async def _times(client: RawClient, count: int) -> list[tuple[float, bytes]]:
    taken = []
    for _ in range(count):
        message = await client.expect(Message)
        taken.append((round(trio.current_time(), 3), message.payload))
    return taken


async def test_max_rate_sends_at_once_and_then_the_newest(autojump_clock: MockClock) -> None:
    """Two a second: the first at once, of the next ones the last, half a second later; each topic by itself."""
    async with serving() as broker:
        client = await subscribed(broker, "a.*", max_rate=2)
        began = trio.current_time()
        for payload in (b"1", b"2", b"3"):
            broker.publish("a.x", payload)
        broker.publish("a.y", b"4")
        seen = [(time - began, payload) for time, payload in await _times(client, 3)]
        await trio.sleep(2)
        broker.publish("a.x", b"5")
        late = await _times(client, 1)

        assert seen == [(0, b"1"), (0, b"4"), (0.5, b"3")]
        assert late == [(round(began + 2.5, 3), b"5")]
        assert broker.statistics().replaced == 1


async def test_a_rate_is_changed_live(autojump_clock: MockClock) -> None:
    """Subscribing again: same route; what is held goes by the new rate, or at once when there is none any more."""
    async with serving() as broker:
        client = await connected(broker)
        route = await client.subscribe("a", max_rate=0.1)
        began = trio.current_time()
        broker.publish("a", b"1")
        broker.publish("a", b"2")
        assert await client.payloads(1) == [b"1"]
        assert await client.subscribe("a", max_rate=1) == route
        assert await _times(client, 1) == [(round(began + 1, 3), b"2")]
        broker.publish("a", b"3")
        await client.send(Subscribe(9, "a"))
        assert await _times(client, 1) == [(round(began + 1, 3), b"3")]
        assert (await client.expect(Ok)).result["route"] == route
        broker.publish("a", b"4")
        broker.publish("a", b"5")

        assert await client.payloads(2) == [b"4", b"5"]


async def test_what_is_granted_is_echoed(autojump_clock: MockClock) -> None:
    """A rate implies conflation; a queue is capped; nil asks for as many as the broker lets wait."""
    async with serving(queue=100, max_queue=1000) as broker:
        client = await connected(broker)

        async def granted(**options: Any) -> tuple[Any, ...]:
            answer = await client.ask(Subscribe(client.number(), "a", SubscribeOptions(**options)))
            assert isinstance(answer, Ok)
            return tuple(answer.result[name] for name in ("queue", "max_rate", "on_slow"))

        assert await granted() == (100, None, "disconnect")
        assert await granted(queue=5000, on_slow="drop_oldest") == (1000, None, "drop_oldest")
        assert await granted(max_rate=2.5, on_slow="drop_oldest") == (100, 2.5, "conflate")


async def test_an_operator_forces_and_caps(autojump_clock: MockClock) -> None:
    """A legacy client that asks for nothing gets a conflated feed; others are left alone."""
    rules = (
        TopicRule(pattern="stocks.>", user="legacy-*", on_slow="conflate", max_queue=50),
        TopicRule(pattern="stocks.slow.>", max_rate=1.0),
    )
    async with serving(rules=rules) as broker:
        for name, pattern, expected in (
            ("legacy-7", "stocks.*", (50, None, "conflate")),
            ("legacy-7", "chat.>", (10_000, None, "disconnect")),
            ("modern", "stocks.*", (10_000, None, "disconnect")),
            ("modern", ">", (10_000, 1.0, "conflate")),
        ):
            client = await connected(broker)
            await client.send(Hello(0, name=name))
            answer = await client.ask(Subscribe(client.number(), pattern))
            assert isinstance(answer, Ok)
            assert tuple(answer.result[each] for each in ("queue", "max_rate", "on_slow")) == expected


async def test_what_a_rate_holds_goes_out_before_a_drain(autojump_clock: MockClock) -> None:
    """Who is told to go gets what waits for it first: that, too."""
    async with serving() as broker:
        client = await subscribed(broker, "a", max_rate=0.01)
        broker.publish("a", b"1")
        broker.publish("a", b"2")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.drain)
            ended = await client.ended()

        assert [each.payload for each in ended.envelopes if isinstance(each, Message)] == [b"1", b"2"]
        assert ended.code == 1001


# ----------------------------------------------------------------------------------------------------- publisher_wait


async def test_a_publisher_waits_where_it_was_told_to(autojump_clock: MockClock) -> None:
    """While somebody lags its publishes wait; nobody else's do; when there is room again they go on."""
    settings = {"rules": (TopicRule(pattern="a", publisher_wait_s=5.0),)}
    async with _plugged(settings=settings, queue=4) as scene:
        other = await connected(scene.broker)
        for _ in range(4):
            await scene.publish("a", b"x")
        await scene.publisher.send(*(Publish(number, "a", b"y") for number in (1, 2, 3)))
        await wait_all_tasks_blocked()
        assert scene.broker.statistics().published == 2 + 4
        assert isinstance(await other.ask(Publish(1, "b", b"z")), Ok)
        began = trio.current_time()
        seen = 0
        while seen < 9:
            seen += isinstance(await scene.slow.next(), Message)

        assert [(await scene.publisher.expect(Ok)).id for _ in range(3)] == [1, 2, 3]
        assert trio.current_time() == began
        assert scene.broker.statistics().slow_consumers == 0


async def test_a_publisher_waits_no_longer_than_that(autojump_clock: MockClock) -> None:
    """After its time the publish goes in, and the subscriber's policy decides."""
    settings = {"rules": (TopicRule(pattern="a", publisher_wait_s=5.0),)}
    async with _plugged(settings=settings, queue=4, on_slow="drop_oldest") as scene:
        for _ in range(4):
            await scene.publish("a", b"x")
        began = trio.current_time()
        answer = await scene.publisher.ask(Publish(1, "a", b"y"))

        assert isinstance(answer, Ok)
        assert trio.current_time() - began == pytest.approx(5.0)
        assert _short(await scene.read_all()) == [(1, "queue", "a"), b"x", b"x", b"x", b"y"]
