"""A program that uses the SDK, as mypy sees it: what it is given has the types that the documentation says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_type

from trio.testing import MockClock

import fanwire
from fanwire.testing import broker_in_memory, client_of


async def _program(client: fanwire.Client) -> list[object]:
    """Each line that `assert_type` stands in is checked by mypy --strict, and run."""
    seen: list[object] = []
    result = await client.publish("a", {"n": 1})
    assert_type(result, fanwire.PublishResult)
    assert_type(result.subscribers, int)
    assert_type(client.publish_nowait("a", 1), None)
    assert_type(client.state, fanwire.State)
    assert_type(client.error, fanwire.FanwireError | None)
    assert_type(client.welcome, Mapping[str, Any])
    assert_type(await client.ping(), float)
    assert_type(await client.last("a"), fanwire.Message | None)
    async with client.subscribe("jobs.*", group="g", on_slow="drop_oldest") as jobs:
        assert_type(jobs, fanwire.Subscription)
        assert_type(jobs.granted, fanwire.Granted | None)
        assert_type(jobs.lagging, fanwire.LaggingReport | None)
        await client.publish("jobs.a", "work", headers={"a": "b"})
        async for job in jobs:
            assert_type(job, fanwire.Message)
            assert_type(job.topic, str)
            assert_type(job.payload, bytes)
            assert_type(job.headers, Mapping[str, str])
            assert_type(job.key, str | None)
            assert_type(job.redelivered, bool)
            seen.append(job.data)
            break
    async with client.serve("sums", group="g", buffer=10) as requests:
        assert_type(requests, fanwire.Service)
        async with client.request_many("sums", [1, 2], timeout_s=5, most=1) as replies:
            assert_type(replies, fanwire.Replies)
            async for request in requests:
                assert_type(request, fanwire.Request)
                assert_type(request.wants_reply, bool)
                await request.reply(sum(request.data))
                break
            async for reply in replies:
                assert_type(reply, fanwire.Message)
                seen.append(reply.data)
    async with client.pipeline(window=10) as pipe:
        assert_type(pipe, fanwire.Pipeline)
        await pipe.publish("a", 1)
    assert_type(pipe.newest, fanwire.PublishResult | None)
    async with client.demand("x.>") as demand:
        assert_type(demand, fanwire.Demand)
    return seen


async def test_a_typed_program_runs(autojump_clock: MockClock) -> None:
    """What mypy has checked is what comes."""
    async with broker_in_memory() as broker, client_of(broker) as client:
        assert await _program(client) == ["work", 3]
