"""The plots of docs/slow-consumers.md, from what was measured.

    python -m tests.bench.slow_series --series series.json
    python docs/plots/make_plots.py series.json

The first runs a broker, a feed and a reader that pauses, once for each policy; the second keeps what the plots need in
`series.csv` beside this file, and draws. Without an argument it draws from that. Needs matplotlib (dependency group
`plots`); `make plots` does both.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

HERE = Path(__file__).parent
SERIES = HERE / "series.csv"
COLUMNS = ("policy", "t_s", "reading", "age_ms", "queued", "queued_bytes", "published", "received", "lost", "replaced")
COLOURS = {
    "disconnect": "#777777",
    "unsubscribe": "#9467bd",
    "drop_oldest": "#1f77b4",
    "drop_newest": "#d9822b",
    "conflate": "#2a9d5c",
}
WIDTHS = (8.0, 6.0, 4.2, 2.6, 1.2)  # where lines lie on each other, all are seen
# One style for light and dark pages: a white sheet of its own.
STYLE: dict[str, Any] = {
    "figure.facecolor": "white",
    "figure.figsize": (8, 3.6),
    "figure.dpi": 90,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
}

Rows = dict[str, list[dict[str, float]]]


def main() -> None:
    """Read, keep, draw."""
    if len(sys.argv) > 1:
        keep(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    rows = read()
    with plt.rc_context(STYLE):
        draw_ages(rows)
        draw_waiting(rows)
        draw_fates(rows)


def keep(series: dict[str, Any]) -> None:
    """Write what the plots need: a line for each tenth of a second and policy."""
    with SERIES.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for policy, run in series["policies"].items():
            for row in run["rows"]:
                broker = row["broker"] or {}
                age = "" if row["age_ms"] is None else round(row["age_ms"], 1)
                at_broker = [broker.get(each, 0) for each in ("queued", "queued_bytes")]
                fate = [row["published"], row["received"], row["lost_told"], broker.get("replaced", 0)]
                writer.writerow([policy, row["t_s"], int(row["reading"]), age, *at_broker, *fate])
            end = run["end"]
            writer.writerow(
                [policy, "end", 1, "", 0, 0, end["published"], end["received"], end["lost"], end["replaced"]]
            )


def read() -> Rows:
    """By policy; the last row of each is how it ended."""
    rows: Rows = {}
    with SERIES.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            numbers = {key: float(value or "nan") for key, value in row.items() if key != "policy" and value != "end"}
            rows.setdefault(row["policy"], []).append(numbers)
    return rows


def draw_ages(rows: Rows) -> None:
    """How old the newest value is that the reader has."""
    figure, axes = plt.subplots()
    for width, (policy, series) in zip(WIDTHS, rows.items(), strict=True):
        axes.plot(*_columns(series, "age_ms", 1e-3), label=policy, color=COLOURS[policy], lw=width)
    _finish(axes, rows, "age of the newest value the reader has, s")
    _save(figure, "age")


def draw_waiting(rows: Rows) -> None:
    """What waits for it at the broker."""
    figure, axes = plt.subplots()
    for width, (policy, series) in zip(WIDTHS, rows.items(), strict=True):
        axes.plot(*_columns(series, "queued", 1), label=policy, color=COLOURS[policy], lw=width)
    axes.set_yscale("symlog", linthresh=10)
    _finish(axes, rows, "messages waiting at the broker")
    _save(figure, "waiting")


def draw_fates(rows: Rows) -> None:
    """What became of all that was published."""
    figure, axes = plt.subplots(figsize=(8, 2.6))
    policies = list(reversed(rows))
    ends = [rows[policy][-1] for policy in policies]
    left = [0.0] * len(ends)
    fates = {"received": "#2a9d5c", "replaced": "#a8d5ba", "lost": "#d9822b"}
    for fate, colour in fates.items():
        values = [end[fate] for end in ends]
        axes.barh(policies, values, left=left, label=f"{fate}{', and told' if fate == 'lost' else ''}", color=colour)
        left = [before + value for before, value in zip(left, values, strict=True)]
    rest = [max(0.0, end["published"] - so_far) for end, so_far in zip(ends, left, strict=True)]
    axes.barh(policies, rest, left=left, label="after the subscription ended", color="#dddddd")
    axes.set_xlabel("messages")
    axes.grid(visible=False, axis="y")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.22), ncols=4, frameon=False)
    _save(figure, "fates")


def _columns(series: list[dict[str, float]], name: str, scale: float) -> tuple[list[float], list[float]]:
    timed = [row for row in series if "t_s" in row]
    return [row["t_s"] for row in timed], [row[name] * scale for row in timed]


def _finish(axes: Axes, rows: Rows, label: str) -> None:
    times = [row["t_s"] for row in next(iter(rows.values())) if "t_s" in row and not row["reading"]]
    axes.axvspan(min(times), max(times), color="#000000", alpha=0.06, lw=0)
    middle = (min(times) + max(times)) / 2
    axes.text(middle, 1.01, "the reader pauses", ha="center", transform=axes.get_xaxis_transform())
    axes.set_xlabel("seconds")
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", frameon=False)


def _save(figure: Any, name: str) -> None:
    figure.savefig(HERE / f"{name}.png", bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
