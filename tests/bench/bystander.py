"""What the most expensive things that one client may ask for cost a bystander: time, and the broker's memory.

python -m tests.bench.bystander [--only TEXT] [--scale 1000] [--json]

For each attack of `expensive` a broker of its own. Another client pings it all the time; what its slowest ping took
beyond the slowest one before the attack is what the attack cost it. On a machine that does other things, too, judge by
the longest step: the processor time that one task of the broker took until it let others have their turn.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from fanwire.broker import Broker
from fanwire.broker.cli.process import tune
from fanwire.protocol import Error, Ok, Ping, Welcome, encode
from fanwire.protocol.frames import masked_frame
from tests.bench.expensive import ATTACKS, Attack, config, packed, portions
from tests.integration.raw import KEY, RawClient

_LAST = 2**40
_LAST_HTTP = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
_PATIENCE_S = 60.0
AIM_MS = 20.0
# As docs/operations.md has it: 64 MiB that wait for a connection, a quarter more where messages are tiny; a sweep.
AIM_MIB = 64.0 * 1.25 + 4.0


@attrs.frozen
class Cost:
    """Of one attack."""

    attack: str
    ping_ms: float
    """The bystander's slowest ping, beyond the slowest one before."""
    step_ms: float
    """Processor time of the longest step of a task of the broker."""
    rss_mib: float
    """What the broker's memory grew by, at its highest."""
    took_s: float


# ------------------------------------------------------------------------------------- the broker


class LongestStep(trio.abc.Instrument):
    """Processor time of the longest step of any task since it was last asked for."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._before = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._before = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.longest = max(self.longest, time.thread_time() - self._before)


async def serve(attack: Attack) -> None:
    """A broker; says where it listens, and with each line that it reads how long its longest step was."""
    steps = LongestStep()
    async with Broker(config(attack, port=0)).serving() as broker:
        print(broker.port, flush=True)
        trio.lowlevel.add_instrument(steps)
        with trio.open_signal_receiver(signal.SIGUSR1) as asked:
            async for _ in asked:
                print(steps.longest * 1000, flush=True)
                steps.longest = 0.0


@contextmanager
def serving(name: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A broker in a process of its own, and its port."""
    command = [sys.executable, "-m", "tests.bench.bystander", "--serve", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def longest_step_ms(process: subprocess.Popen[str]) -> float:
    """Since it was last asked for."""
    process.send_signal(signal.SIGUSR1)
    assert process.stdout is not None
    return float(process.stdout.readline())


def rss_mib(process: subprocess.Popen[str]) -> float:
    """Now."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# ------------------------------------------------------------------------------------ the clients


class Bystander:
    """Pings, and keeps how long the slowest answer took."""

    def __init__(self, client: RawClient, process: subprocess.Popen[str]) -> None:
        self._client = client
        self._process = process
        self.slowest_s = self.rss_mib = 0.0

    async def run(self) -> None:
        number = 0
        while True:
            number += 1
            began = time.monotonic()
            await self._client.send(Ping(number))
            assert await self._client.expect(Ok) == Ok(number)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.rss_mib = max(self.rss_mib, rss_mib(self._process))
            await trio.sleep(0.002)


async def _connect(port: int) -> RawClient:
    client = await RawClient(await trio.open_tcp_stream("127.0.0.1", port)).open()
    await client.expect(Welcome)
    return client


async def _ready(port: int, envelopes: list[list[Any]]) -> RawClient:
    client = await _connect(port)
    for some in portions(envelopes):
        await client.send_frame(packed(some))
        answered = 0
        while answered < len(some):
            answered += isinstance(await client.next(), Ok | Error)
    return client


def _prepared(attack: Attack, scale: int) -> bytes:
    """What it sends, byte for byte: made before anybody looks at the clock."""
    hit = attack.hit(scale)
    if isinstance(hit, bytes):
        return hit + _LAST_HTTP
    return masked_frame(packed(hit), KEY) + masked_frame(encode(Ping(_LAST)), KEY)


def _unread(attack: Attack, scale: int) -> bytes:
    return b"".join(masked_frame(packed(some), KEY) for some in portions(attack.deaf(scale), 1000))


async def _strike(unread: bytes, hit: bytes, client: RawClient | None, port: int) -> None:
    """Send it, and read until all is answered or the connection ends; then hang up. Without a client it is HTTP."""
    stream = client.stream if client else await trio.open_tcp_stream("127.0.0.1", port)
    try:
        await stream.send_all(unread)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, hit)
            if client:
                await _until_answered(client)
            else:
                while await stream.receive_some(1 << 18):
                    pass
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    await trio.aclose_forcefully(stream)


async def _until_answered(client: RawClient) -> None:
    answer = encode(Ok(_LAST))
    tail = b""
    while data := await client.stream.receive_some(1 << 18):
        tail = tail[-len(answer) :] + data
        if answer in tail:
            return


async def measure(attack: Attack, scale: int) -> Cost:
    """One broker, one attack."""
    unread, hit, over_http = _unread(attack, scale), _prepared(attack, scale), isinstance(attack.hit(1), bytes)
    with serving(attack.name) as (process, port):
        clients = [await _ready(port, envelopes) for envelopes in attack.ready(scale)]
        bystander = Bystander(await _connect(port), process)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bystander.run)
            await trio.sleep(0.5)
            idle, memory = bystander.slowest_s, rss_mib(process)
            bystander.slowest_s = bystander.rss_mib = 0.0
            longest_step_ms(process)
            began = time.monotonic()
            with trio.move_on_after(_PATIENCE_S):
                await _strike(unread, hit, None if over_http else clients[-1], port)
            took = time.monotonic() - began
            await trio.sleep(0.3)
            nursery.cancel_scope.cancel()
        cost = Cost(
            attack.name,
            round(max(0.0, bystander.slowest_s - idle) * 1000, 1),
            round(longest_step_ms(process), 1),
            round(bystander.rss_mib - memory, 1),
            round(took, 2),
        )
        for client in clients:
            await trio.aclose_forcefully(client.stream)
    return cost


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="attacks whose name has this text")
    parser.add_argument("--scale", type=int, default=1000, help="patterns, requests and so on that each is made of")
    parser.add_argument("--json", action="store_true", help="all figures as JSON")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        logging.disable()  # each that lags or is closed would be a line
        tune()
        trio.run(serve, next(each for each in ATTACKS if each.name == arguments.serve))
        return
    costs = []
    for attack in ATTACKS:
        if arguments.only in attack.name:
            # A loop of its own for each: what is left of one must not be in the way of the next.
            cost = trio.run(measure, attack, arguments.scale)
            costs.append(cost)
            print(_line(cost), file=sys.stderr, flush=True)
    costs.sort(key=lambda cost: -cost.step_ms)
    if arguments.json:
        json.dump([attrs.asdict(cost) for cost in costs], sys.stdout, indent=1)
    else:
        print("the ten worst:")
        print("\n".join(map(_line, costs[:10])))
    raise SystemExit(any(cost.step_ms > AIM_MS or cost.rss_mib > AIM_MIB for cost in costs))


def _line(cost: Cost) -> str:
    figures = (
        f"step {cost.step_ms:7.1f} ms   ping +{cost.ping_ms:7.1f} ms   +{cost.rss_mib:6.1f} MiB   {cost.took_s:6.2f} s"
    )
    return f"{cost.attack:58} {figures}"


if __name__ == "__main__":
    main()
