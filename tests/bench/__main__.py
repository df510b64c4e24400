"""`make bench`: a short round of everything that needs no peers, a minute and a half.

python -m tests.bench
"""

from __future__ import annotations

import subprocess
import sys

ROUND = [
    ("fan-out to a thousand", "fanout", "--seconds 3"),
    ("fan-out to a hundred", "fanout", "--seconds 3 --subscribers 100"),
    ("memory of idle connections", "idle", "--connections 2000 --cycles 2000"),
    ("a subscriber that never reads", "slow", "--pairs 1 --seconds 6 --stall-timeout 3 --subscribers 300"),
    ("slow readers of each policy", "isolation", "--rounds 1 --seconds 2 --healthy 300 --kinds frozen --counts 10"),
    ("Python at both ends", "sdk", "--seconds 2 --repetitions 1 --only fanwire"),
]

LAST_WORDS = """
These are short runs, to see that all is well; tests/bench/README.md says how to measure, and how to compare.
Beside nats-py and nats-server: make bench-peers"""


def main() -> None:
    """Run one after the other; end with 1 if one of them failed."""
    failed = False
    for title, module, options in ROUND:
        print(f"\n== {title} (python -m tests.bench.{module} {options})", flush=True)
        failed |= subprocess.run([sys.executable, "-m", f"tests.bench.{module}", *options.split()]).returncode != 0
    print(LAST_WORDS)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
