"""Queue groups and ``echo=False``: clients beside a real broker."""

from __future__ import annotations

from itertools import chain

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire import LocalProtocolError, RequestTimeout, Service, Subscription
from fanwire.testing import broker_in_memory, client_of


async def _work(subscription: Subscription, done: list[int], seconds: float) -> None:
    async for message in subscription:
        done.append(message.data)
        await trio.sleep(seconds)


async def test_workers_share_the_work(autojump_clock: MockClock) -> None:
    """Each job is done once; one that takes a hundred times as long for each does much less."""
    slow: list[int] = []
    quick: list[int] = []
    async with (
        broker_in_memory() as broker,
        client_of(broker) as one,
        client_of(broker) as other,
        client_of(broker) as boss,
        one.subscribe("jobs.*", group="workers") as for_slow,
        other.subscribe("jobs.*", group="workers") as for_quick,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_work, for_slow, slow, 1.0)
        nursery.start_soon(_work, for_quick, quick, 0.01)
        for number in range(500):
            assert (await boss.publish(f"jobs.{number % 7}", number)).subscribers == 1
            await trio.sleep(0.02)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()

    assert sorted(slow + quick) == list(range(500))
    assert len(slow) <= 10 + 3, "ten seconds of a job a second, and what it had before the broker knew"


async def test_local_workers_share_with_others(autojump_clock: MockClock) -> None:
    """Two of one client are one member; each job is done once, and all that have time get the next one."""
    done: list[list[int]] = [[], [], []]
    async with (
        broker_in_memory() as broker,
        client_of(broker) as one,
        client_of(broker) as other,
        one.subscribe("jobs", group="w") as first,
        one.subscribe("jobs", group="w") as second,
        other.subscribe("jobs", group="w") as third,
        other.subscribe("jobs") as all_of_them,
        trio.open_nursery() as nursery,
    ):
        for subscription, results in zip((first, second, third), done, strict=True):
            nursery.start_soon(_work, subscription, results, 0.1)
        for number in range(100):
            other.publish_nowait("jobs", number)
        await trio.sleep(100)
        assert all_of_them.waiting == 100
        assert broker.statistics().subscriptions == 3
        nursery.cancel_scope.cancel()

    assert sorted(chain.from_iterable(done)) == list(range(100))
    assert all(28 <= len(each) <= 40 for each in done), [len(each) for each in done]


async def test_no_echo_for_a_client(autojump_clock: MockClock) -> None:
    """A chat room: everybody hears the others."""
    async with (
        broker_in_memory() as broker,
        client_of(broker) as one,
        client_of(broker) as other,
        one.subscribe("room", echo=False) as to_one,
        other.subscribe("room", echo=False) as to_other,
    ):
        assert (await one.publish("room", "I am one")).subscribers == 1
        other.publish_nowait("room", "I am another")
        await wait_all_tasks_blocked()

        assert [message.data for message in await to_one.next_batch(10)] == ["I am another"]
        assert [message.data for message in await to_other.next_batch(10)] == ["I am one"]


async def test_a_group_begins_with_nothing(autojump_clock: MockClock) -> None:
    """A snapshot for it is refused, before the broker is asked."""
    async with broker_in_memory() as broker, client_of(broker) as client:
        with pytest.raises(LocalProtocolError, match="snapshot") as caught:
            client.subscribe("a", group="g", snapshot=True)

    assert caught.value.code == "bad_option"


async def test_a_request_goes_to_a_server_that_answers(autojump_clock: MockClock) -> None:
    """One that hangs gets two at most; when it is cut off these come to the other one, and say so. Where all hang the
    request gets its timeout."""
    seen: list[tuple[int, bool]] = []

    async def answer(service: Service) -> None:
        async for request in service:
            seen.append((request.data, request.message.redelivered))
            await request.reply(request.data)

    async with (
        broker_in_memory() as broker,
        client_of(broker) as one,
        client_of(broker) as other,
        client_of(broker) as asking,
        trio.open_nursery() as nursery,
        one.serve("double", group="g"),
    ):  # nobody takes what comes
        async with other.serve("double", group="g") as good:
            nursery.start_soon(answer, good)
            asked = [asking.request_many("double", number, timeout_s=60, most=1) for number in range(20)]
            for each in asked:
                await each.__aenter__()
            await wait_all_tasks_blocked()
            assert len(seen) == 18
            await one._link._connection.stream.aclose()  # type: ignore[union-attr]
            replies = [(await anext(aiter(each))).data for each in asked]
            for each in asked:
                await each.__aexit__(None, None, None)
            nursery.cancel_scope.cancel()
        with pytest.raises(RequestTimeout):
            await asking.request("double", 1, timeout_s=5)

    assert sorted(replies) == list(range(20))
    assert sorted({number for number, _ in seen}) == list(range(20))
    assert 1 <= sum([again for _, again in seen]) <= 2


async def test_a_small_buffer_is_enough(autojump_clock: MockClock) -> None:
    """The broker gives a worker no more than its buffer takes, however quick the worker is and however much comes."""
    done: list[int] = []
    async with (
        broker_in_memory() as broker,
        client_of(broker) as worker,
        client_of(broker) as boss,
        worker.subscribe("jobs", group="w", buffer=8) as jobs,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_work, jobs, done, 0)
        for number in range(1000):
            boss.publish_nowait("jobs", number)
        await trio.sleep(10)
        assert (jobs.lost, jobs.waiting) == (0, 0)
        nursery.cancel_scope.cancel()

    assert done == list(range(1000))
