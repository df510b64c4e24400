"""Each rule holds alike at every door: over WebSocket, for one HTTP request, and for a message of an HTTP batch.

The table is complete: a limit that the broker counts, or an option of PUBLISH or SUBSCRIBE, without a row fails.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode

import attrs
import pytest
import trio
from trio.testing import MockClock

from fanwire.broker import Auth, Broker, Role, TopicRule
from fanwire.broker.http.sse_stream import PARAMETERS
from fanwire.broker.telemetry.statistics import LIMITS
from fanwire.protocol import Error, Goodbye, Ok, PublishOptions, SubscribeOptions, pack
from tests.integration.raw import REQUEST, RawClient, connected, serving
from tests.keys import bearer, known

from .http_client import HttpClient, http

RULES = (
    TopicRule(pattern="kept.>", history=10),
    TopicRule(pattern="never.>", retain=False),
    TopicRule(pattern="full.>", history=10),
)
ROLES = (Role(name="some", publish=("may.>", "kept.>"), subscribe=("may.>", "kept.>")),)
AUTH = Auth(roles=ROLES, tokens=[known("fw_some", "some", "some")])


# ------------------------------------------------------------------- the doors


class WebSocket:
    """Requests over one WebSocket, as bytes: what the protocol's own classes would refuse goes out, too."""

    name = "WebSocket"

    def __init__(self, client: RawClient) -> None:
        self._client = client

    @classmethod
    async def open(cls, broker: Broker) -> WebSocket:
        """A connection with the token, if one is needed."""
        return cls(await connected(broker, request=bearer("fw_some") if broker.config.auth else REQUEST))

    async def publish(self, topic: str, payload: bytes = b"x", **options: Any) -> str:
        """The code of the answer; "ok" if it is good, the close code if it is the end."""
        return await self._answered([4, 1, topic, payload, 0, options])

    async def subscribe(self, pattern: str, **options: Any) -> str:
        """The same of a SUBSCRIBE."""
        return await self._answered([2, 1, pattern, options])

    async def fetch(self, topic: str, **options: Any) -> str:
        """The same of a FETCH."""
        return await self._answered([6, 1, topic, options])

    async def _answered(self, envelope: list[Any]) -> str:
        await self._client.send_frame(pack(envelope))
        while True:
            try:
                answer = await self._client.next()
            except AssertionError:
                return "closed"
            if isinstance(answer, Error | Goodbye):
                return answer.code
            if isinstance(answer, Ok):
                return "ok"


class Http:
    """One request for each."""

    name = "HTTP"

    def __init__(self, client: HttpClient, broker: Broker) -> None:
        self._client, self._broker = client, broker
        self._headers = ["Authorization: Bearer fw_some"] if broker.config.auth else []

    @classmethod
    async def open(cls, broker: Broker) -> Http:
        """A connection."""
        return cls(await http(broker), broker)

    async def publish(self, topic: str, payload: bytes = b"x", **options: Any) -> str:
        """The code of the answer, or "ok"."""
        query = f"?{urlencode({name: _as_query(value) for name, value in options.items()})}" if options else ""
        return await self._asked("POST", f"/v1/publish/{quote(topic, safe='')}{query}", payload)

    async def subscribe(self, pattern: str, **options: Any) -> str:
        """The same of a stream."""
        query = {"on_slow": "policy"}
        options |= options.pop("replay", {})
        text = urlencode({query.get(name, name): _as_query(value) for name, value in options.items()})
        client = HttpClient(await self._broker.open_stream())
        await client.send(_request("GET", f"/v1/topics/{quote(pattern, safe='')}/stream?{text}", self._headers))
        answer = await client.answer(to_head=True)
        if answer.status == 200:
            await client.stream.aclose()
            return "ok"
        return str(json.loads(await client._body(int(answer.headers["content-length"])))["error"]["code"])

    async def fetch(self, topic: str, **options: Any) -> str:
        """The same of a page of history."""
        return await self._asked("GET", f"/v1/topics/{quote(topic, safe='')}/history?{urlencode(options)}")

    async def _asked(self, method: str, target: str, body: bytes | None = None) -> str:
        answer = await self._client.ask(method, target, *self._headers, body=body)
        return "ok" if answer.status == 200 else answer.code


