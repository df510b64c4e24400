"""Asking and answering with the SDK, end to end."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire import (
    Broker,
    Client,
    Config,
    ConnectionLost,
    LocalProtocolError,
    LostMessages,
    Message,
    NoResponders,
    Request,
    RequestFailed,
    RequestTimeout,
    Service,
    SlowConsumer,
    Stale,
)
from fanwire.client.exchange.deadlines import MOST_OVER
from fanwire.client.subscribing import inbox as inbox_module
from fanwire.client.subscribing.buffer_options import BufferOptions
from fanwire.testing import broker_in_memory, client_of

Answer = Callable[[Request], Coroutine[Any, Any, None]]


async def _serve(client: Client, topic: str, answer: Answer, *, task_status: trio.TaskStatus[None]) -> None:
    async with client.serve(topic) as requests:
        task_status.started()
        async for request in requests:
            await answer(request)


@asynccontextmanager
async def _serving(client: Client, topic: str, answer: Answer) -> AsyncIterator[None]:
    """Somebody answers while the block runs."""
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[None]) -> None:
            await _serve(client, topic, answer, task_status=task_status)

        await nursery.start(serve)
        yield
        nursery.cancel_scope.cancel()


async def _add(request: Request) -> None:
    await request.reply(sum(request.data))


async def _count(request: Request) -> None:
    for number in range(request.data):
        await request.reply(number)


async def _never(request: Request) -> None:
    assert request.wants_reply


def _open_requests(client: Client) -> int:
    inbox = client._feeds._inbox
    return 0 if inbox is None else len(inbox)


# ------------------------------------------------------------------ one reply


async def test_a_request_gets_its_reply(
    autojump_clock: MockClock, fanwire_broker: Broker, fanwire_client: Client
) -> None:
    """The reply is a message like any other: data, headers, raw bytes."""
    asked: list[Message] = []

    async def answer(request: Request) -> None:
        asked.append(request.message)
        await request.reply(b"raw" if request.data == "raw" else [request.data], raw=request.data == "raw")
        await request.reply("late: nobody waits for that", headers={"n": "2"})

    async with client_of(fanwire_broker) as other, _serving(other, "a.*", answer):
        reply = await fanwire_client.request("a.b", {"x": 1}, headers={"from": "me"})
        raw = await fanwire_client.request("a.c", "raw")

    assert (reply.data, raw.data, raw.encoding) == ([{"x": 1}], b"raw", 0)
    assert [(each.topic, each.data, dict(each.headers)) for each in asked] == [
        ("a.b", {"x": 1}, {"from": "me"}),
        ("a.c", "raw", {}),
    ]
    assert reply.topic == asked[0].reply_to
    assert reply.topic.startswith(fanwire_client.welcome["inbox"])
    assert _open_requests(fanwire_client) == 0


async def test_a_client_can_ask_itself(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """A program that serves what it asks for notices no difference."""
    async with _serving(fanwire_client, "sums.add", _add):
        assert (await fanwire_client.request("sums.add", [1, 2, 3])).data == 6


async def test_requests_at_the_same_time_get_each_its_own(
    autojump_clock: MockClock, fanwire_broker: Broker, fanwire_client: Client
) -> None:
    """A thousand, answered in another order than they were asked in."""
    answers: dict[int, int] = {}
    waiting: list[Request] = []

    async def answer(request: Request) -> None:
        waiting.append(request)
        if len(waiting) == 1000:
            for each in reversed(waiting):
                await each.reply(-each.data)

    async def ask(number: int) -> None:
        answers[number] = (await fanwire_client.request("negate", number)).data

    async with client_of(fanwire_broker) as other, _serving(other, "negate", answer), trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(ask, number)

    assert answers == {number: -number for number in range(1000)}
    assert _open_requests(fanwire_client) == 0


async def test_nobody_there_is_known_at_once(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """The clock does not move."""
    began = trio.current_time()
    with pytest.raises(NoResponders, match=r"^nobody is subscribed to 'a.b', so nobody will reply") as caught:
        await fanwire_client.request("a.b", 1)

    assert (caught.value.topic, caught.value.code, trio.current_time()) == ("a.b", "no_responders", began)
    assert _open_requests(fanwire_client) == 0


async def test_no_reply_in_time(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """An error that says what did not come; a reply that comes afterwards is for nobody."""
    late: list[Request] = []

    async def answer(request: Request) -> None:
        late.append(request)

    async with _serving(fanwire_client, "a", answer):
        began = trio.current_time()
        with pytest.raises(RequestTimeout, match=r"^no reply came within 2.5 s \(timeout_s\) on 'a'$") as caught:
            await fanwire_client.request("a", 1, timeout_s=2.5)
        assert trio.current_time() - began == pytest.approx(2.5)
        await late[0].reply("too late")
        await wait_all_tasks_blocked()

    assert (caught.value.topic, caught.value.timeout_s) == ("a", 2.5)
    assert _open_requests(fanwire_client) == 0


async def test_each_request_has_its_own_time(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """Whichever was asked first; `math.inf` waits for ever."""
    ended: dict[float, float] = {}

    async def ask(timeout_s: float) -> None:
        with pytest.raises(RequestTimeout):
            await fanwire_client.request("a", 1, timeout_s=timeout_s)
        ended[timeout_s] = trio.current_time() - began

    async with _serving(fanwire_client, "a", _never):
        began = trio.current_time()
        with trio.move_on_after(100) as scope:
            async with trio.open_nursery() as nursery:
                for timeout_s in (5.0, 1.0, 3.0, math.inf):
                    nursery.start_soon(ask, timeout_s)

    assert ended == pytest.approx({1.0: 1.0, 3.0: 3.0, 5.0: 5.0})
    assert scope.cancelled_caught
    assert _open_requests(fanwire_client) == 0


async def test_a_cancelled_request_leaves_nothing_behind(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """No open request, no timer, no object."""
    left: list[weakref.ref[object]] = []
    async with _serving(fanwire_client, "a", _never):
        for _ in range(3 * MOST_OVER):
            with trio.move_on_after(0.001):
                replies = fanwire_client.request_many("a", 1, timeout_s=1e6)
                left.append(weakref.ref(replies))
                await replies.first()
        del replies
        await wait_all_tasks_blocked()
        gc.collect()

        assert _open_requests(fanwire_client) == 0
        assert len(fanwire_client._requester._deadlines._heap) <= MOST_OVER + 1
        assert [each for each in left if each()] == []


async def test_too_many_at_a_time_are_refused(
    autojump_clock: MockClock, fanwire_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do about it; one that ends makes room."""
    monkeypatch.setattr(inbox_module, "MOST_OPEN", 2)
    async with _serving(fanwire_client, "a", _never), fanwire_client.request_many("a", 1):
        async with fanwire_client.request_many("a", 1):
            with pytest.raises(LocalProtocolError, match="2 requests of this client wait") as caught:
                await fanwire_client.request("a", 1)
        with pytest.raises(RequestTimeout):
            await fanwire_client.request("a", 1)

    assert caught.value.code == "too_many"


