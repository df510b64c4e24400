"""Members of a queue group that say what they have finished: how much they hold, and who gets it when they do not."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.broker import Broker
from fanwire.broker.delivery.hands import LEAST, MOST
from fanwire.broker.options.queue_groups import LINGER_S, MOST_TIMES, STALL_S
from fanwire.protocol import (
    Backlog,
    Error,
    Lost,
    Message,
    Ok,
    Ping,
    Publish,
    PublishOptions,
    Subscribe,
    SubscribeOptions,
)
from tests.integration.raw import RawClient, connected, serving, subscribed


class Worker:
    """A member that acknowledges: it finishes messages when a test says so."""

    def __init__(self, client: RawClient, route: int) -> None:
        self.client = client
        self.route = route
        self.finished = 0
        self.limit = 1 << 20
        self.jobs: list[bytes] = []
        self.again: list[bytes] = []
        """Those of them that say that somebody else had them."""
        self.told: list[Lost] = []

    async def hear(self) -> list[bytes]:
        """Read all that has come; what is new of it."""
        await wait_all_tasks_blocked()
        number = self.client.number()
        await self.client.send(Ping(number))
        new: list[bytes] = []
        while not isinstance(envelope := await self.client.next(), Ok):
            if isinstance(envelope, Lost):
                self.told.append(envelope)
                continue
            assert isinstance(envelope, Message), envelope
            new.append(envelope.payload)
            if envelope.meta.get("redelivered"):
                self.again.append(envelope.payload)
        self.jobs += new
        return new

    async def say(self, queued: int = 0) -> None:
        """Tell what is finished."""
        await self.client.send(Backlog(0, self.route, queued, self.limit, self.finished))
        await wait_all_tasks_blocked()

    async def finish(self, count: int | None = None) -> None:
        """Finish some messages, or all that were heard."""
        self.finished = len(self.jobs) if count is None else self.finished + count
        await self.say()

    async def work(self) -> None:
        """Hear and finish until nothing more comes."""
        while await self.hear():
            await self.finish()


async def _worker(broker: Broker, **options: Any) -> Worker:
    client = await connected(broker)
    answer = await client.ask(Subscribe(1, "jobs", SubscribeOptions(group="w", **options), acknowledges=True))
    assert isinstance(answer, Ok), answer
    return Worker(client, answer.result["route"])


def _jobs(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


async def _publish(publisher: RawClient, *numbers: int) -> None:
    await publisher.publish("jobs", *_jobs(*numbers))
    await wait_all_tasks_blocked()


async def test_a_member_that_finishes_nothing_holds_its_window(autojump_clock: MockClock) -> None:
    """Of a burst it gets two messages; the other members get the rest, as soon as they have finished what they had."""
    async with serving() as broker:
        hung, good, publisher = await _worker(broker), await _worker(broker), await connected(broker)
        await _publish(publisher, *range(100))
        assert len(await hung.hear()) == LEAST
        assert len(await good.hear()) == LEAST
        await good.finish()
        await good.work()
        for number in range(100, 150):
            await _publish(publisher, number)
            await good.work()

        assert await hung.hear() == []
        assert sorted([*hung.jobs, *good.jobs], key=int) == _jobs(*range(150))
        assert good.again == []


async def test_a_member_gets_no_more_than_it_does_in_a_quarter_of_a_second(autojump_clock: MockClock) -> None:
    """A quick one soon gets many at once; one whose messages take a second is back at two."""
    async with serving() as broker:
        worker, publisher = await _worker(broker), await connected(broker)
        await _publish(publisher, *range(6000))
        portions = []
        for _ in range(11):
            portions.append(len(await worker.hear()))
            await worker.finish()
        assert portions == [LEAST * 2**step for step in range(9)] + [MOST, MOST]

        portions = []
        for _ in range(7):
            portions.append(len(await worker.hear()))
            await trio.sleep(1)
            await worker.finish()
        assert portions == [MOST, 256, 64, 16, 4, LEAST, LEAST]


async def test_a_member_gets_no_more_than_its_client_can_keep(autojump_clock: MockClock) -> None:
    """As it says: the buffer of a program may be small."""
    async with serving() as broker:
        worker, publisher = await _worker(broker), await connected(broker)
        worker.limit = 10
        await _publish(publisher, *range(200))
        portions = []
        while heard := await worker.hear():
            portions.append(len(heard))
            await worker.finish()

        assert max(portions) == 10
        assert len(worker.jobs) == 200


async def test_what_a_member_had_goes_to_others_when_it_ends(autojump_clock: MockClock) -> None:
    """First of all that waits, in its order, and says so; what was finished does not come again."""
    async with serving() as broker:
        first, second, publisher = await _worker(broker), await _worker(broker), await connected(broker)
        await _publish(publisher, *range(8))
        assert await first.hear() == _jobs(0, 2)
        assert await second.hear() == _jobs(1, 3)
        await first.finish(1)
        assert await first.hear() == _jobs(4, 5)
        await first.client.stream.aclose()
        await wait_all_tasks_blocked()
        await second.finish()
        await second.work()

        assert second.jobs == _jobs(1, 3, 2, 4, 5, 6, 7)
        assert second.again == _jobs(2, 4, 5)
        assert broker.statistics().lost == {}
        assert broker._hub.groups.kept == 0


@pytest.mark.parametrize("key", [None, "k"])
async def test_nothing_of_a_message_is_lost_on_the_way_to_another(autojump_clock: MockClock, key: str | None) -> None:
    """Encoding, headers, key, reply_to and offset are as they were."""
    options = PublishOptions(headers={"a": "b"}, key=key, reply_to="$inbox.x.y")
    async with serving() as broker:
        first, publisher = await _worker(broker), await connected(broker)
        await publisher.send(Publish(0, "jobs", b"plain"), Publish(0, "jobs", b"rich", options=options))
        before = [await first.client.expect(Message) for _ in range(2)]
        second = await _worker(broker)
        await first.client.stream.aclose()
        after = [await second.client.expect(Message) for _ in range(2)]

        assert [each.meta for each in after] == [{**each.meta, "redelivered": True} for each in before]
        assert [(each.payload, each.time, each.offset) for each in after] == [
            (each.payload, each.time, each.offset) for each in before
        ]


async def test_what_was_begun_by_a_member_that_unsubscribes_goes_to_others(autojump_clock: MockClock) -> None:
    """As when its connection ends."""
    async with serving() as broker:
        first, second, publisher = await _worker(broker), await _worker(broker), await connected(broker)
        await _publish(publisher, 0, 1)
        assert await first.hear() == _jobs(0)
        await first.client.unsubscribe(first.route)
        await second.work()

        assert second.jobs == _jobs(1, 0)


async def test_a_message_is_not_handed_over_for_ever(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One that ends each worker that gets it is given up, counted and logged."""
    caplog.set_level(logging.WARNING, "fanwire")
    async with serving() as broker:
        witness, publisher = await subscribed(broker, "jobs"), await connected(broker)
        worker = await _worker(broker)
        await _publish(publisher, 0)
        for _ in range(MOST_TIMES):
            assert await worker.hear() == _jobs(0)
            following = await _worker(broker)
            await worker.client.stream.aclose()
            await wait_all_tasks_blocked()
            worker = following
        assert await worker.hear() == _jobs(0)
        last = await _worker(broker)
        await worker.client.stream.aclose()
        await trio.sleep(2)

        assert await last.hear() == []
        assert broker.statistics().lost == {"group": 1}
        told = [vars(each) for each in caplog.records if each.getMessage() == "queue group lost messages"]
        assert [(each["pattern"], each["group"], each["count"]) for each in told] == [("jobs", "w", 1)]
        assert await witness.payloads(1) == _jobs(0)


