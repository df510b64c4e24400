"""The OpenAPI document, and schemathesis going by it against a broker that listens: whatever it asks, the answer is one
that the document knows."""

import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
import schemathesis
import trio
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from fanwire.broker import Auth, Broker, Config, Role, TopicRule
from fanwire.broker.http.endpoint_table import ENDPOINTS
from fanwire.broker.http.openapi import describe
from fanwire.broker.sessions import disconnects
from fanwire.protocol.topics import MAX_NAME_BYTES

from ..keys import known
from .http_client import http, serving

TOKEN = "fw_everything"
RULES = [TopicRule(pattern=">", history=5)]


class Listening:
    """A broker on a port, in a thread of its own."""

    def __init__(self) -> None:
        everything = Role(name="all", publish=(">",), subscribe=(">",), operator=True)
        self._config = Config(
            port=0,
            auth=Auth(roles=[everything], tokens=[known(TOKEN, "tester", "all")]),
            rules=RULES,
            auth_failures=None,
            linger_s=0.1,
        )
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._serve,))
        self.url = ""

    async def _serve(self) -> None:
        async with Broker(self._config).serving() as broker:
            self.url = f"http://127.0.0.1:{broker.port}"
            self.token, self._stop = trio.lowlevel.current_trio_token(), trio.Event()
            self._ready.set()
            while not self._stop.is_set():
                with trio.move_on_after(0.02):
                    await self._stop.wait()
                for session in list(broker._hub.sessions):  # streams, which would go on for ever
                    if session.outbox.subscriptions:
                        session.end(disconnects.draining(0))

    def __enter__(self) -> "Listening":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.token.run_sync_soon(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def listening() -> Iterator[Listening]:
    """For all tests of this file."""
    with Listening() as broker:
        yield broker


@schemathesis.serializer("application/msgpack", "application/x-msgpack", "application/vnd.msgpack")
def _serialized(_context: object, value: Any) -> bytes:
    """Bytes; the broker does not look whether they are msgpack."""
    return json.dumps(value, default=repr).encode()


@schemathesis.serializer("application/x-ndjson")
def _lines(_context: object, value: Any) -> bytes:
    """Each item in a line."""
    return "\n".join(map(json.dumps, value if isinstance(value, list) else [value])).encode()


# What is wrong with a message of a batch is told in its place, under 207.
CHECKS = {"negative_data_rejection": {"expected-statuses": [207, "4xx", "5xx"]}}
schema = schemathesis.openapi.from_dict(describe(ENDPOINTS), config=schemathesis.Config.from_dict({"checks": CHECKS}))
ALTERNATIVES = {each.path: set(each.alternatives) for each in ENDPOINTS}


@schema.parametrize()
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_whatever_is_asked_is_answered_as_described(case: schemathesis.Case[Any], listening: Listening) -> None:
    """Status, media type, shape; what the document allows is accepted, what it does not is refused."""
    excluded: list[schemathesis.CheckFunction] = []
    if _is_beyond_schemas(case):
        excluded.append(positive_data_acceptance)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    case.call_and_validate(listening.url, headers=headers, excluded_checks=excluded)


def _is_beyond_schemas(case: schemathesis.Case[Any]) -> bool:
    """Whether it is refused for what no schema can say: too many alternatives, or too many bytes."""
    query = case.query or {}
    names = [
        *(case.path_parameters or {}).values(),
        *(query.get(name, "") for name in ("topic", "pattern", "reply_to")),
    ]
    too_long = any(len(unquote(str(name)).encode()) > MAX_NAME_BYTES for name in names)
    return too_long or len(ALTERNATIVES[case.path] & query.keys()) > 1


def test_the_document_is_openapi() -> None:
    """By the schema that OpenAPI 3.1 has for itself."""
    schema.validate()


async def test_everybody_is_told_what_is_served() -> None:
    """By the broker itself; with each endpoint, its parameters, and every status that it may answer."""
    async with serving(auth=Auth(roles=[Role(name="none")], tokens=[known(TOKEN, "x", "none")])) as broker:
        document = (await (await http(broker)).get("/v1/openapi.json")).json

        assert document == json.loads(json.dumps(describe(ENDPOINTS)))
        served = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
        assert served == {(each.method, each.path) for each in ENDPOINTS}
        history = document["paths"]["/v1/topics/{topic}/history"]["get"]
        assert [each["name"] for each in history["parameters"]] == ["topic", "from", "since", "last", "limit"]
        assert {"200", "400", "401", "403", "404"} <= history["responses"].keys()
        assert document["paths"]["/healthz"]["get"]["security"] == []


async def test_alternatives_exclude_each_other() -> None:
    """By the names that they have here."""
    async with serving() as broker:
        answer = await (await http(broker)).get("/v1/topics/a/history?last=1&from=1")

        assert (answer.code, answer.json["error"]["detail"]) == ("bad_option", {"option": "last"})


async def test_a_path_in_so_many_words_is_no_variable_one() -> None:
    """There is no connection that is called `closed`."""
    async with serving() as broker:
        answer = await (await http(broker)).ask("DELETE", "/v1/connections/closed")

        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_beside_a_port_for_operators_only_the_rest_is_described() -> None:
    """What is served there, and no more."""
    async with serving(admin_port=0) as broker:
        document = (await (await http(broker)).get("/v1/openapi.json")).json

        assert "/v1/stats" not in document["paths"]
        assert "/healthz" in document["paths"]
