"""Requests against a peer that does what a test says: what is sent when, and what strange answers lead to."""

from __future__ import annotations

import math

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.client import BufferFull, ConnectionLost, RequestFailed
from fanwire.client.config import Options
from fanwire.client.exchange.deadlines import MOST_OVER, Deadlines
from fanwire.client.exchange.outgoing import Outgoing
from fanwire.client.message import Raw
from fanwire.client.notices import LostMessages
from fanwire.client.subscribing.inbox import Inbox
from fanwire.protocol import Error, Message, Ping, Publish, Subscribe, Welcome, decode_from_client
from tests.unit.client.scripted_peer import WELCOME, ScriptedPeer, connected

_OTHER = Welcome({**WELCOME.greeting, "inbox": "$inbox.other"})


async def test_a_broker_without_inboxes(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """One that is older: requests fail at once, nothing is sent."""
    async with connected(peer) as (client, _):
        with pytest.raises(RequestFailed, match="no inbox"):
            await client.request("a", 1)


async def test_what_was_not_sent_is_not_sent_on_another_connection(
    peer: ScriptedPeer, autojump_clock: MockClock
) -> None:
    """Publishes are, in their order; requests that waited among them have failed."""
    failed: list[BaseException] = []

    async with connected(peer) as (client, end):

        async def ask(number: int) -> None:
            with pytest.raises(ConnectionLost) as caught:
                await client.request("a", number, timeout_s=math.inf)
            failed.append(caught.value)

        await end.cut()
        end = await peer.accept(_OTHER)
        await wait_all_tasks_blocked()
        end.freeze()
        for _ in range(3):
            client.publish_nowait("big", b"x" * 900_000, raw=True)
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            client.publish_nowait("a", 1)
            nursery.start_soon(ask, 2)
            await wait_all_tasks_blocked()
            client.publish_nowait("a", 3)
            nursery.start_soon(ask, 4)
            await wait_all_tasks_blocked()
            client.publish_nowait("a", 5)
            await end.cut()
        end = await peer.accept(_OTHER)
        sent: list[object] = []
        while not sent or sent[-1] != 5:
            envelope = await end.receive()
            assert isinstance(envelope, Publish | Ping), envelope
            if isinstance(envelope, Publish) and envelope.topic == "a":
                sent.append(envelope.payload[0])

    assert sent == [1, 3, 5]
    assert len(failed) == 2


async def test_an_inbox_is_asked_for_with_the_first_request_of_a_connection(
    peer: ScriptedPeer, autojump_clock: MockClock
) -> None:
    """And not before; the request need not wait for the answer."""
    async with connected(peer) as (client, end), trio.open_nursery() as nursery:
        await end.cut()
        for inbox in ("$inbox.one", "$inbox.two"):
            end = await peer.accept(Welcome({**WELCOME.greeting, "inbox": inbox}))
            await wait_all_tasks_blocked()
            nursery.start_soon(_ask_in_vain, client.request, "a")
            subscribe, request = await end.expect(Subscribe), await end.expect(Publish)
            nursery.start_soon(_ask_in_vain, client.request, "b")
            again = await end.expect(Publish)

            assert (subscribe.pattern, subscribe.options.on_slow) == (f"{inbox}.*", "unsubscribe")
            topics = {request.options.reply_to, again.options.reply_to}
            assert len(topics) == 2
            assert all(topic and topic.startswith(f"{inbox}.") for topic in topics)
            await end.cut()
        await peer.accept()


async def _ask_in_vain(request: object, topic: str) -> None:
    with pytest.raises(ConnectionLost):
        await request(topic, 1, timeout_s=math.inf)  # type: ignore[operator]


async def test_errors_about_requests_of_others_harm_nobody(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """One that is over, or never was; the one that is open gets its own."""
    async with connected(peer) as (client, end), trio.open_nursery() as nursery:
        await end.cut()
        end = await peer.accept(_OTHER)
        await wait_all_tasks_blocked()

        async def ask() -> None:
            with pytest.raises(RequestFailed) as caught:
                await client.request("a", 1, timeout_s=math.inf)
            assert caught.value.code == "rate_limited"

        nursery.start_soon(ask)
        await end.grant(1)
        reply_to = (await end.expect(Publish)).options.reply_to
        for detail in ({"reply_to": "$inbox.other.none"}, {"reply_to": 5}, {"reply_to": reply_to}):
            await end.send(Error(0, "rate_limited", "slowly", {"about": "PUBLISH", **detail}))
        await end.send(Message(1, reply_to, 0, 1, b"x"))


# -------------------------------------------------------------------- parts


@attrs.define
class _Waiting:
    """Notes what it is told."""

    got: list[object] = attrs.field(factory=list)
    over: bool = False

    def take(self, raw: Raw) -> None:
        self.got.append(raw[5])

    def fail(self, error: Exception) -> None:
        self.got.append(str(error))

    def expire(self) -> None:
        self.got.append("expired")


def test_replies_that_the_broker_lost_are_told_to_who_waits_for_them() -> None:
    """To one, where it says of which topic; else to all."""
    inbox, one, other = Inbox("$inbox.a"), _Waiting(), _Waiting()
    topic = inbox.expect(one)
    inbox.expect(other)
    inbox.lose(LostMessages(1, "queue", topic))
    assert (len(one.got), other.got) == (1, [])
    inbox.lose(LostMessages(1, "queue", None))

    assert (len(one.got), len(other.got), len(inbox)) == (1, 1, 0)
    assert "(slow_consumer)" in str(other.got[0])


async def test_deadlines_in_whatever_order(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Each at its time; those that are over at none, and they do not pile up."""
    deadlines, waiting = Deadlines(), {after: _Waiting() for after in (3, 1, 2, 1.5)}
    began = trio.current_time()
    deadlines.add(began + 4, _Waiting())  # before it runs
    nursery.start_soon(deadlines.run)
    await wait_all_tasks_blocked()
    for after, each in waiting.items():
        deadlines.add(began + after, each)
    waiting[1.5].over = True
    deadlines.done()
    for after in (1, 2, 3):
        await trio.sleep_until(began + after - 0.01)
        assert waiting[after].got == []
        await trio.sleep_until(began + after + 0.01)
        assert waiting[after].got == ["expired"]
    assert waiting[1.5].got == []

    for _ in range(10 * MOST_OVER):
        short = _Waiting()
        deadlines.add(began + 1e6, short)
        short.over = True
        deadlines.done()
    assert len(deadlines._heap) <= MOST_OVER + 10


def test_a_full_buffer_takes_no_request() -> None:
    """The bounds of publishes are those of requests."""
    outgoing = Outgoing(Options(outgoing_messages=2))
    outgoing.add_at_once(b"1", bound=True)
    outgoing.add_at_once(b"2")
    with pytest.raises(BufferFull):
        outgoing.add_at_once(b"3", bound=True)


def test_what_is_bound_is_replaced_by_nothing_when_its_connection_goes() -> None:
    """In whichever batch it waits; numbers and bytes stay right."""
    outgoing = Outgoing(Options())
    outgoing.limit_to(20)
    for number in range(6):
        outgoing.add_at_once(b"%d" % number * 8, bound=number % 2 == 1)
    outgoing.lost(ConnectionLost("gone"))
    waiting = [envelope for batch in (*outgoing._sealed, outgoing._open) for envelope in batch]

    nothing = waiting[1]
    assert list(decode_from_client(nothing)) == [Ping(0)]
    assert waiting == [b"0" * 8, nothing, b"2" * 8, nothing, b"4" * 8, nothing]
    assert outgoing.waiting_bytes == sum(map(len, waiting))
    assert (outgoing.accepted, outgoing.written, outgoing._bound) == (6, 0, {})
