"""The broker's own topics: whatever rules and limits say, the broker can publish on them, and nobody else can."""

from __future__ import annotations

from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker, TopicRule
from fanwire.protocol import Error, Fetch, Message, Ok, Ping, Publish, PublishOptions
from fanwire.protocol.reserved import OWN, SLOW
from tests.integration.raw import CAPACITY, RawClient, code_of, connected, serving, subscribed

from .http_client import http

KEEPING = (
    TopicRule(pattern="$sys.>", history=10, retain=True),
    TopicRule(pattern="jobs.>", publisher_wait_s=1.0),
    TopicRule(pattern=">", history=10),
)


async def _fill(broker: Broker, topics: int) -> RawClient:
    """Have as many topics remembered as may be."""
    client = await connected(broker)
    for number in range(topics):
        assert isinstance(await client.ask(Publish(number + 1, f"full.{number}", b"x")), Ok)
    return client


async def test_without_a_place_left_the_broker_still_tells_of_itself(autojump_clock: MockClock) -> None:
    """Rules keep all, as many topics are remembered as may be, and somebody becomes slow: told, and kept."""
    async with serving(rules=KEEPING, max_stored_topics=2) as broker:
        publisher = await _fill(broker, 2)
        operator = await subscribed(broker, "$sys.*")
        slow = [await subscribed(broker, "full.*", queue=2, on_slow="drop_oldest") for _ in range(3)]
        for _ in range(2 * CAPACITY // 30_000 + 4):  # into their streams, then in line
            await publisher.publish("full.0", b"x" * 30_000)
            await wait_all_tasks_blocked()
        heard: set[str | None] = set()
        while heard != OWN:
            heard.add((await operator.expect(Message)).topic)

        assert {kept.name for kept in broker._hub.store.topics} == {"full.0", "full.1", *OWN}
        page = await publisher.ask(Fetch(10, SLOW, last=5))
        assert isinstance(page, Ok)
        assert len(page.result["messages"]) == len(slow)


async def test_others_leave_nothing_of_them_behind(autojump_clock: MockClock) -> None:
    """A client that tries to publish on a topic that begins with `$` makes no topic, and takes no place."""
    async with serving(rules=KEEPING) as broker:
        client = await connected(broker)
        for name in (*sorted(OWN), "$sys.other", "$other"):
            await client.send(Publish(0, name, b"x"))
            assert code_of(await client.expect(Error)) == (0, "forbidden")
            assert code_of(await client.ask(Publish(8, name, b"x"))) == (8, "forbidden")
            options = PublishOptions(key="k", retain=True)
            assert code_of(await client.ask(Publish(9, name, b"x", options=options))) == (9, "forbidden")
            assert (await (await http(broker)).ask("POST", f"/v1/publish/{name}", body=b"x")).code == "forbidden"

        assert broker._hub.registry.topic_names() == []
        assert list(broker._hub.store.topics) == []


async def test_one_topic_too_many_is_told_where_publishers_wait(autojump_clock: MockClock) -> None:
    """By ERROR and by HTTP, as elsewhere: the connection lives on."""
    async with serving(rules=KEEPING, max_stored_topics=2) as broker:
        client = await _fill(broker, 2)
        options = PublishOptions(key="k")
        for topic in ("jobs.new", "new"):
            assert code_of(await client.ask(Publish(1, topic, b"x"))) == (1, "too_many")
            assert code_of(await client.ask(Publish(2, topic, b"x", options=options))) == (2, "too_many")
            answer = await (await http(broker)).ask("POST", f"/v1/publish/{topic}", body=b"x")
            assert (answer.status, answer.code) == (429, "too_many")
        assert isinstance(await client.ask(Ping(3)), Ok)


async def test_who_only_looks_takes_no_place(autojump_clock: MockClock) -> None:
    """To ask who is subscribed to a topic that is not there is no publish."""
    async with serving(rules=KEEPING, max_stored_topics=1) as broker:
        await _fill(broker, 1)
        await subscribed(broker, "new")
        answer = await (await http(broker)).get("/v1/subscriptions?topic=new")

        assert answer.json["total"] == 1
        assert [kept.name for kept in broker._hub.store.topics] == ["full.0"]
