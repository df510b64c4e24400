"""Subscriptions: on the wire, their buffers in this process, and iterating."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.client import (
    Closed,
    LocalProtocolError,
    LostMessages,
    Message,
    RequestFailed,
    SlowConsumer,
    Subscription,
    Undecodable,
)
from fanwire.client.subscribing.weight import MESSAGE
from fanwire.protocol import Backlog, Error, Lost, Ok, SnapshotEnd, Subscribe, SubscribeOptions, Unsubscribe, encode
from fanwire.protocol import Message as Envelope
from tests.unit.client.scripted_peer import PeerConnection, ScriptedPeer, connected, message


async def _answer_unsubscribe(end: PeerConnection) -> None:
    unsubscribe = await end.expect(Unsubscribe)
    await end.send(Ok(unsubscribe.id, {}))


async def test_subscribe_and_unsubscribe(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Entering subscribes with the options for the broker, leaving unsubscribes and waits for the answer."""
    async with connected(peer) as (client, end):
        subscribes: list[Subscribe] = []

        async def grant() -> None:
            subscribes.append(await end.grant(7))

        peer.nursery.start_soon(grant)
        async with client.subscribe("a.>", queue=5, on_slow="drop_oldest"):
            peer.nursery.start_soon(_answer_unsubscribe, end)

        assert subscribes[0].pattern == "a.>"
        assert subscribes[0].options == SubscribeOptions(queue=5, on_slow="drop_oldest")
        assert trio.current_time() == 0


