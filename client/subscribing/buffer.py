"""What waits in this process for one subscription's handler: bounded in messages and in bytes.

A verdict, not a side effect: `Buffer.offer` says what happened, its owner acts on it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from operator import length_hint
from typing import Protocol

from attrs import frozen

from ..message import Raw
from ..notices import Mark
from .marks import KINDS_A_PLACE, Place, gathered, is_mark, is_stale, joined, lost_here, mark_of
from .weight import MESSAGE, WeighedRun, weight_of, weight_of_all


@frozen
class Bounds:
    """How much may wait."""

    messages: int
    size: int
    """Bytes, of payloads and all that is held with them (see `weight`)."""


class Buffer(Protocol):
    """Messages on their way to a handler, oldest first."""

    size: int
    """Bytes that wait (see `weight`)."""

    def __len__(self) -> int:
        """Messages that wait."""

    def __bool__(self) -> bool:
        """Whether there is anything to take, and be it only a mark."""

    def offer(self, run: list[Raw], size: int) -> int | None:
        """Take in ``run`` (``size`` bytes); return how many messages were lost by it, None: refused, not
        kept."""

    def append(self, run: list[Raw], size: int) -> None:
        """Take in ``run``, whether it fits or not."""

    def add_mark(self, lost: Mark) -> None:
        """Put a mark in the place of what was lost, or of silence: after what waits or, where the oldest go, before it.

        Marks are no messages: they take no room. Adjoining ones of a kind become one (see `Place`).
        """

    def hand(self, most: int) -> Iterator[Raw]:
        """The oldest, ``most`` at most, to be taken one by one; those not taken yet still count as waiting."""

    def take_up_to(self, most: int) -> list[Raw]:
        """Remove the oldest ``most``, or as many as there are."""

    def clear(self) -> None:
        """Forget all."""


def _marks_in(run: list[Raw]) -> int:
    return sum([is_mark(raw) for raw in run])


def _kinds(marks: int, bounds: Bounds) -> int:
    """How many kinds of loss the next place may tell apart: all together, marks are bounded as messages are."""
    return KINDS_A_PLACE if marks < max(bounds.messages, KINDS_A_PLACE) else 0


class Line:
    """First in, first out. What does not fit is refused, or makes room by ``shed``."""

    def __init__(self, bounds: Bounds, shed: Callable[[Line, list[Raw], int], int | None]) -> None:
        """``shed`` is asked when a run does not fit; see `refuse`, `drop_oldest`, `drop_newest`."""
        self.bounds = bounds
        self.waiting: deque[Raw] = deque()
        self.marks = 0  # among them
        self.size = 0
        self._shed = shed
        self._hand: Iterator[Raw] = iter(())
        self._hand_size = 0  # counts until all of the hand was taken
        self._weighed = False  # whether some that wait carry their weight
        self._end = Place()  # the marks behind the last message

    def __len__(self) -> int:
        return len(self.waiting) + length_hint(self._hand) - self.marks

    def __bool__(self) -> bool:
        return bool(self.waiting) or length_hint(self._hand) > 0

    @property
    def full(self) -> bool:
        """Whether there are as many messages as may wait, or more."""
        return len(self.waiting) - self.marks >= self.bounds.messages

    def offer(self, run: list[Raw], size: int) -> int | None:
        if len(self) + len(run) > self.bounds.messages or self.size + size > self.bounds.size:
            self._put_back()
            return self._shed(self, run, size)
        self.append(run, size)
        return 0

    def append(self, run: list[Raw], size: int) -> None:
        """Take in ``run``, whether it fits or not."""
        self.waiting.extend(run)
        self.size += size
        if type(run) is WeighedRun:
            self._weighed = True
        if self.marks:
            self._end = Place()

    def add_mark(self, lost: Mark) -> None:
        if self._shed is drop_oldest and lost_here(lost):
            self._add_mark_in_front(lost)
        elif (mark := self._end.add(lost, _kinds(self.marks, self.bounds))) is not None:
            self.waiting.append(mark)
            self.marks += 1

    def _add_mark_in_front(self, lost: Mark) -> None:
        self._put_back()
        if not (self.waiting and joined(self.waiting[0], lost)):
            self.waiting.appendleft(mark_of(lost))
            self.marks += 1

    def lose_oldest(self) -> int:
        """Make room; marks stay. Returns how many messages were lost."""
        waiting, bounds, marks = self.waiting, self.bounds, list[Raw]()
        lost = 0
        while len(waiting) - self.marks > bounds.messages or (self.size > bounds.size and len(waiting) > 1):
            raw = waiting.popleft()
            if is_mark(raw):
                marks.append(raw)
                self.marks -= 1
            else:
                self.size -= weight_of(raw)
                lost += 1
        marks = gathered(marks)
        waiting.extendleft(reversed(marks))
        self.marks += len(marks)
        return lost

    def hand(self, most: int) -> Iterator[Raw]:
        self.size -= self._hand_size
        waiting = self.waiting
        taken = [waiting.popleft() for _ in range(min(most, len(waiting)))]
        self._hand_size = self._size_of(taken)
        self._forget_marks(taken)
        self._hand = iter(taken)
        return self._hand

    def _forget_marks(self, taken: list[Raw]) -> None:
        if self.marks:
            self.marks -= _marks_in(taken)
            self._end = Place()  # what was handed out is no longer added to

    def _put_back(self) -> None:
        """What was handed out and not taken is the oldest again."""
        rest = list(self._hand)
        self.waiting.extendleft(reversed(rest))
        self.marks += _marks_in(rest)
        self.size -= self._hand_size - self._size_of(rest)
        self._hand_size = 0

    def take_up_to(self, most: int) -> list[Raw]:
        self._put_back()
        waiting = self.waiting
        if len(waiting) <= most:
            taken = list(waiting)
            self.clear()
            return taken
        taken = [waiting.popleft() for _ in range(most)]
        self.size -= self._size_of(taken)
        self._forget_marks(taken)
        return taken

    def _size_of(self, taken: list[Raw]) -> int:
        if self._weighed:
            return weight_of_all([raw for raw in taken if not is_mark(raw)])
        messages = len(taken) - (_marks_in(taken) if self.marks else 0)
        return sum([len(raw[5]) for raw in taken]) + MESSAGE * messages

    def clear(self) -> None:
        self._weighed = False
        self.waiting.clear()
        for _ in self._hand:
            pass
        self.size = self._hand_size = self.marks = 0
        self._end = Place()


def refuse(line: Line, run: list[Raw], size: int) -> None:
    """Nothing of the run is kept."""


def drop_oldest(line: Line, run: list[Raw], size: int) -> int:
    """The new ones stay; what waited longest goes."""
    line.append(run, size)
    return line.lose_oldest()


def drop_newest(line: Line, run: list[Raw], size: int) -> int:
    """What waits stays; of the run the first ones, as far as there is room."""
    waiting, bounds = line.waiting, line.bounds
    for kept, raw in enumerate(run):
        wide = weight_of(raw)
        if line.full or (line.size + wide > bounds.size and waiting):
            return len(run) - kept
        line.append(WeighedRun([raw]) if type(run) is WeighedRun else [raw], wide)
    return 0


class Conflating:
    """Of each topic (or topic and ``key``) only the newest waits, in the place of the first. Replacing is not loss.

    More keys than may wait: the oldest key is lost.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        # OrderedDict: taking the first of a dict again and again has to step over all the removed ones.
        self._waiting: OrderedDict[object, Raw] = OrderedDict()
        self._marks: set[object] = set()  # the keys of those among them
        self._stale = 0  # those that tell of silence
        self._last_mark = 0
        self._end = Place()  # the marks behind the last key
        self.size = 0

    def __len__(self) -> int:
        return len(self._waiting) - len(self._marks)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def offer(self, run: list[Raw], size: int) -> int:
        self.append(run, size)
        return self._lose_keys()

    def append(self, run: list[Raw], size: int) -> None:
        waiting = self._waiting
        before = len(waiting)
        for raw in run:
            key = _key_of(raw)
            old = waiting.get(key)
            if old is not None:
                self.size -= weight_of(old)
                if self._stale:  # what is newer than the silence comes behind it
                    del waiting[key]
                    self._end = Place()
            waiting[key] = raw
        if self._marks and len(waiting) != before:
            self._end = Place()
        self.size += size

    def _lose_keys(self) -> int:
        lost, marks = 0, list[Raw]()
        while (messages := len(self)) > self.bounds.messages or (self.size > self.bounds.size and messages > 1):
            raw = self.take()
            if is_mark(raw):
                marks.append(raw)
            else:
                lost += 1
        for mark in reversed(gathered(marks)):
            self._put(mark, in_front=True)
        return lost

    def add_mark(self, lost: Mark) -> None:
        if lost_here(lost):  # what is lost here are the oldest keys
            if not (self._waiting and joined(next(iter(self._waiting.values())), lost)):
                self._put(mark_of(lost), in_front=True)
        elif (mark := self._end.add(lost, _kinds(len(self._marks), self.bounds))) is not None:
            self._put(mark, in_front=False)

    def _put(self, mark: Raw, *, in_front: bool) -> None:
        self._last_mark += 1
        self._marks.add(self._last_mark)
        self._stale += is_stale(mark)
        self._waiting[self._last_mark] = mark
        self._waiting.move_to_end(self._last_mark, last=not in_front)

    def take(self) -> Raw:
        key, raw = self._waiting.popitem(last=False)
        if is_mark(raw):
            self._marks.discard(key)
            self._stale -= is_stale(raw)
            self._end = Place()  # what was handed out is no longer added to
        else:
            self.size -= weight_of(raw)
        return raw

    def hand(self, most: int) -> Iterator[Raw]:
        # One: what is handed out can no longer be replaced by something newer.
        return iter(self.take_up_to(1))

    def take_up_to(self, most: int) -> list[Raw]:
        return [self.take() for _ in range(min(most, len(self._waiting)))]

    def clear(self) -> None:
        self._waiting.clear()
        self._marks.clear()
        self._stale = 0
        self._end = Place()
        self.size = 0


def _key_of(raw: Raw) -> object:
    meta = raw[7] if len(raw) > 7 else None
    key = meta.get("key") if isinstance(meta, dict) else None
    return raw[2] if not isinstance(key, str) else (raw[2], key)
