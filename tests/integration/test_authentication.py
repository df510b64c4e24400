"""Who may come in: tokens in the header, the query and HELLO, their end, and their renewal."""

from __future__ import annotations

import gc
import logging
import time
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire import Broker, ConnectionFailed, Refused, RequestFailed, State
from fanwire.broker import TopicRule
from fanwire.broker.sessions.authentication import RENEWAL_INTERVAL_S
from fanwire.broker.sessions.session import Session
from fanwire.broker.settings.auth import Auth, AuthKey
from fanwire.broker.settings.roles import Role
from fanwire.protocol import Error, Hello, Message, Ok, Ping, Publish, Subscribe, Welcome
from fanwire.testing import client_of
from fanwire.version import __version__
from tests.integration.raw import REQUEST, RawClient, code_of, connected, serving, subscribed
from tests.keys import EDDSA, ES256, HS256, RS256, bearer, in_query, known

ALL = Role(name="all", publish=(">",), subscribe=(">",))
A = Role(name="a", publish=("a.>",), subscribe=("a.>",))
B = Role(name="b", publish=("b.>",), subscribe=("b.>",))


def _auth(**settings: Any) -> Auth:
    tokens = [known("fw_good", "alice", "all"), known("fw_bob", "bob", "all"), known("fw_a", "alice", "a")]
    return Auth(**{"roles": [ALL, A, B], "tokens": tokens, **settings})


async def _status(broker: Broker, request: bytes) -> bytes:
    stream = await broker.open_stream()
    await stream.send_all(request)
    answer = b""
    while data := await stream.receive_some(4096):
        answer += data
    await stream.aclose()
    return answer


async def _told_to_go(client: RawClient) -> tuple[int, str, int]:
    """Close code, code of the GOODBYE, and how many envelopes came before it."""
    ended = await client.ended()
    return ended.code, ended.goodbye.code, len(ended.envelopes) - 1


async def test_a_token_in_the_header_or_the_query_is_enough(autojump_clock: MockClock) -> None:
    """WELCOME comes at once, and says who one is, for how long, and what that allows."""
    async with serving(auth=_auth()) as broker:
        for request in (bearer("fw_good"), in_query("fw_good"), in_query("fw%5Fgood&x=1")):
            client = await connected(broker, welcomed=False, request=request)
            greeting = (await client.expect(Welcome)).greeting
            assert (greeting["user"], greeting["expires_in"]) == ("alice", None)
            assert greeting["permissions"] == {"publish": [">"], "subscribe": [">"]}


