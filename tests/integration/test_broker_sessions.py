"""What a client asks for and what it is answered, envelope by envelope."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import ingress
from fanwire.protocol import (
    MAX_BATCH,
    Backlog,
    ClientEnvelope,
    Encoding,
    Error,
    Fetch,
    Hello,
    Message,
    Ok,
    Ping,
    Presence,
    Publish,
    PublishOptions,
    Replay,
    Subscribe,
    SubscribeOptions,
    Unsubscribe,
    Welcome,
    encode,
)
from tests.integration.raw import CAPACITY, RawClient, connected, serving, subscribed


def _error(answer: object) -> tuple[int, str]:
    assert isinstance(answer, Error), answer
    assert answer.message
    return answer.id, answer.code


async def test_welcome_comes_first(autojump_clock: MockClock) -> None:
    """Before anything is asked: who the session is, who the broker is, and what its limits are."""
    async with serving(max_message_bytes=5000, ping_interval_s=7.0, server="here") as broker:
        one, other = [await connected(broker, welcomed=False) for _ in range(2)]
        welcomes = [dict((await client.expect(Welcome)).greeting) for client in (one, other)]

        assert len({welcome.pop("session") for welcome in welcomes}) == 2
        assert (
            welcomes
            == [
                {
                    "server": "here",
                    "version": 1,
                    "max_message": 5000,
                    "max_batch": MAX_BATCH,
                    "ping_interval": 7.0,
                }
            ]
            * 2
        )


async def test_welcome_comes_before_answers_to_what_was_sent_with_the_handshake(autojump_clock: MockClock) -> None:
    """Requests may come in the same packet as the handshake: WELCOME is first all the same, and none is lost."""
    async with serving() as broker:
        client = await RawClient(await broker.open_stream()).open(Ping(1), Ping(2))
        await client.expect(Welcome)

        assert await client.take(2) == [Ok(1), Ok(2)]


async def test_hello_may_be_required(autojump_clock: MockClock) -> None:
    """Then WELCOME waits for it, and everything else is `unauthenticated` until then."""
    async with serving(require_hello=True) as broker:
        client = await connected(broker, welcomed=False)
        answer = await client.ask(Subscribe(1, "a"))
        assert _error(answer) == (1, "unauthenticated")
        await client.send(Publish(0, "a", b"x"), Publish(2, "a", b"x"))
        assert [_error(each) for each in await client.take(2)] == [(0, "unauthenticated"), (2, "unauthenticated")]
        await client.send(Hello(3, name="me"), Publish(4, "a", b"x"))
        await client.expect(Welcome)

        assert await client.next() == Ok(3)
        assert (await client.expect(Ok)).id == 4
        assert broker.statistics().published == 1


async def test_hello_has_a_deadline(autojump_clock: MockClock) -> None:
    """Who does not say it in time is told so: GOODBYE unauthenticated, close 4001."""
    async with serving(require_hello=True, hello_timeout_s=5.0) as broker:
        began = trio.current_time()
        client = await connected(broker, welcomed=False)
        ended = await client.ended()

        assert (ended.code, ended.goodbye.code) == (4001, "unauthenticated")
        assert trio.current_time() - began == 5.0


async def test_hello_in_time_stops_the_deadline(autojump_clock: MockClock) -> None:
    """The connection lives on after it, for as long as it likes."""
    async with serving(require_hello=True, hello_timeout_s=5.0) as broker:
        client = await connected(broker, welcomed=False)
        await trio.sleep(4.9)
        await client.send(Hello(1))
        await client.expect(Welcome)
        await client.expect(Ok)
        await trio.sleep(3600)

        assert await client.ask(Ping(2)) == Ok(2)


async def test_hello_again_is_answered_without_another_welcome(autojump_clock: MockClock) -> None:
    """It renews what it says; the session stays."""
    async with serving() as broker:
        client = await connected(broker)
        await client.send(Hello(1, name="a"), Hello(2, name="b"), Hello(0), Ping(3))

        assert await client.take(3) == [Ok(1), Ok(2), Ok(3)]
        assert [session.name for session in broker._hub.sessions] == ["b"]


async def test_what_subscribe_grants(autojump_clock: MockClock) -> None:
    """OK tells the route and what was granted; `queue` is cut to what the broker allows."""
    async with serving(queue=50, max_queue=200) as broker:
        client = await connected(broker)
        answers = [
            await client.ask(Subscribe(1, "a")),
            await client.ask(Subscribe(2, "b", SubscribeOptions(queue=70))),
            await client.ask(Subscribe(3, "c", SubscribeOptions(queue=201))),
        ]
        results: list[dict[str, Any]] = [dict(each.result) for each in answers if isinstance(each, Ok)]

        assert [result["queue"] for result in results] == [50, 70, 200]
        assert len({result["route"] for result in results}) == 3
        assert {result["epoch"] for result in results} == {broker._hub.epoch}
        assert {key: results[0][key] for key in ("offset", "replayed", "recovered", "max_rate", "on_slow")} == {
            "offset": 0,
            "replayed": 0,
            "recovered": True,
            "max_rate": None,
            "on_slow": "disconnect",
        }


async def test_subscribing_again_is_the_same_subscription(autojump_clock: MockClock) -> None:
    """The same route, options replaced, and each message once."""
    async with serving() as broker:
        client = await connected(broker)
        route = await client.subscribe("a", queue=5)
        assert await client.subscribe("a", queue=7) == route
        assert broker.statistics().subscriptions == 1
        assert broker.publish("a", b"1") == 1
        broker.publish("a", b"2")

        assert await client.payloads(2) == [b"1", b"2"]
        await client.unsubscribe(route)
        assert broker.publish("a", b"3") == 0


async def test_everybody_has_the_same_route(autojump_clock: MockClock) -> None:
    """The number belongs to the pattern, not to the connection."""
    async with serving() as broker:
        one, other = await connected(broker), await connected(broker)

        assert await one.subscribe("a.*") == await other.subscribe("a.*") != await other.subscribe("a.b")


async def test_a_message_names_its_topic_only_where_the_pattern_does_not(autojump_clock: MockClock) -> None:
    """nil for an exact pattern; with payload, encoding, headers and key as published."""
    async with serving() as broker:
        client = await connected(broker)
        exact, wild = await client.subscribe("a.b"), await client.subscribe("a.*")
        options = PublishOptions(headers={"h": "1"}, key="k")
        await client.send(Publish(0, "a.b", b"\xc0", Encoding.MSGPACK, options))
        messages = [await client.expect(Message) for _ in range(2)]

        assert {(each.route, each.topic) for each in messages} == {(exact, None), (wild, "a.b")}
        assert {(each.payload, each.encoding, each.offset) for each in messages} == {(b"\xc0", Encoding.MSGPACK, 0)}
        assert [dict(each.meta) for each in messages] == [{"headers": {"h": "1"}, "key": "k"}] * 2


NOT_SERVED = [
    SubscribeOptions(on_slow="drop_oldest"),
    SubscribeOptions(on_slow="drop_newest"),
    SubscribeOptions(on_slow="conflate"),
    SubscribeOptions(on_slow="unsubscribe"),
    SubscribeOptions(max_rate=1.0),
    SubscribeOptions(heartbeat=1.0),
    SubscribeOptions(snapshot=True),
    SubscribeOptions(replay=Replay(last=1)),
    SubscribeOptions(group="g"),
    SubscribeOptions(echo=False),
    SubscribeOptions(presence=True),
]


@pytest.mark.parametrize("options", NOT_SERVED, ids=lambda options: next(iter(options.to_map())))
async def test_options_that_are_not_served_are_refused(options: SubscribeOptions, autojump_clock: MockClock) -> None:
    """`bad_option`, by name; nothing is subscribed."""
    async with serving() as broker:
        client = await connected(broker)
        answer = await client.ask(Subscribe(1, "a", options))

        assert _error(answer) == (1, "bad_option")
        assert isinstance(answer, Error)
        assert next(iter(options.to_map())) in answer.message
        assert (broker.statistics().subscriptions, broker.statistics().routes) == (0, 0)


@pytest.mark.parametrize("option", ["reply_to", "retain", "msg_id", "expect"])
async def test_publish_options_that_are_not_served_are_refused(option: str, autojump_clock: MockClock) -> None:
    """`bad_option`, by name; nothing is published."""
    values: dict[str, Any] = {"reply_to": "t", "retain": True, "msg_id": "1", "expect": 3}
    async with serving() as broker:
        client = await subscribed(broker, "a")
        options = PublishOptions(**{option: values[option]})
        answer = await client.ask(Publish(7, "a", b"x", Encoding.RAW, options))

        assert _error(answer) == (7, "bad_option")
        assert isinstance(answer, Error)
        assert option in answer.message
        assert broker.statistics().published == 0


async def test_a_misspelt_option_is_refused(autojump_clock: MockClock) -> None:
    """An unknown key must not pass in silence."""
    async with serving() as broker:
        client = await connected(broker)
        await client.send_frame(msgpack.packb([2, 1, "a", {"queu": 3}]))
        answer = await client.expect(Error)

        assert (answer.id, answer.code, answer.detail["option"]) == (1, "bad_option", "queu")


async def test_subscriptions_are_limited(autojump_clock: MockClock) -> None:
    """One more is `too_many`; subscribing again to one that is there, or after leaving one, is none more."""
    async with serving(max_subscriptions=2) as broker:
        client = await connected(broker)
        first = await client.subscribe("a")
        await client.subscribe("b")
        assert _error(await client.ask(Subscribe(9, "c"))) == (9, "too_many")
        assert broker.statistics().routes == 2
        assert await client.subscribe("a") == first
        await client.unsubscribe(first)
        await client.subscribe("c")


async def test_an_inbox_belongs_to_its_session(autojump_clock: MockClock) -> None:
    """Nobody subscribes to somebody's inbox."""
    async with serving() as broker:
        client = await connected(broker)

        assert _error(await client.ask(Subscribe(1, "$inbox.x.>"))) == (1, "forbidden")