async def test_a_member_that_is_silent_for_long_has_stalled(autojump_clock: MockClock) -> None:
    """What it had goes to others, and it is told; it gets nothing until it has finished something."""
    async with serving() as broker:
        hung, good, publisher = await _worker(broker), await _worker(broker), await connected(broker)
        await _publish(publisher, *range(4))
        await hung.hear()
        await good.work()
        await good.finish()
        await trio.sleep(STALL_S - 2)
        assert await good.hear() == []
        await trio.sleep(4)
        await good.work()
        assert good.again == hung.jobs
        await hung.hear()
        assert hung.told == [Lost(hung.route, 2, "handed_over", None)]

        await _publish(publisher, *range(4, 8))
        await good.work()
        assert await hung.hear() == []
        await hung.finish()
        await _publish(publisher, 8, 9)
        assert len(await hung.hear()) == 1
        await good.work()
        assert sorted({*hung.jobs, *good.jobs}, key=int) == _jobs(*range(10))


async def test_a_member_that_works_for_long_keeps_what_it_works_on(autojump_clock: MockClock) -> None:
    """As long as it says that it lives; what nobody there has begun goes to others."""
    async with serving() as broker:
        busy, good, publisher = await _worker(broker), await _worker(broker), await connected(broker)
        await _publish(publisher, *range(4))
        assert await busy.hear() == _jobs(0, 2)
        await good.work()
        for _ in range(10):
            await trio.sleep(STALL_S / 3)
            await busy.say(queued=1)
        await good.work()

        assert good.again == _jobs(2)
        await busy.hear()
        assert busy.told == [Lost(busy.route, 1, "handed_over", None)]