async def test_a_bad_token_in_the_header_is_told_by_http(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """401, with the challenge that RFC 6750 wants; it is counted, and logged without the token."""
    caplog.set_level(logging.DEBUG, "fanwire.broker")
    bad = bearer("fw_wrong"), bearer("x" * 9000), bearer("fw_good, Bearer fw_good"), bearer("fw_good").replace(
        b"Bearer", b"Basic"
    )  # fmt: skip
    async with serving(auth=_auth(anonymous_roles=["all"])) as broker:
        for request in bad:
            answer = await _status(broker, request)
            assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
            assert b'\r\nWWW-Authenticate: Bearer error="invalid_token"\r\n' in answer
        await wait_all_tasks_blocked()
        figures = broker.statistics()

    assert (figures.unauthenticated, figures.connections_refused) == ({"header": 4}, 4)
    assert "authentication failed" in caplog.text
    assert not any(secret in f"{record.__dict__}" for record in caplog.records for secret in ("fw_wrong", "fw_good"))


@pytest.mark.parametrize("token", ["fw_wrong", "", "fw_good&token=fw_good", "a.b.c", "fw_good%00"])
async def test_a_bad_token_in_the_query_is_told_by_goodbye(
    token: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A page can read that: no WELCOME, GOODBYE unauthenticated, close 4001. The log does not have it."""
    caplog.set_level(logging.DEBUG, "fanwire.broker")
    async with serving(auth=_auth(anonymous_roles=["all"])) as broker:
        client = await connected(broker, welcomed=False, request=in_query(token))
        assert await _told_to_go(client) == (4001, "unauthenticated", 0)
        assert await _status(broker, in_query("fw_secret").replace(b"/?", b"/nothing?"))
        assert broker.statistics().unauthenticated == {"query": 1}

    assert not any(secret in f"{record.__dict__}" for record in caplog.records for secret in ("fw_secret", "fw_wrong"))


async def test_without_a_token_nothing_can_be_done_but_hello(autojump_clock: MockClock) -> None:
    """WELCOME waits for it; everything else is refused until then, and leaves nothing behind."""
    rules = [TopicRule(pattern=">", history=5, publisher_wait_s=1)]
    async with serving(auth=_auth(), rules=rules) as broker:
        listener = await connected(broker, request=bearer("fw_good"))
        await listener.subscribe(">")
        client = await connected(broker, welcomed=False)
        await client.send(Subscribe(1, ">"), Publish(2, "a.b", b"x"), Publish(0, "a.b", b"x"), Ping(3))
        assert [code_of(each)[1] for each in await client.take(4)] == ["unauthenticated"] * 4
        assert (broker.statistics().stored_topics, broker._hub.registry._topics) == (0, {})
        await client.send(Hello(4, token="fw_good"), Publish(5, "a.b", b"y"))
        await client.expect(Welcome)
        answer = await client.expect(Ok)

        assert (answer.id, answer.result["user"]) == (4, "alice")
        assert (await client.expect(Ok)).id == 5
        assert await listener.payloads(1) == [b"y"]


@pytest.mark.parametrize("token", [None, "fw_wrong", "", "x" * 10_000, "ä"])
async def test_hello_without_a_good_token_is_the_end(token: str | None, autojump_clock: MockClock) -> None:
    """One guess a connection: what comes behind it is not looked at."""
    async with serving(auth=_auth()) as broker:
        client = await connected(broker, welcomed=False)
        await client.send(Hello(1, token=token), Hello(2, token="fw_good"), Publish(3, "a.b", b"x"))

        assert await _told_to_go(client) == (4001, "unauthenticated", 0)
        assert (broker.statistics().published, broker.statistics().unauthenticated) == (0, {"hello": 1})


async def test_no_hello_in_time(autojump_clock: MockClock) -> None:
    """Who says nothing is closed with 4001 after the HELLO deadline."""
    async with serving(auth=_auth(), hello_timeout_s=5.0) as broker:
        client = await connected(broker, welcomed=False)

        assert await _told_to_go(client) == (4001, "unauthenticated", 0)
        assert trio.current_time() == 5.0


async def test_anonymous_clients_have_their_own_role(autojump_clock: MockClock) -> None:
    """Only where the settings say so; one may say later who one is."""
    async with serving(auth=_auth(anonymous_roles=["a"])) as broker:
        client = await connected(broker, welcomed=False)
        assert (await client.expect(Welcome)).greeting["user"] is None
        assert code_of(await client.ask(Subscribe(1, "b.x"))) == (1, "forbidden")
        assert isinstance(await client.ask(Hello(2)), Ok)
        assert isinstance(await client.ask(Hello(3, token="fw_good")), Ok)

        assert isinstance(await client.ask(Subscribe(4, "b.x")), Ok)


async def test_without_settings_tokens_are_not_looked_at(autojump_clock: MockClock) -> None:
    """As ever: everybody may come in."""
    async with serving() as broker:
        client = await connected(broker, welcomed=False, request=bearer("whatever"))

        assert "user" not in (await client.expect(Welcome)).greeting
        assert await client.ask(Hello(1, token="x")) == Ok(1)


# ------------------------------------------------------------------- the end


async def test_a_token_that_expires_ends_the_connection(autojump_clock: MockClock, tmp_path: Path) -> None:
    """In the middle of the stream: GOODBYE expired, close 4001, and nothing more of what was published."""
    auth = _auth(keys=[HS256.file(tmp_path)], default_roles=["all"], leeway_s=0)
    async with serving(auth=auth) as broker:
        token = HS256.sign(sub="alice", exp=int(time.time()) + 60)
        client = await connected(broker, request=bearer(token))
        await client.subscribe("a.>")
        await trio.sleep(50)
        broker.publish("a.x", b"before")
        await wait_all_tasks_blocked()
        await trio.sleep(10)
        broker.publish("a.x", b"after")
        ended = await client.ended()

        assert (ended.code, ended.goodbye.code) == (4001, "expired")
        assert [each.payload for each in ended.envelopes if isinstance(each, Message)] == [b"before"]
        assert broker.statistics().unauthenticated == {"expired": 1}


async def test_a_token_that_has_expired_is_told_from_a_bad_one(autojump_clock: MockClock, tmp_path: Path) -> None:
    """The client needs a new one."""
    auth = _auth(keys=[HS256.file(tmp_path)], default_roles=["all"], leeway_s=0)
    async with serving(auth=auth) as broker:
        client = await connected(broker, welcomed=False)
        await client.send(Hello(1, token=HS256.sign(sub="alice", exp=int(time.time()) - 60)))

        assert await _told_to_go(client) == (4001, "expired", 0)


async def test_hello_again_renews_the_token(autojump_clock: MockClock, tmp_path: Path) -> None:
    """The connection goes on to the end of the new one, sooner or later than that of the old one."""
    auth = _auth(keys=[HS256.file(tmp_path)], default_roles=["all"], leeway_s=0)
    async with serving(auth=auth) as broker:
        now = int(time.time())
        client = await connected(broker, request=bearer(HS256.sign(sub="alice", exp=now + 20)))
        await trio.sleep(10)
        answer = await client.ask(Hello(1, token=HS256.sign(sub="alice", exp=now + 3600)))
        assert isinstance(answer, Ok)
        assert 3500 < answer.result["expires_in"] <= 3600
        await trio.sleep(600)
        assert isinstance(await client.ask(Hello(2, token=HS256.sign(sub="alice", exp=now + 5))), Ok)
        ended = await client.ended()

        assert ended.goodbye.code == "expired"
        assert 610 < trio.current_time() <= 615


async def test_renewing_replaces_permissions(autojump_clock: MockClock) -> None:
    """What is allowed no longer ends, in the place where it does; the rest goes on."""
    async with serving(auth=_auth(), rules=()) as broker:
        client = await connected(broker, request=bearer("fw_good"))
        routes = {pattern: await client.subscribe(pattern) for pattern in ("a.x", "b.x", ">")}
        await client.send(Hello(1, token="fw_a"))
        gone = [await client.expect(Error) for _ in range(2)]
        answer = await client.expect(Ok)
        for topic in ("b.x", "a.x"):
            broker.publish(topic, topic.encode())
        [message] = [await client.expect(Message)]

        assert [(each.id, each.code, each.detail["route"]) for each in gone] == [
            (0, "forbidden", routes["b.x"]),
            (0, "forbidden", routes[">"]),
        ]
        assert answer.result["permissions"] == {"publish": ["a.>"], "subscribe": ["a.>"]}
        assert (message.route, message.payload) == (routes["a.x"], b"a.x")
        assert code_of(await client.ask(Publish(2, "b.x", b"x"))) == (2, "forbidden")
        assert broker.statistics().subscriptions == 1


async def test_a_connection_stays_with_its_user(autojump_clock: MockClock) -> None:
    """Another user's token is refused, and that is the end: GOODBYE forbidden, close 4003."""
    async with serving(auth=_auth()) as broker:
        client = await connected(broker, request=bearer("fw_good"))
        await client.send(Hello(1, token="fw_bob"), Publish(2, "a.b", b"x"))

        assert await _told_to_go(client) == (4003, "forbidden", 0)
        assert broker.statistics().published == 0


async def test_a_bad_token_ends_also_who_had_a_good_one(autojump_clock: MockClock) -> None:
    """So nobody gets more than one guess, whatever they began with."""
    async with serving(auth=_auth()) as broker:
        client = await connected(broker, request=bearer("fw_good"))
        await client.send(Hello(1, token="fw_wrong"))

        assert await _told_to_go(client) == (4001, "unauthenticated", 0)


async def test_tokens_may_not_come_too_often(autojump_clock: MockClock) -> None:
    """Verifying them costs everybody's time: one a second, a sooner one is not looked at."""
    async with serving(auth=_auth()) as broker:
        client = await connected(broker, request=bearer("fw_good"))
        await client.send(*(Hello(number, token="fw_good") for number in (1, 2, 3)))
        assert isinstance(await client.next(), Ok)
        assert [code_of(each) for each in await client.take(2)] == [(2, "rate_limited"), (3, "rate_limited")]
        await trio.sleep(RENEWAL_INTERVAL_S)

        assert isinstance(await client.ask(Hello(4, token="fw_good")), Ok)


async def test_a_rule_for_a_user_goes_by_the_proven_name(autojump_clock: MockClock) -> None:
    """What the client calls itself is nothing to go by where users are known."""
    rules = [TopicRule(pattern=">", user="bob", max_queue=5)]
    async with serving(auth=_auth(), rules=rules) as broker:
        granted = []
        for token, name in (("fw_bob", "alice"), ("fw_good", "bob")):
            client = await connected(broker, request=bearer(token))
            assert isinstance(await client.ask(Hello(1, name=name)), Ok)
            answer = await client.ask(Subscribe(2, "a.x"))
            assert isinstance(answer, Ok)
            granted.append(answer.result["queue"])

        assert granted == [5, broker.config.queue]


# ------------------------------------------------------------------ the client


async def test_a_client_gets_in_with_its_token(autojump_clock: MockClock) -> None:
    """Given, or from a function of either kind; `welcome` says who one is."""

    async def later() -> str:
        await trio.sleep(1)
        return "fw_good"

    async with serving(auth=_auth()) as broker:
        for token in ("fw_good", lambda: "fw_good", later):
            async with client_of(broker, token=token) as client:
                assert client.welcome["user"] == "alice"


async def test_a_client_is_told_why_it_may_not_come_in(autojump_clock: MockClock) -> None:
    """`Refused` with the status or the close code; a function that fails says so; neither is tried again."""
    async with serving(auth=_auth()) as broker:
        for token, code, says in (("fw_wrong", 401, "not accepted"), (None, 4001, "a token is needed")):
            with pytest.raises(Refused, match=says) as caught:
                async with client_of(broker, token=token):
                    pytest.fail("connected")
            assert caught.value.code == code

        def fail() -> str:
            raise OSError("no network")

        for source, says in ((fail, "no token to connect with: no network"), (lambda: "a\r\nb", "visible ASCII")):
            with pytest.raises(ConnectionFailed, match=says):
                async with client_of(broker, token=source):
                    pytest.fail("connected")
        with pytest.raises(ValueError, match="visible ASCII") as odd:
            async with client_of(broker, token="a b"):
                pytest.fail("connected")
        assert "a b" not in str(odd.value)


async def test_a_client_renews_its_token_before_it_expires(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Without a new connection, as often as needed; also when the function fails now and then."""
    given: list[float] = []

    def token() -> str:
        given.append(trio.current_time())
        if len(given) == 3:
            raise OSError("no network")
        return HS256.sign(sub="alice", exp=int(time.time()) + 100)

    auth = _auth(keys=[HS256.file(tmp_path)], default_roles=["all"], leeway_s=0)
    async with serving(auth=auth) as broker, client_of(broker, token=token) as client:
        states: list[State] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_follow, client.states(), states)
            await trio.sleep(1000)
            nursery.cancel_scope.cancel()

        assert states == ["connected"]
        assert 11 <= len(given) <= 15
        assert broker.statistics().connections_total == 1


async def _follow(states: Any, seen: list[State]) -> None:
    async for state in states:
        seen.append(state)  # noqa: PERF401, they are looked at while this runs


async def test_a_client_whose_token_expired_comes_back_with_a_new_one(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """If it has a function to ask; with a fixed token that is the end, and says why."""
    auth = _auth(keys=[HS256.file(tmp_path)], default_roles=["all"], leeway_s=0)
    short = HS256.sign(sub="alice", exp=int(time.time()) + 20)
    given = iter([short, short, HS256.sign(sub="alice", exp=int(time.time()) + 10**6)])

    def token() -> str:
        try:
            return next(given)
        except StopIteration:
            raise OSError("no more") from None

    async with serving(auth=auth) as broker:
        async with client_of(broker, token=token) as client, client.subscribe("a.x") as subscription:
            await trio.sleep(100)
            assert client.state == "connected"
            await client.publish("a.x", 1)
            assert (await anext(aiter(subscription))).data == 1
        async with client_of(broker, token=short) as client:
            with trio.fail_after(100):
                async for state in client.states():
                    assert state in ("connected", "closed")
            assert isinstance(client.error, Refused)
            assert "expired" in str(client.error)


async def test_a_subscription_of_a_client_ends_when_it_is_no_longer_allowed(autojump_clock: MockClock) -> None:
    """With the broker's reason; the others go on."""
    async with (
        serving(auth=_auth()) as broker,
        client_of(broker, token="fw_good") as client,
        client.subscribe("a.x") as allowed,
        client.subscribe("b.x") as other,
    ):
        client._outgoing.add_control(b"\x93\x01\x00\x81\xa5token\xa4fw_a")
        with pytest.raises(RequestFailed, match="no longer allowed") as caught, trio.fail_after(10):
            await anext(aiter(other))
        assert caught.value.code == "forbidden"
        broker.publish("a.x", b"x")
        with trio.fail_after(10):
            assert (await anext(aiter(allowed))).payload == b"x"


async def test_the_plain_request_of_these_tests_has_no_token(autojump_clock: MockClock) -> None:
    """Else none of them would mean anything."""
    assert b"token" not in REQUEST
    assert b"Authorization" not in REQUEST
    async with serving() as broker:
        await subscribed(broker, "a")


# ---------------------------------------------------------------- other settings


async def test_other_settings_hold_at_once(autojump_clock: MockClock, tmp_path: Path) -> None:
    """A token that was taken out ends its connection; permissions that were taken away end what they allowed."""
    keys = [HS256.file(tmp_path)]
    async with serving(auth=_auth(keys=keys, anonymous_roles=["all"], default_roles=["all"])) as broker:
        requests = (bearer("fw_good"), bearer("fw_bob"), bearer(HS256.sign(sub="carol")), REQUEST)
        alice, bob, carol, nobody = [await connected(broker, request=request) for request in requests]
        routes = [await client.subscribe("b.x") for client in (alice, bob, carol)]
        await broker.change_auth(_auth(keys=keys, tokens=[known("fw_good", "alice", "b")], default_roles=["a"]))

        for client in (bob, nobody):
            assert await _told_to_go(client) == (4001, "unauthenticated", 0)
        error = await carol.expect(Error)
        assert (error.id, error.code, error.detail["route"]) == (0, "forbidden", routes[2])
        assert isinstance(await alice.ask(Ping(9)), Ok)
        broker.publish("b.x", b"x")
        assert await alice.payloads(1) == [b"x"]
        assert broker.statistics().unauthenticated == {"changed": 2}
        assert await _status(broker, bearer("fw_bob"))


@pytest.mark.parametrize("change", ["gone", "another", "algorithm", "kid", "issuer", "audience"])
async def test_a_key_that_is_taken_out_ends_the_connections_of_its_jwts(
    autojump_clock: MockClock, tmp_path: Path, change: str
) -> None:
    """Also one that is exchanged under its name, or renamed, and other claims that are asked for; others stay."""
    (tmp_path / "old").write_bytes(HS256.public)
    (tmp_path / "new").write_bytes(HS256.public[::-1])
    old = AuthKey(file=str(tmp_path / "old"), algorithm="HS256", kid="old")
    keys, settings = [ES256.file(tmp_path), old], {"issuer": "us", "audience": "fanwire"}
    claims: dict[str, Any] = {"iss": "us", "aud": ["other", "fanwire"]}
    tokens = HS256.sign(sub="mallory", headers={"kid": "old"}, **claims), ES256.sign(sub="carol", **claims)
    async with serving(auth=_auth(keys=keys, default_roles=["all"], **settings)) as broker:
        mallory, carol = [await connected(broker, request=bearer(token)) for token in tokens]
        after = {
            "gone": [keys[0]],
            "another": [keys[0], attrs.evolve(old, file=str(tmp_path / "new"))],
            "algorithm": [keys[0], attrs.evolve(EDDSA.file(tmp_path), kid="old")],
            "kid": [keys[0], attrs.evolve(old, kid="new")],
        }.get(change, keys)
        settings |= {change: "others"} if change in settings else {}
        await broker.reload(attrs.evolve(broker.config, auth=_auth(keys=after, default_roles=["all"], **settings)))

        assert await _told_to_go(mallory) == (4001, "unauthenticated", 0)
        assert (await _status(broker, bearer(tokens[0]))).startswith(b"HTTP/1.1 401 ")
        if change in settings:
            assert await _told_to_go(carol) == (4001, "unauthenticated", 0)
        else:
            assert isinstance(await carol.ask(Ping(9)), Ok)


async def test_without_any_key_left_no_jwt_is_good(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Tokens of the file stay."""
    async with serving(auth=_auth(keys=[HS256.file(tmp_path)], default_roles=["all"])) as broker:
        carol, alice = [await connected(broker, request=bearer(t)) for t in (HS256.sign(sub="carol"), "fw_good")]
        await broker.change_auth(_auth())

        assert await _told_to_go(carol) == (4001, "unauthenticated", 0)
        assert isinstance(await alice.ask(Ping(9)), Ok)


async def test_a_key_that_only_moves_keeps_its_connections(autojump_clock: MockClock, tmp_path: Path) -> None:
    """What counts is the key, not its file; a key without a name is for tokens that name any."""
    (tmp_path / "moved").write_bytes(HS256.public)
    async with serving(auth=_auth(keys=[HS256.file(tmp_path)], default_roles=["all"])) as broker:
        carol = await connected(broker, request=bearer(HS256.sign(sub="carol", headers={"kid": "any"})))
        moved = AuthKey(file=str(tmp_path / "moved"), algorithm="HS256")
        await broker.change_auth(_auth(keys=[RS256.file(tmp_path), moved], default_roles=["all"]))

        assert isinstance(await carol.ask(Ping(9)), Ok)


async def test_other_settings_hold_for_who_is_in_the_middle_of_the_handshake(autojump_clock: MockClock) -> None:
    """Accepted by the old ones, and not connected yet when they changed."""
    async with serving(auth=_auth()) as broker:
        stream = await broker.open_stream()
        await stream.send_all(bearer("fw_bob"))
        while not any(s.identity for s in _sessions(broker)):
            await trio.lowlevel.checkpoint()
        assert not broker._hub.sessions
        await broker.change_auth(_auth(tokens=[known("fw_good", "alice", "b")]))
        client = RawClient(stream)
        while (end := client.received.find(b"\r\n\r\n")) < 0:
            await client.read()
        del client.received[: end + 4]

        assert await _told_to_go(client) == (4001, "unauthenticated", 0)


def _sessions(broker: Broker) -> list[Session]:
    """All, also those that are not connected yet."""
    return [each for each in gc.get_objects() if isinstance(each, Session) and each.hub is broker._hub]


async def test_settings_that_cannot_be_used_change_nothing(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Whoever is connected stays, and may do what they could; nor can authentication begin in the middle."""
    missing = AuthKey(file=str(tmp_path / "nothing"), algorithm="RS256")
    async with serving(auth=_auth()) as broker:
        client = await connected(broker, request=bearer("fw_good"))
        await client.subscribe("a")
        with pytest.raises(ValueError, match="No such file"):
            await broker.change_auth(_auth(keys=[missing], tokens=[]))
        broker.publish("a", b"x")
        assert await client.payloads(1) == [b"x"]
        await connected(broker, request=bearer("fw_bob"))
    async with serving() as broker:
        with pytest.raises(ValueError, match="cannot begin"):
            await broker.change_auth(_auth())


async def test_a_query_of_very_many_fields_is_refused(autojump_clock: MockClock) -> None:
    """Looking for a token in it would take too long."""
    async with serving() as broker:
        request = in_query("x" + "&a=1" * 200)

        assert (await _status(broker, request)).startswith(b"HTTP/1.1 400 ")


async def test_operators_see_whose_connection_it_is(autojump_clock: MockClock) -> None:
    """While it lives and afterwards; nobody in particular is None. The SDK says its release, too."""
    async with serving(auth=_auth(anonymous_roles=("all",))) as broker:
        async with client_of(broker, name="desk", token="fw_good"), client_of(broker, name="guest"):
            listed = {each.name: (each.user, each.agent) for each in broker.connections()}
        await wait_all_tasks_blocked()
        gone = {each.name: each.user for each in broker.closed_connections()}

    agent = f"fanwire-python/{__version__}"
    assert listed == {"desk": ("alice", agent), "guest": (None, agent)}
    assert gone == {"desk": "alice", "guest": None}
