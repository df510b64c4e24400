"""The operators' own port: what is served there, and no more on the other one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
import trio

from fanwire.broker import Auth, Broker, Config, Role, TopicRule
from fanwire.protocol import Fetch, Ok, Subscribe, Welcome
from tests.keys import bearer, known

from .http_client import HttpClient, http
from .raw import REQUEST, RawClient, code_of, connected
from .sse_client import SseClient

OPERATORS = ("/metrics", "/v1/stats", "/v1/connections", "/v1/connections/closed", "/v1/topics", "/v1/subscriptions")


@asynccontextmanager
async def _serving(**settings: Any) -> AsyncIterator[Broker]:
    config = Config(port=0, admin_port=0, linger_s=0.05, drain_timeout_s=0.2, **settings)
    async with Broker(config).serving() as broker:
        yield broker


@asynccontextmanager
async def _to(port: int | None) -> AsyncIterator[HttpClient]:
    assert port is not None
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield HttpClient(stream)


async def test_what_is_for_operators_is_served_on_their_port_only() -> None:
    """Also what changes something; and health is told on both."""
    async with _serving() as broker, _to(broker.port) as clients, _to(broker.admin_port) as admin:
        inside = await http(broker)
        for path in OPERATORS:
            assert (await admin.get(path)).status == 200
            assert (await clients.get(path)).code == "not_found"
            assert (await inside.get(path)).code == "not_found"
        assert (
            (await clients.ask("DELETE", "/v1/connections/x")).json["error"]["message"].startswith("nothing is served")
        )
        assert (await admin.ask("DELETE", "/v1/connections/x")).json["error"]["message"].startswith("there is no conn")
        for client in (clients, admin):
            assert (await client.get("/healthz")).status == (await client.get("/readyz")).status == 200
            assert (await client.ask("POST", "/v1/publish/a", body=b"x")).status == 200


async def test_the_description_is_of_what_is_served_there() -> None:
    """On either port."""
    async with _serving() as broker, _to(broker.port) as clients, _to(broker.admin_port) as admin:
        ours = (await clients.get("/v1/openapi.json")).json["paths"]
        theirs = (await admin.get("/v1/openapi.json")).json["paths"]

    assert not set(OPERATORS) & ours.keys()
    assert set(OPERATORS) | ours.keys() <= theirs.keys()


async def test_no_websocket_is_spoken_there() -> None:
    """A handshake is a request for a path that is not served."""
    async with _serving() as broker, _to(broker.admin_port) as admin:
        await admin.send(REQUEST)

        assert (await admin.answer()).status == 404


async def test_operators_have_to_say_who_they_are_there_too() -> None:
    """Where that is asked for."""
    auth = Auth(roles=(Role(name="ops", operator=True),), tokens=[known("fw_ops", "o", "ops")])
    async with _serving(auth=auth) as broker, _to(broker.admin_port) as admin:
        assert (await admin.get("/metrics")).status == 401
        assert (await admin.get("/metrics", "Authorization: Bearer fw_ops")).status == 200


async def test_without_such_a_port_all_is_served_on_the_one_there_is() -> None:
    """As it was."""
    async with Broker(Config(port=0)).serving() as broker:
        assert broker.admin_port is None
        assert (await (await http(broker)).get("/v1/stats")).status == 200


async def test_it_ends_with_the_broker() -> None:
    """And is closed when the other port cannot be had."""
    async with _serving() as broker:
        port = broker.admin_port
        with pytest.raises(OSError, match="in use"):
            await Broker(Config(port=0, admin_port=port)).serve()
    assert port is not None
    assert broker.admin_port is None
    with pytest.raises(OSError, match="failed"):
        await trio.open_tcp_stream("127.0.0.1", port)


def test_open_to_the_network_and_nobody_asked() -> None:
    """Refused, as for the other port; unless it is wanted."""
    with pytest.raises(ValueError, match=r"^0\.0\.0\.0 is open to the network"):
        Broker(Config(admin_host="0.0.0.0", admin_port=0))
    Broker(Config(admin_host="0.0.0.0", admin_port=0, insecure=True))
    Broker(Config(admin_host="0.0.0.0"))


SYSTEM = ("$sys.connections", "$sys.stats", "$sys.slow", "$sys.demand", "$sys.*", "$sys.>")


async def test_what_the_broker_tells_of_itself_has_no_side_door() -> None:
    """Without authentication: no SUBSCRIBE, FETCH, stream, history or last value of `$sys.…` but on that port."""
    rules = (TopicRule(pattern="$sys.>", history=5, retain=True),)
    async with (
        _serving(rules=rules) as broker,
        _to(broker.port) as clients,
        _to(broker.admin_port) as admin,
        await trio.open_tcp_stream("127.0.0.1", broker.port or 0) as stream,
    ):
        raw = await RawClient(stream).open()
        await raw.expect(Welcome)
        for number, pattern in enumerate(SYSTEM, 1):
            for client in (raw, await connected(broker)):
                assert code_of(await client.ask(Subscribe(number, pattern))) == (number, "forbidden")
            streamed = await clients.get(f"/v1/topics/{quote(pattern)}/stream")
            assert (streamed.status, streamed.code) == (403, "forbidden")
        for number, topic in enumerate(SYSTEM[:4], 100):
            assert code_of(await raw.ask(Fetch(number, topic, last=1))) == (number, "forbidden")
            for what in ("last", "history"):
                assert (await clients.get(f"/v1/topics/{topic}/{what}")).code == "forbidden"
        await raw.subscribe(">", snapshot=True)

        events = await SseClient(admin).open("/v1/topics/%24sys.connections/stream")
        await events.expect("subscribed")
        assert (await events.expect("message")).data["topic"] == "$sys.connections"


async def test_a_permission_says_so_in_so_many_words() -> None:
    """Where somebody must authenticate: operators see it on either port, those with `demand` that alone."""
    roles = (Role(name="ops", operator=True), Role(name="demand", demand=True), Role(name="all", subscribe=(">",)))
    tokens = [known(f"fw_{name}", name, name) for name in ("ops", "demand", "all")]
    async with _serving(auth=Auth(roles=roles, tokens=tokens)) as broker:
        seen = {}
        for name in ("ops", "demand", "all"):
            clients = [await connected(broker, request=bearer(f"fw_{name}")) for _ in range(2)]
            asked = zip(clients, ("$sys.demand", "$sys.connections"), strict=True)
            seen[name] = [type(await client.ask(Subscribe(1, pattern))) is Ok for client, pattern in asked]

        assert seen == {"ops": [True, True], "demand": [True, False], "all": [False, False]}
