"""What happens here when the broker ends a subscription, or the connection, because this client was too slow."""

import logging

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.client import Client, LostMessages, Message, SlowConsumer, Subscription
from fanwire.client.config import Settings
from fanwire.protocol import Error, Goodbye, Subscribe, SubscribeOptions, Unsubscribe
from tests.unit.client.scripted_peer import PeerConnection, ScriptedPeer, connected, message

FACTS: dict[str, object] = {
    "measure": "queue",
    "route": 1,
    "queued": 10,
    "queued_bytes": 99,
    "oldest_ms": 1500,
    "limit": 10,
}
OF_THE_CONNECTION: dict[str, object] = {
    "measure": "stall_timeout",
    "route": None,
    "queued": 3,
    "queued_bytes": 99,
    "oldest_ms": 10_000,
}


async def _end_for_slowness(end: PeerConnection, detail: dict[str, object] = FACTS) -> None:
    await end.send(Goodbye("slow_consumer", "too slow", 100, detail))
    await end.websocket.aclose(4008)


async def _unsubscribe(end: PeerConnection) -> None:
    await end.send(Error(0, "slow_consumer", "queue full", FACTS))


async def _grant_two(end: PeerConnection) -> None:
    await end.grant(1)
    await end.grant(2)


async def test_the_facts_and_the_remedy(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """`SlowConsumer` has what the broker measured, and names the options that help."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a") as subscription:
            await _end_for_slowness(end)
            with pytest.raises(SlowConsumer) as caught:
                await anext(subscription)

    slow = caught.value
    assert (slow.pattern, slow.measure, slow.queued, slow.queued_bytes, slow.oldest_s, slow.limit, slow.at_broker) == (
        "a", "queue", 10, 99, 1.5, 10, True,
    )  # fmt: skip
    for remedy in ("on_slow='conflate'", "on_slow_reconnect='conflate'", "max_rate=", "queue=", "more processes"):
        assert remedy in str(slow)


async def test_facts_that_are_left_out_or_strange(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Another broker's facts may be fewer, or of another kind: None stands for what is not known."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", on_slow="unsubscribe") as subscription:
            await end.send(Error(0, "slow_consumer", "", {"route": 1, "measure": 7, "queued": "many"}))
            with pytest.raises(SlowConsumer) as caught:
                await anext(subscription)

    slow = caught.value
    assert (slow.measure, slow.queued, slow.queued_bytes, slow.oldest_s, slow.limit) == (None,) * 5


async def test_the_handlers_own_buffer_is_a_measure_too(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """It is told apart from the broker's."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", buffer=1) as subscription:
            await end.send(message(1, 1), message(1, 2))
            await wait_all_tasks_blocked()
            with pytest.raises(SlowConsumer) as caught:
                await anext(subscription)

    assert (caught.value.measure, caught.value.at_broker) == ("buffer", False)


async def test_unsubscribed_and_back(
    peer: ScriptedPeer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """With ``on_slow_reconnect="conflate"`` it is subscribed again at once, conflated; one mark says that it missed
    something, and one line is logged."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        options = {"on_slow": "unsubscribe", "on_slow_reconnect": "conflate", "queue": 10, "report_loss": True}
        async with client.subscribe("a", **options) as subscription:  # type: ignore[arg-type]
            await end.send(message(1, 1))
            with caplog.at_level(logging.WARNING, "fanwire.client"):
                await _unsubscribe(end)
                again = await end.grant(2)
            await end.send(message(2, 2))

            one, mark, two = [await anext(subscription) for _ in range(3)]
            assert (again.pattern, again.options) == ("a", SubscribeOptions(queue=10, on_slow="conflate"))
            assert (one.data, two.data) == (1, 2)
            assert isinstance(mark, LostMessages)
            assert (mark.count, mark.reason, mark.topic) == (None, "slow_consumer", None)
            assert (subscription.gaps, peer.attempts) == (1, 1)
            assert subscription.granted
            assert subscription.granted.on_slow == "conflate"
            (record,) = caplog.records
            assert record.message.startswith("the broker ended the subscription of 'a' for its slowness (queue)")


async def test_disconnected_and_back(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """The same after GOODBYE, when the next connection comes; the others of the client know of a reconnect only."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(_grant_two, end)
        async with (
            client.subscribe("slow", on_slow_reconnect="conflate", report_loss=True) as slow,
            client.subscribe("other", report_loss=True) as other,
        ):
            await _end_for_slowness(end)
            end = await peer.accept()
            assert (await end.grant(1)).options == SubscribeOptions(on_slow="conflate")
            assert (await end.grant(2)).options == SubscribeOptions()
            await end.send(message(1, 5), message(2, 6))

            assert await _reasons(slow, 5) == ["slow_consumer"]
            assert await _reasons(other, 6) == ["reconnect"]


async def _reasons(subscription: Subscription, until: int) -> list[str]:
    """Of the marks before the message."""
    reasons: list[str] = []
    while True:
        got: object = await anext(subscription)
        if isinstance(got, Message):
            assert got.data == until
            return reasons
        assert isinstance(got, LostMessages)
        reasons.append(got.reason)


async def test_the_next_outage_is_a_plain_one(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Once it is back, slowness is over; it stays conflated until it is changed."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", on_slow_reconnect="conflate", report_loss=True) as subscription:
            await _end_for_slowness(end)
            end = await peer.accept()
            await end.grant(1)
            await end.cut()
            end = await peer.accept()
            assert (await end.grant(1)).options == SubscribeOptions(on_slow="conflate")
            await end.send(message(1, 5))
            assert await _reasons(subscription, 5) == ["slow_consumer", "reconnect"]

            peer.nursery.start_soon(lambda: subscription.change(on_slow="disconnect"))
            assert (await end.grant(1)).options == SubscribeOptions()
            await wait_all_tasks_blocked()


@pytest.mark.parametrize("ending", [_end_for_slowness, _unsubscribe])
async def test_subscriptions_of_one_pattern_choose_each_for_itself(
    peer: ScriptedPeer, autojump_clock: MockClock, ending: object
) -> None:
    """Those that want to know end; the others come back."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with (
            client.subscribe("a") as ends,
            client.subscribe("a", on_slow_reconnect="conflate") as stays,
        ):
            await ending(end)  # type: ignore[operator]
            with pytest.raises(SlowConsumer):
                await anext(ends)
            if ending is _end_for_slowness:
                end = await peer.accept()
            await end.grant(3)
            await end.send(message(3, 7))

            assert (await anext(stays)).data == 7
            assert (ends.gaps, stays.gaps) == (0, 1)


async def test_one_that_was_ended_leaves_nothing_behind(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """The pattern can be subscribed to again, even before the ended subscription was left; an outage does not lose
    the new one."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", on_slow="unsubscribe") as first:
            await _unsubscribe(end)
            with pytest.raises(SlowConsumer):
                await anext(first)
            peer.nursery.start_soon(end.grant, 2)
            second = client.subscribe("a")
            await second.__aenter__()
        await end.cut()
        end = await peer.accept()
        await end.grant(3)
        await end.send(message(3, 7))

        assert (await anext(second)).data == 7
        await second.__aexit__(None, None, None)
        assert (await end.expect(Unsubscribe)).route == 3


@pytest.mark.parametrize("options", [{"on_slow": "drop_oldest"}, {"on_slow": "conflate"}, {"max_rate": 1.0}])
async def test_who_bears_loss_bears_a_slow_connection(
    peer: ScriptedPeer, autojump_clock: MockClock, options: dict[str, object]
) -> None:
    """When it is the connection that was too slow, only those end that did not agree to miss anything."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(_grant_two, end)
        async with (
            client.subscribe("a", report_loss=True, **options) as tolerant,  # type: ignore[arg-type]
            client.subscribe("b", on_slow="unsubscribe") as strict,
        ):
            await _end_for_slowness(end, OF_THE_CONNECTION)
            with pytest.raises(SlowConsumer) as caught:
                await anext(strict)
            assert caught.value.measure == "stall_timeout"
            end = await peer.accept()
            assert (await end.grant(1)).options == SubscribeOptions(**options)  # type: ignore[arg-type]
            await end.send(message(1, 5))

            assert await _reasons(tolerant, 5) == ["slow_consumer"]


async def test_unsubscribed_though_conflated(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """A broker that unsubscribes what it should conflate would do so again and again: that is the end."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", on_slow="conflate", on_slow_reconnect="conflate") as subscription:
            await _unsubscribe(end)

            with pytest.raises(SlowConsumer):
                await anext(subscription)


