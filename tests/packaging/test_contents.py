"""Wheel and sdist hold the tree's files, as files, and nothing else."""

import stat
import tarfile
import zipfile

import fanwire

from .conftest import Built
from .tree import package_files

RELEASE = f"fanwire-{fanwire.__version__}"
OF_WHEEL = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}
OF_SDIST = {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}


def test_the_wheel_holds_the_tree_and_nothing_else(built: Built) -> None:
    """Every file of the package, reached through the links too, is in the wheel; beside them only the metadata."""
    with zipfile.ZipFile(built.wheel) as wheel:
        names = set(wheel.namelist())

    assert names == package_files() | {f"{RELEASE}.dist-info/{name}" for name in OF_WHEEL}


def test_the_sdist_holds_the_tree_and_nothing_else(built: Built) -> None:
    """Every file of the package is in the sdist under src/; beside them only what builds the wheel."""
    with tarfile.open(built.sdist) as sdist:
        names = {member.name.removeprefix(f"{RELEASE}/") for member in sdist if not member.isdir()}

    of_build = {name for name in names if not name.startswith("src/fanwire.egg-info/")}
    assert of_build == {f"src/{name}" for name in package_files()} | OF_SDIST


def test_the_wheel_holds_no_links(built: Built) -> None:
    """The links of src/fanwire/ became real files: a wheel with links installs as nothing at all."""
    with zipfile.ZipFile(built.wheel) as wheel:
        links = [entry.filename for entry in wheel.infolist() if stat.S_ISLNK(entry.external_attr >> 16)]

    assert links == []


def test_the_sdist_holds_no_links(built: Built) -> None:
    """The sdist can be unpacked where links are not allowed."""
    with tarfile.open(built.sdist) as sdist:
        links = [member.name for member in sdist if not (member.isfile() or member.isdir())]

    assert links == []


def test_the_wheel_says_that_it_is_typed(built: Built) -> None:
    """py.typed is there, so that type checkers read our annotations (PEP 561)."""
    with zipfile.ZipFile(built.wheel) as wheel:
        assert "fanwire/py.typed" in wheel.namelist()