class Batch(Http):
    """The same in a batch of one message."""

    name = "HTTP batch"

    async def publish(self, topic: str, payload: bytes = b"x", **options: Any) -> str:
        """The code of the message's result, or of the answer; or "ok"."""
        item = {"topic": topic, "payload": payload.decode(), "encoding": "text", **options}
        headers = [*self._headers, "Content-Type: application/json"]
        answer = await self._client.ask("POST", "/v1/publish", *headers, body=json.dumps([item]).encode())
        if answer.status not in (200, 207):
            return answer.code
        (result,) = answer.json["results"]
        return str(result["error"]["code"]) if "error" in result else "ok"


def _as_query(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _request(method: str, target: str, headers: list[str]) -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


Door: TypeAlias = WebSocket | Http
DOORS = (WebSocket, Http, Batch)


# ------------------------------------------------------------------- the rules

Attempt: TypeAlias = Callable[[Any], Awaitable[str]]


@attrs.frozen
class Rule:
    """What is tried, and what every door must say of it."""

    attempt: Attempt
    says: str
    settings: dict[str, Any] = attrs.field(factory=dict)
    closes: bool = False
    """Whether a WebSocket is closed for it, with another code: its message is the request."""
    only: tuple[type, ...] = DOORS
    """Doors that have it."""


def _twice(attempt: Attempt) -> Attempt:
    """A budget may be overdrawn once."""

    async def both(door: Any) -> str:
        assert await attempt(door) == "ok"
        return await attempt(door)

    return both


async def _filled(door: Any) -> str:
    assert await door.publish("full.a") == "ok"
    return str(await door.publish("full.b"))


_HEADERS = {"a": "x" * 3000}

PUBLISHES = {
    "max_message": Rule(
        lambda door: door.publish("may.a", b"x" * 2000), "too_large", {"max_message_bytes": 1500}, closes=True
    ),
    "max_message, of headers": Rule(
        lambda door: door.publish("may.a", headers=_HEADERS), "too_large", {"max_message_bytes": 1500}, closes=True,
        only=(WebSocket, Batch),
    ),
    "publish_rate": Rule(_twice(lambda door: door.publish("may.a")), "rate_limited", {"publish_rate": 1}),
    "publish_volume": Rule(
        _twice(lambda door: door.publish("may.a", b"x" * 3000)), "rate_limited", {"publish_volume_bytes": 1000}
    ),
    "publish_volume, of headers": Rule(
        _twice(lambda door: door.publish("may.a", headers=_HEADERS)), "rate_limited", {"publish_volume_bytes": 1000},
        only=(WebSocket, Batch),
    ),
    "publish_volume, of a key": Rule(
        _twice(lambda door: door.publish("may.a", key="k" * 200)), "rate_limited", {"publish_volume_bytes": 100}
    ),
    "user_publish_rate": Rule(
        _twice(lambda door: door.publish("may.a")), "rate_limited", {"user_publish_rate": 1, "auth": AUTH}
    ),
    "user_publish_volume": Rule(
        _twice(lambda door: door.publish("may.a", b"x" * 3000)), "rate_limited",
        {"user_publish_volume_bytes": 1000, "auth": AUTH},
    ),
    "max_stored_topics": Rule(_filled, "too_many", {"max_stored_topics": 1}),
    "a topic": Rule(lambda door: door.publish("no..topic"), "bad_topic"),
    "a pattern is no topic": Rule(lambda door: door.publish("may.*"), "bad_topic"),
    "the broker's own topics": Rule(lambda door: door.publish("$sys.stats"), "forbidden"),
    "permission to publish": Rule(lambda door: door.publish("not.a"), "forbidden", {"auth": AUTH}),
    "permission to publish, with an option": Rule(
        lambda door: door.publish("not.a", key="k"), "forbidden", {"auth": AUTH}
    ),
    "permission for reply_to": Rule(
        lambda door: door.publish("may.a", reply_to="not.a"), "forbidden", {"auth": AUTH}
    ),
    "reply_to": Rule(lambda door: door.publish("may.a", reply_to="no..topic"), "bad_option"),
    "somebody there to answer": Rule(lambda door: door.publish("may.a", reply_to="may.b"), "no_responders"),
    "retain": Rule(lambda door: door.publish("may.a", retain="maybe"), "bad_option"),
    "retain, as its rule says": Rule(lambda door: door.publish("never.a", retain=True), "bad_option"),
    "retain, of an inbox": Rule(lambda door: door.publish("$inbox.a.b", retain=True), "bad_option"),
    "key": Rule(lambda door: door.publish("may.a", key=""), "bad_option"),
    "msg_id": Rule(lambda door: door.publish("kept.a", msg_id=""), "bad_option"),
    "msg_id without history": Rule(lambda door: door.publish("may.a", msg_id="1"), "not_kept"),
    "expect": Rule(lambda door: door.publish("kept.a", expect=-1), "bad_option"),
    "expect without history": Rule(lambda door: door.publish("may.a", expect=1), "not_kept"),
    "expect that does not hold": Rule(lambda door: door.publish("kept.a", expect=5), "conflict"),
    "headers": Rule(lambda door: door.publish("may.a", headers={"a": 1}), "bad_option", only=(WebSocket, Batch)),
    "unknown options": Rule(lambda door: door.publish("may.a", kye="k"), "bad_option"),
}  # fmt: skip

READS = {
    "max_subscriptions": Rule(
        lambda door: _after(door, "may.b"), "too_many", {"max_subscriptions": 1}, only=(WebSocket,)
    ),
    "max_total_subscriptions": Rule(lambda door: _beside(door, "may.a"), "too_many", {"max_total_subscriptions": 1}),
    "max_patterns": Rule(lambda door: _beside(door, "may.a"), "too_many", {"max_patterns": 1}),
    "permission to subscribe": Rule(lambda door: door.subscribe("not.a"), "forbidden", {"auth": AUTH}),
    "permission for all of a pattern": Rule(lambda door: door.subscribe(">"), "forbidden", {"auth": AUTH}),
    "permission to fetch": Rule(lambda door: door.fetch("not.a", last=1), "forbidden", {"auth": AUTH}),
    "the broker's own topics": Rule(lambda door: door.subscribe("$sys.stats"), "forbidden", {"auth": AUTH}),
    "the operators' port": Rule(lambda door: door.subscribe("$sys.stats"), "forbidden", {"admin_port": 9}),
    "the operators' port, history": Rule(lambda door: door.fetch("$sys.slow", last=1), "forbidden", {"admin_port": 9}),
    "an inbox of others": Rule(lambda door: door.subscribe("$inbox.a.b"), "forbidden"),
    "a pattern": Rule(lambda door: door.subscribe("no..pattern"), "bad_pattern"),
    "history": Rule(lambda door: door.fetch("may.a", since=0), "not_kept"),
    "since in seconds": Rule(lambda door: door.fetch("kept.a", since=1_700_000_000), "bad_option"),
    "one way to begin": Rule(lambda door: door.fetch("kept.a", since=0, last=1), "bad_option"),
    "last": Rule(lambda door: door.fetch("kept.a", last=0), "bad_option"),
    "limit": Rule(lambda door: door.fetch("kept.a", limit=0), "bad_option"),
    "on_slow": Rule(lambda door: door.subscribe("may.a", on_slow="drop"), "bad_option"),
    "queue": Rule(lambda door: door.subscribe("may.a", queue=0), "bad_option"),
    "max_rate": Rule(lambda door: door.subscribe("may.a", max_rate=0.0), "bad_option"),
    "max_rate, no limit": Rule(lambda door: door.subscribe("may.a", max_rate=float("inf")), "bad_option"),
    "heartbeat": Rule(lambda door: door.subscribe("may.a", heartbeat=float("nan")), "bad_option"),
    "heartbeat, a long one": Rule(lambda door: door.subscribe("may.a", heartbeat=1e9), "bad_option"),
    "snapshot": Rule(lambda door: door.subscribe("may.a", snapshot="maybe"), "bad_option"),
    "replay": Rule(lambda door: door.subscribe("may.a", replay={"last": 1}), "not_kept"),
    "replay since seconds": Rule(lambda door: door.subscribe("kept.a", replay={"since": 1_700_000_000}), "bad_option"),
    "unknown options": Rule(lambda door: door.subscribe("may.a", quere=1), "bad_option"),
}  # fmt: skip

ELSEWHERE = {
    "max_connections": "test_http_bounds.test_http_connections_count",
    "max_connections_per_address": "test_http_arrival: judged when a connection is accepted, before it is read",
    "max_connections_per_user": "test_http_streams.test_a_user_has_only_so_many_streams",
    "max_opening": "test_limits: judged before it is known what a connection speaks",
    "connect_rate": "test_limits: judged when a connection is accepted, before it is read",
    "auth_failures": "test_limits.test_guessing_tokens",
    "open_files": "test_limits: before anything is read",
    "max_envelopes": "test_as_many_requests_in_one_message, here",
    "idle_timeout": "a stream is subscribed to something; an HTTP connection that does nothing has http_idle_timeout",
    "max_total_pending": "a stream is a session, and waits in its queue",
}
"""Limits that are judged before a request is, and where that is tested."""

NOT_OVER_HTTP = {"group", "echo", "presence"}
"""Options of SUBSCRIBE that a stream does not have: it publishes nothing, and is alone."""


async def _beside(door: Any, pattern: str) -> str:
    """With somebody subscribed to something else."""
    return str(await door.subscribe(pattern))


async def _after(door: Any, pattern: str) -> str:
    assert await door.subscribe("may.a") == "ok"
    return str(await door.subscribe(pattern))


async def _said(door: type, rule: Rule) -> str:
    async with serving(rules=RULES, linger_s=0.05, **rule.settings) as broker:
        if {"max_total_subscriptions", "max_patterns"} & rule.settings.keys():
            other = await connected(broker)
            await other.subscribe("others")
        with trio.fail_after(60):
            opened: Any = await door.open(broker)  # type: ignore[attr-defined]  # one of DOORS
            return str(await rule.attempt(opened))


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
@pytest.mark.parametrize("rule", PUBLISHES.values(), ids=list(PUBLISHES))
async def test_publishing_is_judged_alike(rule: Rule, door: type, autojump_clock: MockClock) -> None:
    """With the same code."""
    if door in rule.only:
        assert await _said(door, rule) == ("closed" if rule.closes and door is WebSocket else rule.says)


@pytest.mark.parametrize("door", [WebSocket, Http], ids=lambda door: door.name)
@pytest.mark.parametrize("rule", READS.values(), ids=list(READS))
async def test_reading_is_judged_alike(rule: Rule, door: type, autojump_clock: MockClock) -> None:
    """Subscribing is a stream, FETCH a page of history."""
    if door in rule.only:
        assert await _said(door, rule) == rule.says


async def test_as_many_requests_in_one_message(autojump_clock: MockClock) -> None:
    """`max_envelopes` bounds a batch, too; none of it is published, and the limit is counted."""
    async with serving(max_envelopes=2) as broker:
        items = json.dumps([{"topic": "a", "payload": 1}] * 3).encode()
        answer = await (await http(broker)).ask("POST", "/v1/publish", "Content-Type: application/json", body=items)
        client = await connected(broker)
        await client.send_frame(pack([4, 0, "a", b"x"]) * 3)
        ended = await client.ended()

        assert (answer.status, answer.code, ended.code) == (413, "too_many", 1009)
        assert broker.statistics().limited["max_envelopes"] == 2
        assert broker.statistics().published == 0


def test_every_limit_has_its_row() -> None:
    """A new one needs one here."""
    rows = {name.partition(",")[0] for name in (*PUBLISHES, *READS)} | ELSEWHERE.keys()

    assert [name for name in LIMITS if name not in rows] == []


def test_every_option_has_its_row() -> None:
    """Of PUBLISH and of SUBSCRIBE."""
    rows = {name.partition(",")[0] for name in (*PUBLISHES, *READS)}
    options = [field.name for cls in (PublishOptions, SubscribeOptions) for field in attrs.fields(cls)]
    parameters = {"on_slow" if each.name == "policy" else each.name for each in PARAMETERS}

    assert [name for name in options if name not in rows | NOT_OVER_HTTP] == []
    assert parameters - rows == {"since", "last_event_id"}
