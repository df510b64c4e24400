"""What operators look for over HTTP, and how they send a client away."""

import pytest

from fanwire.broker import Auth, Role, TopicRule
from fanwire.protocol import Hello, Welcome
from tests.keys import known

from .http_client import http, serving
from .raw import RawClient, subscribed

AUTH = Auth(
    roles=(Role(name="reader", subscribe=("a.>",)), Role(name="ops", operator=True)),
    tokens=[known("fw_reader", "r", "reader"), known("fw_ops", "o", "ops")],
)
OPS = "Authorization: Bearer fw_ops"


async def test_topics_are_listed_by_name_page_by_page() -> None:
    """Each once, whether it was published on, remembers something, or both."""
    async with serving(rules=(TopicRule(pattern="a.*", history=2),)) as broker:
        await subscribed(broker, "a.>")
        for name in ("a.c", "b", "a.a", "a.b", "a.a", "a.a"):
            broker.publish(name, b"x")
        client = await http(broker)
        first = (await client.get("/v1/topics?limit=2")).json
        rest = (await client.get(f"/v1/topics?after={first['topics'][-1]['topic']}")).json
        found = (await client.get("/v1/topics?pattern=a.*")).json

    assert ([each["topic"] for each in first["topics"]], first["more"]) == (["a.a", "a.b"], True)
    assert ([each["topic"] for each in rest["topics"]], rest["more"]) == (["a.c", "b"], False)
    assert [each["topic"] for each in found["topics"]] == ["a.a", "a.b", "a.c"]
    newest = first["topics"][0]
    assert newest.pop("last_time_us") > 0
    assert newest == {
        "topic": "a.a", "subscriptions": 1, "lagging": 0, "offset": 3, "messages": 2, "retained": False,
    }  # fmt: skip
    assert rest["topics"][1]["last_time_us"] is None


async def test_topics_that_the_registry_has_forgotten_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they remember is still there."""
    monkeypatch.setattr("fanwire.broker.topics.registry.MAX_TOPICS", 2)
    async with serving(rules=(TopicRule(pattern=">", retain=True),)) as broker:
        for number in range(2000):
            broker.publish(f"t.{number:04}", b"x")
        client = await http(broker)
        page = (await client.get("/v1/topics?limit=1000")).json
        rest = (await client.get("/v1/topics?limit=1000&after=t.0999")).json

    names = [each["topic"] for each in page["topics"] + rest["topics"]]
    assert names == [f"t.{number:04}" for number in range(2000)]
    assert (page["more"], rest["more"]) == (True, False)
    assert all(each["retained"] for each in page["topics"])


async def test_subscriptions_of_all_of_a_topic_and_of_a_connection() -> None:
    """Those of a topic are those that get what is published on it."""
    async with serving() as broker:
        await subscribed(broker, "a.*", queue=5, on_slow="drop_oldest")
        await subscribed(broker, "b")
        client = await http(broker)
        everything = (await client.get("/v1/subscriptions")).json
        of_topic = (await client.get("/v1/subscriptions?topic=a.b")).json
        session = of_topic["subscriptions"][0]["session"]
        of_session = (await client.get(f"/v1/subscriptions?session={session}")).json
        limited = (await client.get("/v1/subscriptions?limit=1")).json

    assert [each["pattern"] for each in everything["subscriptions"]] == ["a.*", "b"]
    assert of_topic == of_session
    assert (limited["total"], len(limited["subscriptions"])) == (2, 1)
    [one] = of_topic["subscriptions"]
    assert one == {
        "session": session, "name": "", "user": None, "pattern": "a.*", "group": None, "on_slow": "drop_oldest",
        "queue": 5, "max_rate": None, "waiting": 0, "lagging": False, "lost": 0, "replaced": 0, "unfinished": None,
        "group_waiting": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/v1/topics?pattern=a..b", "bad_pattern"),
        ("/v1/subscriptions?topic=a.*", "bad_topic"),
        ("/v1/topics?limit=0", "bad_option"),
        ("/v1/topics?after=a&after=b", "bad_option"),
    ],
)
async def test_what_cannot_be_looked_for(target: str, code: str) -> None:
    """Is told."""
    async with serving() as broker:
        answer = await (await http(broker)).get(target)

    assert (answer.status, answer.code) == (400, code)


async def test_a_client_is_sent_away() -> None:
    """It is told so, and why, and is gone; the others stay."""
    async with serving() as broker:
        victim, bystander = await subscribed(broker, "a"), await subscribed(broker, "a")
        client = await http(broker)
        session = broker.connections()[0].session
        answer = await client.ask("DELETE", f"/v1/connections/{session}")
        again = await client.ask("DELETE", f"/v1/connections/{session}")
        ended = await victim.ended()
        broker.publish("a", b"x")
        assert await bystander.payloads(1) == [b"x"]

        assert answer.json == {"disconnected": session}
        assert (again.status, again.code) == (404, "not_found")
        assert (ended.goodbye.code, ended.code) == ("forbidden", 4003)
    assert [each.code for each in broker.closed_connections()] == [1001, 4003]  # the newest first


async def test_only_operators_may(caplog: pytest.LogCaptureFixture) -> None:
    """Who may read topics may not list them, nor end others' connections. The log says who did."""
    async with serving(auth=AUTH) as broker:
        client = await http(broker)
        for method, target in (("GET", "/v1/topics"), ("GET", "/v1/subscriptions"), ("DELETE", "/v1/connections/x")):
            assert (await client.ask(method, target)).status == 401
            answer = await client.ask(method, target, "Authorization: Bearer fw_reader")
            assert (answer.status, answer.code) == (403, "forbidden")
            assert (await client.ask(method, target, OPS)).status in (200, 404)
        victim = await RawClient(await broker.open_stream()).open(Hello(1, token="fw_reader"))
        await victim.expect(Welcome)
        session = broker.connections()[0].session
        assert (await client.ask("DELETE", f"/v1/connections/{session}", OPS)).status == 200

    [line] = [record for record in caplog.records if record.message == "kicked"]
    assert (vars(line)["session"], vars(line)["by"]) == (session, "o")
