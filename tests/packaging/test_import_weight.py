"""`import fanwire` brings only what the core needs."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from importlib.util import find_spec

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def test_importing_fanwire_imports_only_what_the_core_needs() -> None:
    """Nothing is imported beyond trio, trio-websocket, msgpack, attrs and what they need, though more is installed."""
    allowed = {"fanwire", *sys.stdlib_module_names, *_modules_of(set(_needed_by("fanwire")))}

    imported = _imported_by("import fanwire; fanwire.connect") - _imported_by("pass")

    assert imported - allowed == set()
    assert {"fanwire", "trio", "trio_websocket", "msgpack", "attr"} <= imported


def test_importing_fanwire_imports_no_broker() -> None:
    """The broker is loaded only when it is asked for."""
    assert "fanwire.broker" not in _import_times("import fanwire; fanwire.connect")


def test_the_command_line_begins_before_anything_slow_is_loaded() -> None:
    """Signals and standard streams are looked after within milliseconds, and not when the client is loaded."""
    slow = {"fanwire.client", "fanwire.broker", "trio", "click", "attr", "msgpack", "ssl"}

    assert slow.isdisjoint(_import_times("import fanwire.__main__"))


def _imported_by(program: str) -> set[str]:
    """The top-level modules that a fresh interpreter imports to run the program."""
    names = {name.partition(".")[0] for name in _import_times(program)}
    # The report also lists what was tried in vain (copy asks for Jython's org).
    return {name for name in names if find_spec(name)}


def _import_times(program: str) -> list[str]:
    """The modules that `python -X importtime` lists."""
    command = [sys.executable, "-X", "importtime", "-c", program]
    report = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stderr
    lines = [line for line in report.splitlines() if line.startswith("import time:")]
    return [line.rpartition("|")[2].strip() for line in lines]


def _needed_by(distribution: str, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """The distributions that this one requires on this platform without any extra, and those that they require."""
    for text in requires(distribution) or []:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        yield name
        yield from _needed_by(name, seen | {name})


def _modules_of(distributions: set[str]) -> set[str]:
    """The top-level modules that these distributions install."""
    owners = packages_distributions()
    return {module for module, names in owners.items() if distributions & {canonicalize_name(name) for name in names}}
