"""An environment of its own into which the wheel is installed."""

import subprocess
import venv
from pathlib import Path
from typing import NamedTuple

from .tree import CONSTRAINTS


class Installation(NamedTuple):
    """A virtual environment that holds the wheel and what it asked for, and nothing of the repository."""

    python: Path

    def run(self, *arguments: str, cwd: Path) -> str:
        """Run its Python in `cwd` and return what it printed; a failure shows both streams."""
        ended = subprocess.run([self.python, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, f"{arguments} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}"
        return ended.stdout


def install(wheel: Path, folder: Path, extras: str = "") -> Installation:
    """Install the wheel with `extras` (`[all]`) at the pinned versions into a new environment in `folder`."""
    venv.create(folder, with_pip=True)
    installation = Installation(folder / "bin" / "python")
    pip = ("-m", "pip", "install", "--quiet", "--constraint", str(CONSTRAINTS))
    subprocess.run([installation.python, *pip, f"fanwire{extras} @ {wheel.as_uri()}"], check=True, timeout=300)
    return installation
