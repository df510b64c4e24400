"""What the broker tells of itself over HTTP, and to whom."""

import threading
from typing import Any
from unittest.mock import Mock

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import wait_all_tasks_blocked

from fanwire.broker import Auth, Broker, Config, Role
from fanwire.broker.http import scraping
from fanwire.broker.http.locality import on_this_machine
from fanwire.broker.network.peer import Peer
from fanwire.version import __version__
from tests.keys import known

from .http_client import HttpClient, http, serving
from .raw import connected, subscribed

STATUS = ("/metrics", "/v1/stats", "/v1/connections", "/v1/connections/closed")
TOPICS = ("/v1/topics/a.b/last", "/v1/topics/a.b/history?last=1")
ROLES = (
    Role(name="reader", subscribe=("a.>",)),
    Role(name="writer", publish=("a.>",)),
    Role(name="ops", operator=True),
)
TOKENS = [known("fw_reader", "r", "reader"), known("fw_writer", "w", "writer"), known("fw_ops", "o", "ops")]


def _auth(**settings: Any) -> Auth:
    return Auth(roles=ROLES, tokens=TOKENS, **settings)


def _bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


# ------------------------------------------------------------------- figures


async def _families(client: HttpClient) -> dict[str, dict[tuple[str, ...], float]]:
    answer = await client.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.body.decode())
    return {
        family.name: {(each.name, *each.labels.values()): each.value for each in family.samples} for family in families
    }