async def test_where_nobody_else_is_nothing_is_handed_over(autojump_clock: MockClock) -> None:
    """The only member keeps what it has, however long it takes; so do all when all have stalled."""
    async with serving() as broker:
        only, publisher = await _worker(broker), await connected(broker)
        await _publish(publisher, 0, 1)
        await trio.sleep(10 * STALL_S)
        assert await only.hear() == _jobs(0, 1)
        assert only.told == []


async def test_what_waits_for_a_group_waits_for_its_worker_to_come_back(autojump_clock: MockClock) -> None:
    """A single worker whose connection is made anew finds all that it had not finished, on the same route."""
    async with serving() as broker:
        worker, publisher = await _worker(broker), await connected(broker)
        await _publish(publisher, *range(10))
        await worker.hear()
        await worker.finish(1)
        await worker.client.stream.aclose()
        await trio.sleep(LINGER_S - 2)
        answer = await publisher.ask(Publish(7, "jobs", b"nobody"))
        assert isinstance(answer, Ok)
        assert answer.result["subscribers"] == 0
        broker.publish("jobs", b"nobody")
        assert (broker._hub.fanout._gathered, broker._hub.fanout._chunks) == (0, {})
        back = await _worker(broker)
        await back.work()

        assert back.route == worker.route
        assert back.jobs == _jobs(*range(1, 10))
        assert broker.statistics().lost == {}


async def test_what_waits_for_nobody_is_lost(autojump_clock: MockClock) -> None:
    """After a while; it is counted, and nothing is kept of the group."""
    async with serving() as broker:
        worker, publisher = await _worker(broker), await connected(broker)
        await _publish(publisher, *range(10))
        await worker.client.stream.aclose()
        await wait_all_tasks_blocked()
        assert broker.statistics().routes == 1
        await trio.sleep(LINGER_S + 2)

        assert broker.statistics().lost == {"group": 10}
        assert broker.statistics().routes == 0
        assert broker._hub.groups.kept == 0
        assert await publisher.ask(Publish(7, "jobs", b"x", options=PublishOptions(reply_to="a"))) == Error(
            7, "no_responders", "nobody is subscribed to jobs"
        )


async def test_what_does_not_fit_any_more_goes_to_members_without_room(autojump_clock: MockClock) -> None:
    """The group keeps as many messages as its members may have waiting; the oldest go out beyond the windows."""
    async with serving() as broker:
        workers = [await _worker(broker, queue=10) for _ in range(2)]
        publisher = await connected(broker)
        await _publish(publisher, *range(40))
        heard = [await worker.hear() for worker in workers]

        assert [len(each) for each in heard] == [10, 10]
        assert all(each == sorted(each, key=int) for each in heard)
        assert sorted([*heard[0], *heard[1]], key=int) == _jobs(*range(20))
        for worker in workers:
            await worker.finish()
            await worker.work()
        assert sorted(workers[0].jobs + workers[1].jobs, key=int) == _jobs(*range(40))


async def test_what_does_not_fit_any_more_goes_to_those_who_get_on(autojump_clock: MockClock) -> None:
    """Not to one that has finished nothing for a second, as long as another one has."""
    async with serving() as broker:
        workers = [await _worker(broker, queue=10) for _ in range(2)]
        hung, good = workers
        publisher = await connected(broker)
        await _publish(publisher, *range(20))
        await trio.sleep(1.5)
        assert len(await hung.hear()) == LEAST
        await good.hear()
        await good.finish(1)
        await _publish(publisher, *range(20, 80))
        await good.work()

        assert await hung.hear() == []
        await good.finish()
        await good.work()
        assert sorted([*hung.jobs, *good.jobs], key=int) == _jobs(*range(80))


