"""The wheel and the sdist, built once, and two environments with the wheel."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from .installation import Installation, install
from .tree import copy_to


class Built(NamedTuple):
    """The two files that a release consists of."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist from a copy of the tree, and the wheel from the sdist, as for a release."""
    tree = copy_to(tmp_path_factory.mktemp("tree"))
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree)]
    ended = subprocess.run(build, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (sdist,) = out.glob("*.tar.gz")
    (wheel,) = out.glob("*.whl")
    return Built(sdist, wheel)


@pytest.fixture(scope="session")
def bare(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An environment with the wheel and no extra: the client for those who embed it."""
    return install(built.wheel, tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="session")
def complete(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """An environment with the wheel and every extra."""
    return install(built.wheel, tmp_path_factory.mktemp("complete"), "[all]")
