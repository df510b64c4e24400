"""Somebody who has a token and may do little tries every way to what is not meant for him."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker, TopicRule
from fanwire.broker.settings.auth import Auth
from fanwire.broker.settings.roles import Role
from fanwire.broker.telemetry import closed
from fanwire.protocol import (
    BrokerEnvelope,
    Error,
    Fetch,
    Hello,
    Message,
    Ok,
    Ping,
    Presence,
    Publish,
    Quiet,
    Subscribe,
    SubscribeOptions,
)
from tests.integration.raw import RawClient, code_of, connected, serving
from tests.keys import bearer, known

ALL = Role(name="all", publish=(">",), subscribe=(">",), operator=True)
EVE = Role(name="eve", publish=("open.>",), subscribe=("open.>",), subscribe_deny=("open.secret.>", "open.*.key"))
RULES = [TopicRule(pattern=">", history=100, retain=True, presence=True)]

SECRETS = ("secret", "secret.x", "open.secret.x", "open.secret.x.y", "open.door.key")
REACHES = ("*", ">", "*.x", "secret.>", "*.>", "open.>", "open.*.x", "open.*.*", "open.secret.*", "open.*.key")
BROKERS = ("$sys.>", "$sys.stats", "$sys.connections", "$sys.slow", "$sys.demand", "$sys.*", "$other.x")
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"snapshot": True},
    {"replay": {"last": 100}},
    {"replay": {"since": 0}},
    {"group": "g"},
    {"presence": True},
    {"heartbeat": 0.1},
    {"max_rate": 1000.0},
)


def _auth(*, eve: tuple[str, ...] = ("eve",), roles: tuple[Role, ...] = (EVE,)) -> Auth:
    return Auth(roles=[*roles, ALL], tokens=[known("fw_eve", "eve", *eve), known("fw_all", "boss", "all")])


async def _published(broker: Broker) -> None:
    for topic in SECRETS:
        broker.publish(topic, b"SECRET of " + topic.encode())


async def _all_heard(client: RawClient) -> list[BrokerEnvelope]:
    """What has come until now."""
    await wait_all_tasks_blocked()
    number = client.number()
    await client.send(Ping(number))
    heard: list[BrokerEnvelope] = []
    while (got := await client.next()) != Ok(number):
        heard.append(got)
    return heard


@pytest.mark.parametrize("options", WAYS, ids=lambda each: "-".join(each) or "plain")
async def test_no_option_of_a_subscription_is_a_way_around(options: dict[str, Any], autojump_clock: MockClock) -> None:
    """Whatever is asked for with it, a pattern that could bring a secret is refused, before and while there is one."""
    async with serving(auth=_auth(), rules=RULES) as broker:
        await _published(broker)
        eve = await connected(broker, request=bearer("fw_eve"))
        for pattern in (*SECRETS, *REACHES, *BROKERS, "$inbox.>", "$inbox.*.x"):
            number = eve.number()
            answer = await eve.ask(Subscribe(number, pattern, SubscribeOptions.from_map(options)))
            assert code_of(answer) == (number, "forbidden"), pattern
        await _published(broker)
        await trio.sleep(5)

        assert await _all_heard(eve) == []
        assert b"SECRET" not in b"".join(eve.messages)
        assert broker.statistics().subscriptions == 0


async def test_no_other_request_is_a_way_around(autojump_clock: MockClock) -> None:
    """FETCH, PRESENCE, watching presence: each is refused where subscribing would be; nothing tells what exists."""
    async with serving(auth=_auth(), rules=RULES) as broker:
        boss = await connected(broker, request=bearer("fw_all"))
        await boss.subscribe("secret.x")
        await _published(broker)
        eve = await connected(broker, request=bearer("fw_eve"))
        answers = set()
        for name in (*SECRETS, "secret.nothing", "open.secret.nothing", "$sys.stats", "$inbox.x.y"):
            for request in (
                Fetch(eve.number(), name, last=1),
                Presence(eve.number(), name),
                Subscribe(eve.number(), f"$presence.{name}"),
            ):
                answer = await eve.ask(request)
                assert code_of(answer) == (request.id, "forbidden"), request
                assert isinstance(answer, Error)
                answers.add(answer.message.replace(name, "…"))
        for pattern in (*REACHES, *BROKERS, "$inbox.>"):
            number = eve.number()
            assert code_of(await eve.ask(Presence(number, pattern))) == (number, "forbidden"), pattern

        assert len(answers) <= 3, "what exists is refused in the same words as what does not"
        assert b"SECRET" not in b"".join(eve.messages)


async def test_a_subscription_that_was_granted_widens_by_nothing(autojump_clock: MockClock) -> None:
    """Not by other options later, not by offsets of other topics, not by a group of the same name."""
    async with serving(auth=_auth(), rules=RULES) as broker:
        boss = await connected(broker, request=bearer("fw_all"))
        await boss.subscribe("secret.x", group="g")
        eve = await connected(broker, request=bearer("fw_eve"))
        await eve.subscribe("open.*")
        await eve.subscribe("open.x", group="g")
        await _published(broker)
        offsets = {"epoch": broker._hub.epoch, "offsets": dict.fromkeys(SECRETS, 0)}
        for options in ({"snapshot": True}, {"replay": offsets}, {"presence": True}):
            assert isinstance(await eve.ask(Subscribe(eve.number(), "open.*", SubscribeOptions.from_map(options))), Ok)
            await _all_heard(eve)

        assert b"SECRET" not in b"".join(eve.messages)


async def test_the_inbox_of_another_session_is_nobodys_business(autojump_clock: MockClock) -> None:
    """Not even an operator's: it may be known (who is asked knows it), and still only its session may read it."""
    async with serving(auth=_auth(), rules=RULES) as broker:
        victim = await connected(broker, request=bearer("fw_eve"))
        [session] = broker._hub.sessions
        await victim.subscribe(f"{session.inbox}.*")
        for token in ("fw_eve", "fw_all"):
            other = await connected(broker, request=bearer(token))
            for pattern in (f"{session.inbox}.*", f"{session.inbox}.>", f"{session.inbox}.1", "$inbox.*.*", "$inbox.>"):
                number = other.number()
                assert code_of(await other.ask(Subscribe(number, pattern))) == (number, "forbidden")
                assert code_of(await other.ask(Presence(number + 1000, pattern))) == (number + 1000, "forbidden")
            await victim.publish(f"{session.inbox}.1", b"SECRET")
            await _all_heard(other)
            assert b"SECRET" not in b"".join(other.messages)


