"""What one may do: publishing, subscribing, and every other way on which a message could come."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire import RequestFailed
from fanwire.broker import TopicRule
from fanwire.broker.auth import permissions
from fanwire.broker.settings.auth import Auth
from fanwire.broker.settings.roles import Role
from fanwire.protocol import (
    BrokerEnvelope,
    Encoding,
    Error,
    Fetch,
    Hello,
    Message,
    Ok,
    Ping,
    Publish,
    PublishOptions,
    SnapshotEnd,
    Subscribe,
    SubscribeOptions,
)
from fanwire.protocol.reserved import is_inbox
from fanwire.testing import client_of
from tests.integration.http_client import http
from tests.integration.raw import RawClient, code_of, connected, serving
from tests.keys import bearer, known

ALL = Role(name="all", publish=(">",), subscribe=(">",))
KEEPING = [TopicRule(pattern=">", history=10, retain=True), TopicRule(pattern=">", publisher_wait_s=1)]


def _auth(*roles: Role, **settings: Any) -> Auth:
    tokens = [known("fw_me", "me", *(role.name for role in roles)), known("fw_all", "boss", "all")]
    return Auth(roles=[*roles, ALL], tokens=tokens, **settings)


async def _forbidden(client: RawClient, *patterns: str) -> None:
    for pattern in patterns:
        number = client.number()
        assert code_of(await client.ask(Subscribe(number, pattern))) == (number, "forbidden"), pattern


async def _granted(client: RawClient, *patterns: str) -> None:
    for pattern in patterns:
        await client.subscribe(pattern)


async def test_a_pattern_is_granted_only_as_a_whole(autojump_clock: MockClock) -> None:
    """No wildcard reaches beyond what is allowed, nor a pattern that only overlaps with it."""
    role = Role(name="r", subscribe=("a.*.c", "b.>"))
    async with serving(auth=_auth(role)) as broker:
        client = await connected(broker, request=bearer("fw_me"))
        await _granted(client, "a.*.c", "a.b.c", "b.x", "b.*", "b.x.>", "b.>")
        await _forbidden(client, ">", "*", "*.*", "*.>", "a.>", "a.*.*", "a.b.>", "a.b.*", "*.b.c", "b", "c", "a.b.c.d")

        assert broker.statistics().forbidden == {"subscribe": 12}


async def test_deny_beats_allow(autojump_clock: MockClock) -> None:
    """Also what another role allows; a pattern that only overlaps with it is refused as a whole."""
    denying = Role(name="deny", subscribe_deny=("a.secret.>",), publish_deny=("a.secret.>", "a.*.log"))
    role = Role(name="r", publish=("a.>",), subscribe=("a.>",))
    async with serving(auth=_auth(role, denying)) as broker:
        client = await connected(broker, request=bearer("fw_me"))
        await _granted(client, "a.b", "a.secret", "a.b.>")
        await _forbidden(client, "a.>", "a.secret.x", "a.*.x", "a.*.*", "a.secret.>")
        assert code_of(await client.ask(Publish(90, "a.secret.x", b""))) == (90, "forbidden")
        assert code_of(await client.ask(Publish(91, "a.b.log", b""))) == (91, "forbidden")
        assert isinstance(await client.ask(Publish(92, "a.c", b"")), Ok)


async def test_a_template_is_each_users_own(autojump_clock: MockClock) -> None:
    """`{sub}` is who one is, and nobody else's."""
    role = Role(name="r", publish=("user.{sub}.>",), subscribe=("user.{sub}.>",))
    tokens = [known("fw_one", "one", "r"), known("fw_two", "two", "r")]
    async with serving(auth=Auth(roles=[role], tokens=tokens)) as broker:
        one = await connected(broker, request=bearer("fw_one"))
        two = await connected(broker, request=bearer("fw_two"))
        await _granted(one, "user.one.>")
        await _forbidden(two, "user.one.x", "user.*.x", "user.>")
        assert code_of(await two.ask(Publish(9, "user.one.x", b"forged"))) == (9, "forbidden")
        await one.publish("user.one.x", b"mine")
        assert await one.payloads(1) == [b"mine"]


