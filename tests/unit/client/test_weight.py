"""What waits in this process is counted with all that it holds: headers, keys, and Python's own objects."""

import tracemalloc
from random import Random

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from fanwire.client import SlowConsumer
from fanwire.client.message import Raw
from fanwire.client.notices import LostMessages
from fanwire.client.subscribing.buffer import Bounds, Buffer, Conflating, Line, drop_newest, drop_oldest, refuse
from fanwire.client.subscribing.marks import is_mark
from fanwire.client.subscribing.weight import MESSAGE, weighed, weight_of_all
from fanwire.protocol import Message
from tests.unit.client.scripted_peer import ScriptedPeer, connected


def _message(number: int, meta: dict[str, object] | None = None) -> Raw:
    raw = (19, 1, f"t{number % 7}", 0, 0, bytes(number % 50), 1)
    return raw if meta is None else (*raw, meta)


@pytest.mark.parametrize("kind", ["refuse", "drop_oldest", "drop_newest", "conflate"])
def test_what_was_added_is_taken_away(kind: str) -> None:
    """After any mixture, whatever way it goes out, an empty buffer holds nothing."""
    sheds = {"refuse": refuse, "drop_oldest": drop_oldest, "drop_newest": drop_newest}
    bounds = Bounds(40, 20_000)
    draw = Random(1)
    buffer: Buffer = Conflating(bounds) if kind == "conflate" else Line(bounds, sheds[kind])
    for _ in range(2000):
        metas: list[dict[str, object] | None] = [None, {}, {"key": "k"}, {"headers": {"a": "b" * draw.randrange(300)}}]
        run = weighed([_message(draw.randrange(100), draw.choice(metas)) for _ in range(draw.randint(1, 6))])
        buffer.offer(run, weight_of_all(run))
        if draw.random() < 0.2:
            buffer.add_mark(LostMessages(1, draw.choice(["queue", "buffer"]), None))
        if draw.random() < 0.3:
            hand = buffer.hand(draw.randint(1, 5))
            for _ in range(draw.randrange(3)):
                next(hand, None)
        if draw.random() < 0.3:
            buffer.take_up_to(draw.randint(1, 20))
        assert buffer.size >= 0
    left = buffer.take_up_to(1000)

    assert buffer.size == 0
    assert any(not is_mark(raw) for raw in left) or not left


async def test_headers_count(peer: ScriptedPeer, autojump_clock: MockClock) -> None:
    """Large headers fill the buffer as large payloads do."""
    big = Message(1, None, 0, 5, b"", meta={"headers": {"a": "b" * 500_000}})
    async with connected(peer) as (client, end):
        peer.nursery.start_soon(end.grant, 1)
        async with client.subscribe("a", buffer_bytes=1_200_000) as subscription:
            for _ in range(3):
                await end.send(big)
                await wait_all_tasks_blocked()

            with pytest.raises(SlowConsumer) as caught:
                await anext(subscription)
            assert caught.value.queued == 2
            assert caught.value.queued_bytes is not None
            assert 1_000_000 < caught.value.queued_bytes < 1_100_000


def test_the_weight_of_a_plain_message() -> None:
    """It is what such a message costs, and not much less."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [(19, 1, "".join(("prices.", str(n))), n + 1000, 1 << 50 | n, bytes(128), 1) for n in range(10_000)]
    cost = (tracemalloc.get_traced_memory()[0] - before) / len(kept)
    tracemalloc.stop()

    assert 0.7 * (MESSAGE + 128) < cost < MESSAGE + 128
