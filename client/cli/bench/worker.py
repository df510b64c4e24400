"""What runs in a process of its own: `python -m fanwire.client.cli.bench.worker publish|receive FIRST COUNT PLAN`.

It speaks JSON lines with the process that started it. A worker says `ready`; a publisher is told to go, and how far the
subscribers are; a subscriber says how far it is, and is told how much was sent; both end with their figures.
"""

import os
import sys

import trio

from .json_lines import JsonLines
from .plan import Plan
from .publishing import Publishing
from .receiving import Receiving


def main(role: str, first: str, count: str, plan: str) -> None:
    """Run one worker."""
    trio.run(_work, role, range(int(first), int(first) + int(count)), Plan.from_json(plan))


async def _work(role: str, share: range, plan: Plan) -> None:
    link = JsonLines(trio.lowlevel.FdStream(os.dup(1)), trio.lowlevel.FdStream(os.dup(0)))
    worker = Publishing(plan, share) if role == "publish" else Receiving(plan, len(share))
    await worker.run(link)


if __name__ == "__main__":
    main(*sys.argv[1:])