async def test_the_brokers_own_topics_are_for_operators(autojump_clock: MockClock) -> None:
    """Whatever `>` may mean elsewhere; demand has a permission of its own, which is no more than that."""
    operator, demand = Role(name="o", operator=True), Role(name="d", demand=True)
    tokens = [known("fw_all", "a", "all"), known("fw_o", "b", "o"), known("fw_d", "c", "d")]
    async with serving(auth=Auth(roles=[ALL, operator, demand], tokens=tokens)) as broker:
        anybody, boss, publisher = [await connected(broker, request=bearer(f"fw_{name}")) for name in ("all", "o", "d")]
        await _forbidden(anybody, "$sys.stats", "$sys.>", "$sys.demand", "$sys.*", "$other", "$other.>")
        await _forbidden(publisher, "$sys.stats", "$sys.>", "$sys.*", "a")
        assert code_of(await boss.ask(Publish(90, "$sys.stats", b""))) == (90, "forbidden")
        assert isinstance(await publisher.ask(Subscribe(91, "$sys.demand")), Ok)
        await _granted(boss, "$sys.slow")
        assert isinstance(await boss.ask(Subscribe(91, "$sys.>")), Ok)


async def test_forbidden_publishes_are_told_counted_and_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each that wants an answer; the others together or one by one, but every one counts. The log is not flooded."""
    role = Role(name="r", publish=("a.>",))
    async with serving(auth=_auth(role)) as broker:
        boss = await connected(broker, request=bearer("fw_all"))
        await boss.subscribe(">")
        await boss.publish("b.x", b"known to the fast road")
        assert await boss.payloads(1) == [b"known to the fast road"]
        client = await connected(broker, request=bearer("fw_me"))
        await client.publish("a.x", b"1")
        await client.publish("b.x", *[b"bad"] * 100)
        await client.send(*(Publish(number, "b.x", b"bad") for number in (1, 2)), Publish(3, "b.new", b"bad"))
        await client.send(Publish(0, "b.new", b"bad"), Publish(0, "b.x", b"bad", options=PublishOptions(key="k")))
        await client.publish("a.x", b"2")
        assert isinstance(await client.ask(Publish(9, "a.x", b"3")), Error)
        errors = []
        while not isinstance(got := await client.next(), Ok):
            assert isinstance(got, Error)
            errors.append(got)

        assert await boss.payloads(3) == [b"1", b"2", b"3"]
        assert {each.code for each in errors} == {"forbidden"}
        assert [each.id for each in errors if each.id] == [1, 2, 3]
        assert broker.statistics().forbidden == {"publish": 105}
    times = [record.__dict__["times"] for record in caplog.records if record.message == "forbidden"]
    assert len(times) <= 8
    assert {"user": "me", "action": "publish"}.items() <= caplog.records[0].__dict__.items()


async def test_a_forbidden_publish_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    """No topic, nothing remembered: else names without end could fill what others need."""
    role = Role(name="r", publish=("a.>",))
    async with serving(auth=_auth(role), rules=KEEPING) as broker:
        client = await connected(broker, request=bearer("fw_me"))
        for number in range(1, 9):
            options = PublishOptions(retain=True) if number % 2 else PublishOptions()
            answer = await client.ask(Publish(number, f"b.{number}", b"x", Encoding.RAW, options))
            assert code_of(answer) == (number, "forbidden")
        await client.publish("b.plain", b"x")
        await client.expect(Error)

        assert broker.statistics().stored_topics == 0
        assert not broker._hub.registry._topics


async def test_what_is_remembered_is_no_way_around(autojump_clock: MockClock) -> None:
    """Neither retained values, nor replay, nor FETCH, nor what `recovered` would tell of other topics."""
    role = Role(name="r", subscribe=("a.>",))
    async with serving(auth=_auth(role), rules=KEEPING) as broker:
        broker.publish("a.x", b"mine")
        broker.publish("secret.x", b"secret!")
        client = await connected(broker, request=bearer("fw_me"))
        for options in ({"snapshot": True}, {"replay": {"last": 5}}, {"replay": {"since": 0}}):
            for pattern in (">", "*.x", "secret.x"):
                number = client.number()
                answer = await client.ask(Subscribe(number, pattern, SubscribeOptions.from_map(options)))
                assert code_of(answer) == (number, "forbidden")
        for topic in ("secret.x", "secret.nothing"):
            number = client.number()
            assert code_of(await client.ask(Fetch(number, topic, last=1))) == (number, "forbidden")
        assert b"secret!" not in b"".join(client.messages)
        assert broker.statistics().forbidden == {"subscribe": 9, "fetch": 2}


async def test_recovered_tells_nothing_of_topics_beyond_the_pattern(autojump_clock: MockClock) -> None:
    """Whatever offsets of others are named: else it would say how many messages those have."""
    role = Role(name="r", subscribe=("a.>",))
    async with serving(auth=_auth(role), rules=KEEPING) as broker:
        broker.publish("a.x", b"mine")
        broker.publish("secret.x", b"secret!")
        recovered = []
        for offset in (0, 1, 2):
            client = await connected(broker, request=bearer("fw_me"))
            replay = {"offsets": {"a.x": 1, "secret.x": offset}, "epoch": broker._hub.epoch}
            answer = await client.ask(Subscribe(1, "a.*", SubscribeOptions.from_map({"replay": replay})))
            assert isinstance(answer, Ok)
            recovered.append(answer.result["recovered"])
            assert await client.expect(SnapshotEnd) == SnapshotEnd(answer.result["route"], 0)

        assert recovered == [True, True, True]


async def test_a_new_token_also_ends_a_replay_that_is_under_way(autojump_clock: MockClock) -> None:
    """Nothing more of it comes, from the history or live."""
    role, less = Role(name="r", subscribe=(">",)), Role(name="less", subscribe=("a.>",))
    tokens = [known("fw_more", "me", "r"), known("fw_less", "me", "less")]
    rules = [TopicRule(pattern=">", history=1000)]
    async with serving(auth=Auth(roles=[role, less], tokens=tokens), rules=rules) as broker:
        for _ in range(100):
            broker.publish("b.x", bytes(10_000))
        client = await connected(broker, request=bearer("fw_more"))
        await client.send(Subscribe(1, "b.x", SubscribeOptions.from_map({"replay": {"last": 100}})))
        assert isinstance(await client.next(), Ok)
        await client.send(Hello(2, token="fw_less"))
        got: list[BrokerEnvelope] = []
        while not (got and isinstance(got[-1], Ok)):
            got.append(await client.next())
        broker.publish("b.x", b"live")
        await wait_all_tasks_blocked()

        assert len([each for each in got if isinstance(each, Message)]) < 100
        assert [each.code for each in got if isinstance(each, Error)] == ["forbidden"]
        assert await client.ask(Ping(3)) == Ok(3)
        assert broker.statistics().forbidden == {"revoked": 1}


async def test_everybody_may_publish_into_inboxes(autojump_clock: MockClock) -> None:
    """That is how to reply; who may read them is another matter."""
    role = Role(name="r", subscribe=("a",))
    async with serving(auth=_auth(role)) as broker:
        client = await connected(broker, request=bearer("fw_me"))
        assert isinstance(await client.ask(Publish(1, "$inbox.x.y", b"")), Ok)
        await _forbidden(client, "$inbox.x.>", "$inbox.>", "$inbox.*.y")


async def test_asking_needs_the_permission_to_publish_and_no_other_one(autojump_clock: MockClock) -> None:
    """Who asks gets the replies in its own inbox; who answers may do so without any permission to publish."""
    asking, answering = Role(name="asking", publish=("sums.>",)), Role(name="answering", subscribe=("sums.>",))
    tokens = [known("fw_ask", "a", "asking"), known("fw_answer", "b", "answering")]
    async with (
        serving(auth=Auth(roles=[asking, answering], tokens=tokens)) as broker,
        client_of(broker, token="fw_ask") as client,
        client_of(broker, token="fw_answer") as service,
        service.serve("sums.add") as requests,
        trio.open_nursery() as nursery,
    ):

        async def answer() -> None:
            async for request in requests:
                await request.reply(sum(request.data))

        nursery.start_soon(answer)
        for _ in range(2):
            assert (await client.request("sums.add", [1, 2, 3])).data == 6
        with pytest.raises(RequestFailed, match="may not publish") as caught:
            await client.request("other", 1)
        assert caught.value.code == "forbidden"
        assert all(
            not is_inbox(topic) for s in broker._hub.sessions if s.permissions for topic in s.permissions.publishable
        )
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("options", [PublishOptions(reply_to="b.x"), PublishOptions(reply_to="b.x", key="k")])
async def test_nobody_has_others_reply_where_they_may_not_publish(
    options: PublishOptions, autojump_clock: MockClock
) -> None:
    """Who answers may be allowed more than who asks."""
    role = Role(name="r", publish=("a.>",))
    async with serving(auth=_auth(role)) as broker:
        boss, client = [await connected(broker, request=bearer(token)) for token in ("fw_all", "fw_me")]
        await boss.subscribe("a.x")
        await client.send(Publish(0, "a.x", b"x", Encoding.RAW, options))
        assert code_of(await client.ask(Publish(1, "a.x", b"x", Encoding.RAW, options))) == (0, "forbidden")
        assert code_of(await client.next()) == (1, "forbidden")

        assert broker.statistics().published == 0


async def test_what_is_remembered_of_permissions_is_bounded(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Topics without end are judged anew, and as before."""
    monkeypatch.setattr(permissions, "MAX_REMEMBERED", 10)
    role = Role(name="r", publish=("a.>",))
    async with serving(auth=_auth(role)) as broker:
        client = await connected(broker, request=bearer("fw_me"))
        for number in range(1, 40):
            assert isinstance(await client.ask(Publish(number, f"a.{number}", b"")), Ok)
        [session] = broker._hub.sessions
        assert session.permissions is not None
        assert len(session.permissions.publishable) <= 10
        assert code_of(await client.ask(Publish(50, "b", b""))) == (50, "forbidden")