async def test_who_asked_for_no_queue_bears_a_burst(autojump_clock: MockClock) -> None:
    """Of 50,000 messages for a member with default settings, and one that hangs, that one gets two."""
    async with serving() as broker:
        hung, good, publisher = await _worker(broker), await _worker(broker), await connected(broker)
        for start in range(0, 50_000, 5_000):
            await _publish(publisher, *range(start, start + 5_000))
        assert len(await hung.hear()) == LEAST
        await good.hear()
        await good.finish()
        await good.work()

        assert len(good.jobs) == 50_000 - LEAST
        assert good.again == []


@pytest.mark.parametrize(("on_slow", "kept"), [("drop_oldest", range(22, 42)), ("drop_newest", range(2, 22))])
async def test_where_members_allow_loss_the_group_drops(autojump_clock: MockClock, on_slow: str, kept: range) -> None:
    """What does not fit any more, by the member's policy; it is told."""
    async with serving() as broker:
        worker, publisher = await _worker(broker, queue=20, on_slow=on_slow), await connected(broker)
        await _publish(publisher, *range(42))
        await worker.work()
        await worker.finish()
        await worker.work()

        assert worker.jobs == _jobs(0, 1, *kept)
        assert sum([each.count or 0 for each in worker.told]) == 20
        assert broker.statistics().lost == {on_slow: 20}


async def test_a_group_whose_queue_fills_up_lags(autojump_clock: MockClock) -> None:
    """A publisher hears it as of one subscriber, until less than half waits."""
    async with serving() as broker:
        worker, publisher = await _worker(broker, queue=20), await connected(broker)

        async def lagging(*numbers: int) -> int:
            await _publish(publisher, *numbers)
            answer = await publisher.ask(Publish(7, "jobs", b"%d" % numbers[-1]))
            assert isinstance(answer, Ok)
            return int(answer.result["lagging"])

        assert await lagging(*range(10)) == 0
        assert await lagging(*range(8)) == 1
        await worker.hear()
        await worker.finish()
        await worker.hear()
        assert await lagging(0) == 1
        await worker.finish()
        await worker.work()
        assert await lagging(0) == 0


async def test_a_newcomer_gets_what_waits(autojump_clock: MockClock) -> None:
    """Behind the answer to its SUBSCRIBE."""
    async with serving() as broker:
        hung, publisher = await _worker(broker), await connected(broker)
        await _publish(publisher, *range(6))
        newcomer = await _worker(broker)
        await newcomer.work()

        assert (await hung.hear(), newcomer.jobs) == (_jobs(0, 1), _jobs(2, 3, 4, 5))


async def test_one_that_says_nothing_has_no_window(autojump_clock: MockClock) -> None:
    """A client that does not acknowledge is given all that comes, and what it had is gone with it."""
    async with serving() as broker:
        plain, publisher = await subscribed(broker, "jobs", group="w"), await connected(broker)
        await _publish(publisher, *range(50))
        assert await plain.payloads(50) == _jobs(*range(50))
        worker = await _worker(broker)
        await plain.stream.aclose()

        assert await worker.hear() == []
        assert broker.statistics().lost == {}


async def test_what_a_rate_may_replace_is_not_counted(autojump_clock: MockClock) -> None:
    """A member with `max_rate`, or one that conflates, has no window: not all that it is given reaches it."""
    async with serving() as broker:
        worker, publisher = await _worker(broker, max_rate=1.0), await connected(broker)
        await _publish(publisher, *range(50))
        assert await worker.hear() == _jobs(49)
        await worker.finish()
        for number in range(50, 60):
            await _publish(publisher, number)
        await trio.sleep(1.1)
        assert await worker.hear() == _jobs(59)


async def test_all_that_waits_goes_out_before_the_broker_ends(autojump_clock: MockClock) -> None:
    """Each member gets its part of it, and nothing twice."""
    async with serving(drain_spread_s=0.5) as broker:
        workers, publisher = [await _worker(broker) for _ in range(3)], await connected(broker)
        await _publish(publisher, *range(100))
        heard: list[bytes] = []

        async def listen(worker: Worker) -> None:
            ended = await worker.client.ended()
            heard.extend([each.payload for each in ended.envelopes if isinstance(each, Message)])

        async with trio.open_nursery() as nursery:
            for worker in workers:
                nursery.start_soon(listen, worker)
            nursery.start_soon(publisher.ended)
            await broker.drain()

        assert sorted(heard, key=int) == _jobs(*range(100))
