"""Every block of code in README.md and docs/ does what the page says."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .fragment import run_fragment
from .pages import ADDRESS, ALL_BLOCKS, PAGES, ROOT, Block, blocks_of, files_of
from .terminal import Command, Terminal, commands_of

FRAGMENTS = [block for block in ALL_BLOCKS if block.language == "python" and not block.file_name and not block.not_run]
RUN_PAGES = [page for page in PAGES if any(block.language == "console" for block in blocks_of(page))]


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a broker listens, for the pages that tell of none of their own."""
    terminal = Terminal(tmp_path_factory.mktemp("broker"), ADDRESS)
    try:
        terminal.run(Command(ALL_BLOCKS[0], "fanwire serve"))
        yield terminal.address
        terminal.stop()
    finally:
        terminal.kill()


@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_has_one_type_works_and_prints_what_it_shows(page: Path, tmp_path: Path, address: str) -> None:
    """The commands of a page, in order, in a folder with the page's files."""
    terminal = Terminal(tmp_path, address)
    try:
        for block in blocks_of(page):
            if block.language == "console" and not block.not_run:
                for command in commands_of(block):
                    for name, text in files_of(page).items():
                        (tmp_path / name).write_text(text.replace(ADDRESS, terminal.address), encoding="utf-8")
                    terminal.run(command)
        terminal.stop()
    finally:
        terminal.kill()


@pytest.mark.parametrize("block", FRAGMENTS, ids=str)
async def test_a_fragment_runs_and_all_of_it_is_reached(
    block: Block, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that belongs into no file runs beside a broker in memory."""
    await run_fragment(block, monkeypatch)


def test_every_file_of_a_page_is_run_by_it() -> None:
    """A block that goes into a file is named by a command of its page (pytest finds test files by itself)."""
    orphans = []
    for page in PAGES:
        typed = " ".join(block.text for block in blocks_of(page) if block.language == "console")
        orphans += [name for name in files_of(page) if name not in typed and not name.startswith(("test_", "conftest"))]

    assert orphans == []


def test_hardly_any_block_is_left_out_and_each_with_a_reason() -> None:
    """At most five blocks are not run, and each says why right above it."""
    left_out = [block for block in ALL_BLOCKS if block.not_run is not None]

    assert len(left_out) <= 5
    assert all(len(block.not_run or "") > 15 for block in left_out)


def test_every_block_says_what_it_is() -> None:
    """No block escapes by a language that nobody checks; text, ini and wire are shown, or compared elsewhere."""
    assert {block.language for block in ALL_BLOCKS} <= {"python", "console", "text", "ini", "toml", "wire"}