async def test_a_route_one_is_not_on(autojump_clock: MockClock) -> None:
    """UNSUBSCRIBE and BACKLOG for it are `unknown_route`, also when somebody else is on it."""
    async with serving() as broker:
        other = await connected(broker)
        route = await other.subscribe("a")
        client = await connected(broker)

        for request in (Unsubscribe(1, route), Unsubscribe(1, 4711), Backlog(1, route, 5, 10)):
            assert _error(await client.ask(request)) == (1, "unknown_route")
        mine = await client.subscribe("a")
        assert await client.ask(Backlog(2, mine, 5, 10)) == Ok(2)
        await client.unsubscribe(mine)
        assert _error(await client.ask(Unsubscribe(3, mine))) == (3, "unknown_route")
        assert broker.publish("a", b"x") == 1


@pytest.mark.parametrize("request_", [Presence(1, "a"), Fetch(1, "a")], ids=["PRESENCE", "FETCH"])
async def test_what_this_broker_does_not_serve_yet(request_: ClientEnvelope, autojump_clock: MockClock) -> None:
    """Known to the protocol, not to this broker: `unknown_type`, and the connection lives."""
    async with serving() as broker:
        client = await connected(broker)

        assert _error(await client.ask(request_)) == (1, "unknown_type")
        assert await client.ask(Ping(2)) == Ok(2)


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
        assert _error(error) == (0, "malformed")
        assert ended.code == 1007
        assert await listener.payloads(2) == [b"x", b"y"]
        assert broker.statistics().published == 2


