"""A session that has ended is never counted again, whatever was under way for it in the same moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker
from fanwire.broker.sessions.session import Session
from fanwire.protocol import Ok, Publish, Subscribe, SubscribeOptions
from tests.integration.raw import CAPACITY, RawClient, connected, serving, subscribed


async def _stuck(broker: Broker, pattern: str, **options: object) -> tuple[RawClient, Session]:
    """A subscriber that reads nothing, and whose stream is full; and its session."""
    client = await subscribed(broker, pattern, **options)
    await client.subscribe("fill")
    broker.publish("fill", bytes(2 * CAPACITY))
    await wait_all_tasks_blocked()
    return client, list(broker._hub.sessions)[-1]


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "conflate"])
async def test_who_is_gone_does_not_lag(policy: str, autojump_clock: MockClock) -> None:
    """Also if messages were gathered for it in the turn in which its connection broke."""
    async with serving() as broker:
        healthy = await subscribed(broker, "a.>", queue=1000, on_slow="drop_oldest")
        for _ in range(5):
            client, session = await _stuck(broker, "a.>", queue=4, on_slow=policy)
            for number in range(8):
                broker.publish(f"a.{number}", b"fills its queue")
            await wait_all_tasks_blocked()
            assert broker.statistics().lagging == 1

            for number in range(8):
                broker.publish(f"a.{number}", b"gathered")
            session.gone()
            await client.stream.aclose()
            await wait_all_tasks_blocked()

            assert broker.statistics().lagging == 0
        answer = await _answer_to_publish(broker)
        assert (answer["subscribers"], answer["lagging"]) == (1, 0)
        await healthy.stream.aclose()


async def _answer_to_publish(broker: Broker) -> Mapping[str, Any]:
    publisher = await connected(broker)
    answer = await publisher.ask(Publish(1, "a.b", b""))
    assert isinstance(answer, Ok)
    return answer.result


async def test_a_subscription_that_is_the_end_of_its_connection_is_counted_once(autojump_clock: MockClock) -> None:
    """What is asked for in the message that makes it too slow is not done any more: it would never be undone."""
    async with serving() as broker:
        other = await subscribed(broker, "t")
        for _ in range(3):
            client, session = await _stuck(broker, "t", queue=1)
            publishes = [Publish(0, "t", b"one too many")] * 3
            again = Subscribe(99, "t", SubscribeOptions(heartbeat=1.0, snapshot=True, presence=False))
            await client.send(*publishes, again, Subscribe(100, "new"))
            await wait_all_tasks_blocked()
            assert session.ending is not None
            await client.stream.aclose()
            await wait_all_tasks_blocked()

        statistics = broker.statistics()
        assert (statistics.connections, statistics.subscriptions, statistics.routes) == (1, 1, 1)
        await other.stream.aclose()


async def test_a_defect_in_one_session_does_not_reach_the_sweep(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its tasks have ended, but it has not left yet, nobody asks it for another task."""
    leave, now = Session._leave, trio.Event()

    async def fail(session: Session, connection: object) -> None:
        await now.wait()
        raise RuntimeError("a defect")

    def publish_and_leave(session: Session) -> None:
        """Nothing is gathered for it any more; and if it were, the sweep would not mind."""
        assert broker.publish("a", bytes(3 * CAPACITY)) == 0
        broker._hub.fanout.answer(session.outbox, bytes(3 * CAPACITY))
        broker._hub.fanout.flush(session.outbox)
        leave(session)

    async with serving() as broker:
        healthy = await subscribed(broker, "b")
        monkeypatch.setattr(Session, "_read", fail)
        client = await subscribed(broker, "a")
        monkeypatch.setattr(Session, "_leave", publish_and_leave)
        now.set()
        await wait_all_tasks_blocked()
        monkeypatch.undo()

        assert broker.statistics().closed_by_broker == {1011: 1}
        assert broker.statistics().connections == 1
        assert broker.publish("b", b"all is well") == 1
        assert await healthy.payloads(1) == [b"all is well"]
        await client.stream.aclose()
        await healthy.stream.aclose()