@pytest.mark.parametrize("options", WAYS[:4] + WAYS[6:], ids=lambda each: "-".join(each) or "plain")
async def test_a_role_that_shrinks_by_a_reload_ends_what_it_allowed(
    options: dict[str, Any], autojump_clock: MockClock
) -> None:
    """At once: nothing that waits, is replayed, held by a rate or told of silence comes any more."""
    before, after = (Role(name="eve", subscribe=(pattern,)) for pattern in (">", "open.>"))
    async with serving(auth=_auth(roles=(before,)), rules=RULES) as broker:
        for _ in range(100):
            broker.publish("secret.x", b"SECRET" + bytes(2000))
        eve = await connected(broker, request=bearer("fw_eve"))
        await eve.send(Subscribe(1, "secret.x", SubscribeOptions.from_map(options)))
        assert isinstance(await eve.next(), Ok)
        await broker.change_auth(_auth(roles=(after,)))
        heard = await _all_heard(eve)
        broker.publish("secret.x", b"NEW")
        await trio.sleep(5)

        assert [each.code for each in heard if isinstance(each, Error)] == ["forbidden"]
        assert [each for each in heard[heard.index(_error_of(heard)) :] if isinstance(each, Message | Quiet)] == []
        assert await _all_heard(eve) == []
        assert b"NEW" not in b"".join(eve.messages)
        assert broker.statistics().subscriptions == 0


