"""What a client sends and what it is answered: publishes, many requests at once, bytes that make no sense."""

from __future__ import annotations

from itertools import count

import msgpack
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker.sessions import ingress
from fanwire.broker.timing import turn
from fanwire.protocol import (
    MAX_BATCH,
    ClientEnvelope,
    Encoding,
    Error,
    Message,
    Ok,
    Ping,
    Publish,
    PublishOptions,
    Subscribe,
    Unsubscribe,
    encode,
)
from tests.integration.raw import CAPACITY, code_of, connected, serving, subscribed

BAD_PUBLISHES: list[tuple[list[object], str]] = [
    (["a.*", b"x"], "bad_topic"),
    (["", b"x"], "bad_topic"),
    (["a b", b"x"], "bad_topic"),
    (["$sys.stats", b"x"], "forbidden"),
    (["$x", b"x"], "forbidden"),
    (["a", "text"], "bad_envelope"),
    (["a", None], "bad_envelope"),
    (["a", b"x", 9], "bad_envelope"),
    (["a", b"x", 0, {"nope": 1}], "bad_option"),
    ([5, b"x"], "bad_envelope"),
    (["a"], "bad_envelope"),
]


@pytest.mark.parametrize(("elements", "code"), BAD_PUBLISHES, ids=repr)
async def test_bad_publishes_are_answered(elements: list[object], code: str, autojump_clock: MockClock) -> None:
    """With their id, or with id 0 and what it was about; those around them are delivered in their order."""
    async with serving() as broker:
        client = await subscribed(broker, ">")
        good, last = encode(Publish(0, "good", b"1")), encode(Publish(0, "good", b"2"))
        bad = [msgpack.packb([4, request, *elements]) for request in (12, 0)]
        await client.send_frame(b"".join((good, *bad, last)))
        got = await client.take(4)

        errors = [each for each in got if isinstance(each, Error)]
        assert [each.payload for each in got if isinstance(each, Message)] == [b"1", b"2"]
        assert [(each.id, each.code) for each in errors] == [(12, code), (0, code)]
        assert [dict(each.detail).get("about") for each in errors] == [None, "PUBLISH"]
        assert broker.statistics().rejected == 2


async def test_ok_to_publish_tells_how_many_got_it(autojump_clock: MockClock) -> None:
    """The number of subscriptions; on the fast road and with options alike."""
    async with serving() as broker:
        await subscribed(broker, "a")
        client = await subscribed(broker, "*")
        other = await connected(broker)
        result = {"offset": 0, "subscribers": 2, "lagging": 0}
        assert await other.ask(Publish(1, "a", b"x")) == Ok(1, result)
        assert await other.ask(Publish(2, "a", b"x", Encoding.RAW, PublishOptions(key="k"))) == Ok(2, result)
        assert await other.ask(Publish(3, "b", b"x")) == Ok(3, {**result, "subscribers": 1})
        assert [each.topic for each in [await client.expect(Message) for _ in range(3)]] == ["a", "a", "b"]


async def test_pipelined_requests_are_answered_in_order(autojump_clock: MockClock) -> None:
    """Whatever is mixed in one message: answers come in the order of the requests."""
    async with serving() as broker:
        client = await connected(broker)
        requests: list[ClientEnvelope] = []
        for number in range(1, 1000, 5):
            requests += [
                Ping(number),
                Publish(number + 1, "t", b"x"),
                Publish(number + 2, "u", b"x"),
                Unsubscribe(number + 3, 99),
                Publish(number + 4, "t", b"x", Encoding.TEXT),
            ]
        await client.send(*requests)
        answers = await client.take(1000)

        assert [each.id for each in answers if isinstance(each, Ok | Error)] == list(range(1, 1001))
        assert broker.statistics().published == 600


async def test_a_subscription_begins_where_it_stands_among_publishes(autojump_clock: MockClock) -> None:
    """In one message: what is published before SUBSCRIBE is not delivered, what is after it is, after the OK."""
    async with serving() as broker:
        client = await connected(broker)
        await client.send(Publish(0, "a", b"1"), Subscribe(1, "a"), Publish(0, "a", b"2"))

        assert (await client.expect(Ok)).id == 1
        assert await client.payloads(1) == [b"2"]


@pytest.mark.parametrize("broken", [b"\xc1", b"\x93\x04\x00", b"\xd4\x01\x00", b"\x91" * 40])
async def test_malformed_bytes_end_the_connection(broken: bytes, autojump_clock: MockClock) -> None:
    """What stood before them is handled and answered; then ERROR id 0 `malformed`, close 1007."""
    async with serving() as broker:
        listener = await subscribed(broker, "a")
        client = await connected(broker)
        await client.send_frame(
            encode(Ping(1)) + encode(Publish(0, "a", b"x")) + encode(Publish(2, "a", b"y")) + broken
        )
        await client.send(Publish(0, "a", b"never"))
        ended = await client.ended()

        ok, acknowledged, error = ended.envelopes
        assert ok == Ok(1)
        assert isinstance(acknowledged, Ok)
        assert acknowledged.id == 2
        assert code_of(error) == (0, "malformed")
        assert ended.code == 1007
        assert await listener.payloads(2) == [b"x", b"y"]
        assert broker.statistics().published == 2


