"""One run: starts the workers, carries word between them, and adds up what they tell."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from subprocess import PIPE

import click
import trio

from .json_lines import Hangup, JsonLines, Said
from .latencies import Latencies
from .plan import Plan
from .result import Result

OnProgress = Callable[[int], None]
"""Is told how many messages the slowest subscriber has."""

_WORKER = (sys.executable, "-m", "fanwire.client.cli.bench.worker")


class Worker:
    """One process of the benchmark."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.link = JsonLines(process.stdin, process.stdout)

    async def hear(self) -> Said:
        """The next thing it says.

        Raises:
            click.ClickException: it has failed, or ended.
        """
        try:
            said = await self.link.hear()
        except Hangup:
            raise click.ClickException("a process of the benchmark ended early; is the broker still there?") from None
        if "failed" in said:
            raise click.ClickException(said["failed"])
        return said


async def measure(plan: Plan, processes: int, on_progress: OnProgress) -> Result:
    """Carry out a plan.

    Args:
        plan: what to measure.
        processes: how many to spread the subscribers over; the publishers are in one.
        on_progress: called as messages arrive.
    """
    async with AsyncExitStack() as stack:
        receivers = [
            await stack.enter_async_context(_worker("receive", share, plan))
            for share in _shares(plan.subscribers, processes)
        ]
        publisher = await stack.enter_async_context(_worker("publish", range(plan.publishers), plan))
        for worker in (*receivers, publisher):
            await worker.hear()  # ready
        published = await _published(plan, publisher, receivers, on_progress)
        ends = [await _until_figures(receiver) for receiver in receivers]
    return _result(plan, published, ends)


async def _published(plan: Plan, publisher: Worker, receivers: list[Worker], on_progress: OnProgress) -> Said:
    """Let it publish until it is done; meanwhile tell it how far the subscribers are."""
    word = _Word(plan, publisher, on_progress)
    async with trio.open_nursery() as nursery:
        for number, receiver in enumerate(receivers):
            nursery.start_soon(word.carry, number, receiver)
        await publisher.link.say(go=True)
        published = await publisher.hear()
        nursery.cancel_scope.cancel()
    for receiver in receivers:
        await receiver.link.say(sent=published["sent"])
    return published


class _Word:
    """Tells the publishers of the slowest subscriber of all processes."""

    def __init__(self, plan: Plan, publisher: Worker, on_progress: OnProgress) -> None:
        self._publisher = publisher
        self._on_progress = on_progress
        self._arrived: dict[int, dict[str, int]] = {}
        self._none = {str(number): 0 for number in range(plan.publishers)}

    async def carry(self, number: int, receiver: Worker) -> None:
        """From one process of subscribers to the publishers, until cancelled."""
        self._arrived[number] = self._none
        while True:
            self._arrived[number] = (await receiver.hear())["arrived"]
            slowest = {name: min(said[name] for said in self._arrived.values()) for name in self._none}
            self._on_progress(sum(slowest.values()))
            await self._publisher.link.say(arrived=slowest)


async def _until_figures(receiver: Worker) -> Said:
    while "received" not in (said := await receiver.hear()):
        pass
    return said


def _result(plan: Plan, published: Said, ends: list[Said]) -> Result:
    latencies = Latencies()
    for end in ends:
        latencies.merge(Latencies.from_map(end["latencies"]))
    started = published["started_ns"]
    last = max((end["last_ns"] for end in ends), default=0)
    return Result(
        plan=plan,
        published=sum(published["sent"].values()),
        publish_s=(published["ended_ns"] - started) / 1e9,
        delivered=sum(end["received"] for end in ends),
        deliver_s=max(last - started, 0) / 1e9,
        again=sum(end["again"] for end in ends),
        refused=published["refused"],
        dropped_subscribers=sum(end["dropped"] for end in ends),
        latencies=latencies,
    )


def _shares(count: int, parts: int) -> Iterator[range]:
    """Ranges that are as long as each other, or one longer, over `count` numbers; none is empty."""
    parts = min(parts, count)
    for part in range(parts):
        yield range(part * count // parts, (part + 1) * count // parts)


@asynccontextmanager
async def _worker(role: str, share: range, plan: Plan) -> AsyncIterator[Worker]:
    command = [*_WORKER, role, str(share.start), str(len(share)), plan.to_json()]
    process = await trio.lowlevel.open_process(command, stdin=PIPE, stdout=PIPE)
    try:
        yield Worker(process)
    finally:
        process.kill()  # it has said all it had to say, or there is nobody left to hear it
        with trio.CancelScope(shield=True):
            await process.wait()
