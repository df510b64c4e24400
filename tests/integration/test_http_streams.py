"""Server-Sent Events: who reads a topic that way is a client like any other."""

import logging
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Auth, Broker, Config, Role, TopicRule
from fanwire.broker.sessions import disconnects
from fanwire.protocol import Encoding

from ..keys import HS256, known
from .http_client import HttpClient, http, serving
from .raw import connected
from .sse_client import Event, SseClient, streaming

RULES = (TopicRule(pattern="kept.>", history=10), TopicRule(pattern="rooms.>", retain=True))
ROLES = (Role(name="reader", subscribe=("a.>", "kept.>")), Role(name="ops", subscribe=(">",), operator=True))


def _auth(**settings: Any) -> Auth:
    tokens = [known("fw_reader", "rita", "reader"), known("fw_ops", "otto", "ops")]
    return Auth(roles=ROLES, tokens=tokens, **settings)


def _bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


# -------------------------------------------------------------- what is told


async def test_messages_come_as_events() -> None:
    """In one line of JSON each, as the other endpoints have them; the first event says what was granted."""
    async with serving(rules=RULES) as broker:
        client = await streaming(broker, "/v1/topics/a.*/stream?queue=5&policy=drop_oldest")
        begun = await client.expect("subscribed")
        broker.publish("a.b", b'{"line": "one\\ntwo"}', encoding=Encoding.JSON)
        broker.publish("a.c", b"\xff", key="k")
        first, second = await client.next(), await client.next()

        assert (client.headers["content-type"], client.headers["cache-control"]) == ("text/event-stream", "no-store")
        assert (begun.data["pattern"], begun.data["queue"], begun.data["on_slow"]) == ("a.*", 5, "drop_oldest")
        assert begun.data["session"] == broker.connections()[0].session
        assert first.kind == "message"
        expected = {"topic": "a.b", "offset": 0, "encoding": "json", "payload": {"line": "one\ntwo"}}
        assert {**expected, "time": first.data["time"]} == first.data
        assert (second.data["payload"], second.data["key"]) == ({"$bin": "/w=="}, "k")


async def test_a_topic_goes_on_behind_the_last_event() -> None:
    """By epoch and offset: EventSource sends the id of the last event it had."""
    async with serving(rules=RULES) as broker:
        broker.publish("kept.a", b"0")
        client = await streaming(broker, "/v1/topics/kept.a/stream")
        assert (await client.expect("subscribed")).id == f"{broker._hub.epoch}:1"
        broker.publish("kept.a", b"1", encoding=Encoding.TEXT)
        last = await client.expect("message")
        await client.http.stream.aclose()
        for text in (b"2", b"3"):
            broker.publish("kept.a", text, encoding=Encoding.TEXT)

        again = await streaming(broker, "/v1/topics/kept.a/stream", f"Last-Event-ID: {last.id}")
        assert last.id == f"{broker._hub.epoch}:2"
        assert (await again.expect("subscribed")).data["recovered"] is True
        assert await again.payloads(2) == ["2", "3"]
        await again.expect("snapshot_end")
        by_query = await streaming(broker, f"/v1/topics/kept.a/stream?last_event_id={last.id}")
        await by_query.expect("subscribed")
        assert await by_query.payloads(2) == ["2", "3"]


async def test_what_is_no_longer_kept_is_told() -> None:
    """LOST says how many; of another life of the broker nobody knows."""
    async with serving(rules=RULES) as broker:
        for number in range(15):
            broker.publish("kept.a", b"%d" % number, encoding=Encoding.TEXT)
        client = await streaming(broker, f"/v1/topics/kept.a/stream?last_event_id={broker._hub.epoch}:2")
        begun, lost, message = [await client.next() for _ in range(3)]
        elsewhere = await streaming(broker, "/v1/topics/kept.a/stream?last_event_id=another:2")

        assert begun.data["recovered"] is False
        assert lost == Event("lost", {"count": 3, "reason": "evicted", "topic": "kept.a", "first": 3, "last": 5})
        assert (message.data["offset"], message.id) == (6, f"{broker._hub.epoch}:6")
        assert (await elsewhere.next()).data["recovered"] is False
        assert (await elsewhere.next()).data == {"count": None, "reason": "restart", "topic": "kept.a"}


