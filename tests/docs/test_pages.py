"""The pages are complete, agree with the code, and lead nowhere that is not there."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import click
import pytest

import fanwire
from fanwire.broker import Config, TopicRule
from fanwire.broker.cli.options import FLAGS, SETTINGS, option_of
from fanwire.broker.settings.auth import Auth
from fanwire.client.config import Options
from fanwire.commandline import COMMANDS, root
from fanwire.protocol.ranges import range_of, written

from .pages import PAGES, ROOT
from .tables import code_in, rows_in, rows_of, section

CONFIGURATION = ROOT / "docs" / "configuration.md"
CLI = ROOT / "docs" / "cli.md"
_THREATS = (
    "What a hostile network can do",
    "Who comes in, and what they may do",
    "Storms and exhaustion",
    "Over HTTP",
)
OTHERS = tuple(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "tests/vectors/README.md"))

_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def _prose(page: Path) -> str:
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def _anchors(page: Path) -> set[str]:
    """Headings as the usual viewers link to them."""
    headings = re.findall(r"^#+ (.*)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def _broken(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)]+)\)", _prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        leads_to = page.parent / path if path else page
        if not leads_to.exists() or (anchor and anchor not in _anchors(leads_to)):
            yield target


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """To a file of the repository, and to a heading that is there."""
    assert list(_broken(page)) == []


def test_every_page_is_in_the_index() -> None:
    """docs/README.md names each page once or more."""
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")

    assert [page.name for page in PAGES[1:] if page.name != "README.md" and f"({page.name})" not in index] == []


def test_the_guide_names_everything_public() -> None:
    """Each name of `fanwire` stands in the guide."""
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")

    assert [name for name in fanwire.__all__ if name[0] != "_" and not re.search(rf"\b{name}\b", guide)] == []


def _shown(field: "attrs.Attribute[object]") -> str:
    """A default, as the table writes it."""
    default = field.default
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, int) and field.name.endswith("_bytes"):
        return f"{default // 1024**2} MiB" if default % 1024**2 == 0 else f"{default // 1024} KiB"
    if default in ((), None):
        return "none"
    if isinstance(default, float):
        return f"{default:g} s"
    return f"{default:,}" if isinstance(default, int) and field.name != "port" else str(default)


def _settings() -> list[list[str]]:
    before_limits = CONFIGURATION.read_text(encoding="utf-8").partition("## Limits that are no settings")[0]
    return list(rows_in(before_limits))


def test_every_setting_of_the_broker_has_its_row() -> None:
    """Names and defaults, in the order of the class."""
    assert [(code_in(row[0])[0], row[2]) for row in _settings()] == [
        (field.name, _shown(field)) for field in attrs.fields(Config)
    ]


def test_every_setting_says_whether_it_may_be_none() -> None:
    """Where None means "no limit", the row says so, and only there."""
    may_be_none = [code_in(row[0])[0] for row in _settings() if row[3].endswith("May be none")]

    assert may_be_none == [field.name for field in attrs.fields(Config) if "None" in str(field.type)]


def test_every_setting_names_its_option() -> None:
    """As `fanwire serve` has it."""
    options = {setting.field: setting.option for setting in SETTINGS} | {name: option_of(name) for name in FLAGS}
    options["auth"] = "--auth-file"

    assert {code_in(row[0])[0]: "".join(code_in(row[1])) for row in _settings()} == {
        field.name: options.get(field.name, "") for field in attrs.fields(Config)
    }


def test_every_number_has_its_range() -> None:
    """In the order of the classes within each row; a number without one, or with another one, fails."""
    documented = {
        f"{'rules: ' if row[0].startswith('rules:') else ''}{name}": row[1]
        for row in rows_of(CONFIGURATION, "Ranges of numbers")
        for name in code_in(row[0])
    }

    assert documented == {
        f"{prefix}{field.name}": f"{written(allowed.least)} to {written(allowed.most)}"
        for prefix, cls in (("", Config), ("rules: ", TopicRule), ("", Auth))
        for field in attrs.fields(cls)
        if (allowed := range_of(field)) is not None
    }


def test_limits_that_are_no_settings_say_where_they_are() -> None:
    """The files are there."""
    rows = rows_in(section(CONFIGURATION, "Limits that are no settings"))
    named = [path for row in rows for path in code_in(row[2])]

    assert len(named) == 9
    assert all((ROOT / path).is_file() for path in named)


ROOMS = sorted({path.parent for top in ("broker", "client") for path in (ROOT / top).glob("*/__init__.py")})


def test_the_architecture_names_every_room_and_no_other() -> None:
    """Its tables of rooms are the folders; files that have no room stand there by their own names."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for top in ("broker", "client"):
        table = text.partition(f"| room of `{top}/` |")[2].partition("\n\n")[0]
        files = {path.name for path in (ROOT / top).glob("*.py") if path.name != "__init__.py"}

        assert {name for row in rows_in(table) for name in code_in(row[0])} == files | {
            f"{room.name}/" for room in ROOMS if room.parent.name == top
        }


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: f"{room.parent.name}/{room.name}")
def test_a_room_lists_its_files(room: Path) -> None:
    """Each once, with what it is for."""
    words = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
    assert words is not None

    assert sorted(re.findall(r"^\* `(\w+\.py)`: .", words, re.MULTILINE)) == sorted(
        path.name for path in room.glob("*.py") if path.name != "__init__.py"
    )


def test_settings_of_the_client_in_the_guide_are_there() -> None:
    """No row names a setting that `connect` does not take."""
    guide = ROOT / "docs" / "guide.md"
    named = {name for row in rows_in(section(guide, "Connect")) for name in code_in(row[0])}

    assert len(named) >= 7
    assert named <= {field.name for field in attrs.fields(Options)}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_has_its_row(name: str) -> None:
    """In docs/cli.md, under the command's heading; the settings of `serve` in docs/configuration.md."""
    command = root.get_command(click.Context(root), name)
    assert command is not None
    documented = {option for row in rows_in(section(CLI, f"fanwire {name}")) for option in code_in(row[0])}
    if name == "serve":
        documented |= {option for row in _settings() for option in code_in(row[1])}

    commands = [command, *command.commands.values()] if isinstance(command, click.Group) else [command]
    options = [each for one in commands for each in one.params if isinstance(each, click.Option)]
    assert documented == {max(each.opts, key=len) for each in options}


def test_tests_that_the_security_page_names_are_there() -> None:
    """Each row of what is defended names tests that exist."""
    page = ROOT / "docs" / "security.md"
    named = [name for heading in _THREATS for row in rows_of(page, heading) for name in code_in(row[2])]
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("**/test_*.py")]
    there = {name for text in texts for name in re.findall(r"def (test_\w+)", text)}

    assert len(named) > 20
    assert [name for name in named if name not in there] == []


# Written so that this file is not found by itself.
_OF_A_MACHINE = re.compile(r"/(work|farm|root)/|files\.pythonhosted|registry\.npmjs|deb\.debian")


def test_nothing_in_the_repository_names_a_machine_or_a_registry() -> None:
    """No path of the machine where something was written, and no host of a package registry."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    files = [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]
    texts = {path: data.decode(errors="replace") for path in files if b"\0" not in (data := path.read_bytes())}

    assert len(texts) > 50
    assert [str(path.relative_to(ROOT)) for path, text in texts.items() if _OF_A_MACHINE.search(text)] == []
