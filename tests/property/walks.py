"""How long a walk goes on: a state machine's steps, the same ones each time, or new ones for as long as somebody wants.

Without a word a walk is a modest number of examples, drawn the same way every time. With the environment variable
``FANWIRE_WALK_SECONDS`` each walk goes on for so many seconds, with steps that nobody has seen before, and longer runs
of them. See CONTRIBUTING.md, Walks.
"""

from __future__ import annotations

import os
import time
import unittest

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

VARIABLE = "FANWIRE_WALK_SECONDS"

# How many times the usual steps a long walk's examples have: some faults need much to have happened before.
LONGER = 3


def walk_seconds() -> float | None:
    """For how many seconds each walk goes on; None: for its examples."""
    text = os.environ.get(VARIABLE, "")
    return float(text) if text else None


def walk(machine: type[RuleBasedStateMachine], *, examples: int, steps: int) -> type[unittest.TestCase]:
    """The test of a state machine; assign it to a name that pytest finds: ``TestThings = walk(Things, …)``.

    Args:
        machine: Rules, and what must hold.
        examples: How many examples it has in `make test`: as many as take some 20 s at most.
        steps: Of each example, at most; a long walk has three times as many.
    """
    seconds = walk_seconds()
    if seconds is not None:
        return _long_walk(machine, seconds, examples, steps * LONGER)
    case: type[unittest.TestCase] = machine.TestCase
    machine.TestCase.settings = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True, print_blob=True
    )
    return case


def _long_walk(
    machine: type[RuleBasedStateMachine], seconds: float, examples: int, steps: int
) -> type[unittest.TestCase]:
    anew = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=False,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )

    @pytest.mark.timeout(0)  # it says itself when it ends
    class LongWalk(unittest.TestCase):
        """New examples, until the time is up."""

        def runTest(self) -> None:  # noqa: N802 - unittest's name
            """Round after round, each with seeds of its own."""
            began, rounds = time.monotonic(), 0
            while time.monotonic() < began + seconds:
                run_state_machine_as_test(machine, settings=anew)
                rounds += 1
                took = time.monotonic() - began
                print(f"{machine.__name__}: {rounds * examples} walks in {took:.0f} s, nothing wrong", flush=True)

    return LongWalk