async def test_a_pattern_goes_on_by_time() -> None:
    """Its topics count by themselves; while they are replayed one after the other, no time says where one is."""
    async with serving(rules=RULES) as broker:
        client = await streaming(broker, "/v1/topics/kept.>/stream")
        begun = await client.expect("subscribed")
        broker.publish("kept.b", b"1", encoding=Encoding.TEXT)
        broker.publish("kept.a", b"2", encoding=Encoding.TEXT)
        first, second = await client.next(), await client.next()
        broker.publish("kept.b", b"3", encoding=Encoding.TEXT)

        for id_, missed in ((begun.id, ["1", "3", "2"]), (first.id, ["1", "3", "2"]), (second.id, ["3", "2"])):
            again = await streaming(broker, "/v1/topics/kept.>/stream", f"Last-Event-ID: {id_}")
            assert (await again.expect("subscribed")).data["recovered"] is True
            events = [await again.expect("message") for _ in missed]
            assert [each.data["payload"] for each in events] == missed
            assert [each.id for each in events] == [None] * len(missed)
            end = await again.expect("snapshot_end")
            assert (second.id or "x") < (end.id or "")
        broker.publish("kept.c", b"4")
        assert (end.id or "x") < ((await again.expect("message")).id or "")
        lost = await streaming(broker, "/v1/topics/kept.>/stream?last_event_id=another:@1")
        assert (await lost.expect("subscribed")).data["recovered"] is False
        assert (await lost.expect("lost")).data == {"count": None, "reason": "restart", "topic": None}


async def test_a_stream_that_conflates_has_no_ids() -> None:
    """It is told the newest, not all, and not in order: it begins anew."""
    async with serving(rules=RULES) as broker:
        broker.publish("kept.a", b"x")
        for query in ("policy=conflate", "max_rate=2.5"):
            client = await streaming(broker, f"/v1/topics/kept.a/stream?snapshot=true&{query}")
            begun, message, _ = [await client.next() for _ in range(3)]
            assert (begun.data["on_slow"], begun.id, message.id) == ("conflate", None, None)


@pytest.mark.parametrize(
    ("query", "texts"), [("snapshot=true", ["2"]), ("last=2", ["1", "2"]), ("since=0", ["0", "1", "2"])]
)
async def test_it_begins_with_what_is_asked_for(query: str, texts: list[str]) -> None:
    """And says when what is live begins."""
    async with serving(rules=RULES) as broker:
        for number in range(3):
            broker.publish("kept.a", b"%d" % number, encoding=Encoding.TEXT)
        client = await streaming(broker, f"/v1/topics/kept.a/stream?{query}")

        assert (await client.expect("subscribed")).id is None
        assert await client.payloads(len(texts)) == texts
        assert (await client.expect("snapshot_end")).data == {"count": len(texts)}


async def test_silence_is_told_of(autojump_clock: MockClock) -> None:
    """As to any client that asks for a heartbeat."""
    async with serving(rules=RULES) as broker:
        broker.publish("kept.a", b"x")
        client = await streaming(broker, "/v1/topics/kept.a/stream?heartbeat=7.5")
        await client.expect("subscribed")

        assert (await client.expect("quiet")).data == {"topic": "kept.a", "silent_ms": 7500, "offset": 1}


# ------------------------------------------------------------------ who may


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("a..b/stream", 400, "bad_pattern"),
        ("a.%0Ab/stream", 400, "bad_pattern"),
        ("a/stream?queue=0", 400, "bad_option"),
        ("a/stream?max_rate=nan", 400, "bad_option"),
        ("a/stream?policy=best", 400, "bad_option"),
        ("a/stream?last=1&since=2", 400, "bad_option"),
        ("a/stream?last=1", 404, "not_kept"),
        ("a/stream?last_event_id=x", 400, "bad_option"),
        ("a.*/stream?last_event_id=x:1", 400, "bad_option"),
        ("$inbox.x.y/stream", 403, "forbidden"),
    ],
)
async def test_streams_that_are_refused(target: str, status: int, code: str) -> None:
    """By a status, so that EventSource does not try again; nothing is left of them."""
    async with serving(rules=RULES) as broker:
        answer = await (await http(broker)).get(f"/v1/topics/{target}")
        await wait_all_tasks_blocked()

        assert (answer.status, answer.code) == (status, code)
        assert (broker.connections(), broker.statistics().subscriptions) == ([], 0)


