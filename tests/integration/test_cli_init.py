"""`fanwire` as process 1 of a container, to which the kernel gives only the signals that it has asked for."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from .cli_programs import DEADLINE_S

# The kernel drops a signal to process 1 for which there is no handler; the program would then print this.
LOST = "import os, signal; os.kill(os.getpid(), signal.SIGTERM); print('lost')"


def _as_init(program: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program as process 1 of a PID namespace of its own."""
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def _can_unshare() -> bool:
    return shutil.which("unshare") is not None and _as_init("pass").returncode == 0


@pytest.mark.skipif(not _can_unshare(), reason="needs unshare(1), and the right to make a PID namespace")
def test_sigterm_ends_process_1_before_a_command_listens_for_it() -> None:
    """Before the broker is even loaded; without a handler SIGTERM would be lost, and the container killed later."""
    before = _as_init(LOST)
    after = _as_init(f"from fanwire.__main__ import prepare_process; prepare_process(); {LOST}")

    assert (before.returncode, before.stdout) == (0, "lost\n")
    assert (after.returncode, after.stdout) == (143, "")
