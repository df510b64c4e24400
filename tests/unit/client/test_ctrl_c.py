"""Ctrl-C is a plain KeyboardInterrupt out of `trio.run`, wherever the interpreter was, and the client is closed."""

import signal
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from fanwire.client.connecting.link import Link
from fanwire.client.connecting.receiver import Receiver
from fanwire.client.exchange.outgoing import Outgoing
from fanwire.client.subscribing.silence import Silence
from fanwire.client.subscribing.subscription import Subscription
from fanwire.testing import broker_in_memory, client_of

PLACES: list[tuple[type, str]] = [
    (Receiver, "on_messages"),
    (Subscription, "receive"),
    (Subscription, "_wait"),
    (Subscription, "end"),
    (Outgoing, "add"),
    (Outgoing, "_next_frame"),
    (Outgoing, "lost"),
    (Silence, "look"),
    (Link, "_open"),
    (Link, "_serve"),
    (Link, "stop"),
    (Link, "_finish"),
]


@pytest.mark.parametrize(("kind", "name"), PLACES, ids=lambda each: each if isinstance(each, str) else each.__name__)
@pytest.mark.parametrize("after", [0, 1, 5])
def test_anywhere(monkeypatch: pytest.MonkeyPatch, kind: type, name: str, after: int) -> None:
    """It comes out alone, in no group, whichever task it strikes, and at whichever call."""
    before: Callable[..., Any] = getattr(kind, name)
    calls = 0

    def struck(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == after + 1:
            signal.raise_signal(signal.SIGINT)
        return before(*args, **options)

    monkeypatch.setattr(kind, name, struck)

    said: list[BaseException] = []

    async def main() -> None:
        async with broker_in_memory() as broker:
            try:
                async with client_of(broker) as client, client.subscribe("t", heartbeat_s=5) as subscription:
                    for number in range(20):
                        await client.publish("t", number)
                        await anext(subscription)
                    await client.flush()
                await trio.testing.wait_all_tasks_blocked()  # at the very end it strikes behind the block
                signal.raise_signal(signal.SIGINT)  # where there were fewer calls
            except BaseException as error:
                said.append(error)

    trio.run(main)

    assert [type(error) for error in said] == [KeyboardInterrupt]


def test_while_it_waits_for_its_tasks() -> None:
    """At the end of the block, too, where trio's nursery would put it into a group."""

    async def main() -> None:
        async with broker_in_memory() as broker, client_of(broker) as client:
            client.publish_nowait("t", 1)
            trio.lowlevel.spawn_system_task(_strike)

    async def _strike() -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
