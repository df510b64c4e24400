"""What holds for every test."""

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from fanwire.broker.http import scraping
from fanwire.broker.timing import turn

# No test depends on how fast the machine is. In CI the same examples come every time; elsewhere new ones are sought.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(autouse=True)
def no_turn_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done in one turn does not depend on how fast the machine is; `test_turns.py` has clocks of its own."""
    monkeypatch.setattr(turn, "clock", lambda: 1.0)


@pytest.fixture(autouse=True, scope="session")
def metrics_imported() -> None:
    """Not in a thread: a clock that jumps does not wait for one. `test_http_status.py` sees to that."""
    if not scraping._known:
        scraping._known.append(scraping._imported())


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The command line sets up our logger for its process; in the tests' process that would outlive the test."""
    logger = logging.getLogger("fanwire")
    handlers, propagate, level = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("fanwire."):
            logging.getLogger(name).disabled = False  # a command says on the terminal what they would
