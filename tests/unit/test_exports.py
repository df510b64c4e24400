"""The public face of `fanwire` is complete."""

import ast
import importlib
import subprocess
import sys
import types
from pathlib import Path

import pytest

import fanwire
import fanwire.client

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in ("broker", "client", "protocol", "src/fanwire", "tests")
    for path in ROOT.glob(f"{folder}/**/*.py")
]

# The broker's import fails as it does where the extra is not installed.
WITHOUT_THE_EXTRA = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "fanwire.broker":
            raise ModuleNotFoundError("No module named 'structlog'", name="structlog")

sys.meta_path.insert(0, Missing())
import fanwire
try:
    fanwire.Broker
except ImportError as error:
    print(error)
"""


def _public_names(module: types.ModuleType) -> set[str]:
    """The names that the module offers: no underscore, no submodule, none that typing brought."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "TYPE_CHECKING"
    }


@pytest.mark.parametrize("name", fanwire.__all__)
def test_every_listed_name_exists(name: str) -> None:
    """What `__all__` promises can be had, the broker's names included."""
    assert getattr(fanwire, name) is not None


def test_every_public_name_is_listed() -> None:
    """`__all__` leaves out no name that the module has."""
    assert _public_names(fanwire) - set(fanwire.__all__) == set()


def test_every_name_of_the_client_is_public() -> None:
    """What the client offers can be imported from `fanwire`."""
    assert _public_names(fanwire.client) - set(fanwire.__all__) == set()


def test_the_list_is_sorted_and_names_nothing_twice() -> None:
    """The list reads in order, so that a name is found and added in one place."""
    assert list(fanwire.__all__) == sorted(set(fanwire.__all__))


def test_dir_shows_the_lazy_names() -> None:
    """`dir(fanwire)` shows the broker's names before they have been loaded."""
    assert set(fanwire.__all__) <= set(dir(fanwire))


def test_lazy_names_are_the_brokers_own() -> None:
    """`fanwire.Broker` is `fanwire.broker.Broker`, not a copy."""
    broker = importlib.import_module("fanwire.broker")

    assert (fanwire.Broker, fanwire.Config) == (broker.Broker, broker.Config)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name fails as with any module."""
    with pytest.raises(AttributeError, match="module 'fanwire' has no attribute 'Brokr'"):
        fanwire.__getattr__("Brokr")


def test_a_missing_extra_is_named() -> None:
    """Whoever asks for the broker without its packages reads which extra to install."""
    ended = subprocess.run([sys.executable, "-c", WITHOUT_THE_EXTRA], capture_output=True, text=True, timeout=60)

    assert ended.stdout == "fanwire.Broker needs the package 'structlog': pip install 'fanwire[broker]'\n"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_imports_by_a_bare_name(path: Path) -> None:
    """`import client` would be a second copy of every class, or the user's own file: it is `fanwire.client`."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported.add((node.module or "").partition(".")[0])

    assert imported & {"broker", "client", "protocol"} == set()