async def test_a_route_that_was_just_left_is_nobodys_fault(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """If the broker names a route that is not ours any more nobody ends."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a") as subscription:
            await _end_for_slowness(end, {**FACTS, "route": 77})
            end = await peer.accept()
            await end.grant(1)
            await end.send(message(1, 5))

            assert (await anext(subscription)).data == 5


async def test_a_change_on_the_way_is_kept(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """What was asked for when the broker ended it is asked for again, conflated."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", on_slow_reconnect="conflate") as subscription:
            peer.nursery.start_soon(_end_after_subscribe, end)
            await subscription.change(queue=500)
            end = await peer.accept()

            assert (await end.grant(1)).options == SubscribeOptions(queue=500, on_slow="conflate")


async def _end_after_subscribe(end: PeerConnection) -> None:
    await end.expect(Subscribe)
    await _end_for_slowness(end)


async def test_slow_again_and_again_waits_longer_and_longer(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """However long each connection lived, up to a minute: the broker's hint first, then more and more on top of it."""
    waits: list[float] = []
    settings: Settings = {"reconnect_base_s": 1.0, "stable_after_s": 10.0, "ping_interval_s": 1000.0}
    settings["draw"] = lambda: 1.0
    async with connected(peer, **settings) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", on_slow_reconnect="conflate"):
            for lived in (59, 59, 59, 60):
                await trio.sleep(lived)
                await _end_for_slowness(end)
                ended = trio.current_time()
                end = await peer.accept()
                waits.append(trio.current_time() - ended)
                await end.grant(1)

    assert waits == pytest.approx([0.1, 0.1 + 2, 0.1 + 4, 0.1])


async def test_an_ordinary_end_of_a_good_connection_is_forgiven(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """One that lived ``stable_after_s`` and ended otherwise makes the next wait a first one again."""
    async with connected(peer, reconnect_base_s=1.0, stable_after_s=10.0, draw=lambda: 1.0) as (_, end):
        for _ in range(2):
            await _end_for_slowness(end)
            end = await peer.accept()
        await trio.sleep(10)
        await end.cut()
        ended = trio.current_time()
        await peer.accept()

        assert trio.current_time() - ended == pytest.approx(1.0)


async def test_slowness_does_not_end_the_client(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Publishes go on over the next connection."""
    async with connected(peer) as (client, end):
        await _end_for_slowness(end)
        await peer.accept()
        await wait_all_tasks_blocked()

        assert _alive(client)


def _alive(client: Client) -> bool:
    client.publish_nowait("a", 1)
    return client.state == "connected"
