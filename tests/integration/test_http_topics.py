"""Topics over HTTP: what is published reaches subscribers, what is remembered can be read, under the same rules."""

import base64
import json
from typing import Any

import pytest
import trio

from fanwire.broker import Broker, TopicRule
from fanwire.protocol import Encoding, Message, pack

from .http_client import HttpClient, http, serving
from .raw import connected, subscribed

RULES = (TopicRule(pattern="kept.>", history=10), TopicRule(pattern="rooms.>", retain=True))
JSON = "Content-Type: application/json"


async def _posted(client: HttpClient, topic: str, body: bytes, *headers: str) -> Any:
    answer = await client.ask("POST", f"/v1/publish/{topic}", *headers, body=body)
    assert answer.status == 200, answer
    return answer.json


@pytest.mark.parametrize(
    ("media", "encoding"),
    [
        ("application/json", Encoding.JSON),
        ("application/json; charset=utf-8", Encoding.JSON),
        ("text/plain", Encoding.TEXT),
        ("application/msgpack", Encoding.MSGPACK),
        ("application/octet-stream", Encoding.RAW),
        (None, Encoding.RAW),
    ],
)
async def test_the_body_is_the_payload(media: str | None, encoding: Encoding) -> None:
    """Byte for byte; its media type says what it is."""
    async with serving(rules=RULES) as broker:
        subscriber, client = await subscribed(broker, "a.*"), await http(broker)

        answer = await _posted(client, "a.b", b"\x00\xff", *([f"Content-Type: {media}"] if media else []))
        message = await subscriber.expect(Message)

        assert answer == {"topic": "a.b", "epoch": answer["epoch"], "offset": 0, "subscribers": 1, "lagging": 0}
        assert (message.topic, message.payload, message.encoding) == ("a.b", b"\x00\xff", encoding)


async def test_options_are_those_of_publish() -> None:
    """key, retain, msg_id, expect, reply_to."""
    async with serving(rules=RULES) as broker:
        subscriber, client = await subscribed(broker, "kept.a"), await http(broker)
        assert (await _posted(client, "kept.a?key=k&msg_id=1&reply_to=kept.b&expect=0", b"x"))["offset"] == 1
        again = await _posted(client, "kept.a?msg_id=1", b"x")
        wrong = await client.ask("POST", "/v1/publish/kept.a?expect=7", body=b"x")
        message = await subscriber.expect(Message)

        assert (again["offset"], again["repeated"]) == (1, True)
        assert (wrong.status, wrong.code, wrong.json["error"]["detail"]) == (409, "conflict", {"offset": 1})
        assert (message.meta["key"], message.meta["reply_to"]) == ("k", "kept.b")


async def test_a_value_asked_to_be_retained_is_the_last_one() -> None:
    """Until an empty one deletes it."""
    async with serving() as broker:
        client = await http(broker)
        await _posted(client, "x?retain=true", b'{"a": [1, null]}', JSON)
        kept = await client.get("/v1/topics/x/last")
        await _posted(client, "x?retain=true", b"")
        gone = await client.get("/v1/topics/x/last")

        assert kept.json["payload"] == {"a": [1, None]}
        assert (kept.json["encoding"], kept.json["topic"]) == ("json", "x")
        assert (gone.status, gone.code) == (404, "not_kept")


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/v1/publish/a..b", 400, "bad_topic"),
        ("/v1/publish/a.*", 400, "bad_topic"),
        ("/v1/publish/", 400, "bad_topic"),
        ("/v1/publish/..%2f..%2fetc%2fpasswd", 400, "bad_topic"),
        ("/v1/publish/a%0d%0aX-Injected:%201", 400, "bad_topic"),
        ("/v1/publish/" + "a" * 256, 400, "bad_topic"),
        ("/v1/publish/%24sys.stats", 403, "forbidden"),
        ("/v1/publish/%24presence.x", 403, "forbidden"),
        ("/v1/publish/a?retian=true", 400, "bad_option"),
        ("/v1/publish/a?retain=maybe", 400, "bad_option"),
        ("/v1/publish/a?key=1&key=2", 400, "bad_option"),
        ("/v1/publish/a?key=", 400, "bad_option"),
        ("/v1/publish/a?reply_to=*", 400, "bad_option"),
        ("/v1/publish/a?msg_id=1", 404, "not_kept"),
        ("/v1/publish/a?reply_to=b", 404, "no_responders"),
        ("/v1/publish/rooms.a?retain=false", 400, "bad_option"),
        ("/v1/publish/a?" + "&".join(f"x{n}=1" for n in range(101)), 400, "malformed"),
    ],
)
async def test_publishes_that_are_refused(target: str, status: int, code: str) -> None:
    """As PUBLISH would be; and the connection goes on."""
    async with serving(rules=RULES) as broker:
        client = await http(broker)

        answer = await client.ask("POST", target, body=b"x")

        assert (answer.status, answer.code) == (status, code)
        assert broker.statistics().published == 0
        assert code == "malformed" or (await client.get("/healthz")).status == 200


