"""A defect of the broker's own, in handling one client's message, ends that client's connection and says so."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from fanwire.broker.sessions import handlers
from fanwire.protocol import Ok, Ping, Publish, Unsubscribe
from tests.integration.raw import code_of, connected, serving, subscribed


@pytest.mark.parametrize("after", [0, 1000], ids=["in the first portion", "in a later one"])
async def test_a_defect_is_told_with_1011(
    after: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """ERROR `internal` and close 1011, wherever in a long message it happens; others are served as before."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setitem(handlers._HANDLERS, Unsubscribe, fail)
    async with serving() as broker:
        other = await subscribed(broker, "a")
        client = await connected(broker)
        await client.send(*[Ping(number + 1) for number in range(after)], Unsubscribe(9999, 1))
        ended = await client.ended()

        assert code_of(ended.envelopes[-1]) == (0, "internal")
        assert ended.code == 1011
        assert broker.statistics().closed_by_broker == {1011: 1}
        assert await other.ask(Ping(1)) == Ok(1)
        assert (await (await connected(broker)).ask(Publish(1, "a", b"x"))) == Ok(
            1, {"offset": 0, "subscribers": 1, "lagging": 0}
        )
