"""Who comes in, what it is told, and what it may subscribe to."""

from __future__ import annotations

import logging
from typing import Any

import msgpack
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.protocol import (
    MAX_BATCH,
    Backlog,
    Encoding,
    Error,
    Hello,
    LocalProtocolError,
    Message,
    Ok,
    Ping,
    Publish,
    PublishOptions,
    Subscribe,
    SubscribeOptions,
    Unsubscribe,
    Welcome,
)
from fanwire.version import __version__
from tests.integration.raw import KEY, REQUEST, RawClient, code_of, connected, serving, subscribed


async def test_welcome_comes_first(autojump_clock: MockClock) -> None:
    """Before anything is asked: who the session is, who the broker is, and what its limits are."""
    async with serving(max_message_bytes=5000, ping_interval_s=7.0, server="here") as broker:
        one, other = [await connected(broker, welcomed=False) for _ in range(2)]
        welcomes = [dict((await client.expect(Welcome)).greeting) for client in (one, other)]

        assert len({welcome.pop("session") for welcome in welcomes}) == 2
        assert len({welcome.pop("inbox") for welcome in welcomes}) == 2
        assert (
            welcomes
            == [
                {
                    "server": "here",
                    "server_version": __version__,
                    "version": 1,
                    "max_message": 5000,
                    "max_batch": MAX_BATCH,
                    "max_envelopes": 32_768,
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
        assert code_of(answer) == (1, "unauthenticated")
        await client.send(Publish(0, "a", b"x"), Publish(2, "a", b"x"))
        assert [code_of(each) for each in await client.take(2)] == [(0, "unauthenticated"), (2, "unauthenticated")]
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
        assert code_of(await client.ask(Subscribe(9, "c"))) == (9, "too_many")
        assert broker.statistics().routes == 2
        assert await client.subscribe("a") == first
        await client.unsubscribe(first)
        await client.subscribe("c")


async def test_a_route_one_is_not_on(autojump_clock: MockClock) -> None:
    """UNSUBSCRIBE and BACKLOG for it are `unknown_route`, also when somebody else is on it."""
    async with serving() as broker:
        other = await connected(broker)
        route = await other.subscribe("a")
        client = await connected(broker)

        for request in (Unsubscribe(1, route), Unsubscribe(1, 4711), Backlog(1, route, 5, 10)):
            assert code_of(await client.ask(request)) == (1, "unknown_route")
        mine = await client.subscribe("a")
        assert await client.ask(Backlog(2, mine, 5, 10)) == Ok(2)
        await client.unsubscribe(mine)
        assert code_of(await client.ask(Unsubscribe(3, mine))) == (3, "unknown_route")
        assert broker.publish("a", b"x") == 1


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


@pytest.mark.parametrize("name", ["", "somebody"])
async def test_with_logs_everything_is_as_without(
    name: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A close by the broker and a refused handshake are logged, with whom they concern, and told all the same."""
    monkeypatch.setattr(logging.getLogger("fanwire"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("fanwire"), "handlers", [])
    caplog.set_level(logging.DEBUG, "fanwire")
    async with serving() as broker:
        refused = await broker.open_stream()
        await refused.send_all(b"POST / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert (await refused.receive_some()).startswith(b"HTTP/1.1 405 ")
        await refused.aclose()
        client = await connected(broker)
        assert await client.ask(Hello(1, name=name or None)) == Ok(1)
        await client.send_frame(b"\xc1")
        assert (await client.ended()).code == 1007

    events = [(record.getMessage(), record.levelname) for record in caplog.records]
    assert events == [("starting", "INFO"), ("handshake refused", "INFO"), ("closing", "INFO")]
    assert vars(caplog.records[2]).get("client", "") == name


async def test_what_a_client_calls_itself_is_cut_before_it_is_kept(autojump_clock: MockClock) -> None:
    """A name and an agent can be as long as a message; 64 characters of each stay, also of a request's User-Agent."""
    request = REQUEST.replace(b"Host: test\r\n", b"Host: test\r\nUser-Agent: " + b"u" * 5000 + b"\r\n")
    async with serving() as broker:
        client = await connected(broker, request=request)
        [session] = broker._hub.sessions
        assert session.agent == "u" * 63 + "…"

        assert await client.ask(Hello(1, name="n" * 100_000, agent="ä" * 100_000)) == Ok(1)

        assert (session.name, session.agent) == ("n" * 63 + "…", "ä" * 63 + "…")
        await client.close()


async def test_before_welcome_a_message_is_small(autojump_clock: MockClock) -> None:
    """Strangers that have to say HELLO first may not make the broker keep much; afterwards it is as usual."""
    async with serving(require_hello=True) as broker:
        client = await connected(broker, welcomed=False)
        await client.send(Hello(1, name="n" * 60_000))
        await client.expect(Welcome)
        assert await client.next() == Ok(1)
        assert isinstance(await client.ask(Publish(2, "a", bytes(100_000))), Ok)
        await client.close()

        stranger = await connected(broker, welcomed=False)
        await stranger.stream.send_all(b"\x82\xff" + (100_000).to_bytes(8) + KEY)  # the header is enough
        assert (await stranger.ended()).code == 1009


async def test_a_key_is_as_long_as_a_topic_at_most(autojump_clock: MockClock) -> None:
    """In bytes: it is remembered for conflation and for rates."""
    async with serving() as broker:
        client = await connected(broker)
        assert isinstance(await client.ask(Publish(1, "a", b"", options=PublishOptions(key="k" * 255))), Ok)
        with pytest.raises(LocalProtocolError, match="255 bytes"):
            PublishOptions(key="ä" * 128)
        with pytest.raises(LocalProtocolError, match="255 bytes"):
            broker.publish("a", b"", key="k" * 256)

        await client.send_frame(msgpack.packb([4, 2, "a", b"", 0, {"key": "k" * 1_000_000}]))

        assert code_of(await client.next()) == (2, "bad_option")
        await client.close()
