"""The most expensive things that the limits let one client ask for: of every request, option and HTTP endpoint.

`bystander` measures what they cost everybody else; a test runs them on a small scale and counts, and sees to it that
each request type, option and endpoint that the broker's own tables have is attacked here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import msgpack

from fanwire.broker import Config, TopicRule
from fanwire.broker.http.long_json import AT_ONCE

RULES = (
    TopicRule(pattern="kept.>", history=10_000, retain=True),
    TopicRule(pattern="here.>", presence=True),
    TopicRule(pattern="limited.>", max_rate=1.0),
)
SETTINGS: dict[str, Any] = {"rules": RULES, "report_interval_s": 1.0}

HELLO, SUBSCRIBE, UNSUBSCRIBE, PUBLISH, PRESENCE, FETCH, PING, BACKLOG = range(1, 9)
_MEGABYTE = 1_000_000

Envelope = list[Any]


@attrs.frozen
class Attack:
    """One client, with others that it has connected before."""

    name: str
    covers: str
    """Request types, ``REQUEST.option``s and endpoints, separated by commas."""
    ready: Callable[[int], list[list[Envelope]]]
    """What each connection is sent before, every request with an id; the last one is the attacker's."""
    hit: Callable[[int], list[Envelope] | bytes]
    """One WebSocket message; or the bytes of HTTP requests, sent without waiting."""
    settings: dict[str, Any] = attrs.field(factory=dict)
    deaf: Callable[[int], list[Envelope]] = attrs.field(default=lambda _scale: [])
    """What the attacker sends before the hit, and wants no answers to: until the hit it reads nothing."""

    @property
    def covered(self) -> set[str]:
        """One by one."""
        return {each.strip() for each in self.covers.split(",")}


def config(attack: Attack, **more: Any) -> Config:
    """The broker's."""
    return Config(**{**SETTINGS, **attack.settings, **more})


# ------------------------------------------------------------------- what is there before


def nothing(_scale: int) -> list[list[Envelope]]:
    """The attacker has just come."""
    return [[]]


def _binary(number: int, depth: int = 10) -> str:
    return ".".join("*" if number >> bit & 1 else "a" for bit in range(depth))


DEEP = ".".join("a" * 10)
"""The topic that all patterns of `matching` match."""


def matching(**options: Any) -> Callable[[int], list[list[Envelope]]]:
    """A client with ``scale`` patterns that match one topic."""
    return lambda scale: [[[SUBSCRIBE, n + 1, _binary(n), options] for n in range(1, min(scale, 1000))], []]


def own(**options: Any) -> Callable[[int], list[list[Envelope]]]:
    """The same, but it is the attacker's own connection."""
    return lambda scale: [matching(**options)(scale)[0]]


def groups(scale: int) -> list[list[Envelope]]:
    """A client in ``scale`` queue groups of one pattern."""
    return [[[SUBSCRIBE, n + 1, "g.>", {"group": f"g{n}"}] for n in range(scale)], []]


def almost_matching(scale: int) -> list[list[Envelope]]:
    """A client with patterns that nearly match, to the last of 120 tokens."""
    return [[[SUBSCRIBE, n + 1, f"{_binary(n)}{'.a' * 109}.no"] for n in range(scale)], []]


def history(scale: int) -> list[list[Envelope]]:
    """A topic with a long history, and many with a last value."""
    one = [[PUBLISH, n + 1, "kept.one", b"x" * 20] for n in range(10 * scale)]
    return [[*one, *([PUBLISH, n + 1, f"kept.t{n}", b"x"] for n in range(5 * scale))]]


def members(scale: int) -> list[list[Envelope]]:
    """Many patterns that presence is on for, and one who watches."""
    return [
        [[SUBSCRIBE, n + 1, f"here.{n}"] for n in range(scale)],
        [[SUBSCRIBE, 1, "here.>", {"presence": True}]],
    ]


def subscriptions(scale: int) -> list[list[Envelope]]:
    """Ten clients with as many subscriptions as one may have, and topics that were published on."""
    clients = [[[SUBSCRIBE, n + 1, f"c{client}.t{n}.*"] for n in range(scale)] for client in range(10)]
    return [*clients, [[PUBLISH, n + 1, f"c1.t{n}.x", b""] for n in range(10 * scale)]]