@pytest.mark.parametrize("media", ["application/x-www-form-urlencoded", "image/png", "text/plain; charset=latin-1"])
async def test_media_types_that_are_not_known(media: str) -> None:
    """`curl -d` alone says the first: nobody means a form here."""
    async with serving() as broker:
        client = await http(broker)

        answer = await client.ask("POST", "/v1/publish/a", f"Content-Type: {media}", body=b"x")
        packed = await client.ask("POST", "/v1/publish/a", "Content-Encoding: gzip", body=b"x")

        assert (answer.status, answer.code) == (packed.status, packed.code) == (415, "bad_media_type")


async def test_too_many_topics_may_not_remember() -> None:
    """As PUBLISH says, too."""
    async with serving(max_stored_topics=1) as broker:
        client = await http(broker)
        await _posted(client, "a?retain=true", b"x")

        answer = await client.ask("POST", "/v1/publish/b?retain=true", body=b"x")

        assert (answer.status, answer.code) == (429, "too_many")


async def test_a_publisher_waits_where_the_operator_says_so(autojump_clock: trio.testing.MockClock) -> None:
    """For those who lag, as long as the rule says."""
    rules = (TopicRule(pattern="slow", publisher_wait_s=3),)
    async with serving(rules=rules, queue=4, queue_grace_s=None) as broker:
        await subscribed(broker, "slow", on_slow="drop_oldest")
        client = await http(broker)
        for _ in range(8):
            await _posted(client, "slow", b"x" * 60_000)
        began = trio.current_time()
        answer = await _posted(client, "slow", b"x")

        assert answer["lagging"] == 1
        assert trio.current_time() - began == pytest.approx(3, abs=0.5)


async def test_a_batch_is_published_in_order() -> None:
    """To many topics; each is answered by itself."""
    async with serving(rules=RULES) as broker:
        subscriber, client = await subscribed(broker, ">"), await http(broker)
        batch = [
            {"topic": "kept.a", "payload": {"n": 1}},
            {"topic": "kept.a", "payload": "two", "encoding": "text", "key": "k", "headers": {"h": "v"}},
            {"topic": "b", "payload": {"$bin": base64.b64encode(b"\xff").decode()}},
            {"topic": "c", "payload": [1], "encoding": "msgpack"},
        ]

        answer = await client.ask("POST", "/v1/publish", JSON, body=json.dumps(batch).encode())
        messages = [await subscriber.expect(Message) for _ in batch]

        assert answer.status == 200
        assert [result["offset"] for result in answer.json["results"]] == [1, 2, 0, 0]
        assert [message.payload for message in messages] == [b'{"n":1}', b"two", b"\xff", pack([1])]
        assert [message.encoding for message in messages] == [3, 2, 0, 1]
        assert messages[1].meta == {"headers": {"h": "v"}, "key": "k"}


async def test_of_a_batch_some_can_fail() -> None:
    """The others are published; the status says that not all are."""
    async with serving(rules=RULES) as broker:
        client = await http(broker)
        items: list[Any] = [
            {"topic": "a", "payload": 1},
            {"topic": "*", "payload": 1},
            {"topic": 5, "payload": 1},
            {"topic": "a"},
            "a",
            {"topic": "a", "payload": 1, "retian": True},
            {"topic": "a", "payload": 1, "expect": "x"},
            {"topic": "a", "payload": 1, "encoding": ["json"]},
            {"topic": "$sys.a", "payload": 1},
            {"topic": "a", "payload": "x" * 2000},
        ]
        lines = b"\n".join(json.dumps(item).encode() for item in items) + b"\n\n"

        answer = await client.ask("POST", "/v1/publish", "Content-Type: application/x-ndjson", body=lines)

        assert answer.status == 207
        assert (answer.json["published"], answer.json["failed"]) == (2, 8)
        assert [each.get("error", {}).get("code") for each in answer.json["results"]] == [
            None, "bad_topic", "bad_envelope", "bad_envelope", "bad_envelope", "bad_option", "bad_option", "bad_option",
            "forbidden", None,
        ]  # fmt: skip
        assert broker.statistics().published == 2


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed"),
        (b"{", 400, "malformed"),
        (b"\xff", 400, "malformed"),
        (b"[NaN]", 400, "malformed"),
        (b"[" * 60_000, 400, "malformed"),
        (b"9" * 60_000, 400, "malformed"),
        (b"{}", 400, "bad_envelope"),
        (b"[" + b"0," * 1000 + b"0]", 413, "too_many"),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_what_is_no_batch(body: bytes, status: int, code: str) -> None:
    """Nothing of it is published."""
    async with serving() as broker:
        answer = await (await http(broker)).ask("POST", "/v1/publish", JSON, body=body)

        assert (answer.status, answer.code) == (status, code)


