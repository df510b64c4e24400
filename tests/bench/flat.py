"""Does memory stay flat while slow readers stay slow? A minute with 250 of them, of all policies, beside 1,000 healthy.

    python -m tests.bench.flat --seconds 70

Half of the slow ones never read, half read 1 kB a second; those who asked for `disconnect` or `unsubscribe` are dropped
in the first seconds and do not come back. After 10 s all queues are full, so from then on the broker's RSS must not
grow: flat means that in the rest of the time it is never more than 5 % above what it was at 10 s.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from tests.bench import payload
from tests.bench.figures import p99
from tests.bench.isolation import UNLIMITED
from tests.bench.program import fanwire, raise_open_files
from tests.bench.publishing import PacedPublisher
from tests.bench.receiving import subscribers
from tests.bench.slow_readers import KINDS, POLICIES, Group, slow_readers

TOPIC = "bench.flat"
SETTLED_S = 10
TOLERANCE = 0.05


def main() -> None:
    """Measure, print a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--healthy", type=int, default=1000, help="subscribers that read")
    parser.add_argument("--slow", type=int, default=25, help="slow ones of each policy and kind")
    parser.add_argument("--rate", type=float, default=50.0, help="publishes a second")
    parser.add_argument("--seconds", type=int, default=70, help=f"more than {SETTLED_S}")
    parser.add_argument("--queue", type=int, default=100, help="messages that may wait for a slow one")
    parser.add_argument("--size", type=int, default=128, help=f"bytes of payload, at least {payload.LEAST}")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with the RSS of each second")
    wanted = parser.parse_args()
    if wanted.seconds <= SETTLED_S:
        parser.error(f"--seconds must be more than {SETTLED_S}")
    raise_open_files(wanted.healthy + len(POLICIES) * len(KINDS) * wanted.slow + 100)
    figures = measure(wanted)
    print(json.dumps(figures) if wanted.json else _LINE.format(**figures))
    if figures["lost"] or figures["wrong_numbers"]:
        raise SystemExit("error: healthy subscribers lost messages")
    if figures["idle_policies"]:
        raise SystemExit(f"error: the policy of a slow reader did nothing: {', '.join(figures['idle_policies'])}")


def measure(wanted: argparse.Namespace) -> dict[str, Any]:
    """One run; RSS is looked at once a second."""
    groups = [Group(on_slow, kind, wanted.slow) for on_slow in POLICIES for kind in KINDS]
    with (
        fanwire(*UNLIMITED) as broker,
        subscribers(broker.address, TOPIC, wanted.healthy, latencies=True) as everybody,
        slow_readers(broker.address, TOPIC, groups, wanted.queue) as slow,
    ):
        publisher = PacedPublisher(broker, everybody, TOPIC, wanted.rate, wanted.size)
        memory = []
        for _ in range(wanted.seconds):
            publisher.run(1.0)
            memory.append(broker.memory())
        end = everybody.wait_for(publisher.published)
        struck = slow.struck(0, publisher.published - 1)
        settled, later = memory[SETTLED_S - 1], memory[SETTLED_S:]
        return {
            "slow": len(groups) * wanted.slow,
            "mib_settled": round(settled / 2**20, 2),
            "mib_least": round(min(later) / 2**20, 2),
            "mib_most": round(max(later) / 2**20, 2),
            "seconds": len(later),
            "flat": "flat" if max(later) <= settled * (1 + TOLERANCE) else "NOT flat",
            "p99_ms": round(p99(everybody.latencies_ns) / 1e6, 1),
            "lost": publisher.published * wanted.healthy - end.total,
            "wrong_numbers": end.wrong,
            "idle_policies": [
                f"{group.on_slow} ({group.kind})" for group, did in zip(groups, struck, strict=True) if not did
            ],
            "mib": [round(each / 2**20, 2) for each in memory],
        }


_LINE = (
    f"{{slow}} slow readers: RSS {{mib_settled}} MiB after {SETTLED_S} s, {{mib_least}} to {{mib_most}} MiB in the "
    "{seconds} s after that: {flat}; p99 of the healthy {p99_ms} ms; they lost {lost}"
)


if __name__ == "__main__":
    main()