async def test_permissions_hold_for_streams() -> None:
    """Those of the subscription; with the whole pattern; and by a token in the query, too."""
    async with serving(auth=_auth()) as broker:
        assert (await (await http(broker)).get("/v1/topics/a.b/stream")).status == 401
        assert (await (await http(broker)).get("/v1/topics/a.b/stream?token=fw_wrong")).status == 401
        for pattern in ("b", "*.b", ">", "$sys.stats"):
            answer = await (await http(broker)).get(f"/v1/topics/{pattern}/stream", _bearer("fw_reader"))
            assert (answer.status, answer.code) == (403, "forbidden")
        assert (await (await http(broker)).ask("HEAD", "/v1/topics/b/stream", _bearer("fw_reader"))).status == 403
        for target, header in (("a.*/stream", _bearer("fw_reader")), ("a.b/stream?token=fw_reader", "X: x")):
            client = await streaming(broker, f"/v1/topics/{target}", header)
            await client.expect("subscribed")
        operator = await streaming(broker, "/v1/topics/$sys.stats/stream", _bearer("fw_ops"))
        await operator.expect("subscribed")

        assert [each.user for each in broker._hub.sessions] == ["rita", "rita", "otto"]


async def test_a_token_that_expires_ends_its_stream(autojump_clock: MockClock, tmp_path: Path) -> None:
    """With a goodbye; who has none any more is not let in again."""
    auth = Auth(roles=ROLES, keys=[HS256.file(tmp_path)], leeway_s=0)
    token = HS256.sign(sub="rita", roles=["reader"], exp=time.time() + 60)
    async with serving(auth=auth) as broker:
        client = await streaming(broker, f"/v1/topics/a.b/stream?token={token}")
        await client.expect("subscribed")
        [goodbye] = await client.ended()

        assert (goodbye.kind, goodbye.data["code"]) == ("goodbye", "expired")
        assert [each.code for each in broker.closed_connections()] == [4001]


async def test_permissions_that_are_taken_back_end_a_stream() -> None:
    """At once, and not only the subscription."""
    async with serving(auth=_auth()) as broker:
        client = await streaming(broker, "/v1/topics/a.b/stream?token=fw_reader")
        await client.expect("subscribed")
        roles = (Role(name="reader", subscribe=("kept.>",)), ROLES[1])
        await broker.change_auth(Auth(roles=roles, tokens=_auth().tokens))
        [goodbye] = await client.ended()

        assert (goodbye.kind, goodbye.data["code"]) == ("goodbye", "forbidden")
        assert broker.statistics().subscriptions == 0


