"""Reading the tables of a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


def section(page: Path, heading: str) -> str:
    """What stands under a heading, up to the next one of any level."""
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no heading {heading!r}"
    return found[1]


def rows_of(page: Path, heading: str) -> list[list[str]]:
    """The rows of all tables under a heading, without their heads."""
    return list(rows_in(section(page, heading)))


def rows_in(text: str) -> Iterator[list[str]]:
    """The rows of all tables of a text, without their heads."""
    lines = text.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("| ") and before.startswith("| ") and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip()[1:-1].split("|")]


def code_in(cell: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", cell)
