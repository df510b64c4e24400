"""What runs in a process of its own: `python -m fanwire.client.cli.bench.worker publish|receive FIRST COUNT PLAN`.

It speaks JSON lines with the process that started it. A worker says `ready`; a publisher is told to go, and how far the
subscribers are; a subscriber says how far it is, and is told how much was sent; both end with their figures, or with
what `failed`.
"""

import json
import os
import signal
import sys

import click
import trio

from fanwire.client.cli.running import run

from .json_lines import JsonLines
from .plan import Plan
from .publishing import Publishing
from .receiving import Receiving


def main(role: str, first: str, count: str, plan: str) -> None:
    """Run one worker. Ctrl-C on a terminal comes to all processes at once: who started this one ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run(_work, role, range(int(first), int(first) + int(count)), Plan.from_json(plan))
    except click.ClickException as error:
        print(json.dumps({"failed": error.format_message()}), flush=True)


async def _work(role: str, share: range, plan: Plan) -> int:
    link = JsonLines(trio.lowlevel.FdStream(os.dup(1)), trio.lowlevel.FdStream(os.dup(0)))
    worker = Publishing(plan, share) if role == "publish" else Receiving(plan, len(share))
    await worker.run(link)
    return 0


if __name__ == "__main__":
    main(*sys.argv[1:])