async def test_well_formed_nonsense_is_survived(autojump_clock: MockClock) -> None:
    """`bad_envelope` or `unknown_type`, with the id where there is one; the connection lives."""
    async with serving() as broker:
        client = await connected(broker)
        nonsense: list[object] = [5, [], {}, ["x"], [99, 4], [2, 0, "a"], [16, {}], [7, -1], None]
        await client.send_frame(b"".join(map(msgpack.packb, nonsense)))
        errors = [code_of(each) for each in await client.take(len(nonsense))]

        bad, unknown = "bad_envelope", "unknown_type"
        assert errors == [
            (0, bad), (0, bad), (0, bad), (0, bad), (4, unknown), (0, bad), (0, unknown), (0, bad), (0, bad),
        ]  # fmt: skip
        assert await client.ask(Ping(2)) == Ok(2)


async def test_answers_that_are_not_read_stop_the_reading(autojump_clock: MockClock) -> None:
    """A client that asks and never reads is not read from any more; its answers stay within a bound."""
    async with serving() as broker:
        client = await connected(broker)
        session = next(iter(broker._hub.sessions))
        sent = 0
        request = b"".join(encode(Ping(2**32 + number)) for number in range(1000))
        most = 0
        with trio.move_on_after(1):
            while True:
                await client.send_frame(request)
                await wait_all_tasks_blocked()
                sent += 1000
                most = max(most, session.outbox.answer_bytes)
        assert ingress.MAX_ANSWERS < most < 2 * ingress.MAX_ANSWERS

        answers = await client.take(sent)
        assert [each.id for each in answers if isinstance(each, Ok)] == [2**32 + n % 1000 for n in range(sent)]
        assert all(len(message) <= MAX_BATCH for message in client.messages)


async def test_answers_that_are_never_read_end_the_connection(autojump_clock: MockClock) -> None:
    """In the end the stall measure drops it, as any slow consumer."""
    async with serving(stall_timeout_s=10.0) as broker:
        client = await connected(broker)
        request = b"".join(encode(Ping(2**32 + number)) for number in range(1000))
        with trio.move_on_after(9):
            while True:
                await client.send_frame(request)
        await trio.sleep(15)

        statistics = broker.statistics()
        assert (statistics.slow_consumers, statistics.connections) == (1, 0)


async def test_one_message_full_of_requests_lets_others_have_their_turn(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a million bad envelopes in a message of 1 MiB: others are served meanwhile, memory stays bounded."""
    looks = count()
    monkeypatch.setattr(turn, "clock", lambda: next(looks) * 20e-6)  # by so much after each request
    async with serving(stall_timeout_s=10.0) as broker:
        hostile, other = await connected(broker), await connected(broker)
        session = next(iter(broker._hub.sessions))
        waited = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hostile.send_frame, b"\x91\x63" * 20_000)
            for number in range(1, 50):
                assert await other.ask(Ping(number)) == Ok(number)
                waited = max(waited, session.outbox.answer_bytes + sum(map(len, session.outbox.pending)))

        assert 0 < waited < 2 * ingress.MAX_ANSWERS
        assert broker.statistics().rejected < 20_000
        await trio.sleep(15)
        assert broker.statistics().closed_by_broker == {4008: 1}


async def test_order_on_the_wire_is_the_publishers(autojump_clock: MockClock) -> None:
    """Many publishers, many messages, with and without answers: each subscriber sees each publisher's order."""
    async with serving() as broker:
        subscribers = [await subscribed(broker, "t.*") for _ in range(3)]

        async def publish(name: str) -> None:
            client = await connected(broker)
            for number in range(30):
                numbers = range(number * 10, number * 10 + 10)
                await client.send(*(Publish(n % 2 * n, f"t.{n % 3}", f"{name} {n}".encode()) for n in numbers))
                await client.take(5)

        async with trio.open_nursery() as nursery:
            for name in ("one", "two"):
                nursery.start_soon(publish, name)
        for subscriber in subscribers:
            got = [payload.decode().split() for payload in await subscriber.payloads(600)]
            for name in ("one", "two"):
                assert [int(number) for by, number in got if by == name] == list(range(300))


async def test_a_large_message_passes_alone(autojump_clock: MockClock) -> None:
    """A payload over 64 KiB is one frame by itself; small ones around it keep their order and the limit."""
    async with serving() as broker:
        client, publisher = await subscribed(broker, "a"), await connected(broker)
        payloads = [b"1", b"x" * 3 * CAPACITY, b"2", b"y" * CAPACITY, b"3"]
        await publisher.publish("a", *payloads)

        assert await client.payloads(5) == payloads
        assert [len(each) > MAX_BATCH for each in client.messages[-5:]] == [False, True, False, True, False]


async def test_who_reads_its_answers_is_read_from_again(autojump_clock: MockClock) -> None:
    """A client that asked too much is heard again once its answers went out, though its messages never cease."""
    async with serving() as broker:
        client = await subscribed(broker, "a")
        outbox = next(iter(broker._hub.sessions)).outbox
        flood = b"".join(encode(Ping(2**32 + number)) for number in range(1000))

        async def publish_for_ever() -> None:
            while True:
                if outbox.waiting_bytes - outbox.answer_bytes < 4 * CAPACITY:
                    broker.publish("a", b"x" * 30_000)
                await trio.lowlevel.checkpoint()

        async def ask() -> None:
            for _ in range(60):
                await client.send_frame(flood)
            await client.send(Ping(7))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            assert outbox.answer_bytes > ingress.MAX_ANSWERS
            nursery.start_soon(publish_for_ever)
            for _ in range(70_000):
                if await client.next() == Ok(7):
                    break
            else:
                pytest.fail("never heard again")
            nursery.cancel_scope.cancel()
