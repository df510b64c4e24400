"""Queue groups in the client: what it asks for, whom it gives what comes to, what it tells of what waits."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.client import Client, LocalProtocolError, SlowConsumer, Subscription
from fanwire.client.subscribing.queue_groups import ALIVE_S, EAGER, MOST_UNSAID, SOON_S
from fanwire.protocol import Backlog, Lost, Message, Ok, Subscribe, SubscribeOptions, Unsubscribe
from tests.unit.client.scripted_peer import PeerConnection, ScriptedPeer, connected, message


async def _entered(client: Client, end: PeerConnection, route: int, pattern: str = "a", **options: Any) -> Subscription:
    subscription = client.subscribe(pattern, **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscription.__aenter__)
        await end.grant(route)
    return subscription


async def _sent(end: PeerConnection, *numbers: int, route: int = 1) -> None:
    await end.send(*[message(route, number) for number in numbers])
    await wait_all_tasks_blocked()


async def _taken(subscription: Subscription) -> list[int]:
    return [each.payload[0] for each in await subscription.next_batch(1000)]


async def test_options_survive_a_reconnect(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Each pair of pattern and group is asked for apart, and asked for again, with what it was asked for first."""
    asked: list[list[tuple[str, SubscribeOptions]]] = []
    async with connected(peer) as (client, end):
        for route, group in enumerate((None, "g", "h")):
            await _entered(client, end, route, group=group, echo=group != "g")
        await end.cut()
        end = await peer.accept()
        asked.append([])
        for route in range(3):
            subscribe = await end.grant(route)
            asked[-1].append((subscribe.pattern, subscribe.options))

    assert asked == [
        [
            ("a", SubscribeOptions()),
            ("a", SubscribeOptions(group="g", echo=False)),
            ("a", SubscribeOptions(group="h")),
        ]
    ]


