"""A worker that publishes: numbered, stamped messages, never further ahead of the subscribers than the window."""

from collections.abc import Awaitable, Callable

import trio

from fanwire.client import BufferFull, Client, FanwireError, connect
from fanwire.client.cli.options import environment_token

from .json_lines import JsonLines
from .plan import MIN_SIZE, Plan, clock_ns, stamped

_CHECKPOINT = 64  # messages published between two checkpoints

_OVERSLEPT_NS = 2_000_000
"""Sleeping is exact to a millisecond or so; later than this, something held the publisher up."""

_PATIENCE_S = 5.0
"""How long after the end a publisher still waits for its turn before it gives up."""

Send = Callable[[bytes], Awaitable[None]]


class Lead:
    """How far each publisher's messages have come at the slowest subscriber."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._arrived = dict.fromkeys(range(plan.publishers), 0)
        self._changed = trio.lowlevel.ParkingLot()

    def update(self, arrived: dict[str, int]) -> None:
        """Take in what the subscribers say."""
        self._arrived.update({int(publisher): number for publisher, number in arrived.items()})
        self._changed.unpark_all()

    async def wait_for_room(self, publisher: int, sent: int) -> None:
        """Wait while a publisher is as far ahead as it may be; nobody is waited for when there is no subscriber."""
        while self._plan.subscribers and sent - self._arrived[publisher] >= self._plan.window:
            await self._changed.park()


class Publishing:
    """All publishers of this process."""

    def __init__(self, plan: Plan, publishers: range) -> None:
        self._plan = plan
        self._publishers = publishers
        self._lead = Lead(plan)
        self._padding = bytes(plan.size - MIN_SIZE)
        self._sent = dict.fromkeys(publishers, 0)
        self._refused = 0
        self._dropped = 0

    async def run(self, link: JsonLines) -> None:
        """Connect, wait for the word, publish, and tell how much."""
        async with trio.open_nursery() as connections:
            clients = [await connections.start(self._connection) for _ in self._publishers]
            await link.say(ready=True)
            await link.hear()  # the word to go
            async with trio.open_nursery() as listening:
                listening.start_soon(self._listen, link)
                started = clock_ns()
                async with trio.open_nursery() as publishing:
                    for publisher, client in zip(self._publishers, clients, strict=True):
                        publishing.start_soon(self._publish, client, publisher, started)
                ended = clock_ns()
                listening.cancel_scope.cancel()
            connections.cancel_scope.cancel()
        await link.say(
            sent=self._sent, refused=self._refused, dropped=self._dropped, started_ns=started, ended_ns=ended
        )

    async def _connection(self, *, task_status: trio.TaskStatus[Client]) -> None:
        name, token = "fanwire bench publisher", environment_token()
        async with connect(self._plan.url, name=name, token=token, reconnect=False) as client:
            task_status.started(client)
            await trio.sleep_forever()

    async def _listen(self, link: JsonLines) -> None:
        while True:
            self._lead.update((await link.hear())["arrived"])

    async def _publish(self, client: Client, publisher: int, started: int) -> None:
        """One publisher. A connection that is lost ends it: what it has sent is what can be delivered."""
        try:
            if self._plan.acknowledged:
                await self._acknowledged(client, publisher, started)
            else:
                await self._forgetting(client, publisher, started)
        except* FanwireError:
            self._dropped += 1

    async def _forgetting(self, client: Client, publisher: int, started: int) -> None:
        topic = self._plan.topic(publisher)

        async def send(payload: bytes) -> None:
            try:
                client.publish_nowait(topic, payload, raw=True)
            except BufferFull:
                await client.flush()
                client.publish_nowait(topic, payload, raw=True)

        await self._all(send, publisher, started)
        await client.flush()
        await client.ping()  # answered when the broker has handled everything before it

    async def _acknowledged(self, client: Client, publisher: int, started: int) -> None:
        topic = self._plan.topic(publisher)
        async with client.pipeline() as pipe:

            async def send(payload: bytes) -> None:
                await pipe.publish(topic, payload, raw=True)

            try:
                await self._all(send, publisher, started)
                await pipe.drain()
            finally:
                self._refused += pipe.failures

    async def _all(self, send: Send, publisher: int, started: int) -> None:
        with trio.move_on_after(self._plan.seconds + _PATIENCE_S):
            await self._until_the_end(send, publisher, started)

    async def _until_the_end(self, send: Send, publisher: int, started: int) -> None:
        end = started + int(self._plan.seconds * 1e9)
        due_of = self._due_times(publisher, started)
        number = 0
        while (now := clock_ns()) < end:
            await self._lead.wait_for_room(publisher, number)
            at = now if due_of is None else await _wait_until(due_of(number))
            await send(stamped(number, self._padding, at))
            number += 1
            self._sent[publisher] = number
            if number % _CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()

    def _due_times(self, publisher: int, started: int) -> Callable[[int], int] | None:
        """When each message is due, in mode `latency`: the publishers take turns, evenly."""
        if self._plan.mode == "tput":
            return None
        between = 1e9 / self._plan.rate
        return lambda number: started + int((number * self._plan.publishers + publisher) * between)


async def _wait_until(due: int) -> int:
    """Wait until a message is due; return the time its latency is measured from.

    That is when it is sent. But where the publisher was held up (the socket was full, the window closed), it is when it
    should have been sent: or else waiting would not be counted just when it is longest.
    """
    await trio.sleep(max(due - clock_ns(), 0) / 1e9)
    now = clock_ns()
    return now if now - due < _OVERSLEPT_NS else due