async def test_the_token_of_a_stream_is_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Wherever it stood, and however it ends."""
    caplog.set_level(logging.DEBUG, "fanwire.broker")
    async with serving(auth=_auth()) as broker:
        client = await streaming(broker, "/v1/topics/a.b/stream?token=fw_reader")
        await client.expect("subscribed")
        broker._hub.sessions.copy().popitem()[0].end(disconnects.internal())
        await client.ended()
        await (await http(broker)).get("/v1/topics/zzz/stream?token=fw_reader")

    assert caplog.records
    assert not any("fw_reader" in f"{record.__dict__}" for record in caplog.records)


async def test_pages_of_listed_origins_can_read_streams() -> None:
    """The browser lets them if the answer names them. Without a list nobody is named, with one others are refused."""
    page = "Origin: https://app.example"
    async with serving(auth=_auth(), allowed_origins=["https://app.example"]) as broker:
        listed = await streaming(broker, "/v1/topics/a.b/stream?token=fw_reader", page)
        other = await (await http(broker)).get("/v1/topics/a.b/stream?token=fw_reader", "Origin: https://evil.example")
        program = await streaming(broker, "/v1/topics/a.b/stream?token=fw_reader")
        assert listed.headers["access-control-allow-origin"] == "https://app.example"
        assert listed.headers["vary"] == "Origin"
        assert other.code == "forbidden"
        assert "access-control-allow-origin" not in other.headers | program.headers
    async with serving(auth=_auth(), allowed_origins=["*"]) as broker:
        odd = await streaming(broker, "/v1/topics/a.b/stream?token=fw_reader", "Origin: https://\u00e4")
        assert odd.headers["access-control-allow-origin"] == "*"
    async with serving(auth=_auth()) as broker:
        anybody = await streaming(broker, "/v1/topics/a.b/stream?token=fw_reader", page)
        assert "access-control-allow-origin" not in anybody.headers


# ------------------------------------------------------------- slow readers


async def test_a_slow_reader_is_judged_as_on_a_websocket(autojump_clock: MockClock) -> None:
    """By its policy: LOST has its place between what it is sent; little waits anywhere else."""
    async with serving() as broker:
        client = await streaming(broker, "/v1/topics/a/stream?policy=drop_oldest&queue=4")
        await client.expect("subscribed")
        for _ in range(100):
            broker.publish("a", b"x" * 10_000)
            await wait_all_tasks_blocked()
        [connection] = broker.connections()
        assert connection.queued == 4
        events = [await client.next()]
        while events[-1].kind != "lost":
            events.append(await client.next())
        lost = events.pop().data
        rest = [await client.expect("message") for _ in range(4)]
        before = sum(each.kind == "message" for each in events)

        assert {each.kind for each in events} == {"message", "lagging"}
        assert (lost["reason"], before + lost["count"] + len(rest)) == ("queue", 100)
        assert before < 20


async def test_a_reader_that_stands_still_is_cut_off(autojump_clock: MockClock) -> None:
    """After stall_timeout, and a moment for the goodbye; what waited for it is gone."""
    async with serving(stall_timeout_s=10, linger_s=1) as broker:
        client = await streaming(broker, "/v1/topics/a/stream?queue=100")
        for _ in range(20):
            broker.publish("a", b"x" * 20_000)
        await trio.sleep(13)

        assert broker.connections() == []
        assert [each.code for each in broker.closed_connections()] == [4008]
        assert broker.statistics().http_connections == 0
        assert broker.statistics().slow_by_measure == {"stall_timeout": 1}
        await client.http.stream.aclose()


async def test_a_reader_that_does_not_want_to_lag_is_told_to_go() -> None:
    """With the facts, and when to come back."""
    async with serving() as broker:
        client = await streaming(broker, "/v1/topics/a/stream?queue=2")
        await client.expect("subscribed")
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                broker.publish("a", b"x" * 20_000)
                await wait_all_tasks_blocked()
            nursery.start_soon(_read_to_the_end, client)
        goodbye = client._events[-1]

        assert (goodbye.kind, goodbye.data["code"]) == ("goodbye", "slow_consumer")
        assert goodbye.retry == goodbye.data["retry_after_ms"]
        assert goodbye.data["detail"]["measure"] == "queue"


async def _read_to_the_end(client: SseClient) -> None:
    await client.ended()


async def test_unsubscribed_for_being_slow_is_the_end_of_a_stream() -> None:
    """There is nothing else on it."""
    async with serving() as broker:
        client = await streaming(broker, "/v1/topics/a/stream?queue=2&policy=unsubscribe")
        await client.expect("subscribed")
        for _ in range(30):
            broker.publish("a", b"x" * 20_000)
            await wait_all_tasks_blocked()
        goodbye = (await client.ended())[-1]

        assert (goodbye.kind, goodbye.data["code"]) == ("goodbye", "slow_consumer")
        assert broker.statistics().slow_unsubscribed == 1
        await wait_all_tasks_blocked()
        assert [each.code for each in broker.closed_connections()] == [1000]


async def test_comments_keep_proxies_awake_and_find_the_dead(autojump_clock: MockClock) -> None:
    """As often as others are pinged; who is sent something and takes it is alive, who takes nothing is not."""
    async with serving(ping_interval_s=25, ping_timeout_s=10) as broker:
        client = await streaming(broker, "/v1/topics/a/stream")
        await client.expect("subscribed")
        for wanted in range(1, 5):
            while client.comments < wanted:
                await client.read_chunk()
        assert len(broker.connections()) == 1
        with trio.fail_after(120):
            while broker.connections():  # noqa: ASYNC110  (on the mock clock)
                await trio.sleep(1)

        assert [each.code for each in broker.closed_connections()] == [4010]


# --------------------------------------------------- among other connections


async def test_a_stream_counts_once(autojump_clock: MockClock) -> None:
    """Among the connections, of which there is a limit; HTTP has that one no more."""
    async with serving(max_connections=2) as broker:
        first = await streaming(broker, "/v1/topics/a/stream", "User-Agent: curl/8")
        await first.expect("subscribed")
        figures = broker.statistics()
        assert (figures.connections, figures.http_connections, figures.subscriptions) == (1, 0, 1)
        assert [(each.agent, each.patterns) for each in broker.connections()] == [("curl/8", ["a"])]
        other = await connected(broker)
        answer = await (await http(broker)).get("/v1/topics/a/stream")
        assert (answer.status, answer.code) == (503, "too_many")
        await other.close()
        await first.http.stream.aclose()
        await trio.sleep(1)  # while the other one lingers

        assert broker.connections() == []
        assert (broker.statistics().http_connections, broker.statistics().subscriptions) == (0, 0)


async def test_a_user_has_only_so_many_streams() -> None:
    """They count with all other connections of the user."""
    async with serving(auth=_auth(), max_connections_per_user=1) as broker:
        await streaming(broker, "/v1/topics/a.b/stream?token=fw_reader")
        answer = await (await http(broker)).get("/v1/topics/a.b/stream?token=fw_reader")

        assert (answer.status, answer.code) == (503, "too_many")
        assert int(answer.headers["retry-after"]) >= 0
        assert broker.statistics().limited["max_connections_per_user"] == 1


async def test_behind_a_proxy_a_stream_counts_where_its_client_is() -> None:
    """By X-Forwarded-For of a trusted proxy; and no longer than it lasts."""
    settings = Config(port=0, trusted_proxies=("127.0.0.1",), max_connections_per_address=1)
    async with Broker(settings).serving() as broker:
        assert broker.port is not None

        async def asked(target: str = "/v1/topics/a/stream") -> HttpClient:
            client = HttpClient(await trio.open_tcp_stream("127.0.0.1", broker.port or 0))
            head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"
            await client.send(head.encode())
            return client

        first = await asked()
        assert (await first.answer(to_head=True)).status == 200
        assert [each.remote for each in broker._hub.sessions] == ["192.0.2.7"]
        second = await asked()
        assert (await second.answer()).code == "rate_limited"
        await first.stream.aclose()
        await second.stream.aclose()
        with trio.fail_after(5):
            while broker.connections():  # noqa: ASYNC110  (the kernel tells)
                await trio.sleep(0.01)
        third = await asked()
        assert (await third.answer(to_head=True)).status == 200
        await third.stream.aclose()


async def test_a_drain_ends_streams_with_a_goodbye(autojump_clock: MockClock) -> None:
    """After what waited for them; EventSource comes back when it is told to."""
    async with serving(drain_spread_s=5) as broker:
        client = await streaming(broker, "/v1/topics/a/stream")
        await client.expect("subscribed")
        broker.publish("a", b"x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.drain)
            await client.expect("message")
            [goodbye] = await client.ended()

        assert (goodbye.kind, goodbye.data["code"]) == ("goodbye", "shutting_down")
        assert goodbye.retry is not None
        assert goodbye.retry <= 5000


async def test_over_tcp_a_stream_lasts_beyond_every_deadline_and_ends_with_its_client() -> None:
    """Real sockets; the broker notices who hangs up."""
    async with Broker(Config(port=0, http_request_timeout_s=0.2, http_idle_timeout_s=0.2)).serving() as broker:
        assert broker.port is not None
        stream = await trio.open_tcp_stream("127.0.0.1", broker.port)
        client = await SseClient(HttpClient(stream)).open("/v1/topics/a/stream")
        await client.expect("subscribed")
        await trio.sleep(0.5)
        broker.publish("a", b"x" * 1_000_000)
        assert len((await client.expect("message")).data["payload"]["$bin"]) > 1_000_000
        assert all(each.remote.startswith("127.0.0.1:") for each in broker._hub.sessions)
        await stream.aclose()
        with trio.fail_after(5):
            while broker.connections():  # noqa: ASYNC110  (the kernel tells)
                await trio.sleep(0.01)