def _error_of(heard: list[BrokerEnvelope]) -> BrokerEnvelope:
    return next(each for each in heard if isinstance(each, Error))


async def test_saying_to_be_another_brings_nothing(autojump_clock: MockClock) -> None:
    """A name is no user: neither templates nor rights follow it, whatever was subscribed before."""
    role = Role(name="own", publish=("user.{sub}.>",), subscribe=("user.{sub}.>",))
    auth = Auth(roles=[role], tokens=[known("fw_eve", "eve", "own"), known("fw_bob", "bob", "own")])
    async with serving(auth=auth, rules=RULES) as broker:
        broker.publish("user.bob.mail", b"SECRET")
        eve = await connected(broker, request=bearer("fw_eve"))
        assert isinstance(await eve.ask(Hello(eve.number(), name="bob", agent="bob")), Ok)
        for pattern in ("user.bob.>", "user.*.mail", "user.bob.mail"):
            number = eve.number()
            assert code_of(await eve.ask(Subscribe(number, pattern))) == (number, "forbidden")
        number = eve.number()
        assert code_of(await eve.ask(Publish(number, "user.bob.mail", b"forged"))) == (number, "forbidden")
        await eve.send(
            Subscribe(90, "user.eve.>", SubscribeOptions.from_map({"replay": {"last": 9}})), Hello(91, token="fw_bob")
        )

        assert (await eve.ended()).code == 4003
        assert b"SECRET" not in b"".join(eve.messages)


async def test_users_that_look_alike_are_two(autojump_clock: MockClock) -> None:
    """Names are compared as they are: composed and decomposed letters, capitals, and long names that begin alike."""
    role = Role(name="own", subscribe=("user.{sub}.>",))
    pairs = [("é", unicodedata.normalize("NFD", "é")), ("eve", "Eve"), ("e" * 240, "e" * 239 + "f"), ("K", "\u212a")]
    for one, two in pairs:
        auth = Auth(roles=[role], tokens=[known("fw_one", one, "own"), known("fw_two", two, "own")])
        async with serving(auth=auth, rules=RULES) as broker:
            broker.publish(f"user.{one}.x", b"SECRET")
            other = await connected(broker, request=bearer("fw_two"))
            answer = await other.ask(Subscribe(1, f"user.{one}.>", SubscribeOptions.from_map({"snapshot": True})))
            assert code_of(answer) == (1, "forbidden")
            assert isinstance(await other.ask(Subscribe(2, f"user.{two}.>")), Ok)


@pytest.mark.parametrize("user", ["*", ">", "a.b", "$sys", "a b", ".", "a.", "e" * 250])
async def test_no_user_can_be_made_whose_name_is_a_pattern(user: str, autojump_clock: MockClock) -> None:
    """Settings with one are refused as a whole."""
    role = Role(name="own", subscribe=("user.{sub}.>",))
    with pytest.raises(ValueError, match="sub"):
        async with serving(auth=Auth(roles=[role], tokens=[known("fw_eve", user, "own")])):
            pass


async def test_strangers_do_not_push_out_what_became_of_clients(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many come and go with bad tokens; of those the last ones are kept, too."""
    monkeypatch.setattr(closed, "KEPT_STRANGERS", 3)
    async with serving(auth=_auth()) as broker:
        eve = await connected(broker, request=bearer("fw_eve"))
        await eve.close()
        for number in range(10):
            stranger = await connected(broker, welcomed=False)
            await stranger.send(Hello(1, token=f"fw_guess_{number}"))
            assert (await stranger.ended()).code == 4001

        assert [each.code for each in broker.closed_connections()] == [4001, 4001, 4001, 1000]
