"""How a broker sends its clients away: not ready at once, the port closed after a delay, groups over a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker, Config, TopicRule
from fanwire.broker.operations.drain import GROUP
from fanwire.protocol import Message, PresenceEvent, Welcome

from .cli_programs import DEADLINE_S
from .cli_programs import serving as serving_program
from .http_client import http
from .raw import RawClient, connected, serving, subscribed


async def test_clients_are_sent_away_in_small_groups(autojump_clock: MockClock) -> None:
    """Spread over the whole time, no more than a group at once; and by its end all of them may be back."""
    async with trio.open_nursery() as nursery:
        broker = Broker(Config(listen=False, drain_spread_s=10.0, ping_interval_s=None))
        await nursery.start(broker.serve)
        clients = [await connected(broker) for _ in range(4 * GROUP - 10)]
        began, left, back = trio.current_time(), [], []

        async def leave(client: RawClient) -> None:
            ended = await client.ended()
            left.append(trio.current_time() - began)
            back.append(left[-1] + ended.goodbye.retry_after_ms / 1000)
            assert (ended.code, ended.goodbye.code) == (1001, "shutting_down")

        for client in clients:
            nursery.start_soon(leave, client)
        await broker.drain()

    share = 10 / len(clients)
    moments, sizes = zip(*sorted(Counter(left).items()), strict=True)
    assert sizes == (GROUP, GROUP, GROUP, GROUP - 10)
    assert moments == pytest.approx([share * GROUP * number for number in range(4)])
    assert all(moment <= 10 for moment in back)
    assert len(set(back)) > GROUP


async def test_before_it_sends_anybody_away_a_broker_says_that_it_is_not_ready(autojump_clock: MockClock) -> None:
    """During the delay clients come in and get messages as before; then the port is closed and all are sent away."""
    async with trio.open_nursery() as nursery:
        broker = Broker(Config(port=0, drain_delay_s=10.0, ping_interval_s=None))
        await nursery.start(broker.serve)
        early = await subscribed(broker, "a")
        began = trio.current_time()
        nursery.start_soon(broker.drain)
        await wait_all_tasks_blocked()
        probe = await http(broker)
        assert (await probe.get("/readyz")).status == 503

        await trio.sleep(9)
        assert broker.port is not None
        late = await RawClient(await trio.open_tcp_stream("127.0.0.1", broker.port)).open()
        await late.expect(Welcome)
        await late.publish("a", b"still")
        assert (await early.expect(Message)).payload == b"still"

        assert (await early.ended()).code == (await late.ended()).code == 1001
        assert trio.current_time() - began == pytest.approx(10)


async def test_a_delay_may_be_cut_short(autojump_clock: MockClock) -> None:
    """Who cancels the drain ends the broker, also before anybody was told."""
    async with trio.open_nursery() as nursery:
        broker = Broker(Config(listen=False, drain_delay_s=600.0, ping_interval_s=None))
        await nursery.start(broker.serve)
        client = await connected(broker)
        began = trio.current_time()
        with trio.move_on_after(2):
            await broker.drain()
    assert trio.current_time() - began == 2
    await client.stream.aclose()


async def test_who_is_sent_away_is_not_gone_for_those_who_stay(autojump_clock: MockClock) -> None:
    """A watcher that is among the last hears of nobody who left before it, however long that is ago."""
    rules = [TopicRule(pattern="rooms.>", presence=True)]
    async with serving(rules=rules, presence_grace_s=0.01, drain_spread_s=60.0) as broker:
        members = [await subscribed(broker, "rooms.a") for _ in range(2 * GROUP)]
        watcher = await connected(broker)
        await watcher.subscribe("$presence.rooms.>")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.drain)
            for member in members:
                nursery.start_soon(member.ended)
            began = trio.current_time()
            ended = await watcher.ended()

        assert trio.current_time() - began > 30
        assert not any(isinstance(envelope, PresenceEvent) for envelope in ended.envelopes)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait_for_the_delay(second: signal.Signals) -> None:
    """The status says which one it was."""
    with serving_program("--drain-delay", "600") as (broker, _url):
        broker.process.send_signal(signal.SIGTERM)
        broker.heard("event=draining", broker.stderr)
        status, _, _ = broker.signalled(second)

    assert status == 128 + second


def test_a_defect_ends_with_status_1_and_a_traceback() -> None:
    """Not with 0, and not with the status of bad settings: then a service manager starts it again."""
    code = (
        "import sys, fanwire.commandline as c, fanwire.broker.server.broker as s\n"
        "async def fail(self): raise RuntimeError('defect')\n"
        "s.Broker.watch_lag = fail\n"
        "sys.exit(c.run(['serve', '--port', '0']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )

    assert ended.returncode == 1
    assert "RuntimeError: defect" in ended.stderr


def test_the_health_check_of_the_container_asks_this_broker() -> None:
    """Healthy while it serves, and not when it is gone."""
    script = str(Path(__file__).parents[2] / "deploy" / "healthcheck.py")
    with serving_program() as (broker, url):
        command, environment = [sys.executable, script], {**os.environ, "FANWIRE_PORT": url[:-1].split(":")[2]}
        before = subprocess.run(command, env=environment, timeout=DEADLINE_S, check=False).returncode
        broker.signalled(signal.SIGTERM)
        after = subprocess.run(command, env=environment, timeout=DEADLINE_S, check=False, stdout=subprocess.DEVNULL)

    assert (before, after.returncode) == (0, 1)