async def test_what_metrics_need_is_imported_once_and_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop goes on meanwhile, and answers others; who asks for the same waits."""
    imported, began, go_on = scraping._imported, threading.Event(), threading.Event()

    def slowly() -> scraping.Exposition:
        began.set()
        assert go_on.wait(10)
        return imported()

    importing = Mock(side_effect=slowly)
    monkeypatch.setattr(scraping, "_known", [])
    monkeypatch.setattr(scraping, "_imported", importing)
    async with serving() as broker:
        first, second, other = [await http(broker) for _ in range(3)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_families, first)
            await trio.to_thread.run_sync(began.wait, 10)
            nursery.start_soon(_families, second)
            await wait_all_tasks_blocked()
            assert (await other.get("/healthz")).status == 200
            go_on.set()
        assert (await other.get("/metrics")).status == 200
    assert importing.call_count == 1


async def test_prometheus_can_read_the_metrics() -> None:
    """By its own parser; counters count, and no label names a client."""
    async with serving() as broker:
        subscriber, client = await subscribed(broker, "a.*"), await http(broker)
        await client.ask("POST", "/v1/publish/a.b", body=b"x")
        await client.get("/v1/topics/none/last")
        await client.get("/v1/topics/none/last")
        families = await _families(client)

        assert families["fanwire_connections"] == {("fanwire_connections",): 1}
        assert families["fanwire_http_connections"] == {("fanwire_http_connections",): 1}
        assert families["fanwire_published_messages"] == {("fanwire_published_messages_total",): 1}
        assert families["fanwire_delivered_messages"] == {("fanwire_delivered_messages_total",): 1}
        assert families["fanwire_http_requests"] == {
            ("fanwire_http_requests_total", "200"): 1,
            ("fanwire_http_requests_total", "404"): 2,
        }
        assert "process_cpu_seconds" in families
        await subscriber.close()


async def test_depths_of_queues_are_a_histogram() -> None:
    """Its buckets hold all below them, too, as Prometheus wants it."""
    async with serving() as broker:
        broker._hub.counters.observe_depth(5)
        broker._hub.counters.observe_depth(500_000)
        depths = (await _families(await http(broker)))["fanwire_queue_depth"]

        assert list(depths.values()) == [0, 1, 1, 1, 1, 1, 2]
        assert list(depths)[-1] == ("fanwire_queue_depth_bucket", "+Inf")


async def test_stats_are_those_of_sys_stats() -> None:
    """All of them."""
    async with serving() as broker:
        stats = (await (await http(broker)).get("/v1/stats")).json

        assert {"connections", "published", "uptime_s", "http_answers"} <= stats.keys()
        assert stats["version"] == __version__


async def test_the_release_is_a_label() -> None:
    """As others tell it: a figure that is always 1."""
    async with serving() as broker:
        families = await _families(await http(broker))

        assert families["fanwire_build_info"] == {("fanwire_build_info", __version__): 1}


async def test_connections_can_be_sorted_and_limited() -> None:
    """Who is furthest behind comes first, or who came first."""
    async with serving() as broker:
        first, second = await subscribed(broker, "x"), await subscribed(broker, "big")
        for _ in range(3):
            broker.publish("big", b"x" * 60_000)
        await trio.testing.wait_all_tasks_blocked()
        client = await http(broker)
        by_lag = (await client.get("/v1/connections?sort=lag&limit=1")).json
        by_age = (await client.get("/v1/connections?sort=age")).json

        assert by_lag["total"] == by_age["total"] == 2
        assert [each["patterns"] for each in by_lag["connections"]] == [["big"]]
        assert [each["patterns"] for each in by_age["connections"]] == [["x"], ["big"]]
        assert (await client.get("/v1/connections?sort=name")).code == "bad_option"
        await first.stream.aclose()
        await second.stream.aclose()


async def test_closed_connections_and_why() -> None:
    """The newest first."""
    async with serving() as broker:
        await (await connected(broker)).close()
        await trio.testing.wait_all_tasks_blocked()
        listed = (await (await http(broker)).get("/v1/connections/closed?limit=5")).json["closed"]

        assert [each["code"] for each in listed] == [1000]


# ----------------------------------------------------------------- who may


@pytest.mark.parametrize("target", STATUS)
async def test_status_is_for_operators(target: str) -> None:
    """And for nobody else who has a token, or none."""
    async with serving(auth=_auth(anonymous_roles=("reader",))) as broker:
        client = await http(broker)

        assert (await client.get(target, _bearer("fw_ops"))).status == 200
        assert (await client.get(f"{target}?token=fw_ops")).status == 200
        assert (await client.get(target, _bearer("fw_reader"))).code == "forbidden"
        assert (await client.get(target)).code == "forbidden"
        assert broker.statistics().forbidden == {"status": 2}


@pytest.mark.parametrize("target", [*STATUS, *TOPICS])
async def test_without_a_token_nothing_but_health_is_told(target: str) -> None:
    """401 says what is missing, and the connection goes on."""
    async with serving(auth=_auth()) as broker:
        client = await http(broker)

        answer = await client.get(target)

        assert (answer.status, answer.code) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert (await client.get("/healthz")).status == (await client.get("/readyz")).status == 200
        assert broker.statistics().unauthenticated == {"http": 1}


@pytest.mark.parametrize("where", ["header", "query"])
async def test_a_guess_costs_a_connection(where: str) -> None:
    """A bad token is told, counted, and the end."""
    async with serving(auth=_auth(anonymous_roles=("reader",))) as broker:
        client = await http(broker)
        if where == "header":
            answer = await client.get("/v1/stats", _bearer("fw_guess"))
        else:
            answer = await client.get("/v1/stats?token=fw_guess")

        assert (answer.status, answer.code) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        assert await client.closed()
        assert broker.statistics().unauthenticated == {where: 1}


async def test_an_expired_token_says_so() -> None:
    """To its holder."""
    auth = Auth(roles=ROLES, tokens=[known("fw_old", "r", "reader", expires_in_s=-60)])
    async with serving(auth=auth) as broker:
        assert (await (await http(broker)).get("/v1/stats", _bearer("fw_old"))).code == "expired"


async def test_permissions_hold_over_http() -> None:
    """To publish, in a batch, too, and to read."""
    async with serving(auth=_auth()) as broker:
        client, reader, writer = await http(broker), _bearer("fw_reader"), _bearer("fw_writer")
        good = await client.ask("POST", "/v1/publish/a.b?retain=true", writer, body=b"x")
        elsewhere = await client.ask("POST", "/v1/publish/b", writer, body=b"x")
        by_reader = await client.ask("POST", "/v1/publish/a.b", reader, body=b"x")
        media = "Content-Type: application/json"
        batch = b'[{"topic": "a.c", "payload": 1}, {"topic": "b", "payload": 1}]'
        mixed = await client.ask("POST", "/v1/publish", writer, media, body=batch)

        assert (good.status, elsewhere.code, by_reader.code) == (200, "forbidden", "forbidden")
        assert [each.get("error", {}).get("code") for each in mixed.json["results"]] == [None, "forbidden"]
        for target in TOPICS:
            assert (await client.get(target, reader)).status == 200
            assert (await client.get(target, writer)).code == "forbidden"
        assert broker.statistics().forbidden == {"publish": 3, "fetch": 2}
        assert broker.statistics().published == 2


async def test_who_one_is_is_asked_with_each_request() -> None:
    """A connection that a proxy shares among users gives nobody what another one may."""
    async with serving(auth=_auth()) as broker:
        client = await http(broker)
        assert (await client.get("/v1/stats", _bearer("fw_ops"))).status == 200

        assert (await client.get("/v1/stats")).status == 401


@pytest.mark.parametrize("header", ["X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1", "Via: 1.1 proxy"])
async def test_without_authentication_status_is_for_the_machine_itself(header: str) -> None:
    """And not for those for whom a proxy on it asks."""
    async with serving() as broker:
        client = await http(broker)

        assert (await client.get("/v1/stats")).status == 200
        assert (await client.get("/v1/stats", header)).code == "forbidden"


async def test_over_tcp_loopback_is_this_machine_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the address that the kernel names."""
    async with Broker(Config(port=0)).serving() as broker:
        assert broker.port is not None
        client = HttpClient(await trio.open_tcp_stream("127.0.0.1", broker.port))
        assert (await client.get("/v1/stats")).status == 200
        monkeypatch.setattr("fanwire.broker.http.conversation.on_this_machine", lambda *_: False)
        other = HttpClient(await trio.open_tcp_stream("127.0.0.1", broker.port))

        assert (await other.get("/v1/stats")).code == "forbidden"
        assert (await other.get("/healthz")).status == 200
        await client.stream.aclose()
        await other.stream.aclose()