@pytest.mark.parametrize("wrong", [{"timeout_s": 0}, {"timeout_s": math.nan}])
async def test_wrong_times_are_refused(
    wrong: dict[str, Any], autojump_clock: MockClock, fanwire_client: Client
) -> None:
    """At once."""
    with pytest.raises(ValueError, match="timeout_s"):
        await fanwire_client.request("a", 1, **wrong)
    with pytest.raises(ValueError, match="most"):
        fanwire_client.request_many("a", 1, most=0)


@pytest.mark.parametrize(("topic", "data"), [("a..b", 1), ("a", object()), ("a", b"x" * 2_000_000)])
async def test_what_cannot_be_sent_leaves_nothing_behind(
    topic: str, data: object, autojump_clock: MockClock, fanwire_client: Client
) -> None:
    """A bad topic, data that msgpack has no form for, too much of it."""
    with pytest.raises(LocalProtocolError):
        await fanwire_client.request(topic, data)

    assert _open_requests(fanwire_client) == 0


async def test_publishes_and_requests_keep_their_order(
    autojump_clock: MockClock, fanwire_broker: Broker, fanwire_client: Client
) -> None:
    """Also the very first request, which subscribes to the inbox before."""
    seen: list[int] = []

    async def answer(request: Request) -> None:
        seen.append(request.data)
        await request.reply(None)

    async with client_of(fanwire_broker) as other, _serving(other, "a", answer):
        for number in range(0, 100, 2):
            fanwire_client.publish_nowait("a", number)
            await fanwire_client.request("a", number + 1)

    assert seen == list(range(100))


# ------------------------------------------------------------ several replies


