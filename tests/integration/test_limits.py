"""Limits: each refuses with its code, is counted by its name, and changes with a reload."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker, Config
from fanwire.broker.limits.publish_meter import LONGEST_PAUSE_S
from fanwire.broker.network import admission
from fanwire.broker.settings.auth import Auth, AuthToken
from fanwire.broker.settings.roles import Role
from fanwire.protocol import (
    Error,
    Hello,
    Message,
    Ok,
    Ping,
    Publish,
    PublishOptions,
    Subscribe,
    SubscribeOptions,
    Welcome,
    encode,
)
from fanwire.protocol.frames import Opcode
from fanwire.testing import broker_in_memory, client_of

from .raw import REQUEST, code_of, connected, serving, subscribed

HERE, THERE = "198.51.100.7", "2001:db8::7"
ROLE = Role(name="all", publish=[">"], subscribe=[">"])


def _auth(*users: str, anonymous: bool = False) -> Auth:
    tokens = [AuthToken(sha256=hashlib.sha256(user.encode()).hexdigest(), user=user, roles=["all"]) for user in users]
    return Auth(tokens=tokens, roles=[ROLE], anonymous_roles=["all"] if anonymous else [])


def _bearer(token: str) -> bytes:
    return REQUEST.replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer " + token.encode() + b"\r\n\r\n")


@pytest.fixture
def come_from(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Say where the next connections come from; streams in memory have no address."""
    host: list[str | None] = [HERE]

    def come_from(other: str | None) -> None:
        host[0] = other

    monkeypatch.setattr(admission, "_host_of", lambda stream: host[0])
    return come_from


def _limited(broker: Broker) -> dict[str, int]:
    return {name: count for name, count in broker.statistics().limited.items() if count}


async def _cut_off(broker: Broker) -> bool:
    """Whether one more connection is closed at once, without a word."""
    stream = await broker.open_stream()
    with trio.move_on_after(0.001):
        return await stream.receive_some(10) == b""
    await stream.aclose()
    return False


async def _status(broker: Broker, request: bytes) -> int:
    stream = await broker.open_stream()
    await stream.send_all(request)
    answer = await stream.receive_some(65536)
    await stream.aclose()
    return int(answer.split()[1])


# ------------------------------------------------------------------ connections


async def test_connections_of_an_address(autojump_clock: MockClock, come_from: Callable[[str | None], None]) -> None:
    """One too many is closed unread; another address, and one that has no limit, is let in; a place is free again."""
    async with serving(max_connections_per_address=2) as broker:
        first, _second = await connected(broker), await connected(broker)
        assert await _cut_off(broker)
        for other in (THERE, "127.0.0.1", None):
            come_from(other)
            await connected(broker)
        assert _limited(broker) == {"max_connections_per_address": 1}

        await first.close()
        await wait_all_tasks_blocked()
        come_from(HERE)
        await connected(broker)
        await broker.reload(attrs.evolve(broker.config, max_connections_per_address=None))
        await connected(broker)
        assert broker.statistics().addresses == 2


