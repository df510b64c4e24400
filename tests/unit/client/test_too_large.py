"""A message that is larger than the client takes is told to whom it was for, and passed over; all else goes on."""

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import TopicRule
from fanwire.client import LostMessages, MessageTooLarge, Subscription
from fanwire.protocol import Fetch, Message, Ok, Subscribe
from fanwire.testing import client_of
from tests.integration.raw import serving
from tests.unit.client.scripted_peer import PeerConnection, ScriptedPeer, connected, message

LIMIT = 100_000
BIG = bytes(200_000)


def _big(route: int, topic: str | None = None, offset: int = 0) -> Message:
    return Message(route, topic, offset, 1_700_000_000_000_000, BIG)


async def _next(subscription: Subscription) -> object:
    with trio.fail_after(1):
        return (await anext(subscription)).data


async def test_in_its_place(peer: ScriptedPeer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """It is raised between its neighbours, names the setting, and the other subscription knows nothing of it."""
    async with connected(peer, max_message_bytes=LIMIT) as (client, end):
        peer.nursery.start_soon(_grant_two, end)
        async with client.subscribe("a") as one, client.subscribe("b.*") as other:
            await end.send(message(1, 1))
            await end.send(_big(1, offset=7))
            await end.send(message(1, 2), message(2, 3, "b.x"))

            assert await _next(one) == 1
            with pytest.raises(MessageTooLarge, match="max_message_bytes") as caught:
                await _next(one)
            assert (caught.value.topic, caught.value.offset, caught.value.limit) == ("a", 7, LIMIT)
            assert await _next(one) == 2
            assert await _next(other) == 3
            assert (one.lost, other.lost) == (1, 0)
            assert client.state == "connected"
    assert "max_message_bytes=100000" in caplog.text


async def _grant_two(end: PeerConnection) -> None:
    await end.grant(1, epoch="e", history=True, offset=6, time=1)
    await end.grant(2)


@pytest.mark.parametrize("on_full", ["disconnect", "drop_oldest", "conflate"])
async def test_in_batches(peer: ScriptedPeer, autojump_clock: MockClock, on_full: str) -> None:
    """What stands before it is given first."""
    async with connected(peer, max_message_bytes=LIMIT) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a.*", on_full=on_full) as one:  # type: ignore[arg-type]
            await end.send(message(1, 1, "a.x"), message(1, 2, "a.y"))
            await end.send(_big(1, "a.x"))
            await end.send(message(1, 3, "a.z"))
            await wait_all_tasks_blocked()

            assert [each.data for each in await one.next_batch(10)] == [1, 2]
            with pytest.raises(MessageTooLarge, match=r"a\.x"):
                await one.next_batch(10)
            assert [each.data for each in await one.next_batch(10)] == [3]


async def test_told_as_loss(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Who wants to be told of losses is told of this one so."""
    async with connected(peer, max_message_bytes=LIMIT) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a.*", report_loss=True) as one:
            await end.send(_big(1, "a.x", 5))

            lost: object = await anext(one)
            assert isinstance(lost, LostMessages)
            assert (lost.count, lost.reason, lost.topic, lost.first, lost.last) == (1, "too_large", "a.x", 5, 5)


async def test_what_was_passed_over_is_not_asked_for_again(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """After a break the subscription goes on behind it."""
    async with connected(peer, max_message_bytes=LIMIT) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a") as one:
            peer.nursery.start_soon(_grant_again, end, peer)
            with pytest.raises(MessageTooLarge):
                await _next(one)
            await trio.sleep(1)
            assert one.received == 0


async def _grant_again(end: PeerConnection, peer: ScriptedPeer) -> None:
    await end.cut()
    end = await peer.accept()
    await end.grant(1, epoch="e", history=True, offset=6, time=1)
    await end.send(_big(1, offset=7))
    await wait_all_tasks_blocked()
    await end.cut()
    end = await peer.accept()
    subscribe = await end.expect(Subscribe)
    assert subscribe.options.replay is not None
    assert subscribe.options.replay.offset == 7


async def test_an_answer(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """A page of history that is too large fails the call that asked for it."""

    async def answer(end: PeerConnection) -> None:
        fetch = await end.expect(Fetch)
        await end.send(Ok(fetch.id, {"messages": [[1, 1, BIG, 0, {}]]}))

    async with connected(peer, max_message_bytes=LIMIT) as (client, end):
        peer.nursery.start_soon(answer, end)
        with pytest.raises(MessageTooLarge, match="max_message_bytes"):
            await client.last("a")
        assert client.state == "connected"


@pytest.mark.parametrize("data", [BIG, b"\x93\x14\x01" + BIG, b"\x98\x13\xa1a" + BIG, b"\xc1" + BIG])
async def test_what_cannot_be_told(peer: ScriptedPeer, autojump_clock: MockClock, data: bytes) -> None:
    """Anything else of that size ends the connection, as it did."""
    async with connected(peer, max_message_bytes=LIMIT) as (_, end):
        await end.websocket.send_message(data)

        assert await end.close_code() == 1009


async def test_cut_in_pieces(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """However it comes, nothing but its beginning is kept."""
    async with connected(peer, max_message_bytes=LIMIT) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a") as one:
            body = b"\x97\x13\x01\xc0\x07\x05\xc6" + (1 << 20).to_bytes(4, "big") + bytes(1 << 20)
            frame = b"\x82\x7f" + len(body).to_bytes(8, "big") + body
            cuts = [0, *range(1, 20), 1000, 1030, 5000, len(frame)]
            for start, stop in pairwise(cuts):
                await end.stream.send_all(frame[start:stop])
                await wait_all_tasks_blocked()
            await end.send(message(1, 9))

            with pytest.raises(MessageTooLarge):
                await _next(one)
            assert await _next(one) == 9


async def test_with_a_broker(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Snapshot, history and live: the client never comes back again and again, and the broker's log says so, too."""
    caplog.set_level("INFO")
    async with (
        serving(rules=[TopicRule(pattern="big", retain=True, history=5)]) as broker,
        client_of(broker) as publisher,
        client_of(broker, max_message_bytes=LIMIT, name="small") as client,
    ):
        await publisher.publish("big", BIG, raw=True)
        async with client.subscribe("big", snapshot=True) as one:
            with pytest.raises(MessageTooLarge):
                await _next(one)
            await publisher.publish("big", 5)
            assert await _next(one) == 5
            assert one.recovered in (None, False)
        with pytest.raises(MessageTooLarge):
            await anext(client.history("big"))
        assert (await client.ping(), client.state) == (0, "connected")
    assert "client takes smaller messages" in caplog.text


async def test_only_a_smaller_bound_is_worth_a_line(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The defaults of both sides fit."""
    caplog.set_level("INFO")
    async with serving() as broker, client_of(broker):
        pass
    assert "smaller messages" not in caplog.text


async def test_batches_are_always_taken(autojump_clock: MockClock) -> None:
    """A smaller bound than a broker's batches have would lose many messages for one that is too large."""
    async with (
        serving() as broker,
        client_of(broker) as publisher,
        client_of(broker, max_message_bytes=1) as client,
        client.subscribe("t") as one,
    ):
        for number in range(1000):
            publisher.publish_nowait("t", [number, "x" * 100])
        await publisher.flush()

        assert [(await anext(one)).data[0] for _ in range(1000)] == list(range(1000))