async def test_several_replies(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """In order, as they come; it ends after as many as were asked for."""
    async with _serving(fanwire_client, "count", _count):
        began = trio.current_time()
        async with fanwire_client.request_many("count", 100, most=70) as replies:
            numbers = [reply.data async for reply in replies]

    assert numbers == list(range(70))
    assert (replies.count, replies.timed_out, trio.current_time()) == (70, False, began)


async def test_replies_of_all_who_serve(
    autojump_clock: MockClock, fanwire_broker: Broker, fanwire_client: Client
) -> None:
    """Without a number it ends when its time is up, and says so."""
    async with client_of(fanwire_broker) as other, _serving(other, "a", _add), _serving(fanwire_client, "a", _add):
        began = trio.current_time()
        async with fanwire_client.request_many("a", [1], timeout_s=0.5) as replies:
            assert [reply.data async for reply in replies] == [1, 1]

    assert replies.timed_out
    assert trio.current_time() - began == pytest.approx(0.5)


async def test_who_leaves_early_is_not_told_more(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """Leaving the block ends the request."""
    async with _serving(fanwire_client, "count", _count):
        async with fanwire_client.request_many("count", 3, timeout_s=math.inf) as replies:
            async for reply in replies:
                if reply.data == 1:
                    break
            assert _open_requests(fanwire_client) == 1

        assert _open_requests(fanwire_client) == 0


async def test_a_request_is_sent_once(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """Entering it twice, or iterating before, is a mistake that is told."""
    async with _serving(fanwire_client, "a", _add):
        replies = fanwire_client.request_many("a", [1])
        with pytest.raises(RuntimeError):
            await anext(replies)
        async with replies:
            with pytest.raises(RuntimeError):
                await replies.__aenter__()


async def test_replies_that_nobody_takes_are_bounded(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """The request ends, and says so; what came before can still be taken."""
    async with (
        _serving(fanwire_client, "count", _count),
        fanwire_client.request_many("count", BufferOptions.BUFFER + 100, timeout_s=math.inf) as replies,
    ):
        await wait_all_tasks_blocked()
        numbers = [(await anext(replies)).data for _ in range(BufferOptions.BUFFER)]
        with pytest.raises(SlowConsumer, match="'count'") as caught:
            await anext(replies)

    assert numbers == list(range(BufferOptions.BUFFER))
    assert (caught.value.queued, caught.value.at_broker) == (BufferOptions.BUFFER, False)


# -------------------------------------------------------------------- serving


async def test_a_plain_publish_is_a_request_that_wants_no_reply(
    autojump_clock: MockClock, fanwire_client: Client
) -> None:
    """Answering it does nothing."""
    async with fanwire_client.serve("a", buffer=7) as requests:
        await fanwire_client.publish("a", 1)
        request = await anext(requests)
        await request.reply("no harm done")

        assert (request.topic, request.data, request.wants_reply, request.message.reply_to) == ("a", 1, False, None)
        assert requests.subscription.limit == 7


async def test_losses_are_given_to_who_serves_as_to_any_subscriber(
    autojump_clock: MockClock, fanwire_client: Client
) -> None:
    """`report_loss` and `heartbeat_s` are passed on."""
    options: dict[str, Any] = {"buffer": 1, "on_full": "drop_oldest", "report_loss": True, "heartbeat_s": 5}
    async with fanwire_client.serve("a", **options) as requests:
        for number in range(3):
            await fanwire_client.publish("a", number)
        lost, request, silent = [await anext(requests) for _ in range(3)]

        assert isinstance(lost, LostMessages)
        assert request.data == 2
        assert isinstance(silent, Stale)


async def test_options_are_those_of_a_subscription(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """Wrong ones are refused in the same way."""
    with pytest.raises(LocalProtocolError):
        fanwire_client.serve("a..b")
    with pytest.raises(TypeError):
        fanwire_client.serve("a", quque=1)  # type: ignore[call-arg]  # that it is wrong is what is tested


# ------------------------------------------------------------ the connection


async def test_a_request_ends_with_its_connection_and_the_next_one_works(autojump_clock: MockClock) -> None:
    """On the new connection's inbox; nobody is asked again behind the program's back."""
    streams: list[trio.abc.Stream] = []
    asked: list[object] = []

    async def answer(request: Request) -> None:
        asked.append(request.data)
        if request.data != "slow":
            await request.reply("yes")

    async with broker_in_memory() as broker, client_of(broker) as other, _serving(other, "a", answer):

        async def open_stream() -> trio.abc.Stream:
            streams.append(await broker.open_stream())
            return streams[-1]

        async def cut() -> None:
            await wait_all_tasks_blocked()
            await trio.aclose_forcefully(streams[0])

        async with client_of(broker, open_stream=open_stream) as client, trio.open_nursery() as nursery:
            before = client.welcome["inbox"]
            assert (await client.request("a", 1)).data == "yes"
            nursery.start_soon(cut)
            with pytest.raises(ConnectionLost):
                await client.request("a", "slow", timeout_s=math.inf)
            reply = await client.request("a", 2)  # waits for the next connection

            assert reply.topic.startswith(client.welcome["inbox"])
            assert client.welcome["inbox"] != before

    assert asked == [1, "slow", 2]


async def test_a_request_waits_for_a_connection_no_longer_than_it_may(autojump_clock: MockClock) -> None:
    """Then it was not sent, and is not sent later."""
    asked: list[object] = []
    away = trio.Event()
    streams: list[trio.abc.Stream] = []

    async def answer(request: Request) -> None:
        asked.append(request.data)

    async with broker_in_memory() as broker, client_of(broker) as other, _serving(other, "a", answer):

        async def open_stream() -> trio.abc.Stream:
            if streams:
                await away.wait()
            streams.append(await broker.open_stream())
            return streams[-1]

        async with client_of(broker, open_stream=open_stream, connect_timeout_s=1e6) as client:
            await trio.aclose_forcefully(streams[0])
            await wait_all_tasks_blocked()
            with pytest.raises(RequestTimeout, match=r"^the request could not be sent within 3 s"):
                await client.request("a", 1, timeout_s=3)
            away.set()
            await trio.sleep(60)

    assert asked == []


async def test_a_request_without_a_connection_can_fail_at_once(autojump_clock: MockClock) -> None:
    """With ``on_outage="raise"``, as publishes do."""
    streams: list[trio.abc.Stream] = []
    async with broker_in_memory() as broker:

        async def open_stream() -> trio.abc.Stream:
            if streams:
                raise OSError("away")
            streams.append(await broker.open_stream())
            return streams[-1]

        async with client_of(broker, open_stream=open_stream, on_outage="raise") as client:
            await trio.aclose_forcefully(streams[0])
            await wait_all_tasks_blocked()
            began = trio.current_time()
            with pytest.raises(ConnectionLost):
                await client.request("a", 1)

            assert trio.current_time() == began


async def test_an_inbox_that_the_broker_refuses(autojump_clock: MockClock) -> None:
    """It is a subscription like others: where there is no room for it the request fails, and says why."""
    async with broker_in_memory(Config(max_subscriptions=1)) as broker, client_of(broker) as client:
        async with _serving(client, "sums.add", _add):
            for _ in range(2):
                with pytest.raises(RequestFailed) as caught:
                    await client.request("sums.add", [1], timeout_s=math.inf)
                assert caught.value.code == "too_many"
        async with client_of(broker) as other, _serving(other, "sums.add", _add):
            assert (await client.request("sums.add", [1])).data == 1


async def test_who_has_the_inbox_already_cannot_ask(autojump_clock: MockClock, fanwire_client: Client) -> None:
    """A program that subscribes to the very pattern itself."""
    async with fanwire_client.subscribe(f"{fanwire_client.welcome['inbox']}.*"):
        with pytest.raises(LocalProtocolError):
            await fanwire_client.request("a", 1)


async def test_a_group_of_servers_shares_the_requests(autojump_clock: MockClock) -> None:
    """Each request is answered by one of them; without any it is known at once."""
    async with broker_in_memory() as broker, client_of(broker) as client, client_of(broker) as other:
        answered: list[str] = []

        async def answer(name: str, requests: Service) -> None:
            async for request in requests:
                answered.append(name)
                await request.reply(name)

        async with (
            client.serve("work", group="g") as here,
            other.serve("work", group="g") as there,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(answer, "here", here)
            nursery.start_soon(answer, "there", there)
            replies = [(await client.request("work", number)).data for number in range(10)]

            assert replies == answered
            assert {*replies} == {"here", "there"}
            nursery.cancel_scope.cancel()
        with pytest.raises(NoResponders):
            await client.request("work", 1)
