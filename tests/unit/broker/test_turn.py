"""Clients whose work is long share the time that they may take from all others."""

from __future__ import annotations

from itertools import count

import pytest
import trio

from fanwire.broker.timing import turn


async def _work(name: str, turns: int, log: list[tuple[int, str]], rounds: list[int]) -> None:
    for _ in range(turns):
        await turn.next_turn()
        log.append((rounds[0], name))


async def _rounds(rounds: list[int]) -> None:
    """Count the rounds of the event loop."""
    while True:
        rounds[0] += 1
        await trio.lowlevel.checkpoint()


async def test_few_turns_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clients have long work: in each round of the event loop some share a turn, in line."""
    monkeypatch.setattr(turn, "MOST_AT_ONCE", 2)
    log: list[tuple[int, str]] = []
    rounds = [0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_rounds, rounds)
        async with trio.open_nursery() as workers:
            for name in "abcdef":
                workers.start_soon(_work, name, 3, log, rounds)
        nursery.cancel_scope.cancel()
    names = "".join([name for _, name in log])

    # Tasks of one round run in any order, so the counter may stand at the same number for those of two rounds.
    assert max([[number for number, _ in log].count(each) for each in range(rounds[0] + 1)]) <= 4
    assert rounds[0] >= len(log) / 2 - 1
    assert {names.count(name) for name in "abcdef"} == {3}
    assert {*names[:8]} == {*"abcdef"}  # nobody comes twice before all have come once, but for those of one round


async def test_how_long_a_turn_is() -> None:
    """Those of one round share its time."""
    shares: list[float] = []

    async def work() -> None:
        shares.append(await turn.next_turn())

    async with trio.open_nursery() as nursery:
        for _ in range(1 + 8 + 3):
            nursery.start_soon(work)

    assert shares == [turn.TURN_S] + [turn.TURN_S / 8] * 8 + [turn.TURN_S / 3] * 3


async def test_a_single_one_does_not_wait() -> None:
    """Who is alone in line has its turn in the next round."""
    log: list[tuple[int, str]] = []
    rounds = [0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_rounds, rounds)
        await trio.lowlevel.checkpoint()
        before = rounds[0]
        await _work("a", 10, log, rounds)
        after = rounds[0]
        nursery.cancel_scope.cancel()

    assert after - before <= 11


@pytest.mark.parametrize("ended", [0, 1, 2, 3])
async def test_one_that_ends_in_line(ended: int) -> None:
    """One that is cancelled, wherever it stands, leaves the others in line."""
    log: list[tuple[int, str]] = []
    scopes = [trio.CancelScope() for _ in range(4)]

    async def work(number: int) -> None:
        with scopes[number]:
            await _work(str(number), 2, log, [0])

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(work, number)
        await trio.lowlevel.checkpoint()
        scopes[ended].cancel()
    with trio.fail_after(5):
        await turn.next_turn()
        await turn.next_turn()

    assert {name for _, name in log} >= {str(number) for number in range(4) if number != ended}
    assert len(log) >= 6


async def test_those_that_begin_share_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that begin in one round of the loop end together, but each has a little time; in the next round anew."""
    monkeypatch.setattr(turn, "TURN_S", 5.0)
    monkeypatch.setattr(turn, "LEAST_S", 1.0)

    assert [turn.first_end(now) for now in (100.0, 101.0, 103.9)] == [105.0] * 3
    assert [turn.first_end(now) for now in (104.5, 107.0)] == [105.5, 108.0]
    await trio.lowlevel.checkpoint()
    assert turn.first_end(107.5) == 112.5


async def test_work_that_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Turn.pause` does nothing until the turn is over; then the work stands in line, and goes on with a whole turn."""
    looks, stood = count(100), []

    async def next_turn() -> float:
        stood.append(number)
        return 3.0

    monkeypatch.setattr(turn, "clock", lambda: float(next(looks)))
    monkeypatch.setattr(turn, "TURN_S", 3.0)
    monkeypatch.setattr(turn, "next_turn", next_turn)
    mine = turn.Turn()  # looks at 100: until 103
    for number in range(1, 10):  # noqa: B007  # next_turn notes it
        await mine.pause()

    assert stood == [3, 6, 9]