async def test_subscriptions_of_one_group_share_a_stream(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """There is one SUBSCRIBE for both; each message goes to one of them, to the one for which less waits."""
    async with connected(peer) as (client, end):
        one = await _entered(client, end, 1, group="g")
        async with client.subscribe("a", group="g") as other:
            await _sent(end, *range(6))
            assert [len(each) for each in (await _taken(one), await _taken(other))] == [3, 3]
            await _sent(end, 10, 11, 12)
            await _sent(end, 13)
            taken = await _taken(one)
            assert len(taken) == 2
            await _sent(end, 14, 15)
            assert [one.waiting, other.waiting] == [2, 2]
            assert sorted([*taken, *await _taken(one), *await _taken(other)]) == [10, 11, 12, 13, 14, 15]
        assert (one.shared, one.lost) == (False, 0)
        await _sent(end, 20, 21)
        assert await _taken(one) == [20, 21]


async def test_who_waits_for_work_is_asked_first(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Nothing waits for a handler that is at work on its only message, but the other one is idle."""
    taken: list[tuple[str, int]] = []

    async def work(name: str, subscription: Subscription, seconds: float) -> None:
        async for each in subscription:
            taken.append((name, each.payload[0]))
            await trio.sleep(seconds)

    async with connected(peer) as (client, end):
        slow, quick = await _entered(client, end, 1, group="g"), client.subscribe("a", group="g")
        async with quick, trio.open_nursery() as nursery:
            nursery.start_soon(work, "slow", slow, 1000)
            nursery.start_soon(work, "quick", quick, 0)
            for number in range(10):
                await _sent(end, number)
            nursery.cancel_scope.cancel()

    assert sorted(number for _, number in taken) == list(range(10))
    assert [name for name, _ in taken].count("slow") == 1


async def test_a_full_one_ends_alone(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """The others get what comes from then on, and what was theirs of the run that was too much."""
    async with connected(peer) as (client, end):
        small = await _entered(client, end, 1, group="g", buffer=2)
        large = client.subscribe("a", group="g")
        async with large:
            await _sent(end, *range(6))
            with pytest.raises(SlowConsumer):
                await _taken(small)
            assert len(await _taken(large)) == 3
            await _sent(end, 7)
            assert await _taken(large) == [7]


@pytest.mark.parametrize("second", [{"echo": False}, {"queue": 5}])
async def test_one_stream_has_one_set_of_options(
    peer: ScriptedPeer, autojump_clock: MockClock, second: dict[str, Any]
) -> None:
    """Another subscription of the same pattern and group can have no others; one of another group can."""
    async with connected(peer) as (client, end):
        await _entered(client, end, 1, group="g")
        with pytest.raises(LocalProtocolError, match="already subscribed"):
            await client.subscribe("a", group="g", **second).__aenter__()
        await _entered(client, end, 2, group="h", **second)


@pytest.mark.parametrize("group", ["", 5])
async def test_a_wrong_group(peer: ScriptedPeer, autojump_clock: MockClock, group: Any) -> None:
    """It is refused here."""
    async with connected(peer) as (client, _):
        with pytest.raises(LocalProtocolError, match="group") as caught:
            client.subscribe("a", group=group)

    assert caught.value.code == "bad_option"


async def test_the_broker_hears_what_is_finished(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """SUBSCRIBE says that it will. A message is finished when its handler comes back for the next one."""
    async with connected(peer) as (client, end):
        one = client.subscribe("a", group="g")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.__aenter__)
            assert (await end.grant(1)).acknowledges
        assert not (await _granted_plainly(client, end)).acknowledges
        await _sent(end, *range(3))
        for _ in range(3):
            await anext(aiter(one))
            one._give_way_at = 0  # as if each took its time
        with trio.move_on_after(0.001):
            await anext(aiter(one))
        told = [await end.expect(Backlog) for _ in range(3)]

    assert told == [Backlog(0, 1, 2, 262144, 1), Backlog(0, 1, 1, 262144, 2), Backlog(0, 1, 0, 262144, 3)]


async def _granted_plainly(client: Client, end: PeerConnection) -> Subscribe:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.subscribe("plain").__aenter__)
        return await end.grant(9)


async def test_a_quick_handler_tells_now_and_then(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """The first ones at once, then sixteen together, or what there is after 5 ms."""
    async with connected(peer) as (client, end):
        one = await _entered(client, end, 1, group="g")
        told = []
        for number in range(EAGER):
            await _sent(end, number)
            assert len(await _taken(one)) == 1
            await wait_all_tasks_blocked()
        for _ in range(10 * MOST_UNSAID):
            await _sent(end, 0)
            await _taken(one)
        await trio.sleep(SOON_S / 2)
        with trio.move_on_after(0):
            await anext(aiter(one))
        await trio.sleep(SOON_S)
        with trio.move_on_after(1):
            while True:
                told.append((await end.expect(Backlog)).taken)

    assert told[: EAGER - 1] == [*range(1, EAGER)]
    assert told[-1] == EAGER + 10 * MOST_UNSAID
    assert len(told) < EAGER + 15


async def test_a_handler_at_work_says_that_it_lives(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Every ten seconds, with what waits, for as long as something is not finished."""
    async with connected(peer) as (client, end):
        one = await _entered(client, end, 1, group="g")
        await _sent(end, 0, 1)
        await anext(aiter(one))
        await trio.sleep(3.5 * ALIVE_S)
        told = [await end.expect(Backlog) for _ in range(3)]
        assert told == [Backlog(0, 1, 1, 262144)] * 3
        await _taken(one)
        with trio.move_on_after(10 * ALIVE_S):
            await _taken(one)
        assert (await end.expect(Backlog)).taken == 1
        assert (await end.expect(Backlog)).taken == 2
        end.freeze()
        assert not end._envelopes


async def test_the_bound_is_told_of(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """At 75 % of the buffer the broker hears it, once: it lags from there."""
    async with connected(peer) as (client, end):
        await _entered(client, end, 1, group="g", buffer=10)
        for size in (5, 3, 1):
            await _sent(end, *range(size))

        assert await end.expect(Backlog) == Backlog(0, 1, 8, 10)


async def test_a_new_connection_on_the_same_route_drops_what_waits(
    peer: ScriptedPeer, autojump_clock: MockClock
) -> None:
    """The broker has given it to others, or gives it again: it would be done twice. Counting begins anew."""
    async with connected(peer) as (client, end):
        one = client.subscribe("a", group="g")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.__aenter__)
            await end.grant(1, epoch="e")
        await _sent(end, *range(5))
        assert (await anext(aiter(one))).payload == b"\x00"
        for route, epoch, waiting in ((1, "e", 0), (1, "f", 2), (2, "f", 4)):
            await end.cut()
            end = await peer.accept()
            await end.grant(route, epoch=epoch)
            await wait_all_tasks_blocked()
            assert one.waiting == waiting
            await _sent(end, 7, 8, route=route)
        assert await _taken(one) == [7, 8] * 3
        await _sent(end, 9, route=2)
        await _taken(one)

        assert (await end.expect(Backlog)).taken == 2


async def test_what_waits_for_one_that_leaves_goes_to_the_others(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """To the other subscriptions of this client; it is not finished by that."""
    async with connected(peer) as (client, end):
        one = await _entered(client, end, 1, group="g")
        async with client.subscribe("a", group="g") as other:
            await _sent(end, *range(8))
            await anext(aiter(other))
        assert [one.waiting, other.waiting] == [7, 0]
        assert (await end.expect(Backlog)) == Backlog(0, 1, 7, 262144 + 262144, 1)
        assert sorted(await _taken(one)) == [0, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(("fails", "finished"), [(False, 3), (True, 2)])
async def test_the_one_that_fails_is_not_finished(
    peer: ScriptedPeer, autojump_clock: MockClock, fails: bool, finished: int
) -> None:
    """A handler that is left by an exception has not done what it was at; the broker hears before UNSUBSCRIBE."""
    async with connected(peer) as (client, end):
        subscription = await _entered(client, end, 1, group="g")
        await _sent(end, *range(5))
        for _ in range(3):
            await anext(aiter(subscription))
        error = ValueError("no good") if fails else None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(subscription.__aexit__, type(error) if error else None, error, None)
            assert (await end.expect(Backlog)).taken == finished
            await end.send(Ok((await end.expect(Unsubscribe)).id))


async def test_what_others_have_is_dropped(
    peer: ScriptedPeer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker has handed over what nobody here had begun: that is logged, and counts as no loss."""
    async with connected(peer) as (client, end):
        one = await _entered(client, end, 1, group="g")
        await _sent(end, 0, 1, 2)
        await anext(aiter(one))
        await end.send(Lost(1, 2, "handed_over", None))
        await _sent(end, 3)

        assert await _taken(one) == [3]
        assert (one.lost, one.gaps) == (0, 0)
        assert (await end.expect(Backlog)).taken == 3
        assert "to other members" in caplog.text


async def test_one_that_was_given_to_another_says_so(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """`Message.redelivered`."""
    async with connected(peer) as (client, end):
        one = await _entered(client, end, 1, group="g")
        await end.send(Message(1, None, 0, 0, b"x", meta={"redelivered": True}), message(1, 5))

        assert [each.redelivered for each in await one.next_batch(2)] == [True, False]


async def test_the_last_one_unsubscribes(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """From its group only; the plain subscription of the same pattern lives on."""
    async with connected(peer) as (client, end):
        plain = await _entered(client, end, 1)
        one = await _entered(client, end, 2, group="g")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.__aexit__, None, None, None)
            unsubscribe = await end.expect(Unsubscribe)
            await end.send(Ok(unsubscribe.id))
        await _sent(end, 5)

        assert unsubscribe.route == 2
        assert await _taken(plain) == [5]
