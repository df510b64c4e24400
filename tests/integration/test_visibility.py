"""What an operator can see: $sys topics, statistics, connections, the last ones closed, one line in the log."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import msgpack
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import TopicRule
from fanwire.broker.operations.reports import MOST_LISTED
from fanwire.broker.telemetry import closed, text
from fanwire.protocol import MAX_BATCH, Encoding, Hello, Message, Unsubscribe
from tests.integration.raw import CAPACITY, RawClient, connected, serving, subscribed


async def _report(client: RawClient) -> dict[str, Any]:
    message = await client.expect(Message)
    assert message.encoding == Encoding.MSGPACK
    report = msgpack.unpackb(message.payload)
    assert isinstance(report, dict)
    return report


async def _make_slow(client: RawClient, publisher: RawClient, messages: int) -> None:
    """Fill its stream, then let so many wait for its subscription to "a"."""
    await client.subscribe("plug")
    for payload in (b"p" * (CAPACITY - 30), b"h" * 1000):
        await publisher.publish("plug", payload)
        await wait_all_tasks_blocked()
    for number in range(messages):
        await publisher.publish("a", b"%d" % number)
        await wait_all_tasks_blocked()


async def test_an_episode_is_told_once_when_it_begins_and_once_when_it_ends(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log, two events; what was lost in between is told with the second."""
    async with serving() as broker:
        operator, slow, publisher = (
            await subscribed(broker, "$sys.slow"),
            await connected(broker),
            await connected(broker),
        )
        await slow.send(Hello(0, name="laptop"))
        route = await slow.subscribe("a", queue=4, on_slow="drop_oldest")
        with caplog.at_level(logging.INFO, "fanwire.broker"):
            await _make_slow(slow, publisher, 10)
            begun = await _report(operator)
            await trio.sleep(3)
            while broker.statistics().lagging:
                await slow.next()
                await wait_all_tasks_blocked()
            ended = await _report(operator)

        about = {"name": "laptop", "route": route, "pattern": "a", "on_slow": "drop_oldest", "limit": 4}
        assert {"event": "lagging", "queued": 4, "lost": 0, **about}.items() <= begun.items()
        assert {"event": "recovered", "lost": 6, "replaced": 0, "lasted_ms": 3000, **about}.items() <= ended.items()
        lines = [record for record in caplog.records if "lagging" in record.getMessage()]
        assert len(lines) == 1
        statistics = broker.statistics()
        assert (statistics.slow_episodes, statistics.lagging, statistics.lost) == (1, 0, {"drop_oldest": 6})
        assert sum(statistics.queue_depths.values()) == 1
        assert statistics.queue_depths["10"] == 1


@pytest.mark.parametrize(("on_slow", "event"), [("disconnect", "disconnected"), ("unsubscribe", "unsubscribed")])
async def test_an_end_is_told_with_its_measure(on_slow: str, event: str, autojump_clock: MockClock) -> None:
    """Event, counters, and for a connection its place among those closed last."""
    async with serving() as broker:
        operator, slow, publisher = await subscribed(broker, "$sys.>"), await connected(broker), await connected(broker)
        await slow.send(Hello(0, name="laptop"))
        await slow.subscribe("a", queue=3, on_slow=on_slow)
        await _make_slow(slow, publisher, 4)
        reports: list[dict[str, Any]] = []
        while not reports or reports[-1].get("event") != event:
            reports.append(await _report(operator))

        assert reports[-1]["measure"] == "queue"
        assert (reports[-1]["queued"], reports[-1]["limit"], reports[-1]["name"]) == (3, 3, "laptop")
        statistics = broker.statistics()
        if on_slow == "unsubscribe":
            assert (statistics.slow_unsubscribed, statistics.slow_by_measure) == (1, {})
        else:
            assert (statistics.slow_unsubscribed, statistics.slow_by_measure) == (0, {"queue": 1})
            await slow.ended()
            await wait_all_tasks_blocked()
            [last] = broker.closed_connections()
            assert (last.name, last.code, last.facts["measure"], last.facts["queued"]) == ("laptop", 4008, "queue", 3)


async def test_a_slow_listener_to_slowness_does_no_harm(autojump_clock: MockClock) -> None:
    """Who listens to $sys.slow and does not read is slow like anybody else: told once, and the rest goes on."""
    async with serving() as broker:
        operator, publisher = await connected(broker), await connected(broker)
        await operator.subscribe("$sys.slow", queue=2, on_slow="drop_oldest")
        await operator.subscribe("a", queue=2, on_slow="drop_oldest")
        await _make_slow(operator, publisher, 20)

        assert broker.statistics().slow_episodes <= 2
        assert await publisher.subscribe("b") > 0


async def test_reports_come_at_once_and_then_by_the_clock(autojump_clock: MockClock) -> None:
    """While somebody listens; when nobody does no clock runs."""
    async with serving(report_interval_s=2.0) as broker:
        client = await connected(broker)
        began = trio.current_time()
        route = await client.subscribe("$sys.stats")
        first, second = await _report(client), await _report(client)
        assert trio.current_time() - began == pytest.approx(2.0)
        await client.unsubscribe(route)
        sweeps = broker._hub.fanout.sweeps
        await trio.sleep(10)

        assert second["uptime_s"] - first["uptime_s"] == pytest.approx(2.0)
        assert first["connections"] == 1
        assert first["interval_s"] == 2.0
        assert broker._hub.fanout.sweeps == sweeps


