"""What the broker grants a subscription, changing it while it runs, and the broker's warning."""

import logging

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.client import (
    Closed,
    Granted,
    LaggingReport,
    LocalProtocolError,
    LostMessages,
    RequestFailed,
    Subscription,
)
from fanwire.protocol import Backlog, Error, Lagging, Ok, Subscribe, SubscribeOptions, encode
from tests.unit.client.scripted_peer import PeerConnection, ScriptedPeer, connected, message


async def _refuse(end: PeerConnection) -> None:
    subscribe = await end.expect(Subscribe)
    await end.send(Error(subscribe.id, "forbidden", "not that much"))


async def test_max_rate_is_asked_for(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """It goes to the broker as the option that it is."""
    asked: list[Subscribe] = []

    async def grant(end: PeerConnection) -> None:
        asked.append(await end.grant(1))

    async with connected(peer) as (client, end):
        peer.nursery.start_soon(grant, end)
        async with client.subscribe("a", max_rate=2.5):
            pass

    assert asked[0].options == SubscribeOptions(max_rate=2.5)


@pytest.mark.parametrize("options", [{"max_rate": 0}, {"queue": 0}, {"on_slow": "x"}])
async def test_wrong_options_for_the_broker(
    peer: ScriptedPeer, autojump_clock: MockClock, options: dict[str, object]
) -> None:
    """They are refused here, before anything is sent."""
    async with connected(peer) as (client, _):
        with pytest.raises(LocalProtocolError, match=next(iter(options))) as caught:
            client.subscribe("a", **options)  # type: ignore[arg-type]

    assert caught.value.code == "bad_option"


async def test_a_wrong_on_slow_reconnect(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """It is told, with what there is."""
    async with connected(peer) as (client, _):
        with pytest.raises(ValueError, match="must be 'raise', 'conflate' or 'resume'"):
            client.subscribe("a", on_slow_reconnect="drop")  # type: ignore[arg-type]


async def test_what_was_granted(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """It is what the OK says; before it there is nothing."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(lambda: end.grant(1, queue=100, max_rate=5, on_slow="conflate", later="?"))
        subscription = client.subscribe("a", queue=1000)
        assert subscription.granted is None
        async with subscription:
            assert subscription.granted == Granted(queue=100, max_rate=5, on_slow="conflate")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, Granted(None, None, "disconnect")),
        ({"queue": 5, "on_slow": "drop_oldest"}, Granted(5, None, "drop_oldest")),
        ({"max_rate": 2.0}, Granted(None, 2.0, "conflate")),
    ],
)
async def test_a_broker_that_does_not_say_what_it_grants(
    peer: ScriptedPeer, autojump_clock: MockClock, asked: dict[str, object], expected: Granted
) -> None:
    """Then its yes is to what was asked for."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", **asked) as subscription:  # type: ignore[arg-type]
            assert subscription.granted == expected


async def test_what_is_granted_cannot_be_written(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Assigning to it would change nothing at the broker."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a") as subscription:
            assert subscription.granted
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                subscription.granted.queue = 5  # type: ignore[misc]


async def test_a_change(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """All options are sent again, those that were not named as they were; no loss is told, and messages go on."""
    asked: list[Subscribe] = []

    async def grant_both(end: PeerConnection) -> None:
        await end.grant(7)
        asked.append(await end.grant(7, queue=50, max_rate=2.0, on_slow="conflate"))
        await end.send(message(7, 1))

    async with connected(peer) as (client, end):
        peer.nursery.start_soon(grant_both, end)
        async with client.subscribe("a", queue=50, report_loss=True) as subscription:
            await subscription.change(max_rate=2.0)

            assert subscription.granted == Granted(50, 2.0, "conflate")
            assert (await anext(subscription)).data == 1
            assert (subscription.gaps, subscription.lost) == (0, 0)

    assert (asked[0].pattern, asked[0].options) == ("a", SubscribeOptions(queue=50, max_rate=2.0))


async def test_a_change_is_for_all_of_the_pattern_and_survives_an_outage(
    peer: ScriptedPeer, autojump_clock: MockClock
) -> None:
    """The next connection asks for what was changed; a change back is one, too."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(_grant_times, end, 3)
        async with client.subscribe("a", queue=50) as one, client.subscribe("a", queue=50) as two:
            await one.change(max_rate=2.0, on_slow="drop_oldest")
            await two.change(max_rate=None, queue=None)
            assert one.granted == two.granted == Granted(None, None, "drop_oldest")
            await end.cut()
            end = await peer.accept()

            assert (await end.grant(9)).options == SubscribeOptions(on_slow="drop_oldest")


async def _grant_times(end: PeerConnection, times: int) -> None:
    for _ in range(times):
        await end.grant(7)


async def test_a_refused_change(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """It raises the broker's reason; the subscription goes on as it was, after an outage too."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 7)
        async with client.subscribe("a", queue=50) as subscription:
            peer.nursery.start_soon(_refuse, end)
            with pytest.raises(RequestFailed, match="not that much"):
                await subscription.change(queue=1_000_000)
            await end.send(message(7, 1))
            assert (await anext(subscription)).data == 1
            assert subscription.granted == Granted(50, None, "disconnect")
            await end.cut()
            end = await peer.accept()

            assert (await end.grant(9)).options == SubscribeOptions(queue=50)


async def test_a_wrong_change(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Nothing is sent and nothing changes."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 7)
        async with client.subscribe("a") as subscription:
            with pytest.raises(LocalProtocolError, match="max_rate"):
                await subscription.change(max_rate=-1)
            peer.nursery.start_soon(subscription.change)

            assert (await end.grant(7)).options == SubscribeOptions()
            await wait_all_tasks_blocked()


async def test_a_change_without_a_connection(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """It returns at once, and the next connection asks for it."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 7)
        async with client.subscribe("a") as subscription:
            await end.cut()
            await wait_all_tasks_blocked()
            assert client.state == "waiting"
            await subscription.change(on_slow="conflate")
            assert client.state == "waiting"
            end = await peer.accept()

            assert (await end.grant(9)).options == SubscribeOptions(on_slow="conflate")


async def test_a_connection_that_goes_during_a_change(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Nobody knows whether it was carried out; the next connection asks for it in any case."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 7)
        async with client.subscribe("a") as subscription:
            peer.nursery.start_soon(_cut_after_subscribe, end)
            await subscription.change(queue=9)
            end = await peer.accept()

            assert (await end.grant(9)).options == SubscribeOptions(queue=9)


async def _cut_after_subscribe(end: PeerConnection) -> None:
    await end.expect(Subscribe)
    await end.cut()


async def test_a_cancelled_change_counts_all_the_same(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """It was sent: when the yes comes it is in force, and a further change builds on it."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 7)
        async with client.subscribe("a") as subscription:
            with trio.move_on_after(1) as scope:
                await subscription.change(queue=9)
            assert scope.cancelled_caught
            await end.grant(7)
            await wait_all_tasks_blocked()
            assert subscription.granted == Granted(9, None, "disconnect")
            peer.nursery.start_soon(subscription.change)

            assert (await end.grant(7)).options == SubscribeOptions(queue=9)
            await wait_all_tasks_blocked()


async def test_changes_come_one_after_the_other(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """The second begins from what the first has come to, refused or not."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 7)
        async with client.subscribe("a") as subscription:
            refused: list[str] = []
            peer.nursery.start_soon(_change_or_note, subscription, 8, refused)
            await wait_all_tasks_blocked()
            peer.nursery.start_soon(lambda: subscription.change(max_rate=1.0))
            await _refuse(end)

            assert (await end.grant(7)).options == SubscribeOptions(max_rate=1.0)
            await wait_all_tasks_blocked()
            assert refused == ["forbidden"]


async def _change_or_note(subscription: Subscription, queue: int, refused: list[str]) -> None:
    try:
        await subscription.change(queue=queue)
    except RequestFailed as error:
        refused.append(error.code)


async def test_changing_what_was_left_or_never_entered(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Both are told apart."""
    async with connected(peer) as (client, end):
        subscription = client.subscribe("a")
        with pytest.raises(RuntimeError, match="entered"):
            await subscription.change(queue=1)
        peer.nursery.start_soon(end.grant, 7)
        async with subscription:
            pass

        with pytest.raises(Closed):
            await subscription.change(queue=1)


async def test_the_end_of_the_client_during_a_change(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Whoever waits for the answer hears why it will not come."""
    heard: list[type[BaseException]] = []

    async def change(subscription: Subscription) -> None:
        try:
            await subscription.change(queue=1)
        except Closed as error:
            heard.append(type(error))

    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 7)
        subscription = client.subscribe("a")
        await subscription.__aenter__()
        peer.nursery.start_soon(change, subscription)
        await wait_all_tasks_blocked()

    await wait_all_tasks_blocked()
    assert heard == [Closed]


async def test_a_nonsensical_yes_to_a_change(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """OK without a route ends the connection as any nonsense does; the next one asks for the change."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 7)
        async with client.subscribe("a") as subscription:
            peer.nursery.start_soon(subscription.change)
            subscribe = await end.expect(Subscribe)
            await end.send(Ok(subscribe.id, {}))

            assert await end.close_code() == 1002
            end = await peer.accept()
            await end.grant(8)
            await end.send(message(8, 1))
            assert (await anext(subscription)).data == 1


async def test_joining_after_a_change(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Who asks for what the first one asked for, or for what holds now, joins; who asks for something else may not."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(_grant_times, end, 2)
        async with client.subscribe("a", queue=5) as first:
            await first.change(queue=6)
            async with client.subscribe("a", queue=5) as second, client.subscribe("a", queue=6) as third:
                assert first.granted == second.granted == third.granted == Granted(6, None, "disconnect")
            with pytest.raises(LocalProtocolError, match=r"change\("):
                async with client.subscribe("a", queue=7):
                    pytest.fail("subscribed")


async def test_the_warning(peer: ScriptedPeer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """LAGGING is kept with its time, logged once, and passes with a change that is granted."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 7)
        async with client.subscribe("a") as subscription, _other(client.subscribe("b"), peer, end) as other:
            assert subscription.lagging is None
            await trio.sleep(5)
            with caplog.at_level(logging.WARNING, "fanwire.client"):
                await end.send(Lagging(7, 80, 100, 1500), message(7, 1))
                await anext(subscription)

            assert subscription.lagging == LaggingReport(80, 100, 1.5, received_s=5.0)
            assert other.lagging is None
            assert [record.message for record in caplog.records] == [
                "'a' falls behind: 80 messages wait at the broker (of 100 that may), the oldest for 1.500 s"
            ]
            peer.nursery.start_soon(end.grant, 7)
            await subscription.change(max_rate=1.0)
            assert subscription.lagging is None


def _other(subscription: Subscription, peer: ScriptedPeer, end: PeerConnection) -> Subscription:
    peer.nursery.start_soon(end.grant, 8)
    return subscription


async def test_an_outage_ends_the_warning(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """The next connection begins with nothing waiting."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 7)
        async with client.subscribe("a") as subscription:
            await end.send(Lagging(7, 80, 100, 1500), Lagging(99, 1, 1, 1))
            await wait_all_tasks_blocked()
            assert subscription.lagging
            await end.cut()
            await wait_all_tasks_blocked()

            assert subscription.lagging is None


async def test_the_next_connection_hears_of_a_backlog(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """A buffer that was filling up when the connection went still is."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 4)
        async with client.subscribe("a", buffer=8) as subscription:
            await end.send(*(message(4, n) for n in range(7)))
            assert (await end.expect(Backlog)).queued == 7
            await end.cut()
            end = await peer.accept()
            await end.grant(5)

            assert await end.expect(Backlog) == Backlog(0, 5, 7, 8)
            assert subscription.waiting == 7


async def test_a_lost_message_of_a_first_connection_is_not_a_reconnect(
    peer: ScriptedPeer, autojump_clock: MockClock
) -> None:
    """Two yeses on one connection are no gap; a yes on another one is, once."""
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(_grant_times, end, 2)
        async with client.subscribe("a", report_loss=True) as subscription:
            await subscription.change(queue=5)
            await end.cut()
            end = await peer.accept()
            await end.grant(9)
            await end.websocket.send_message(encode(message(9, 1)))

            mark = await anext(subscription)
            assert isinstance(mark, LostMessages)
            assert (mark.count, mark.reason) == (None, "reconnect")
            assert (await anext(subscription)).data == 1
            assert subscription.gaps == 1
