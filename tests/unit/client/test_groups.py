"""Queue groups in the client: what it asks for, whom it gives what comes to, what it tells of what waits."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.client import Client, Closed, LocalProtocolError, SlowConsumer, Subscription
from fanwire.protocol import Backlog, Ok, Subscribe, SubscribeOptions, Unsubscribe
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


async def test_the_broker_hears_how_much_waits(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """From the second message on, whenever it has doubled or halved: at last that nothing does."""
    async with connected(peer) as (client, end):
        one = await _entered(client, end, 1, group="g")
        for number in range(9):
            await _sent(end, number)
        told = [await end.expect(Backlog) for _ in range(3)]
        for _ in range(9):
            await anext(aiter(one))
            one._give_way_at = 0  # as if each took its time
        with trio.move_on_after(1):
            await anext(aiter(one))
        told += [await end.expect(Backlog) for _ in range(3)]

    assert [(each.route, each.queued) for each in told] == [(1, 2), (1, 4), (1, 8), (1, 3), (1, 1), (1, 0)]


async def test_a_quick_handler_tells_nothing(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """While there is at most one message for each subscription."""
    async with connected(peer) as (client, end):
        one = await _entered(client, end, 1, group="g")
        async with client.subscribe("a", group="g") as other:
            for number in range(20):
                await _sent(end, 2 * number, 2 * number + 1)
                assert [len(each) for each in (await _taken(one), await _taken(other))] == [1, 1]
        await client.flush()
        end.freeze()

    assert not [envelope for envelope in end._envelopes if isinstance(envelope, Backlog)]


async def test_the_bound_is_told_of(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """At 75 % of the buffer the broker hears it, though it has not doubled since the last time: it lags from there."""
    async with connected(peer) as (client, end):
        await _entered(client, end, 1, group="g", buffer=10)
        for size in (5, 2, 1):
            await _sent(end, *range(size))
        told = [await end.expect(Backlog) for _ in range(2)]

    assert [(each.queued, each.limit) for each in told] == [(5, 10), (8, 10)]


async def test_a_new_connection_hears_what_waits(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """And of the rest when one of two leaves with what waited for it."""
    async with connected(peer) as (client, end):
        one, other = await _entered(client, end, 1, group="g"), client.subscribe("a", group="g")
        await other.__aenter__()
        await _sent(end, *range(9))
        assert (await end.expect(Backlog)).queued == 5
        await end.cut()
        end = await peer.accept()
        subscribe = await end.expect(Subscribe)
        await end.send(Ok(subscribe.id, {"route": 2}))
        assert await end.expect(Backlog) == Backlog(0, 2, 9, 2 * 65536)

        assert len(await _taken(one)) == 5
        await other.__aexit__(None, None, None)
        assert await end.expect(Backlog) == Backlog(0, 2, 0, 65536)
        with pytest.raises(Closed):
            await _taken(other)


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