def test_what_is_on_this_machine() -> None:
    """Loopback, also as IPv6 writes it; a Unix socket; and memory."""

    class Socket:
        family = 2

        def __init__(self, address: str) -> None:
            self.address = address

        def getpeername(self) -> tuple[str, int]:
            return self.address, 1

    def is_here(address: str) -> bool:
        stream = object.__new__(trio.SocketStream)
        stream.socket = Socket(address)  # type: ignore[assignment]
        return on_this_machine(stream, Peer(), Config())

    assert all(is_here(each) for each in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"))
    assert not any(is_here(each) for each in ("10.0.0.1", "192.0.2.7", "::ffff:10.0.0.1", "fe80::1%eth0", ""))


async def test_a_trusted_proxy_is_not_this_machine_whatever_it_says_or_leaves_out() -> None:
    """It asks for others, and may be one that names them only to some."""
    async with Broker(Config(port=0, trusted_proxies=("127.0.0.1",))).serving() as broker:
        assert broker.port is not None
        async with await trio.open_tcp_stream("127.0.0.1", broker.port) as stream:
            client = HttpClient(stream)

            assert (await client.get("/v1/stats")).code == "forbidden"
            assert (await client.get("/v1/stats", "X-Forwarded-For: 127.0.0.1")).code == "forbidden"


# ----------------------------------------------------------------- browsers


def _post(host: str) -> bytes:
    """A page of this host asks it to publish."""
    lines = ("POST /v1/publish/a HTTP/1.1", f"Host: {host}", f"Origin: http://{host}", "Content-Length: 1", "", "x")
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("target", [*STATUS, *TOPICS])
@pytest.mark.parametrize(
    "headers",
    [
        ("Origin: http://evil.example",),
        ("Origin: null",),
        ("Origin: http://[",),
    ],
)
async def test_a_page_of_another_site_may_not_ask_without_a_token(target: str, headers: tuple[str, ...]) -> None:
    """Nor publish: browsers send such a POST without asking first."""
    async with serving() as broker:
        client = await http(broker)

        assert (await client.get(target, *headers)).code == "forbidden"
        assert (await client.ask("POST", "/v1/publish/a", *headers, body=b"x")).code == "forbidden"
        assert broker.statistics().published == 0


async def test_a_name_that_strangers_dns_made_for_this_machine_is_no_name_for_it() -> None:
    """DNS rebinding: the page's origin is its own, and the address is ours."""
    async with serving() as broker:
        client = await http(broker)
        await client.send(_post("evil.example:9473"))
        assert (await client.answer()).code == "forbidden"


@pytest.mark.parametrize("host", ["localhost:9473", "127.0.0.1", "[::1]:9473", "192.0.2.1:80"])
async def test_a_page_of_the_same_origin_may_ask(host: str) -> None:
    """By an address, or as localhost."""
    async with serving() as broker:
        client = await http(broker)
        await client.send(_post(host))
        assert (await client.answer()).status == 200


async def test_who_brings_a_token_may_come_from_any_page() -> None:
    """Nobody but its owner could have given it."""
    async with serving(auth=_auth()) as broker:
        client = await http(broker)

        answer = await client.get("/v1/stats", _bearer("fw_ops"), "Origin: https://dashboard.example")

        assert answer.status == 200
