"""How long a request takes until its reply is here: Fanwire's SDK and broker, beside nats-py and nats-server, in turns.

    python -m tests.bench.request_reply --seconds 3 --repetitions 5

Broker, responder and requester are processes of their own, on loopback. The requester asks one thing at a time, and the
responder echoes it. Bar: the median of Fanwire's p50 is at most 1.5 times that of nats-py.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

import trio

import fanwire
from tests.bench.sdk import Figures, Role, client_process, nats_server, server_of

TOPIC = "bench.echo"
PAYLOAD = bytes(128)
WARM = 300
BAR = 1.5

_PATIENCE_S = 30.0


async def _measure(ask: Callable[[], Awaitable[bool]], seconds: float) -> tuple[list[float], int]:
    """Ask for so long: how long each took, in seconds, and how many replies were wrong."""
    took: list[float] = []
    wrong = 0
    for _ in range(WARM):
        await ask()
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        wrong += not await ask()
        took.append(time.perf_counter() - began)
    return took, wrong


def fanwire_respond(port: int, pipe: Connection, seconds: float) -> None:
    """``async for request in client.serve(…)``."""
    trio.run(_fanwire_respond, port, pipe)


async def _fanwire_respond(port: int, pipe: Connection) -> None:
    async with fanwire.connect(f"ws://127.0.0.1:{port}/") as client, client.serve(TOPIC) as requests:
        pipe.send(True)
        async for request in requests:
            await request.reply(request.message.payload, raw=True)


def fanwire_ask(port: int, pipe: Connection, seconds: float) -> None:
    """``await client.request(…)``."""
    trio.run(_fanwire_ask, port, pipe, seconds)


async def _fanwire_ask(port: int, pipe: Connection, seconds: float) -> None:
    async with fanwire.connect(f"ws://127.0.0.1:{port}/") as client:

        async def ask() -> bool:
            return (await client.request(TOPIC, PAYLOAD, raw=True)).payload == PAYLOAD

        pipe.send(await _measure(ask, seconds))


def nats_respond(port: int, pipe: Connection, seconds: float) -> None:
    """A callback that answers: what nats-py is quickest with."""
    asyncio.run(_nats_respond(port, pipe))


async def _nats_respond(port: int, pipe: Connection) -> None:
    client = await _nats(port)

    async def on_message(message: Any) -> None:
        await message.respond(message.data)

    await client.subscribe(TOPIC, cb=on_message)
    await client.flush()
    pipe.send(True)
    await asyncio.Event().wait()


def nats_ask(port: int, pipe: Connection, seconds: float) -> None:
    """``await client.request(…)``."""
    asyncio.run(_nats_ask(port, pipe, seconds))


async def _nats_ask(port: int, pipe: Connection, seconds: float) -> None:
    client = await _nats(port)

    async def ask() -> bool:
        return bool((await client.request(TOPIC, PAYLOAD, timeout=5)).data == PAYLOAD)

    pipe.send(await _measure(ask, seconds))
    await client.close()


async def _nats(port: int) -> Any:
    nats = importlib.import_module("nats")  # of the dependency group `bench` alone, so unknown to the type checker
    return await nats.connect(f"nats://127.0.0.1:{port}")


CASES: dict[str, tuple[Role, Role]] = {"fanwire": (fanwire_respond, fanwire_ask), "nats": (nats_respond, nats_ask)}


def measure(name: str, seconds: float) -> Figures:
    """One run, with a broker, a responder and a requester of its own."""
    respond, ask = CASES[name]
    with server_of(name) as server, client_process(respond, server.port, seconds) as (_, ready):
        if not ready.poll(_PATIENCE_S):
            raise SystemExit("error: the responder has not subscribed")
        ready.recv()
        with client_process(ask, server.port, seconds) as (_, reports):
            if not reports.poll(seconds + _PATIENCE_S):
                raise SystemExit("error: the requester has not come to an end")
            took, wrong = reports.recv()
    cuts = statistics.quantiles(took, n=100)
    return {"requests": len(took), "p50_us": cuts[49] * 1e6, "p99_us": cuts[98] * 1e6, "wrong": wrong}


def main() -> None:
    """Measure, print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", choices=list(CASES), help="measure one of them")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    wanted = parser.parse_args()
    names = [wanted.only] if wanted.only else list(CASES)
    if "nats" in names and (not nats_server() or importlib.util.find_spec("nats") is None):
        print("nats-py and nats-server are not here (dependency group `bench`): without them", file=sys.stderr)
        names.remove("nats")
    results: dict[str, list[Figures]] = {name: [] for name in names}
    for _ in range(wanted.repetitions):
        for name in names:
            results[name].append(measure(name, wanted.seconds))
    print(json.dumps(results) if wanted.json else _table(results))
    if any(run["wrong"] for runs in results.values() for run in runs):
        raise SystemExit("error: a reply was not to its request")


def _table(results: dict[str, list[Figures]]) -> str:
    lines = [f"{'medians':12}{'p50 µs':>10}{'(least to most)':>22}{'p99 µs':>10}{'requests':>10}"]
    p50s = {name: statistics.median([run["p50_us"] for run in runs]) for name, runs in results.items()}
    for name, runs in results.items():
        each = [run["p50_us"] for run in runs]
        p99 = statistics.median([run["p99_us"] for run in runs])
        spread, count = f"({min(each):,.0f} to {max(each):,.0f})", sum(run["requests"] for run in runs)
        lines.append(f"{name:12}{p50s[name]:>10,.0f}{spread:>22}{p99:>10,.0f}{count:>10,.0f}")
    if len(p50s) == 2:
        ratio = p50s["fanwire"] / p50s["nats"]
        lines.append(f"fanwire: {ratio:.2f} × nats-py (bar: {BAR}; {'kept' if ratio <= BAR else 'missed'})")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
