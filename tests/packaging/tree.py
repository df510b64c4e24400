"""The repository's own files, as the packaging tests compare them with what is built from them."""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "fanwire"
CONSTRAINTS = ROOT / "constraints.txt"
TO_BUILD = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "src", "broker", "client", "protocol")

_LEFT_BY_TOOLS = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", ".*")


def package_files() -> set[str]:
    """Every file of the package, seen through the links, as `fanwire/…`."""
    found: set[str] = set()
    for folder, folders, names in os.walk(PACKAGE, followlinks=True):
        ignored = _LEFT_BY_TOOLS(folder, folders + names)
        folders[:] = [name for name in folders if name not in ignored]
        found.update(_in_package(Path(folder, name)) for name in names if name not in ignored)
    return found


def _in_package(path: Path) -> str:
    return path.relative_to(PACKAGE.parent).as_posix()


def copy_to(folder: Path) -> Path:
    """Copy what a build needs, links as links: so no build finds old files in the work tree, or leaves any."""
    for name in TO_BUILD:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=_LEFT_BY_TOOLS)
        else:
            shutil.copy(source, folder / name)
    return folder
