"""Wrong arguments of the public API: a ValueError or TypeError at the call that names the argument; nothing is sent."""

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fanwire.client import connect
from tests.unit.client.scripted_peer import ScriptedPeer, connected

HALF = "hi \ud83d"

NO_NUMBERS: list[object] = ["5", None, True, [], 5j, math.nan, -math.inf, 0, -1]
NO_COUNTS: list[object] = [*NO_NUMBERS, 1.5, math.inf]
NO_SECONDS: list[object] = [*NO_NUMBERS, 1e300]
NO_FLAGS: list[object] = [0, 1, "yes", []]
NO_TEXTS: list[object] = [5, b"t", [], {}, HALF]
NO_WORDS: list[object] = [5, "nonsense", [], True]

SETTINGS: dict[str, list[object]] = {
    "name": NO_TEXTS,
    "token": [5, "", "two words", HALF, b"t"],
    "ssl_context": [5, True],
    "open_stream": [5, "stream"],
    "connect_timeout_s": NO_SECONDS,
    "close_timeout_s": [*NO_SECONDS, math.inf],
    "ping_interval_s": NO_SECONDS,
    "ping_timeout_s": NO_SECONDS,
    "reconnect": [*NO_FLAGS, None],
    "reconnect_base_s": [*NO_SECONDS, math.inf],
    "reconnect_most_s": [*NO_SECONDS, math.inf],
    "stable_after_s": NO_SECONDS,
    "on_outage": [*NO_WORDS, None],
    "outgoing_messages": NO_COUNTS,
    "outgoing_bytes": NO_COUNTS,
    "max_message_bytes": NO_COUNTS,
    "draw": [5, None],
    "tokn": ["abc"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in SETTINGS.items() for value in values])
def test_settings(name: str, value: Any) -> None:
    """Each setting of `connect` is checked when it is called, not when it is entered."""
    with pytest.raises((ValueError, TypeError), match=name):
        connect("ws://peer/", **{name: value})


@pytest.mark.parametrize(
    "url", [5, None, b"ws://x/", "", "http://x/", "ws://", "ws://x:99999/", "ws://a b/", "ws://x/#y"]
)
def test_urls(url: Any) -> None:
    """So is the URL."""
    with pytest.raises((ValueError, TypeError)):
        connect(url)


SUBSCRIBING: dict[str, list[object]] = {
    "queue": [value for value in NO_COUNTS if value is not None],
    "on_slow": NO_WORDS,
    "max_rate": ["5", True, [], math.nan, math.inf, -math.inf, 0, -1],
    "group": [5, "", [], HALF],
    "echo": [*NO_FLAGS, None],
    "snapshot": [*NO_FLAGS, None],
    "replay": [5, "all", {}, {"last": 1, "since": 1}, {"offset": 1}, {"lst": 1}],
    "recover": [*NO_FLAGS, None],
    "on_slow_reconnect": NO_WORDS,
    "buffer": NO_COUNTS,
    "buffer_bytes": NO_COUNTS,
    "on_full": NO_WORDS,
    "report_loss": [*NO_FLAGS, None],
    "heartbeat": ["5", True, [], math.nan, math.inf, -math.inf, 0, -1],
    "on_stale": [*NO_WORDS, "raise"],
    "quue": [5],
}
PUBLISHING: dict[str, list[object]] = {
    "topic": [*NO_TEXTS, "", "a..b", "a.*", "a b", "x" * 256],
    "data": [object(), {1, 2}, 2**64, {"a": HALF}, [dict.fromkeys(range(5000))]],
    "raw": ["yes", 1],
    "headers": [5, {"a": 1}, {1: "a"}, {"a": HALF}, {HALF: "a"}, "ab"],
    "key": [5, "", HALF],
    "retain": [1, "yes"],
}


def _publish(publish: Callable[..., Any], name: str, value: object) -> Any:
    return publish(**{"topic": "t", "data": 1, name: value})


def _naming(call: Callable[..., Any], option: str, *first: object) -> Callable[[object], Any]:
    return lambda value: call(*first, **{option: value})


Use = tuple[str, object, Callable[[], Any]]


def _uses(client: Any) -> list[Use]:
    """An argument's name, a wrong value, and a call with it."""
    uses: list[Use] = []

    def add(call: Callable[[Any], Any], name: str, values: list[object]) -> None:
        uses.extend((name, value, partial(call, value)) for value in values)

    for name, values in SUBSCRIBING.items():
        option = "heartbeat_s" if name == "heartbeat" else name
        add(_naming(client.subscribe, option, "t"), name, values)
        add(_naming(client.serve, option, "t"), name, values)
    for name, values in PUBLISHING.items():
        add(partial(_publish, client.publish, name), name, values)
        add(partial(_publish, client.publish_nowait, name), name, values)
        if name not in ("key", "retain"):
            add(partial(_publish, client.request, name), name, values)
    add(_naming(client.publish, "msg_id", "t", 1), "msg_id", [5, "", HALF])
    add(_naming(client.publish, "expect", "t", 1), "expect", [-1, 1.5, "1", True, 2**64])
    add(_naming(client.request, "timeout_s", "t", 1), "timeout_s", NO_SECONDS)
    add(_naming(client.request_many, "most", "t", 1), "most", [value for value in NO_COUNTS if value is not None])
    add(client.subscribe("t").batches, "most", NO_COUNTS)
    add(client.pipeline, "window", NO_COUNTS)
    for take_pattern in (client.subscribe, client.demand, client.presence, client.watch_presence):
        add(take_pattern, "pattern", [*NO_TEXTS, "", "a..b", "a.>.b", "a*"])
    for take_topic in (client.history, client.last):
        add(take_topic, "topic", [5, "", "a.*", HALF])
    for option, wrong in {"last": [0, -1, 1.5, "1"], "since": [-1, 1.5, "now"], "offset": [-1, "1", 0.5]}.items():
        add(_naming(client.history, option, "t"), option, list[object](wrong))
    add(_naming(client.history, "report_loss", "t"), "report_loss", NO_FLAGS)
    uses.append(("since", 5, partial(client.history, "t", last=1, since=5)))
    together: list[tuple[str, dict[str, Any]]] = [
        ("snapshot", {"group": "g", "snapshot": True}),
        ("replay", {"group": "g", "replay": {"last": 1}}),
        ("heartbeat", {"group": "g", "heartbeat_s": 5}),
        ("heartbeat", {"echo": False, "heartbeat_s": 5}),
    ]
    uses.extend((name, given, partial(client.subscribe, "t", **given)) for name, given in together)
    return uses


async def test_every_method(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Every argument of every method, and options that cannot be had together."""
    async with connected(peer) as (client, _):
        client._link.welcome = {**client.welcome, "inbox": "$inbox.x"}
        wrong = []
        for name, value, use in _uses(client):
            try:
                result = use()
                with trio.fail_after(1):
                    wrong.append((name, value, await result if isinstance(result, Awaitable) else result))
            except (ValueError, TypeError) as error:
                if name not in str(error):
                    wrong.append((name, value, error))
            except Exception as error:
                wrong.append((name, value, error))

        assert not wrong, "\n".join(map(repr, wrong))
        assert client._outgoing.accepted == 0


async def test_inside_a_pipeline_and_a_request(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Those of a pipeline are raised by the publish itself."""
    async with connected(peer) as (client, _), client.pipeline() as pipe:
        for name, values in PUBLISHING.items():
            for value in values:
                with pytest.raises((ValueError, TypeError), match=name):
                    await _publish(pipe.publish, name, value)
