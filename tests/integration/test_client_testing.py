"""`fanwire.testing` works in somebody else's project."""

import subprocess
import sys
from pathlib import Path

CONFTEST = 'pytest_plugins = ["fanwire.testing"]\n'

TEST = """
async def test_prices(autojump_clock, fanwire_client):
    async with fanwire_client.subscribe("prices.>") as prices:
        await fanwire_client.publish("prices.ABC", 12.5)
        assert (await anext(prices)).data == 12.5
"""


def test_the_plugin(tmp_path: Path) -> None:
    """One line in conftest.py brings the fixtures."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_prices.py").write_text(TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\nfilterwarnings = error\n")

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=tmp_path, capture_output=True, text=True
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout
