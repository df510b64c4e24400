"""Requests and replies at the broker: `reply_to`, `no_responders`, and inboxes that belong to one session."""

from __future__ import annotations

import logging
from typing import Any

import msgpack
import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker, TopicRule
from fanwire.protocol import Encoding, Error, Fetch, Message, Ok, Publish, PublishOptions, Subscribe, Welcome
from tests.integration.raw import CAPACITY, RawClient, code_of, connected, serving, subscribed


async def _with_inbox(broker: Broker) -> tuple[RawClient, str]:
    """A new client, and its inbox as WELCOME has it."""
    client = await connected(broker, welcomed=False)
    inbox = (await client.expect(Welcome)).greeting["inbox"]
    assert isinstance(inbox, str)
    return client, inbox


def _request(number: int, topic: str, reply_to: str, **options: Any) -> Publish:
    return Publish(number, topic, b"x", Encoding.TEXT, PublishOptions(reply_to=reply_to, **options))


async def test_each_session_has_an_inbox_of_its_own(autojump_clock: MockClock) -> None:
    """It subscribes to what lies below it, and nobody else does; nor to all inboxes, nor to the name itself."""
    async with serving() as broker:
        (client, inbox), (other, others) = await _with_inbox(broker), await _with_inbox(broker)
        for pattern in (f"{inbox}.>", f"{inbox}.*", f"{inbox}.a"):
            await client.subscribe(pattern)
        for pattern in (f"{inbox}.>", f"{inbox}.a", f"{others}x.>", others, "$inbox.>", "$inbox.*.a"):
            assert code_of(await other.ask(Subscribe(1, pattern))) == (1, "forbidden")

        assert inbox != others
        assert len(inbox) == len("$inbox.") + 32


@pytest.mark.parametrize("number", [0, 3], ids=["the fast road", "the slow road"])
@pytest.mark.parametrize("pattern", ["a.b", "a.*"])
async def test_a_request_and_its_reply(number: int, pattern: str, autojump_clock: MockClock) -> None:
    """Whoever is subscribed gets `reply_to`, and what is published there comes to who asked."""
    async with serving() as broker:
        client, inbox = await _with_inbox(broker)
        await client.subscribe(f"{inbox}.*")
        responder = await subscribed(broker, pattern)
        await client.send(_request(number, "a.b", f"{inbox}.1"))
        asked = await responder.expect(Message)
        await responder.publish(asked.meta["reply_to"], b"yes")
        if number:
            assert (await client.expect(Ok)).result["subscribers"] == 1
        replied = await client.expect(Message)

        assert (asked.payload, asked.encoding, dict(asked.meta)) == (b"x", Encoding.TEXT, {"reply_to": f"{inbox}.1"})
        assert (replied.topic, replied.payload) == (f"{inbox}.1", b"yes")


async def test_requests_among_publishes_keep_their_place(autojump_clock: MockClock) -> None:
    """In one WebSocket message, whichever road each takes."""
    async with serving() as broker:
        client, inbox = await _with_inbox(broker)
        responder = await subscribed(broker, "a")
        await client.send(
            Publish(0, "a", b"1"), _request(0, "a", f"{inbox}.1"), Publish(0, "a", b"2"), _request(0, "a", f"{inbox}.2")
        )

        assert await responder.payloads(4) == [b"1", b"x", b"2", b"x"]


async def test_nobody_to_answer_is_told_at_once(autojump_clock: MockClock) -> None:
    """By number or, without one, by where the reply was to go. Nothing is published, and nothing is kept."""
    async with serving(rules=(TopicRule(pattern="a", history=10),)) as broker:
        client, inbox = await _with_inbox(broker)
        route = await client.subscribe("a")
        await client.unsubscribe(route)
        with_number = await client.ask(_request(3, "a", f"{inbox}.1"))
        without = await client.ask(_request(0, "a", f"{inbox}.2"))

        assert code_of(with_number) == (3, "no_responders")
        assert code_of(without) == (0, "no_responders")
        assert isinstance(without, Error)
        assert dict(without.detail) == {"about": "PUBLISH", "reply_to": f"{inbox}.2"}
        assert broker.statistics().published == 0
        assert isinstance(await client.ask(Publish(4, "a", b"no reply wanted")), Ok)


async def test_replies_to_who_has_gone_reach_nobody(autojump_clock: MockClock) -> None:
    """That is no error of who replies."""
    async with serving() as broker:
        client, inbox = await _with_inbox(broker)
        await client.subscribe(f"{inbox}.*")
        await client.close()
        await wait_all_tasks_blocked()
        responder = await connected(broker)
        answer = await responder.ask(Publish(1, f"{inbox}.1", b"late"))

        assert answer == Ok(1, {"offset": 0, "subscribers": 0, "lagging": 0})


async def test_inboxes_remember_nothing(autojump_clock: MockClock) -> None:
    """Whatever a rule or a publisher says; nor are their topics kept among those that are published to again."""
    rules = (TopicRule(pattern="$inbox.>", history=10, retain=True),)
    async with serving(rules=rules) as broker:
        client, inbox = await _with_inbox(broker)
        await client.subscribe(f"{inbox}.*")
        known = len(broker._hub.registry._topics)
        await client.publish(f"{inbox}.1", b"a", b"b", b"c")
        first, *_ = [await client.expect(Message) for _ in range(3)]
        retained = await client.ask(Publish(1, f"{inbox}.1", b"x", Encoding.RAW, PublishOptions(retain=True)))
        fetched = await client.ask(Fetch(2, f"{inbox}.1", last=1))

        assert (first.offset, code_of(retained), code_of(fetched)) == (0, (1, "bad_option"), (2, "not_kept"))
        assert broker._hub.store.topics == []
        assert (len(broker._hub.registry._topics), broker._hub.registry.heads) == (known, {})


async def test_an_inbox_leaves_topics_that_are_known_alone(autojump_clock: MockClock) -> None:
    """Its coming and going is no reason to look all of them up again."""
    async with serving() as broker:
        client, inbox = await _with_inbox(broker)
        await client.publish("a", b"x")
        await wait_all_tasks_blocked()
        heads = dict(broker._hub.registry.heads)
        route = await client.subscribe(f"{inbox}.*")
        await client.unsubscribe(route)

        assert broker._hub.registry.heads == heads != {}


async def test_nobody_else_learns_of_an_inbox(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Not from what the broker tells of itself, nor from its log, when who has it is slow and is dropped."""
    caplog.set_level(logging.DEBUG)
    async with serving(max_queue=4) as broker:
        operator = await subscribed(broker, "$sys.>")
        (client, inbox), (other, others) = await _with_inbox(broker), await _with_inbox(broker)
        await client.subscribe(f"{inbox}.*", on_slow="unsubscribe")
        await other.subscribe(f"{others}.*")
        publisher = await connected(broker)
        for payload in (b"p" * CAPACITY, *[b"x" * 100] * 10):
            await publisher.publish(f"{inbox}.1", payload)
            await wait_all_tasks_blocked()
        events = [msgpack.unpackb((await operator.expect(Message)).payload) for _ in range(12)]
        told = repr((events, broker.connections(), [vars(record) for record in caplog.records]))

        assert {("lagging", "$inbox.…"), ("unsubscribed", "$inbox.…")} <= {
            (event.get("event"), event.get("pattern")) for event in events
        }
        reports = [event for event in events if "closed" in event]
        assert ["$inbox.…"] in [each["patterns"] for report in reports for each in report["connections"]]
        assert ["$inbox.…"] in [each.patterns for each in broker.connections()]
        assert "slow subscriber was unsubscribed" in told
        assert not [secret for secret in (inbox, others) if secret.removeprefix("$inbox.") in told]