@pytest.mark.parametrize("number", [0, 7], ids=["the fast road", "the slow road"])
async def test_requests_need_what_publishes_need(number: int, autojump_clock: MockClock) -> None:
    """For the topic and for where the reply goes; inboxes need none. Refusals say which request it was."""
    role = Role(name="r", publish=("a",), subscribe=("a",))
    async with serving(auth=_auth(role)) as broker:
        asking, answering = [await connected(broker, request=bearer("fw_me")) for _ in range(2)]
        [session, _] = broker._hub.sessions
        inbox = f"{session.inbox}.{'1' * 16}"
        await asking.subscribe(f"{session.inbox}.*")
        await answering.subscribe("a")
        for topic, reply_to in (("b", inbox), ("a", "b" * 40)):
            answer = await asking.ask(Publish(number, topic, b"x", Encoding.RAW, PublishOptions(reply_to=reply_to)))
            assert code_of(answer) == (number, "forbidden")
            assert isinstance(answer, Error)
            assert answer.detail.get("reply_to") == (None if number else reply_to)
        await asking.send(Publish(0, "a", b"x", Encoding.RAW, PublishOptions(reply_to=inbox)))
        asked = await answering.expect(Message)
        await answering.publish(asked.meta["reply_to"], b"y")

        assert (await asking.expect(Message)).payload == b"y"
        assert session.permissions is not None
        assert session.permissions.publishable == {"a"}