async def test_how_often_an_address_may_come(
    autojump_clock: MockClock, come_from: Callable[[str | None], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Ten seconds' worth at once; all others are closed, which is logged once a second, until time has passed."""
    caplog.set_level("WARNING")
    async with serving(connect_rate=1) as broker:
        for _ in range(10):
            await (await connected(broker)).close()
        refused = [await _cut_off(broker) for _ in range(100)]

        assert all(refused)
        assert _limited(broker) == {"connect_rate": 100}
        assert len([record for record in caplog.records if "limit reached" in record.getMessage()]) == 1
        assert broker.statistics().connections_refused == 100
        await trio.sleep(1)
        await connected(broker)


async def test_an_address_that_a_proxy_tells_counts_instead_of_the_proxys(
    autojump_clock: MockClock, come_from: Callable[[str | None], None]
) -> None:
    """`Door.move`, for whoever reads what a trusted proxy says."""
    async with serving(max_connections_per_address=1) as broker:
        client = await connected(broker)
        (session,) = broker._hub.sessions
        assert await _cut_off(broker)

        broker._hub.door.move(session, THERE)

        await connected(broker)
        come_from(THERE)
        assert await _cut_off(broker)
        await client.close()


async def test_a_proxy_behind_a_proxy_is_not_limited_either(
    autojump_clock: MockClock, come_from: Callable[[str | None], None]
) -> None:
    """All its clients would be one."""
    async with serving(max_connections_per_address=1, trusted_proxies=(THERE,)) as broker:
        await connected(broker)
        (session,) = broker._hub.sessions

        broker._hub.door.move(session, THERE)
        broker._hub.door.move(session, THERE)
        come_from(THERE)
        await connected(broker)

        assert session.address is None
        assert _limited(broker) == {}


async def test_connections_of_a_user(autojump_clock: MockClock) -> None:
    """In the header or by HELLO: one too many is told so, 4029; others are let in."""
    auth = _auth("alice", "bob")
    async with serving(auth=auth, max_connections_per_user=1) as broker:
        first = await connected(broker, request=_bearer("alice"))
        by_header = await connected(broker, welcomed=False, request=_bearer("alice"))
        by_hello = await connected(broker, welcomed=False)
        await by_hello.send(Hello(1, token="alice"))
        for refused in (by_header, by_hello):
            ended = await refused.ended()
            assert (ended.code, ended.goodbye.code) == (4029, "too_many")
            assert "user" in ended.goodbye.message
        await connected(broker, request=_bearer("bob"))
        assert _limited(broker) == {"max_connections_per_user": 2}
        assert broker.statistics().connections == 2

        await first.close()
        await wait_all_tasks_blocked()
        renewing = await connected(broker, request=_bearer("alice"))
        assert isinstance(await renewing.ask(Hello(1, token="alice")), Ok), "renewing takes no second place"


async def test_who_has_not_said_hello_takes_nobodys_place(autojump_clock: MockClock) -> None:
    """Places are taken when one is welcomed; who comes last to its HELLO finds none."""
    async with serving(require_hello=True, max_connections=1) as broker:
        waiting = [await connected(broker, welcomed=False) for _ in range(5)]
        assert broker.statistics().opening == 5
        for number, client in enumerate(waiting[:2]):
            await client.send(Hello(1))
            if not number:
                await client.expect(Welcome)
        ended = await waiting[1].ended()

        assert (ended.code, ended.goodbye.code) == (4029, "too_many")
        assert broker.statistics().opening == 3
        assert _limited(broker) == {"max_connections": 1}


async def test_of_too_many_that_are_not_welcomed_the_first_goes(autojump_clock: MockClock) -> None:
    """In the handshake without a word, afterwards with GOODBYE; whoever is welcomed is not concerned."""
    async with serving(require_hello=True, max_opening=2) as broker:
        welcomed = await connected(broker, welcomed=False)
        await welcomed.send(Hello(1))
        await welcomed.expect(Welcome)
        silent = await broker.open_stream()
        waiting = await connected(broker, welcomed=False)
        third = await connected(broker, welcomed=False)
        assert await silent.receive_some(10) == b""

        await broker.open_stream()
        ended = await waiting.ended()

        assert (ended.code, ended.goodbye.code) == (4029, "too_many")
        await third.send(Hello(1))
        await third.expect(Welcome)
        assert isinstance(await welcomed.ask(Ping(2)), Ok | Welcome)
        assert _limited(broker) == {"max_opening": 2}


async def test_guessing_tokens(autojump_clock: MockClock, come_from: Callable[[str | None], None]) -> None:
    """So many a minute from one address, however they come; then nobody from there, until one more could be tried."""
    auth = _auth("alice")
    async with serving(auth=auth, auth_failures=3) as broker:
        late = await connected(broker, welcomed=False)
        friend = await connected(broker, request=_bearer("alice"))
        assert await _status(broker, _bearer("guess")) == 401
        query = await connected(broker, welcomed=False, request=REQUEST.replace(b"GET /", b"GET /?token=guess"))
        hello = await connected(broker, welcomed=False)
        await hello.send(Hello(1, token="guess"))
        assert [(await each.ended()).code for each in (query, hello)] == [4001, 4001]

        assert await _cut_off(broker)
        await late.send(Hello(1, token="alice"))
        ended = await late.ended()
        assert (ended.code, ended.goodbye.code, ended.goodbye.detail) == (
            4009, "rate_limited", {"limit": "auth_failures"},
        )  # fmt: skip
        assert 0 < ended.goodbye.retry_after_ms <= 40_000
        assert isinstance(await friend.ask(Hello(1, token="alice")), Ok), "who is known may renew"
        come_from(THERE)
        await connected(broker, request=_bearer("alice"))

        come_from(HERE)
        await trio.sleep(20)
        await connected(broker, request=_bearer("alice"))
        assert _limited(broker) == {"auth_failures": 2}


async def test_guesses_that_were_under_way_are_not_looked_at(
    autojump_clock: MockClock, come_from: Callable[[str | None], None]
) -> None:
    """Connections opened before the first failure: their tokens are not verified any more."""
    async with serving(auth=_auth("alice"), auth_failures=1) as broker:
        streams = [await broker.open_stream() for _ in range(3)]
        statuses = []
        for stream, token in zip(streams, ("guess", "alice", "guess"), strict=True):
            await stream.send_all(_bearer(token))
            statuses.append(int((await stream.receive_some(4096)).split()[1]))

        assert statuses == [401, 429, 429]
        assert broker.statistics().unauthenticated == {"header": 1}


async def test_a_token_that_has_expired_is_no_guess(
    autojump_clock: MockClock, come_from: Callable[[str | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner's other clients are not kept out."""
    from fanwire.broker.auth.authenticator import Authenticator
    from fanwire.broker.auth.failure import AuthenticationFailed

    def expired(*_: object) -> None:
        raise AuthenticationFailed("expired", code="expired")

    async with serving(auth=_auth("alice"), auth_failures=1) as broker:
        monkeypatch.setattr(Authenticator, "authenticate", expired)
        assert [await _status(broker, _bearer("alice")) for _ in range(3)] == [401, 401, 401]


async def test_a_client_that_is_of_no_use(autojump_clock: MockClock) -> None:
    """Subscribed to nothing and silent: 4010. One that is subscribed, or says something now and then, stays."""
    async with serving(idle_timeout_s=10.0) as broker, trio.open_nursery() as nursery:
        began = trio.current_time()
        silent, listening = await connected(broker), await subscribed(broker, "a")
        talking = await connected(broker)

        async def talk() -> None:
            while True:
                await trio.sleep(7)
                await talking.publish("a", b"x")

        nursery.start_soon(talk)
        ended = await silent.ended()
        assert (ended.code, ended.goodbye.code) == (4010, "slow_consumer")
        assert 10 <= trio.current_time() - began <= 20.1
        await trio.sleep(100)
        assert broker.statistics().connections == 2
        assert _limited(broker) == {"idle_timeout": 1}
        nursery.cancel_scope.cancel()
        assert isinstance(await listening.next(), Message)


# ---------------------------------------------------------------- subscriptions


@pytest.mark.parametrize(
    ("limit", "first", "second"),
    [
        ("max_subscriptions", "a", "b"),
        ("max_total_subscriptions", "a", "a.*"),
        ("max_patterns", "a", "b"),
    ],
)
async def test_subscriptions(limit: str, first: str, second: str, autojump_clock: MockClock) -> None:
    """Of one connection, of all, and different patterns: `too_many`, with the limit's name; a place is free again."""
    async with serving(**{limit: 1}) as broker:
        client = await connected(broker)
        route = await client.subscribe(first)
        refused = await client.ask(Subscribe(7, second))
        assert code_of(refused) == (7, "too_many")
        assert isinstance(refused, Error)
        assert refused.detail == {"limit": limit}
        assert isinstance(await client.ask(Subscribe(8, first, SubscribeOptions(queue=5))), Ok), (
            "it changes its options"
        )

        await client.unsubscribe(route)
        await client.subscribe(second)
        assert _limited(broker) == {limit: 1}
        assert (broker.statistics().routes, broker.statistics().subscriptions) == (1, 1)


async def test_many_may_be_subscribed_to_the_last_pattern(autojump_clock: MockClock) -> None:
    """Patterns are counted, not subscribers; and a reload changes the number."""
    async with serving(max_patterns=1) as broker:
        clients = [await subscribed(broker, "a") for _ in range(3)]
        assert code_of(await clients[0].ask(Subscribe(5, "b"))) == (5, "too_many")
        await broker.reload(attrs.evolve(broker.config, max_patterns=2))
        await clients[0].subscribe("b")


# -------------------------------------------------------------------- messages


async def test_too_many_requests_in_one_message(autojump_clock: MockClock) -> None:
    """What came before it is done, nothing of it is, and the connection ends with 1009."""
    async with serving(max_envelopes=100) as broker:
        client = await connected(broker)
        good = b"".join(encode(Publish(0, "topic.of.some.length", b"x" * 50)) for _ in range(100))
        bad = b"".join(encode(Publish(0, "t", b"")) for _ in range(101))
        await client.send_frame(good)
        await client.send_frame(bad)
        ended = await client.ended()

        assert ended.code == 1009
        assert code_of(ended.envelopes[-1]) == (0, "too_many")
        assert broker.statistics().published == 100
        assert _limited(broker) == {"max_envelopes": 1}


async def test_a_large_message_that_is_no_msgpack_is_malformed(autojump_clock: MockClock) -> None:
    """Counting leaves to the codec what is wrong."""
    async with serving(max_envelopes=10) as broker:
        client = await connected(broker)
        await client.send_frame(b"\xc1" * 1000)
        assert (await client.ended()).code == 1007


async def test_a_message_that_is_too_large_is_counted(autojump_clock: MockClock) -> None:
    """Refused at its header."""
    async with serving(max_message_bytes=1000) as broker:
        client = await connected(broker)
        await client.send_frame(b"x" * 1001)
        assert (await client.ended()).code == 1009
        await wait_all_tasks_blocked()
        assert _limited(broker) == {"max_message": 1}


# -------------------------------------------------------------------- publishing


async def test_acknowledged_publishes_over_the_rate_are_refused(autojump_clock: MockClock) -> None:
    """With the time to wait; on both roads; other requests are not concerned. Then they are taken again."""
    async with serving(publish_rate=10) as broker:
        reader, client = await subscribed(broker, "t"), await connected(broker)
        await client.send(*(Publish(number, "t", b"x") for number in range(1, 21)))
        assert all(isinstance(each, Ok) for each in await client.take(20)), "one read may overdraw"

        plain = await client.ask(Publish(30, "t", b"x"))
        options = await client.ask(Publish(31, "t", b"x", options=PublishOptions(key="k")))
        for answer, number in ((plain, 30), (options, 31)):
            assert code_of(answer) == (number, "rate_limited")
            assert isinstance(answer, Error)
            assert answer.detail["limit"] == "publish_rate"
            assert 1000 < answer.detail["retry_after_ms"] <= 1100
        assert isinstance(await client.ask(Ping(32)), Ok)
        assert broker.statistics().publishers_slowed == 0

        await trio.sleep(1.1)
        assert isinstance(await client.ask(Publish(33, "t", b"last")), Ok)
        assert len(await reader.payloads(21)) == 21
        assert _limited(broker) == {"publish_rate": 2}


async def test_publishes_without_answer_slow_their_connection_and_are_not_lost(autojump_clock: MockClock) -> None:
    """All arrive, at the rate; the client is told once a second at most."""
    async with serving(publish_rate=100) as broker, trio.open_nursery() as nursery:
        reader, client = await subscribed(broker, "t"), await connected(broker)
        began, count = trio.current_time(), 3000
        told: list[Error] = []

        async def publish() -> None:
            for number in range(count):
                await client.publish("t", b"%d" % number)

        async def listen() -> None:
            while True:
                told.append(await client.expect(Error))

        nursery.start_soon(publish)
        nursery.start_soon(listen)
        assert await reader.payloads(count) == [b"%d" % number for number in range(count)]

        took = trio.current_time() - began
        assert count / 100 - 8 <= took <= count / 100
        assert 1 <= len(told) <= took + 1
        assert {(each.id, each.code, each.detail["limit"]) for each in told} == {(0, "rate_limited", "publish_rate")}
        assert broker.statistics().publishers_slowed >= len(told)
        nursery.cancel_scope.cancel()


async def test_who_is_slowed_is_pinged(autojump_clock: MockClock) -> None:
    """It hears that the broker lives, and its silence is not held against it: it is not read from."""
    async with (
        serving(publish_rate=10, ping_interval_s=1.0, ping_timeout_s=1.0) as broker,
        trio.open_nursery() as nursery,
    ):
        client = await connected(broker)

        async def publish() -> None:
            while True:
                await client.publish("t", b"x" * 100)

        nursery.start_soon(publish)
        heard = []
        with trio.move_on_after(60):
            while (frame := await client.frame()) is not None:
                heard.append(frame.opcode)
        assert heard.count(Opcode.PING) >= 30
        assert broker.statistics().connections == 1
        nursery.cancel_scope.cancel()


async def test_the_sdk_is_slowed_and_loses_nothing(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """It says so once, counts nothing as refused, and its acknowledged publishes come through behind the others."""
    caplog.set_level("WARNING", "fanwire.client")
    async with (
        broker_in_memory(Config(publish_rate=100)) as broker,
        client_of(broker) as client,
        client.subscribe("t", buffer=5000) as subscription,
    ):
        for number in range(1000):
            client.publish_nowait("t", number)
        assert (await client.publish("t", 1000)).subscribers == 1

        assert [(await anext(subscription)).data for _ in range(1001)] == list(range(1001))
        told = [record.getMessage() for record in caplog.records if record.name == "fanwire.client"]
        assert len(told) == 1
        assert "slows this connection" in told[0]


async def test_bytes_are_limited_too(autojump_clock: MockClock) -> None:
    """All that a connection sends counts, whatever it is."""
    async with serving(publish_volume_bytes=10_000) as broker:
        client = await connected(broker)
        await client.publish("t", b"x" * 30_000)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        await client.send(Ping(1))
        while not isinstance(await client.next(), Ok):
            pass

        assert 1.9 < trio.current_time() - began < 2.2
        assert list(_limited(broker)) == ["publish_volume"]


async def test_a_users_connections_share_a_budget(autojump_clock: MockClock) -> None:
    """What one has published the other one cannot; another user can."""
    async with serving(auth=_auth("alice", "bob"), user_publish_rate=10) as broker:
        one, two = [await connected(broker, request=_bearer("alice")) for _ in range(2)]
        other = await connected(broker, request=_bearer("bob"))
        await one.send(*(Publish(number, "t", b"x") for number in range(1, 16)))
        await one.take(15)

        refused = await two.ask(Publish(1, "t", b"x"))
        assert code_of(refused) == (1, "rate_limited")
        assert isinstance(refused, Error)
        assert refused.detail["limit"] == "user_publish_rate"
        assert isinstance(await other.ask(Publish(1, "t", b"x")), Ok)

        await one.close()
        await two.close()
        await wait_all_tasks_blocked()
        back = await connected(broker, request=_bearer("alice"))
        assert code_of(await back.ask(Publish(1, "t", b"x"))) == (1, "rate_limited"), "coming back pays no debt"


async def test_who_cannot_be_slowed_is_disconnected(autojump_clock: MockClock) -> None:
    """One message with more than a minute's worth: 4009, and when to come back."""
    async with serving(publish_rate=1) as broker:
        client = await connected(broker)
        await client.publish("t", *[b"x"] * 100)
        ended = await client.ended()

        assert (ended.code, ended.goodbye.code) == (4009, "rate_limited")
        assert ended.goodbye.retry_after_ms >= 90_000
        assert ended.goodbye.detail == {"limit": "publish_rate"}


async def test_who_is_slowed_can_be_closed(autojump_clock: MockClock) -> None:
    """A drain does not wait for the pause: the answer to the close frame is read."""
    async with serving(publish_rate=10, linger_s=0.1) as broker:
        client = await connected(broker)
        await client.publish("t", *[b"x"] * 60)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.drain)
            ended = await client.ended()

        assert ended.code == 1001
        assert trio.current_time() - began < 0.1 < LONGEST_PAUSE_S


async def test_a_reload_changes_rates(autojump_clock: MockClock) -> None:
    """For those who are connected, at once: a limit comes, and goes."""
    async with serving() as broker:
        client = await connected(broker)
        await client.send(*(Publish(number, "t", b"x") for number in range(1, 31)))
        await client.take(30)
        await broker.reload(attrs.evolve(broker.config, publish_rate=10, publish_volume_bytes=10_000))
        await client.send(*(Publish(number, "t", b"x") for number in range(1, 31)))
        assert all(isinstance(each, Ok) for each in await client.take(30)), "what was before does not count"
        assert code_of(await client.ask(Publish(1, "t", b"x"))) == (1, "rate_limited")

        await broker.reload(attrs.evolve(broker.config, publish_rate=None, publish_volume_bytes=None))
        assert isinstance(await client.ask(Publish(1, "t", b"x")), Ok)


# ---------------------------------------------------------------- what waits


async def _fill(broker: Broker, topic: str, messages: int) -> None:
    for number in range(messages):
        broker.publish(topic, b"%4d" % number + b"x" * 10_000)
        await wait_all_tasks_blocked()


async def test_of_all_that_waits_the_most_goes_first(autojump_clock: MockClock) -> None:
    """Over the sum: who has most is disconnected, the others keep what waits."""
    async with serving(max_total_pending_bytes=1_000_000) as broker:
        much, little = await subscribed(broker, "much"), await subscribed(broker, "little")
        await _fill(broker, "much", 90)
        await _fill(broker, "little", 40)
        await trio.sleep(1)

        ended = await much.ended()
        assert (ended.code, ended.goodbye.detail["measure"]) == (4008, "max_total_pending")
        assert len(await little.payloads(40)) == 40
        assert _limited(broker) == {"max_total_pending": 1}
        assert broker.statistics().slow_by_measure == {"max_total_pending": 1}


async def test_shared_messages_count_once(autojump_clock: MockClock) -> None:
    """Ten who wait for the same are no more than one; a lower limit by reload counts at once."""
    async with serving(max_total_pending_bytes=1_500_000) as broker:
        clients = [await subscribed(broker, "t") for _ in range(10)]
        await _fill(broker, "t", 100)
        await trio.sleep(5)
        assert broker.statistics().connections == 10

        await broker.reload(attrs.evolve(broker.config, max_total_pending_bytes=100_000))
        await trio.sleep(1)
        assert broker.statistics().slow_by_measure == {"max_total_pending": 10}
        for client in clients:
            await client.stream.aclose()


async def test_everybodys_own_entries_count(autojump_clock: MockClock) -> None:
    """Though the messages are shared: many small ones that wait for many take memory for each of them."""
    async with serving(max_total_pending_bytes=500_000) as broker:
        clients = [await subscribed(broker, "t") for _ in range(10)]
        await _fill(broker, "t", 20)
        for _ in range(600):
            broker.publish("t", b"x")
            await wait_all_tasks_blocked()
        await trio.sleep(1)

        assert 0 < broker.statistics().slow_by_measure["max_total_pending"] < 10
        for client in clients:
            await client.stream.aclose()


async def test_nothing_is_looked_at_while_nobody_is_behind(autojump_clock: MockClock) -> None:
    """The watch ends when all have caught up, and begins again."""
    async with serving() as broker:
        client = await subscribed(broker, "t")
        for _ in range(2):
            await _fill(broker, "t", 20)
            assert broker._hub.pressure._watching
            await client.payloads(20)
            await trio.sleep(1)
            assert not broker._hub.pressure._watching


def test_settings_have_names_of_limits() -> None:
    """What is counted is called as the setting is."""
    from fanwire.broker.cli.options import SETTINGS
    from fanwire.broker.telemetry.statistics import LIMITS

    names = {setting.name for setting in SETTINGS}
    assert [limit for limit in LIMITS if limit not in names] == ["open_files"]
