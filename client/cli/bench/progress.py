"""A bar on the terminal while a benchmark runs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .plan import NEVER, Plan
from .run import OnProgress


@contextmanager
def progress_bar(plan: Plan, *, wanted: bool) -> Iterator[OnProgress]:
    """A bar over the time of a run, with the messages that have arrived, on standard error.

    Args:
        plan: how long the run takes.
        wanted: there is none otherwise, nor where there is no terminal.
    """
    if not wanted or not sys.stderr.isatty():
        yield lambda arrived: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("[bold cyan]{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[arrived]:>12,} messages"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"bench {plan.mode}", total=plan.seconds, arrived=0)

        def on_progress(arrived: int) -> None:
            elapsed = progress.tasks[task].elapsed or 0.0
            shown = arrived if arrived < NEVER else 0
            progress.update(task, completed=min(elapsed, plan.seconds), arrived=shown)

        yield on_progress