def slow(**options: Any) -> Callable[[int], list[list[Envelope]]]:
    """The attacker itself is subscribed to what it publishes on, and reads late."""
    return lambda scale: [[[SUBSCRIBE, n + 1, f"s.{n % 7}.{n}.>", options] for n in range(min(scale, 1000))]]


def one(**options: Any) -> Callable[[int], list[list[Envelope]]]:
    """The attacker is subscribed to what `in_turn` and `keyed` publish, and to something else."""
    return lambda _: [[[SUBSCRIBE, 1, "q.*", options], [SUBSCRIBE, 2, "r.*"]]]


# -------------------------------------------------------------------------------- hits


def repeated(*envelope: Any, times: int = 30, **options: Any) -> Callable[[int], list[Envelope]]:
    """The same request ``times × scale`` times, each with its own id."""
    kind, *rest = envelope
    tail = [*rest, options] if options else rest
    return lambda scale: [[kind, n + 1, *tail] for n in range(times * scale)]


def numbered(make: Callable[[int], Envelope], times: int = 30) -> Callable[[int], list[Envelope]]:
    """Requests that differ."""
    return lambda scale: [make(n) for n in range(times * scale)]


def in_turn(times: int) -> Callable[[int], list[Envelope]]:
    """Publishes on two topics in turn, so that no two of them make one run: an entry of the line for each."""
    return lambda scale: [[PUBLISH, 0, f"q.{n % 2}", b""] for n in range(times * scale)]


def keyed(times: int) -> Callable[[int], list[Envelope]]:
    """Publishes, each with a key of its own."""
    return lambda scale: [[PUBLISH, 0, "q.1", b"", 0, {"key": f"{n}"}] for n in range(times * scale)]


