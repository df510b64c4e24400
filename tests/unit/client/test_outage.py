"""What happens when the connection goes."""

from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.client import BufferFull, Client, Closed, ConnectionLost, Refused, RequestFailed, SlowConsumer
from fanwire.protocol import (
    BrokerEnvelope,
    Error,
    Goodbye,
    Lost,
    Message,
    Ok,
    Publish,
    Replay,
    SnapshotEnd,
    Subscribe,
    Unsubscribe,
)
from tests.unit.client.scripted_peer import PeerConnection, ScriptedPeer, connected, message


async def _states(client: Client, seen: list[str]) -> None:
    async for state in client.states():
        seen.append(state)  # noqa: PERF401, they are looked at while this runs


async def test_reconnects_with_full_jitter(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """The waits are drawn from intervals that double; all listeners see every state."""
    seen: list[str] = []
    again: list[str] = []
    async with connected(peer, reconnect_base_s=1.0, draw=lambda: 0.5) as (client, end):
        peer.nursery.start_soon(_states, client, seen)
        peer.nursery.start_soon(_states, client, again)
        await wait_all_tasks_blocked()
        peer.unreachable = True
        await end.cut()
        await trio.sleep(0.5 + 1 + 2 + 0.1)
        assert peer.attempts == 4
        peer.unreachable = False
        await peer.accept()
        assert trio.current_time() == pytest.approx(0.5 + 1 + 2 + 2.5)
        await wait_all_tasks_blocked()
        assert client.state == "connected"

    await wait_all_tasks_blocked()
    assert seen == ["connected", *["waiting", "connecting"] * 4, "connected", "closed"]
    assert again == seen


async def test_the_brokers_hint_is_kept(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """GOODBYE's retry_after_ms is the wait, exactly: the broker drew it at random."""
    async with connected(peer) as (_, end):
        await end.send(Goodbye("shutting_down", "bye", 1234))
        await end.websocket.aclose(1001)

        await peer.accept()

        assert trio.current_time() == pytest.approx(1.234)


async def test_a_connection_that_dies_young_does_not_reset_the_wait(
    peer: ScriptedPeer, autojump_clock: MockClock
) -> None:
    """A broker that accepts and cuts at once is asked less and less often."""
    async with connected(peer, reconnect_base_s=1.0, draw=lambda: 1.0) as (_, end):
        for _ in range(3):
            await end.cut()
            end = await peer.accept()

        assert trio.current_time() == pytest.approx(1 + 2 + 4)


async def test_subscribes_again(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """After an outage the same subscription goes on, with the new route, and knows that it missed something."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 7)
        async with client.subscribe("a.*") as subscription:
            await end.cut()
            end = await peer.accept()
            await end.grant(9)
            await end.send(message(7, 1, "a.old"), message(9, 2, "a.new"))

            assert (await anext(subscription)).topic == "a.new"
            assert (subscription.gaps, subscription.lost) == (1, 0)


def _kept(route: int, offset: int) -> Message:
    return Message(route, None, offset, 1_700_000_000_000_000, b"x", 0)


@pytest.mark.parametrize(
    ("came", "next_begins_after"),
    [
        pytest.param([], Replay(offset=6, epoch="first"), id="OK"),
        pytest.param([Lost(9, None, "restart", "a")], Replay(offset=0, epoch="second"), id="LOST"),
        pytest.param([Lost(9, None, "restart", "a"), _kept(9, 1)], Replay(offset=1, epoch="second"), id="a message"),
        pytest.param([SnapshotEnd(9, 0)], Replay(offset=4, epoch="second"), id="SNAPSHOT_END"),
    ],
)
async def test_a_break_while_a_restart_is_told_hides_nothing(
    peer: ScriptedPeer, autojump_clock: MockClock, came: list[BrokerEnvelope], next_begins_after: Replay
) -> None:
    """Where the next connection goes on is as far as the last one has come, and not as far as it was answered."""
    kept = {"history": True, "recovered": False}
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(partial(end.grant, 7, epoch="first", offset=5, **kept))
        async with client.subscribe("a") as subscription:
            await end.send(_kept(7, 6))
            assert (await anext(subscription)).offset == 6
            await end.cut()
            end = await peer.accept()
            subscribe = await end.grant(9, epoch="second", offset=4, **kept)
            assert subscribe.options.replay == Replay(offset=6, epoch="first")
            if came:
                await end.send(*came)
            await wait_all_tasks_blocked()
            await end.cut()

            end = await peer.accept()
            subscribe = await end.expect(Subscribe)

            assert subscribe.options.replay == next_begins_after


async def test_publishes_wait_for_the_next_connection(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """What could not be sent is sent later, in order; `flush` waits for that."""
    async with connected(peer) as (client, end):
        await end.cut()
        await wait_all_tasks_blocked()
        for number in range(3):
            client.publish_nowait("a", number)
        peer.nursery.start_soon(client.flush)

        end = await peer.accept()

        assert [(await end.expect(Publish)).payload for _ in range(3)] == [b"\x00", b"\x01", b"\x02"]


async def test_the_buffer_is_bounded_during_an_outage(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """`BufferFull` says what to do; what was taken before stays."""
    async with connected(peer, outgoing_messages=2, reconnect_base_s=1000.0) as (client, end):
        await end.cut()
        await wait_all_tasks_blocked()
        client.publish_nowait("a", 1)
        client.publish_nowait("a", 2)

        with pytest.raises(BufferFull, match="no connection at the moment") as caught:
            client.publish_nowait("a", 3)

        assert caught.value.messages == 2


async def test_raise_on_outage(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """With ``on_outage="raise"`` nothing waits; once connected again all is well."""
    async with connected(peer, on_outage="raise") as (client, end):
        await end.cut()
        await wait_all_tasks_blocked()

        with pytest.raises(ConnectionLost):
            client.publish_nowait("a", 1)
        with pytest.raises(ConnectionLost):
            await client.publish("a", 1)

        end = await peer.accept()
        await wait_all_tasks_blocked()
        client.publish_nowait("a", 2)
        assert (await end.expect(Publish)).payload == b"\x02"


async def test_unanswered_publishes_fail(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Nobody knows what became of a publish that was sent and not answered."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(_cut_after_publish, end)

        with pytest.raises(ConnectionLost, match="broke off"):
            await client.publish("a", 1)


async def _cut_after_publish(end: PeerConnection) -> None:
    await end.expect(Publish)
    await end.cut()


async def test_a_publish_that_was_not_sent_waits(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """An acknowledged publish made during an outage is answered on the next connection."""
    async with connected(peer) as (client, end):
        await end.cut()
        await wait_all_tasks_blocked()
        peer.nursery.start_soon(_acknowledge_one, peer)

        assert (await client.publish("a", 1)).subscribers == 5


async def _acknowledge_one(peer: ScriptedPeer) -> None:
    end = await peer.accept()
    publish = await end.expect(Publish)
    await end.send(Ok(publish.id, {"subscribers": 5}))


async def test_without_reconnect_everything_ends(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """With ``reconnect=False`` whoever uses the client hears why, after what had come was taken."""
    async with connected(peer, reconnect=False) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a") as subscription:
            await end.send(message(1, 42))
            await wait_all_tasks_blocked()
            await end.cut()
            await wait_all_tasks_blocked()

            assert (await anext(subscription)).data == 42
            with pytest.raises(ConnectionLost):
                await anext(subscription)
            with pytest.raises(ConnectionLost):
                client.publish_nowait("a", 1)
            with pytest.raises(ConnectionLost):
                await client.ping()
            with pytest.raises(ConnectionLost):
                async with client.subscribe("b"):
                    pytest.fail("subscribed")
            assert client.state == "closed"


@pytest.mark.parametrize("code", [4001, 4003])
async def test_who_is_not_wanted_does_not_come_back(peer: ScriptedPeer, autojump_clock: MockClock, code: int) -> None:
    """4001 and 4003 end the client for good, with `Refused`."""
    async with connected(peer) as (client, end):
        await end.send(Goodbye("expired", "your token is old", 0))
        await end.websocket.aclose(code)
        await trio.sleep(100)

        with pytest.raises(Refused, match="your token is old"):
            client.publish_nowait("a", 1)
        assert peer.attempts == 1


async def test_slow_at_the_broker(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """4008 ends the subscription that the broker names, with the facts; the others live on after a reconnect."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(_grant_two, end)
        async with client.subscribe("slow") as slow, client.subscribe("other") as other:
            facts = {"measure": "queue", "route": 1, "queued": 10, "queued_bytes": 99, "oldest_ms": 1500}
            await end.send(Goodbye("slow_consumer", "too slow", 100, facts))
            await end.websocket.aclose(4008)
            end = await peer.accept()
            await end.grant(5)

            with pytest.raises(SlowConsumer, match="too slow") as caught:
                await anext(slow)
            await end.send(message(5, 3))
            assert (await anext(other)).data == 3

    error = caught.value
    assert (error.pattern, error.queued, error.queued_bytes, error.oldest_s, error.at_broker) == (
        "slow", 10, 99, 1.5, True,
    )  # fmt: skip


async def _grant_two(end: PeerConnection) -> None:
    await end.grant(1)
    await end.grant(2)


async def test_unsubscribed_by_the_broker(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """ERROR id 0 about a route of ours ends that subscription; the connection lives."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", on_slow="unsubscribe") as subscription:
            await end.send(Error(0, "slow_consumer", "queue full", {"route": 1}))

            with pytest.raises(SlowConsumer):
                await anext(subscription)
            assert client.state == "connected"


async def test_a_pattern_refused_after_an_outage(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """If the broker no longer grants a subscription it ends with the broker's reason."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a") as subscription:
            await end.cut()
            end = await peer.accept()
            subscribe = await end.expect(Subscribe)
            await end.send(Error(subscribe.id, "forbidden", "not any more"))

            with pytest.raises(RequestFailed, match="not any more"):
                await anext(subscription)


@pytest.mark.parametrize(
    ("bytes_", "code"),
    [
        (b"\xc1", 1007),
        (b"\x93\x13\x01", 1007),  # cut off
        (b"\x05", 1002),
        (b"\xa3abc", 1002),
        (b"\x90", 1002),
        (b"\x92\x11\xa1x", 1002),  # OK with a text for its id
        (b"\x96\x13\x01\xc0\x00\x00\x07", 1002),  # MESSAGE whose payload is a number
        (b"\x96\x13\x01\xc0\xa1x\x00\xc4\x00", 1002),  # … whose offset is a text
        (b"\x95\x13\x01\xc0\x00\x00", 1002),  # … too short
        (b"\x91" * 600 + b"\x00", 1007),
        (b"\xdd\xff\xff\xff\xff", 1007),
    ],
)
async def test_a_broker_that_cannot_be_understood(
    peer: ScriptedPeer, autojump_clock: MockClock, bytes_: bytes, code: int
) -> None:
    """The connection is closed with the code that says why, and made anew; nobody's code sees another exception."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a") as subscription:
            await end.websocket.send_message(bytes_)

            assert await end.close_code() == code
            end = await peer.accept()
            await end.grant(2)
            await end.send(message(2, 1))
            assert (await anext(subscription)).data == 1


async def test_what_stood_before_the_nonsense_counts(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Messages before a fault in the same WebSocket message are delivered."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a") as subscription:
            await end.websocket.send_message(b"\x96\x13\x01\xc0\x00\x00\xc4\x00" + b"\xc1")

            assert (await anext(subscription)).payload == b""


async def test_a_text_message_is_refused(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """This subprotocol speaks binary: 1003, and another connection."""
    async with connected(peer) as (_, end):
        await end.websocket.send_message("hello")

        assert await end.close_code() == 1003
        await peer.accept()


async def test_unknown_things_are_passed_over(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Type codes and trailing elements of a later version, answers nobody waits for, routes we left: no harm."""
    async with connected(peer) as (client, end):
        await end.websocket.send_message(b"\x92\x63\x01" + b"\x93\x11\x44\x80")
        await end.send(message(77, 1), Error(0, "unknown_type", "no BACKLOG here", {"about": "BACKLOG"}))
        await wait_all_tasks_blocked()

        assert client.state == "connected"


async def test_a_silent_broker_is_pinged_and_then_given_up(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """No sign of life for the interval and the timeout: a new connection."""
    async with connected(peer, ping_interval_s=20.0, ping_timeout_s=10.0, draw=lambda: 0.0) as (_, end):
        end.freeze()

        await peer.accept()

        assert trio.current_time() == pytest.approx(30.0)


async def test_a_broker_that_answers_pings_is_kept(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """An hour without messages is no reason to leave."""
    async with connected(peer):
        await trio.sleep(3600)

        assert peer.attempts == 1


async def test_leaving_during_an_outage(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """The block ends at once, however long the next attempt would be away; who still iterates hears `Closed`."""
    heard: list[type[BaseException]] = []

    async def iterate(client: Client) -> None:
        try:
            async for state in client.states():
                del state
            await client.flush()
            await client.publish("a", 1)
        except Closed as error:
            heard.append(type(error))

    async with connected(peer, reconnect_base_s=1000.0) as (client, end):
        peer.nursery.start_soon(iterate, client)
        await end.cut()
        await wait_all_tasks_blocked()

    await wait_all_tasks_blocked()
    assert heard == [Closed]
    assert trio.current_time() == 0


async def test_unsubscribing_without_a_connection(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Leaving a subscription during an outage waits for nobody, and it is not asked for again."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a"):
            await end.cut()
            await wait_all_tasks_blocked()
        client.publish_nowait("b", 1)

        end = await peer.accept()

        assert not isinstance(await end.receive(), (Subscribe, Unsubscribe))