async def test_a_message(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """All that MESSAGE carries can be read."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a.*") as subscription:
            await end.send(Envelope(1, "a.b", 7, 123, b"\x81\xa1k\x01", 1, {"headers": {"h": "v"}}))
            got = await anext(subscription)

        assert (got.topic, got.offset, got.time, got.encoding) == ("a.b", 7, 123, 1)
        assert (got.payload, got.data, dict(got.headers)) == (b"\x81\xa1k\x01", {"k": 1}, {"h": "v"})
        assert got.data is got.data


async def test_a_payload_that_is_not_what_it_says(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """That is its publisher's fault: `Undecodable` where it is decoded, and the stream goes on."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a") as subscription:
            await end.send(Envelope(1, None, 0, 0, b"\xc1", 1), message(1, 2))
            bad = await anext(subscription)

            with pytest.raises(Undecodable, match="'a'"):
                _ = bad.data
            assert bad.payload == b"\xc1"
            assert (await anext(subscription)).data == 2


async def test_one_pattern_is_subscribed_once(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Two subscriptions of one pattern share a route; each gets everything; the last one to leave unsubscribes."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a") as one:
            async with client.subscribe("a") as two:
                await end.send(message(1, 5))
                assert (await anext(one)).data == (await anext(two)).data == 5
            peer.nursery.start_soon(_answer_unsubscribe, end)

        assert trio.current_time() == 0


async def test_one_pattern_has_one_set_of_options(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Other options for the broker are a mistake that is told, and the first subscription lives on."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", queue=1) as one:
            with pytest.raises(LocalProtocolError, match="another client"):
                async with client.subscribe("a", queue=2):
                    pytest.fail("subscribed")
            await end.send(message(1, 5))

            assert (await anext(one)).data == 5


async def test_a_refused_pattern(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Entering raises the broker's reason; trying again asks again."""
    async with connected(peer) as (client, end):
        for _ in range(2):
            peer.nursery.start_soon(_refuse, end)
            with pytest.raises(RequestFailed, match="too many"):
                async with client.subscribe("a"):
                    pytest.fail("subscribed")


async def _refuse(end: PeerConnection) -> None:
    subscribe = await end.expect(Subscribe)
    await end.send(Error(subscribe.id, "too_many", "too many"))


@pytest.mark.parametrize("pattern", ["", "a..b", "a.>.b"])
async def test_a_bad_pattern(peer: ScriptedPeer, autojump_clock: MockClock, pattern: str) -> None:
    """It is told at once."""
    async with connected(peer) as (client, _):
        with pytest.raises(LocalProtocolError) as caught:
            client.subscribe(pattern)

        assert caught.value.code == "bad_pattern"


async def test_cancelled_while_subscribing(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """If the yes comes when nobody waits for it any more the pattern is unsubscribed."""
    async with connected(peer) as (client, end):
        with trio.move_on_after(1):
            async with client.subscribe("a"):
                pytest.fail("subscribed")
        await end.grant(3)

        assert (await end.expect(Unsubscribe)).route == 3


async def test_cancelled_and_subscribed_again(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """The second one is asked for when the first has been answered, and taken back: the broker has one at a time."""
    async with connected(peer) as (client, end):
        with trio.move_on_after(1):
            async with client.subscribe("a", snapshot=True):
                pytest.fail("subscribed")

        async def grant_both() -> None:
            first = await end.expect(Subscribe)
            await wait_all_tasks_blocked()
            await end.send(Ok(first.id, {"route": 3}))
            assert (await end.expect(Unsubscribe)).route == 3
            await end.grant(3)
            await end.send(message(3, 4), SnapshotEnd(3, 1))

        peer.nursery.start_soon(grant_both)
        async with client.subscribe("a", snapshot=True) as subscription:
            assert (await anext(subscription)).data == 4


@pytest.mark.parametrize("answer", ["refused", "cut"])
async def test_cancelled_and_never_granted(peer: ScriptedPeer, autojump_clock: MockClock, answer: str) -> None:
    """The second one does not wait for a yes that never comes."""
    async with connected(peer) as (client, end):
        with trio.move_on_after(1):
            async with client.subscribe("a", snapshot=True):
                pytest.fail("subscribed")

        async def answer_both() -> None:
            first = await end.expect(Subscribe)
            await wait_all_tasks_blocked()
            if answer == "cut":
                await end.cut()
                await (await peer.accept()).grant(3)
            else:
                await end.send(Error(first.id, "forbidden", "not now"))
                await end.grant(3)

        peer.nursery.start_soon(answer_both)
        async with client.subscribe("a", snapshot=True) as subscription:
            assert subscription.granted


async def test_a_slow_handler_hurts_only_itself(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Its subscription ends with the facts, is unsubscribed, and the other one gets everything."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(_grant_slow_and_quick, end)
        async with client.subscribe("slow", buffer=10) as slow, client.subscribe("quick") as quick:
            await end.send(*(message(1, n) for n in range(10)))
            await trio.sleep(2)
            assert slow.waiting == 10
            await end.send(message(1, 10), message(2, 77))

            assert (await anext(quick)).data == 77
            with pytest.raises(SlowConsumer, match="make the buffer larger") as caught:
                await anext(slow)
            assert (await end.expect(Backlog)).queued == 10
            assert (await end.expect(Unsubscribe)).route == 1

    error = caught.value
    assert (error.queued, error.queued_bytes, error.limit, error.at_broker) == (10, 10 * (1 + MESSAGE), 10, False)
    assert error.oldest_s == pytest.approx(2.0)


async def _grant_slow_and_quick(end: PeerConnection) -> None:
    await end.grant(1)
    await end.grant(2)


async def test_bytes_are_bounded_too(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Two large messages can be more than a thousand small ones."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", buffer_bytes=1500) as subscription:
            for _ in range(2):
                await end.send(Envelope(1, None, 0, 0, b"x" * 1000))

            await wait_all_tasks_blocked()
            with pytest.raises(SlowConsumer, match="1384 bytes"):
                await anext(subscription)


@pytest.mark.parametrize(
    ("on_full", "left", "lost"),
    [("drop_oldest", [7, 8, 9], 7), ("drop_newest", [0, 1, 2], 7), ("conflate", [9], 0)],
)
async def test_policies(
    peer: ScriptedPeer, autojump_clock: MockClock, on_full: str, left: list[int], lost: int
) -> None:
    """What stays of ten messages on one topic in a buffer for three, and what counts as lost."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", buffer=3, on_full=on_full) as subscription:  # type: ignore[arg-type]
            for number in range(10):
                await end.send(message(1, number))
            await wait_all_tasks_blocked()

            assert [(await anext(subscription)).data for _ in left] == left
            assert (subscription.lost, subscription.waiting) == (lost, 0)


async def test_conflation_keeps_the_place_in_line(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Of each topic and key the newest waits, where the first one stood."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a.*", on_full="conflate") as subscription:
            keyed = Envelope(1, "a.x", 0, 0, b"\x09", 1, {"key": "k"})
            await end.send(message(1, 1, "a.x"), message(1, 2, "a.y"), keyed, message(1, 3, "a.x"))

            got = [await anext(subscription) for _ in range(3)]

            assert [(m.topic, m.data) for m in got] == [("a.x", 3), ("a.y", 2), ("a.x", 9)]


async def test_the_broker_hears_of_a_backlog(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """BACKLOG over 75 % and again below 50 %, once each."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 4)
        async with client.subscribe("a", buffer=8) as subscription:
            for number in range(8):
                await end.send(message(4, number))
            first = await end.expect(Backlog)
            for _ in range(8):
                await anext(subscription)
            with trio.move_on_after(1):
                await anext(subscription)
            second = await end.expect(Backlog)
            peer.nursery.start_soon(_answer_unsubscribe, end)

    assert (first.route, first.queued, first.limit) == (4, 7, 8)
    assert second.queued < 4


async def test_loss_at_the_broker_is_counted(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """LOST adds to `lost`, or to `gaps` when the broker could not count."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a") as subscription:
            await end.send(Lost(1, 5, "queue", None), Lost(1, None, "restart", None), message(1, 1))

            assert (await anext(subscription)).data == 1
            assert (subscription.lost, subscription.gaps) == (5, 1)


@pytest.mark.parametrize("on_full", ["disconnect", "conflate"])
async def test_loss_in_its_place(peer: ScriptedPeer, autojump_clock: MockClock, on_full: str) -> None:
    """With ``report_loss`` a mark stands where messages are missing, for both ways of iterating."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a.*", report_loss=True, on_full=on_full) as subscription:  # type: ignore[arg-type]
            sent = (message(1, 1, "a.a"), Lost(1, 5, "queue", "a.a"), message(1, 2, "a.b"))
            await end.send(*sent)
            one, lost, two = [await anext(subscription) for _ in range(3)]
            await end.send(*sent)
            batch = await anext(subscription.batches())

    assert isinstance(lost, LostMessages)
    assert (one.data, lost.count, lost.reason, lost.topic, two.data) == (1, 5, "queue", "a.a", 2)
    assert [type(entry) for entry in batch] == [Message, LostMessages, Message]


async def test_batches(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """All that waits comes as one list, up to the most that was asked for."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a") as subscription:
            await end.send(*(message(1, n) for n in range(100)))
            batches = subscription.batches(most=60)

            got = [[m.data for m in await anext(batches)] for _ in range(2)]

    assert got == [list(range(60)), list(range(60, 100))]


async def test_messages_split_over_websocket_messages(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """In fragments or whole, alone or many: the order is the order sent."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a") as subscription:
            await end.send(message(1, 0))
            frame = encode(message(1, 1))
            await end.stream.send_all(b"\x02\x03" + frame[:3] + b"\x80" + bytes((len(frame) - 3,)) + frame[3:])
            await end.send(message(1, 2), message(1, 3))

            assert [(await anext(subscription)).data for _ in range(4)] == [0, 1, 2, 3]


async def test_a_checkpoint_every_64_messages(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """A loop that never waits lets others run: after 64 messages at the latest."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a") as subscription:
            await end.send(*(message(1, n % 100) for n in range(1000)))
            await wait_all_tasks_blocked()
            taken = 0
            with trio.CancelScope() as scope:
                async for _ in subscription:
                    taken += 1
                    scope.cancel()

            assert taken <= 64
            assert subscription.waiting == 1000 - taken


async def test_the_reader_gives_way_to_a_busy_handler(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """A handler that takes messages as quickly as the processor lets it is not slow, however much comes at once."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", buffer=4000) as subscription:
            peer.nursery.start_soon(_flood, end)
            taken = 0
            async for _ in subscription:
                taken += 1
                if taken == 20_000:
                    break


async def _flood(end: PeerConnection) -> None:
    for _ in range(20):
        await end.send(*(message(1, n % 100) for n in range(1000)))


async def test_a_subscription_that_was_left(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Who still iterates hears `Closed`; it cannot be entered again."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a") as subscription:
            peer.nursery.start_soon(_answer_unsubscribe, end)

        with pytest.raises(Closed):
            await anext(subscription)
        with pytest.raises(RuntimeError, match="once"):
            await subscription.__aenter__()


async def test_an_exception_in_a_handler_leaves_the_connection_alone(
    peer: ScriptedPeer, autojump_clock: MockClock
) -> None:
    """It ends the handler; others go on."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(_grant_and_send, end)
        async with client.subscribe("other") as other:
            with pytest.raises(ZeroDivisionError):
                await _divide(client.subscribe("mine"))
            await end.send(message(1, 8))

            assert (await anext(other)).data == 8


async def _grant_and_send(end: PeerConnection) -> None:
    await _grant_slow_and_quick(end)
    await end.send(message(2, 0))


async def _divide(subscription: Subscription) -> None:
    async with subscription:
        async for got in subscription:
            1 / got.data