async def test_well_formed_nonsense_is_survived(autojump_clock: MockClock) -> None:
    """`bad_envelope` or `unknown_type`, with the id where there is one; the connection lives."""
    async with serving() as broker:
        client = await connected(broker)
        nonsense: list[object] = [5, [], {}, ["x"], [99, 4], [2, 0, "a"], [16, {}], [7, -1], None]
        await client.send_frame(b"".join(map(msgpack.packb, nonsense)))
        errors = [_error(each) for each in await client.take(len(nonsense))]

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


async def test_one_message_full_of_requests_lets_others_have_their_turn(autojump_clock: MockClock) -> None:
    """Half a million bad envelopes in a message of 1 MiB: others are served meanwhile, memory stays bounded."""
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


async def test_connections_are_limited(autojump_clock: MockClock) -> None:
    """One too many is told `too_many`, with a moment to come back, and closed with 4029; others are not disturbed."""
    async with serving(max_connections=2, drain_spread_s=5.0) as broker:
        first, _second = await connected(broker), await connected(broker)
        began = trio.current_time()
        refused = await connected(broker, welcomed=False)
        ended = await refused.ended()

        assert (ended.code, ended.goodbye.code, len(ended.envelopes)) == (4029, "too_many", 1)
        assert 0 <= ended.goodbye.retry_after_ms <= 5000
        assert trio.current_time() == began, "who answers the close frame does not wait for the linger time"
        await first.close()
        await wait_all_tasks_blocked()
        await connected(broker)
        assert broker.statistics().closed_by_broker == {4029: 1}


async def test_refused_connections_take_no_place(autojump_clock: MockClock) -> None:
    """While one that was too many lingers, a free place is given to who comes next, and nobody counts it."""
    async with serving(max_connections=2) as broker:
        first, _second = await connected(broker), await connected(broker)
        lingering = await connected(broker, welcomed=False)
        await wait_all_tasks_blocked()
        assert broker.statistics().connections == 2
        await first.close()
        await wait_all_tasks_blocked()

        await connected(broker)
        await lingering.ended()


async def test_a_client_that_leaves_takes_its_subscriptions_with_it(autojump_clock: MockClock) -> None:
    """By closing or by vanishing: nothing is published to it, and no route stays."""
    async with serving() as broker:
        polite, rude = await subscribed(broker, "a"), await subscribed(broker, "a.*")
        await polite.subscribe("b")
        await polite.close()
        await rude.stream.aclose()
        await wait_all_tasks_blocked()

        statistics = broker.statistics()
        assert (statistics.connections, statistics.subscriptions, statistics.routes) == (0, 0, 0)
        assert (broker.publish("a", b"x"), statistics.closed_by_broker) == (0, {})


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