async def _filled(broker: Broker) -> HttpClient:
    client = await http(broker)
    for number in range(1, 6):
        await _posted(client, "kept.a", b"%d" % number, JSON)
    return client


@pytest.mark.parametrize(
    ("query", "numbers", "more"),
    [
        ("", [1, 2, 3, 4, 5], False),
        ("?last=2", [4, 5], False),
        ("?from=3", [3, 4, 5], False),
        ("?from=2&limit=2", [2, 3], True),
        ("?from=99", [], False),
        ("?since=0", [1, 2, 3, 4, 5], False),
        ("?since=9000000000000000", [], False),
    ],
)
async def test_history_by_page(query: str, numbers: list[int], more: bool) -> None:
    """From where one wants it."""
    async with serving(rules=RULES) as broker:
        page = (await (await _filled(broker)).get(f"/v1/topics/kept.a/history{query}")).json

        assert [message["payload"] for message in page["messages"]] == numbers
        assert [message["offset"] for message in page["messages"]] == numbers
        assert (page["more"], page["head"], page["topic"]) == (more, 5, "kept.a")


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/v1/topics/none/history", 404, "not_kept"),
        ("/v1/topics/none/last", 404, "not_kept"),
        ("/v1/topics/..%2f/last", 400, "bad_topic"),
        ("/v1/topics/a.>/last", 400, "bad_topic"),
        ("/v1/topics/kept.a/history?from=0", 400, "bad_option"),
        ("/v1/topics/kept.a/history?limit=1001", 400, "bad_option"),
        ("/v1/topics/kept.a/history?from=1&last=1", 400, "bad_option"),
        ("/v1/topics/kept.a/history?form=1", 400, "bad_option"),
    ],
)
async def test_reads_that_are_refused(target: str, status: int, code: str) -> None:
    """In the words of FETCH."""
    async with serving(rules=RULES) as broker:
        answer = await (await _filled(broker)).get(target)

        assert (answer.status, answer.code) == (status, code)


async def test_the_last_value_of_a_topic_with_history_is_its_newest_message() -> None:
    """Where nothing else is retained."""
    async with serving(rules=RULES) as broker:
        assert (await (await _filled(broker)).get("/v1/topics/kept.a/last")).json["payload"] == 5


async def test_names_are_percent_encoded_where_they_have_to_be() -> None:
    """Slashes, percent signs, and anything that is not ASCII."""
    async with serving() as broker:
        subscriber, client = await subscribed(broker, ">"), await http(broker)
        await _posted(client, "a%2Fb%25.%C3%A9", b"x")

        assert (await subscriber.expect(Message)).topic == "a/b%.é"


async def test_what_a_websocket_publishes_can_be_read() -> None:
    """With all that came with it."""
    async with serving(rules=RULES) as broker:
        await (await connected(broker)).publish("rooms.a", b"\xff")
        await trio.testing.wait_all_tasks_blocked()

        assert (await (await http(broker)).get("/v1/topics/rooms.a/last")).json["payload"] == {"$bin": "/w=="}


async def test_while_it_drains_nothing_is_published() -> None:
    """The publisher may go to the next broker."""
    async with serving() as broker:
        client = await http(broker)
        await client.send(b"POST /v1/publish/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.drain)
            await trio.testing.wait_all_tasks_blocked()
            await client.send(b"x")

            answer = await client.answer()

            assert (answer.status, answer.code) == (503, "shutting_down")
            await client.stream.aclose()