def request(method: str, target: str, body: bytes = b"", media: str = "", times: int = 20) -> Callable[[int], bytes]:
    """HTTP requests, one behind the other."""
    kind = f"Content-Type: {media}\r\n" if media else ""
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{kind}Content-Length: {len(body)}\r\n\r\n"
    return lambda scale: (head.encode() + body) * max(1, times * scale // 1000)


def _batch(topic: str, count: int = 1000) -> bytes:
    return json.dumps([{"topic": topic, "payload": 1, "encoding": "json"}] * count).encode()


_ndjson = "application/x-ndjson"
_json = "application/json"
PATIENT = {"queue_grace_s": 3600.0}
_maps = b"[" + b",".join([b"{}"] * 340_000) + b"]"
_many_headers = {f"h{n}": "" for n in range(16_000)}
_many_offsets = {f"kept.{n}": 0 for n in range(16_000)}

_VALUES = {"ints": b"1", "floats": b"1e1", "long ints": b"9" * 4299, "empty texts": b'""', "arrays in line": b"[[[]]]"}


def _array(value: bytes, size: int) -> bytes:
    """As many of them as have that size together."""
    return b"[" + b",".join([value] * (size // (len(value) + 1))) + b"]"


def _payload(*payloads: bytes, media: str = _json) -> Callable[[int], bytes]:
    """A batch of these, about as long as a body may be."""
    items = b",".join([b'{"topic":"a","payload":' + payload + b"}" for payload in payloads])
    return request("POST", "/v1/publish", items if media == _ndjson else b"[" + items + b"]", media, times=2)


ATTACKS: tuple[Attack, ...] = (
    Attack("pings", "PING", nothing, repeated(PING)),
    Attack(
        "HELLO again and again",
        "HELLO, HELLO.name, HELLO.agent, HELLO.client, HELLO.token, HELLO.max_message",
        nothing,
        numbered(lambda n: [HELLO, n + 1, {"name": "n" * 200, "agent": "a" * 200, "client": "c", "max_message": 1}], 2),
    ),
    Attack("HELLO with tokens", "HELLO.token", nothing, numbered(lambda n: [HELLO, n + 1, {"token": "t" * 500}], 2)),
    Attack("one topic", "PUBLISH", nothing, lambda scale: [[PUBLISH, 0, "a", b""]] * (32 * scale)),
    Attack(
        "two topics in turn, answered", "PUBLISH", nothing, numbered(lambda n: [PUBLISH, n + 1, "ab"[n % 2], b""], 32)
    ),
    Attack(
        "two topics in turn, one wildcard",
        "PUBLISH",
        slow(),
        numbered(lambda n: [PUBLISH, 0, f"s.1.{n % 2}.x", b""], 32),
    ),
    Attack("new topics", "PUBLISH", nothing, numbered(lambda n: [PUBLISH, 0, f"a{n}", b""], 32)),
    Attack(
        "new topics, nearly matched by a thousand deep patterns",
        "PUBLISH",
        almost_matching,
        lambda scale: [[PUBLISH, 0, f"{'a.' * 119}{n:03}", b""] for n in range(scale)],
    ),
    Attack("a thousand patterns, 1 MB", "PUBLISH", matching(), lambda _: [[PUBLISH, 0, DEEP, b"x" * _MEGABYTE]]),
    Attack(
        "a thousand patterns, 1 MB, drop_oldest",
        "SUBSCRIBE.on_slow, SUBSCRIBE.queue",
        matching(on_slow="drop_oldest", queue=1),
        lambda _: [[PUBLISH, 0, DEEP, b"x" * _MEGABYTE]],
    ),
    Attack(
        "a thousand patterns, 1 MB, conflate",
        "SUBSCRIBE.on_slow",
        matching(on_slow="conflate"),
        lambda _: [[PUBLISH, 0, DEEP, b"x" * _MEGABYTE]],
    ),
    Attack("a thousand patterns, small ones", "PUBLISH", matching(), repeated(PUBLISH, DEEP, b"x" * 20, times=1)),
    Attack(
        "a thousand patterns with max_rate",
        "SUBSCRIBE.max_rate",
        matching(max_rate=1.0),
        repeated(PUBLISH, DEEP, b"", times=1),
    ),
    Attack(
        "a thousand patterns without echo", "SUBSCRIBE.echo", own(echo=False), repeated(PUBLISH, DEEP, b"x", times=1)
    ),
    Attack("a thousand groups", "SUBSCRIBE.group", groups, repeated(PUBLISH, "g.x", b"x" * 20, times=1)),
    Attack(
        "with keys",
        "PUBLISH.key",
        matching(on_slow="conflate"),
        numbered(lambda n: [PUBLISH, n + 1, DEEP, b"x", 0, {"key": f"{n}"}], 1),
    ),
    Attack(
        "with 16,000 headers",
        "PUBLISH.headers",
        nothing,
        lambda scale: [[PUBLISH, 1, "a", b"", 0, {"headers": _many_headers}]] * min(4, scale),
    ),
    Attack(
        "with msg_id",
        "PUBLISH.msg_id",
        nothing,
        numbered(lambda n: [PUBLISH, n + 1, "kept.a", b"x", 0, {"msg_id": f"{n}"}], 10),
    ),
    Attack(
        "retained, each a new topic",
        "PUBLISH.retain",
        nothing,
        numbered(lambda n: [PUBLISH, n + 1, f"r{n}", b"x", 0, {"retain": True}], 10),
    ),
    Attack(
        "with expect",
        "PUBLISH.expect",
        history,
        numbered(lambda n: [PUBLISH, n + 1, "kept.one", b"x", 0, {"expect": n}], 10),
    ),
    Attack(
        "requests",
        "PUBLISH.reply_to",
        slow(),
        numbered(lambda n: [PUBLISH, 0, "s.1.1.x", b"x", 0, {"reply_to": "s.2"}], 10),
    ),
    Attack(
        "a million empty maps",
        "PUBLISH",
        nothing,
        lambda _: [[PUBLISH, 1, "a", b"", 0, {"headers": {"a": [{}] * 900_000}}]],
    ),
    Attack(
        "deep patterns, subscribed and unsubscribed",
        "SUBSCRIBE, UNSUBSCRIBE",
        nothing,
        lambda scale: [
            each
            for n in range(scale)
            for each in ([SUBSCRIBE, 2 * n + 1, f"{_binary(n)}{'.a' * 109}.no"], [UNSUBSCRIBE, 2 * n + 2, n + 1])
        ],
    ),
    Attack(
        "a long queue, unsubscribed", "UNSUBSCRIBE", one(), lambda _: [[UNSUBSCRIBE, 1, 1]], PATIENT, deaf=in_turn(300)
    ),
    Attack(
        "a long queue of keys, unsubscribed",
        "UNSUBSCRIBE",
        one(on_slow="conflate"),
        lambda _: [[UNSUBSCRIBE, 1, 1]],
        PATIENT,
        deaf=keyed(90),
    ),
    Attack(
        "a long queue, ended by its policy",
        "SUBSCRIBE.on_slow",
        one(on_slow="unsubscribe", queue=100_000),
        lambda _: [[PING, 1]],
        PATIENT,
        deaf=in_turn(400),
    ),
    Attack(
        "a long queue of keys, then another policy and a short one",
        "SUBSCRIBE.on_slow, SUBSCRIBE.queue",
        one(on_slow="conflate"),
        lambda _: [[SUBSCRIBE, 1, "q.*", {"on_slow": "drop_oldest", "queue": 1}], [PUBLISH, 2, "q.1", b""]],
        PATIENT,
        deaf=keyed(90),
    ),
    Attack(
        "very many keys held, then let go",
        "SUBSCRIBE.max_rate",
        one(max_rate=0.01, queue=100_000),
        lambda _: [[SUBSCRIBE, 1, "q.*", {"queue": 100_000}]],
        PATIENT,
        deaf=lambda scale: 2 * keyed(90)(scale),
    ),
    Attack(
        "very many keys held, unsubscribed",
        "UNSUBSCRIBE, SUBSCRIBE.max_rate",
        one(max_rate=0.01, queue=100_000),
        lambda _: [[UNSUBSCRIBE, 1, 1]],
        PATIENT,
        deaf=lambda scale: 2 * keyed(90)(scale),
    ),
    Attack(
        "a thousand long queues, ended by their policy",
        "SUBSCRIBE.on_slow, SUBSCRIBE.queue",
        own(on_slow="unsubscribe", queue=100),
        lambda _: [[PING, 1]],
        deaf=lambda _: [[PUBLISH, 0, DEEP, b"", 0, {"key": f"{n}"}] for n in range(120)],
    ),
    Attack(
        "the options of subscriptions changed",
        "SUBSCRIBE.queue, SUBSCRIBE.max_rate",
        slow(max_rate=1.0),
        numbered(lambda n: [SUBSCRIBE, n + 1, f"s.{n % 7}.{n}.>", {"queue": n + 1, "max_rate": 2.0}], 1),
    ),
    Attack(
        "snapshots of everything",
        "SUBSCRIBE.snapshot",
        history,
        numbered(lambda n: [SUBSCRIBE, n + 1, "kept." + "*." * (n % 20) + ">", {"snapshot": True}], 1),
    ),
    Attack(
        "replays",
        "SUBSCRIBE.replay",
        history,
        numbered(lambda n: [SUBSCRIBE, n + 1, "kept.>", {"replay": {"last": 10_000}, "group": None}], 1),
    ),
    Attack(
        "replays with 16,000 offsets",
        "SUBSCRIBE.replay",
        history,
        lambda scale: [
            [SUBSCRIBE, n + 1, f"kept.{'*.' * n}>", {"replay": {"epoch": "x", "offsets": _many_offsets}}]
            for n in range(min(4, scale))
        ],
    ),
    Attack(
        "heartbeats",
        "SUBSCRIBE.heartbeat",
        history,
        numbered(lambda n: [SUBSCRIBE, n + 1, "kept." + "*." * (n % 100) + ">", {"heartbeat": 0.1}], 1),
    ),
    Attack(
        "presence watched",
        "SUBSCRIBE.presence",
        members,
        numbered(lambda n: [SUBSCRIBE, n + 1, f"here.{'*.' * (n % 100)}>", {"presence": True}], 1),
    ),
    Attack("backlogs", "BACKLOG", slow(), numbered(lambda n: [BACKLOG, n + 1, 1 + n % 7, n % 100, 100], 20)),
    Attack(
        "pages of history",
        "FETCH, FETCH.limit, FETCH.last",
        history,
        repeated(FETCH, "kept.one", times=1, last=10_000, limit=1000),
    ),
    Attack(
        "history since a time",
        "FETCH.since, FETCH.offset",
        history,
        numbered(lambda n: [FETCH, n + 1, "kept.one", {"since": 1_700_000_000_000_000} if n % 2 else {"offset": 1}], 1),
    ),
    Attack("lists of members", "PRESENCE, PRESENCE.after", members, repeated(PRESENCE, "here.>", times=1, after=1)),
    Attack("GET /healthz", "GET /healthz", nothing, request("GET", "/healthz", times=1000)),
    Attack("GET /readyz", "GET /readyz", nothing, request("GET", "/readyz", times=1000)),
    Attack("GET /metrics", "GET /metrics", subscriptions, request("GET", "/metrics")),
    Attack("GET /v1/openapi.json", "GET /v1/openapi.json", nothing, request("GET", "/v1/openapi.json")),
    Attack("GET /v1/stats", "GET /v1/stats", subscriptions, request("GET", "/v1/stats", times=200)),
    Attack("GET /v1/connections", "GET /v1/connections", subscriptions, request("GET", "/v1/connections?limit=1000")),
    Attack(
        "GET /v1/connections/closed",
        "GET /v1/connections/closed",
        nothing,
        request("GET", "/v1/connections/closed?limit=1000", times=200),
    ),
    Attack(
        "DELETE /v1/connections",
        "DELETE /v1/connections/{session}",
        subscriptions,
        request("DELETE", "/v1/connections/x", times=200),
    ),
    Attack(
        "GET /v1/subscriptions", "GET /v1/subscriptions", subscriptions, request("GET", "/v1/subscriptions?limit=1000")
    ),
    Attack(
        "GET /v1/subscriptions of a topic",
        "GET /v1/subscriptions",
        matching(),
        request("GET", f"/v1/subscriptions?limit=1000&topic={DEEP}"),
    ),
    Attack("GET /v1/topics", "GET /v1/topics", subscriptions, request("GET", "/v1/topics?limit=1000&pattern=%3E")),
    Attack("GET last", "GET /v1/topics/{topic}/last", history, request("GET", "/v1/topics/kept.one/last", times=200)),
    Attack(
        "GET history",
        "GET /v1/topics/{topic}/history",
        history,
        request("GET", "/v1/topics/kept.one/history?limit=1000"),
    ),
    Attack(
        "GET stream",
        "GET /v1/topics/{pattern}/stream",
        history,
        request("GET", "/v1/topics/kept.%3E/stream?last=10000", times=1),
    ),
    Attack(
        "POST one of 1 MB for a thousand patterns",
        "POST /v1/publish/{topic}",
        matching(),
        request("POST", f"/v1/publish/{DEEP}", b"x" * _MEGABYTE, "text/plain", times=2),
    ),
    Attack(
        "POST batches for a thousand patterns",
        "POST /v1/publish",
        matching(),
        request("POST", "/v1/publish", _batch(DEEP), _json, times=2),
    ),
    Attack(
        "POST a batch of half a million lines",
        "POST /v1/publish",
        nothing,
        request("POST", "/v1/publish", b"1\n" * 500_000, _ndjson, times=2),
    ),
    Attack(
        "POST lines that are blank",
        "POST /v1/publish",
        nothing,
        request("POST", "/v1/publish", b" \n" * 500_000, _ndjson, times=2),
    ),
    Attack(
        "POST a batch of empty maps", "POST /v1/publish", nothing, request("POST", "/v1/publish", _maps, _json, times=2)
    ),
    Attack("POST a payload of empty maps", "POST /v1/publish", nothing, _payload(_maps)),
    *(
        Attack(
            f"POST payloads of {name}", "POST /v1/publish", nothing, _payload(*[_array(value, AT_ONCE - 3_000)] * 14)
        )
        for name, value in _VALUES.items()
    ),
    Attack("POST a line of ints", "POST /v1/publish", nothing, _payload(_array(b"1", 900_000), media=_ndjson)),
    Attack("POST a text of escapes", "POST /v1/publish", nothing, _payload(b'"' + rb"\n" * 490_000 + b'"')),
)


def packed(envelopes: list[Envelope]) -> bytes:
    """One WebSocket message of them."""
    return b"".join(map(msgpack.packb, envelopes))


def portions(envelopes: list[Envelope], size: int = 100) -> Iterator[list[Envelope]]:
    """Requests that are sent and answered together."""
    for start in range(0, len(envelopes), size):
        yield envelopes[start : start + size]