async def test_who_begins_to_look_disturbs_nobodys_rates(autojump_clock: MockClock) -> None:
    """All get each report, so none comes within half a second of the one before; a newcomer waits no longer."""
    async with serving(report_interval_s=2.0) as broker:
        client = await subscribed(broker, "$sys.stats")
        uptimes = [(await _report(client))["uptime_s"]]
        newcomers = []
        for pause in (0.001, 0.2, 0.9, 0.0, 3.0, 0.001):
            await trio.sleep(pause)
            newcomers.append((trio.current_time(), await subscribed(broker, "$sys.stats")))
        for came, newcomer in newcomers:
            report = await _report(newcomer)
            assert report["uptime_s"] - (came - broker._hub.began) <= 0.501
        while uptimes[-1] < 8:
            uptimes.append((await _report(client))["uptime_s"])

        gaps = [later - earlier for earlier, later in pairwise(uptimes)]
        assert min(gaps) >= 0.499
        assert max(gaps) <= 2.001


async def test_a_report_without_an_interval_comes_to_each_newcomer(autojump_clock: MockClock) -> None:
    """Once, and not sooner than half a second after the last one."""
    async with serving(report_interval_s=None) as broker:
        began = trio.current_time()
        first = await subscribed(broker, "$sys.stats")
        second = await subscribed(broker, "$sys.stats")
        reports = [await _report(first), await _report(second), await _report(first)]
        sweeps = broker._hub.fanout.sweeps
        await trio.sleep(100)

        assert [each["uptime_s"] for each in reports] == [0.0, 0.5, 0.5]
        assert trio.current_time() - began == pytest.approx(100.5)
        assert broker._hub.fanout.sweeps == sweeps


async def test_what_the_broker_says_itself_is_no_traffic(autojump_clock: MockClock) -> None:
    """An idle broker that is looked at has published and delivered nothing."""
    async with serving() as broker:
        looking = [await subscribed(broker, "$sys.>") for _ in range(3)]
        await connected(broker)
        told = [await _report(looking[0]) for _ in range(7)]

        assert {(each["published"], each["delivered"]) for each in told if "published" in each} == {(0, 0)}
        assert (broker.statistics().published, broker.statistics().delivered) == (0, 0)


async def test_connections_are_listed_with_what_is_behind_first(autojump_clock: MockClock) -> None:
    """Who lags, then who has most waiting; closed ones beside them."""
    async with serving() as broker:
        publisher, slow, gone = await connected(broker), await connected(broker), await connected(broker)
        await gone.close()
        await slow.send(Hello(0, name="laptop", agent="x" * 5000))
        await slow.subscribe("a", queue=4, on_slow="drop_newest")
        await _make_slow(slow, publisher, 6)
        operator = await subscribed(broker, "$sys.connections")
        report = await _report(operator)

        first = report["connections"][0]
        assert (report["total"], report["lagging"], len(report["connections"])) == (3, 1, 3)
        assert (first["name"], first["lagging"], first["queued"], first["lost"]) == ("laptop", True, 4, 2)
        assert first["patterns"] == ["a", "plug"]
        assert len(first["agent"]) == text.SHOWN
        assert [each["code"] for each in report["closed"]] == [1000]
        assert [each.name for each in broker.connections() if each.lagging] == ["laptop"]


async def test_a_report_is_bounded(autojump_clock: MockClock) -> None:
    """However many clients there are, and whatever they call themselves: one message, under 64 KiB."""
    async with serving() as broker:
        for number in range(MOST_LISTED + 50):
            client = await connected(broker)
            await client.send(Hello(0, name=f"{number} " + "ü" * 200, agent="ü" * 200))
            for pattern in range(4):
                await client.subscribe(f"{'t' * 100}.{pattern}.>")
        operator = await subscribed(broker, "$sys.connections")
        message = await operator.expect(Message)
        report = msgpack.unpackb(message.payload)

        assert isinstance(report, dict)
        assert (report["total"], len(report["connections"])) == (MOST_LISTED + 51, MOST_LISTED)
        assert len(message.payload) < MAX_BATCH


async def test_only_the_last_closed_ones_are_kept(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring: the newest first."""
    monkeypatch.setattr(closed, "KEPT", 3)
    async with serving() as broker:
        for number in range(5):
            client = await connected(broker)
            await client.send(Hello(0, name=str(number)))
            await client.close()
            await wait_all_tasks_blocked()

        assert [each.name for each in broker.closed_connections()] == ["4", "3", "2"]
        assert all(each.code == 1000 for each in broker.closed_connections())


async def test_nothing_is_reported_to_who_has_left(autojump_clock: MockClock) -> None:
    """Unsubscribing from a report under way does no harm."""
    async with serving(report_interval_s=0.5) as broker:
        client = await connected(broker)
        for _ in range(10):
            route = await client.subscribe("$sys.*")
            await client.send(Unsubscribe(77, route))
            while not (isinstance(answer := await client.next(), object) and getattr(answer, "id", 0) == 77):
                pass

        assert (broker.statistics().connections, broker.statistics().subscriptions) == (1, 0)


async def test_patterns_of_other_systems_are_told_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """A rule for stocks/# would hold for nothing that is published on stocks.AAPL."""
    rules = (TopicRule(pattern="stocks.>", max_rate=1.0), TopicRule(pattern="stocks/#", max_rate=1.0))
    async with serving(rules=rules):
        told = [record for record in caplog.records if record.getMessage() == "pattern of another system"]

    assert [vars(record)["setting"] for record in told] == ["rules[1]"]
    assert "did you mean 'stocks.>'?" in vars(told[0])["hint"]
