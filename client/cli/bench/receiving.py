"""A worker that is subscribed: counts what comes, measures how long it took, and says how far it is."""

import trio

from fanwire.client import FanwireError, Message, connect
from fanwire.client.cli.options import environment_token

from .json_lines import JsonLines
from .latencies import Latencies
from .plan import NEVER, Plan, clock_ns, read_stamp, topic_publisher
from .tally import Tally

_SILENCE_S = 5.0
"""When nothing has come for so long after the last publish, what has not come is lost."""


class Subscriber:
    """One connection's count of every publisher."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._tallies = {plan.topic(publisher): Tally() for publisher in range(plan.publishers)}
        self._report_after = max(plan.window_of_all // 8, 1)
        self._unreported = 0
        self.last_ns = 0
        """When the latest message came."""
        self.dropped = False

    def take(self, messages: list[Message], latencies: Latencies) -> bool:
        """Count messages. Is it time to say how far we are?"""
        now = clock_ns()
        measured = len(messages) - 1 if self._plan.mode == "tput" else 0
        for place, message in enumerate(messages):
            number, at = read_stamp(message.payload)
            self._tallies[message.topic].take(number)
            # At the full load one of each batch is enough: measuring all would slow down what is measured.
            if place >= measured:
                latencies.add((now - at) // 1000)
        self.last_ns = now
        self._unreported += len(messages)
        return self._unreported >= self._report_after

    def arrived(self) -> dict[int, int]:
        """The number that is expected next of each publisher."""
        self._unreported = 0
        return {topic_publisher(topic): tally.upcoming for topic, tally in self._tallies.items()}

    def has_all(self, sent: dict[int, int]) -> bool:
        """Has the last message of everyone come?"""
        return self.dropped or all(number >= sent[publisher] for publisher, number in self.arrived().items())

    @property
    def received(self) -> int:
        """Messages that came in their order."""
        return sum(tally.received for tally in self._tallies.values())

    @property
    def again(self) -> int:
        """Messages that came twice or too late."""
        return sum(tally.again for tally in self._tallies.values())


class Receiving:
    """All subscribers of this process."""

    def __init__(self, plan: Plan, subscribers: int) -> None:
        self._plan = plan
        self._subscribers = [Subscriber(plan) for _ in range(subscribers)]
        self._latencies = Latencies()
        self._news = trio.Event()

    async def run(self, link: JsonLines) -> None:
        """Subscribe, receive until everything has come or nothing comes any more, and tell what came."""
        async with trio.open_nursery() as nursery:
            for subscriber in self._subscribers:
                await nursery.start(self._receive, subscriber)
            nursery.start_soon(self._report, link)
            await link.say(ready=True)
            said = await link.hear()
            await self._wait_for({int(publisher): number for publisher, number in said["sent"].items()})
            nursery.cancel_scope.cancel()
        await link.say(
            received=sum(subscriber.received for subscriber in self._subscribers),
            again=sum(subscriber.again for subscriber in self._subscribers),
            dropped=sum(subscriber.dropped for subscriber in self._subscribers),
            last_ns=max(subscriber.last_ns for subscriber in self._subscribers),
            latencies=self._latencies.to_map(),
        )

    async def _receive(self, subscriber: Subscriber, *, task_status: trio.TaskStatus[None]) -> None:
        name, token = "fanwire bench subscriber", environment_token()
        async with (
            connect(self._plan.url, name=name, token=token, reconnect=False) as client,
            client.subscribe(self._plan.pattern) as subscription,
        ):
            task_status.started()
            try:
                async for messages in subscription.batches():
                    if subscriber.take(messages, self._latencies):
                        self._news.set()
            except FanwireError:  # dropped for slow, or the broker is gone: it counts, and the others go on
                subscriber.dropped = True
                self._news.set()

    async def _report(self, link: JsonLines) -> None:
        """Say how far the slowest subscriber is, whenever one of them has come on."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            reports = [subscriber.arrived() for subscriber in self._subscribers if not subscriber.dropped]
            publishers = range(self._plan.publishers)
            # Nobody waits for those that were dropped.
            slowest = {
                publisher: min((arrived[publisher] for arrived in reports), default=NEVER) for publisher in publishers
            }
            await link.say(arrived=slowest)

    async def _wait_for(self, sent: dict[int, int]) -> None:
        quiet_since = trio.current_time()
        seen = -1
        while not all(subscriber.has_all(sent) for subscriber in self._subscribers):
            received = sum(subscriber.received for subscriber in self._subscribers)
            if received != seen:
                seen, quiet_since = received, trio.current_time()
            elif trio.current_time() - quiet_since > _SILENCE_S:
                return
            await trio.sleep(0.02)