async def test_a_reply_that_is_forbidden_does_not_tell_the_log_where_it_was_to_go(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The name of an inbox is its session's alone."""
    role = Role(name="r", publish_deny=("$inbox.>",))
    async with serving(auth=_auth(role)) as broker:
        client = await connected(broker, request=bearer("fw_me"))
        assert code_of(await client.ask(Publish(1, "$inbox.secret.1", b""))) == (1, "forbidden")

    told = repr([vars(record) for record in caplog.records])
    assert "$inbox.…" in told
    assert "secret" not in told


async def test_an_id_of_a_message_counts_within_its_user(autojump_clock: MockClock) -> None:
    """Nobody can guess one and keep another user's message away; on other connections and by HTTP it is the same."""
    auth = Auth(roles=[ALL], tokens=[known(f"fw_{name}", name, "all") for name in ("alice", "mallory")])
    options = PublishOptions(msg_id="order-7")
    async with serving(auth=auth, rules=(TopicRule(pattern="a", history=5),)) as broker:
        said: dict[str, list[bool]] = {}
        for name in ("mallory", "alice", "alice"):
            client = await connected(broker, request=bearer(f"fw_{name}"))
            answer = await client.ask(Publish(1, "a", b"x", options=options))
            assert isinstance(answer, Ok)
            said.setdefault(name, []).append("repeated" in answer.result)
        token = "Authorization: Bearer fw_alice"
        by_http = await (await http(broker)).ask("POST", "/v1/publish/a?msg_id=order-7", token, body=b"x")

        assert said == {"mallory": [False], "alice": [False, True]}
        assert by_http.json["repeated"]
