"""The pages of the documentation, and the code blocks that stand in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

ADDRESS = "127.0.0.1:9473"
"""What the pages write for a broker's address; the tests put the address of theirs in its place."""

_FENCE = re.compile(r"^```(\w*)\s*$")
_NOT_RUN = re.compile(r"^<!-- not run: (.*) -->$")


@attrs.frozen
class Block:
    """A fenced block of code."""

    page: Path
    line: int
    """Of its first line of code, counted from 1."""
    language: str
    lines: list[str]
    not_run: str | None
    """Why it is not run, where a comment `<!-- not run: … -->` stands right above it."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    @property
    def file_name(self) -> str | None:
        """The file that the reader is to put it into: `# hello.py` in its first line."""
        found = re.fullmatch(r"# (\w+\.py)", self.lines[0]) if self.language == "python" else None
        return found[1] if found else None


def blocks_of(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if not fence:
            at += 1
            continue
        end = lines.index("```", at + 1)
        marker = _NOT_RUN.match(lines[at - 1]) if at else None
        yield Block(page, at + 2, fence[1], lines[at + 1 : end], marker[1] if marker else None)
        at = end + 1


ALL_BLOCKS = tuple(block for page in PAGES for block in blocks_of(page))


def files_of(page: Path) -> dict[str, str]:
    """What the page has the reader put into files."""
    return {block.file_name: block.text for block in blocks_of(page) if block.file_name}
