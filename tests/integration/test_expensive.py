"""The most expensive things that a client may ask for leave the others their turn; measured in work, not in time.

Work is calls of functions, counted while the broker's tasks run; the clock of turns goes by these. So no step of any
of its tasks may take many more of them than a turn has, whatever the machine. `tests.bench.bystander` runs the same
attacks on their full scale, with a clock.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker, Config
from fanwire.broker.delivery.outbox import THROWN
from fanwire.broker.http.endpoint_table import ENDPOINTS
from fanwire.broker.sessions.handlers import _HANDLERS
from fanwire.broker.timing import turn
from fanwire.protocol import Error, Ok, Ping, PublishOptions, SubscribeOptions, Welcome, encode
from tests.bench.expensive import ATTACKS, Attack, Envelope, config, packed, portions

from .raw import RawClient

# Calls in a turn, and how many of these one step may take: a turn that is over is noticed with the next look.
CALLS = 10_000
MOST = 3 * CALLS

SCALE = 60
_LAST = 2**40


def test_everything_that_can_be_asked_for_is_attacked() -> None:
    """Each request type, each option and each endpoint: who adds one says here what its most expensive use is."""
    kinds = {kind.__name__.upper(): kind for kind in _HANDLERS}
    options = {
        f"{name}.{field.name}"
        for name, kind in kinds.items()
        for field in attrs.fields(kind)
        if field.metadata.get("option")
    }
    options |= {f"SUBSCRIBE.{field.name}" for field in attrs.fields(SubscribeOptions)}
    options |= {f"PUBLISH.{field.name}" for field in attrs.fields(PublishOptions)}
    endpoints = {f"{each.method} {each.path}" for each in ENDPOINTS}

    assert set().union(*(attack.covered for attack in ATTACKS)) == kinds.keys() | options | endpoints


class Work(trio.abc.Instrument):
    """Counts calls while tasks of the broker run."""

    def __init__(self) -> None:
        self.calls = 0
        self.most = 0
        self.busiest = ""
        self._before = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name.startswith(("fanwire.", "trio_websocket.")):
            self._before = self.calls
            sys.setprofile(self._count)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        sys.setprofile(None)
        if task.name.startswith(("fanwire.", "trio_websocket.")) and self.calls - self._before > self.most:
            self.most, self.busiest = self.calls - self._before, task.name

    def _count(self, frame: FrameType, event: str, _argument: object) -> None:
        if event in ("call", "c_call"):
            self.calls += 1


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    """The clock of turns goes by it."""
    counted = Work()
    monkeypatch.setattr(turn, "clock", lambda: counted.calls / CALLS * turn.TURN_S)
    yield counted
    sys.setprofile(None)


async def _ready(broker: Broker, envelopes: list[Envelope]) -> RawClient:
    client = await RawClient(await broker.open_stream()).open()
    await client.expect(Welcome)
    for some in portions(envelopes):
        await client.send_frame(packed(some))
        answered = 0
        while answered < len(some):
            answered += isinstance(await client.next(), Ok | Error)
    return client


async def _until_answered(client: RawClient) -> None:
    """Read until the last request is answered, or the connection has ended."""
    while (frame := await client.frame()) is not None:
        if frame.payload.endswith(encode(Ok(_LAST))):
            return


async def _read_all(stream: trio.abc.Stream) -> None:
    while await stream.receive_some(65536):
        pass


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_no_step_takes_many_times_a_turn(attack: Attack, work: Work, autojump_clock: MockClock) -> None:
    """Of any of the broker's tasks, whatever one client has prepared and asks for."""
    quiet: dict[str, Any] = {"listen": False, "ping_interval_s": None}
    async with Broker(config(attack, **quiet)).serving() as broker:
        *_, client = [await _ready(broker, envelopes) for envelopes in attack.ready(SCALE)]
        hit = attack.hit(SCALE)
        trio.lowlevel.add_instrument(work)
        try:
            with trio.move_on_after(60):
                for some in portions(attack.deaf(SCALE), 1000):
                    await client.send_frame(packed(some))
                if isinstance(hit, bytes):
                    stream = await broker.open_stream()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_read_all, stream)
                        await stream.send_all(hit + b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                else:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_until_answered, client)
                        await client.send_frame(packed(hit))
                        await client.send_frame(encode(Ping(_LAST)))
            await client.stream.aclose()
            for _ in range(20):
                await trio.lowlevel.checkpoint()
        finally:
            trio.lowlevel.remove_instrument(work)

    assert work.calls > 0
    assert work.most <= MOST, f"{work.most} calls in one step of {work.busiest}"


@pytest.mark.parametrize("ends", [False, True])
async def test_after_the_answer_nothing_of_a_long_queue_comes(ends: bool, autojump_clock: MockClock) -> None:
    """Of the many that waited none, though they are thrown away later; and the broker is rid of them in any case."""
    quiet: dict[str, Any] = {"listen": False, "ping_interval_s": None, "stall_timeout_s": None, "max_age_s": None}
    async with Broker(Config(**quiet)).serving() as broker:
        client = await _ready(broker, [[2, 1, "s.>", {"queue": 100_000, "on_slow": "drop_newest"}]])
        publisher = await _ready(broker, [[4, n, f"s.{n % 2}", b"x" * 50] for n in range(1, 8 * THROWN)])
        [outbox] = [each.outbox for each in broker._hub.sessions if each.outbox.subscriptions]
        [subscription] = outbox.subscriptions.values()
        assert len(subscription.entries) > 2 * THROWN
        await client.send_frame(packed([[3, 2, subscription.route.number]]))
        await wait_all_tasks_blocked()
        assert not subscription.entries
        assert outbox.waiting_bytes == outbox.answer_bytes > 0
        if not ends:
            while not isinstance(await client.next(), Ok):
                pass
            await client.send_frame(packed([[7, 3]]))
            assert await client.next() == Ok(3)
        await client.stream.aclose()
        await publisher.stream.aclose()
        await wait_all_tasks_blocked()
        assert not broker._hub.sessions
