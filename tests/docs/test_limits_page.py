"""docs/limits.md has every limit, with its default."""

import attrs

from fanwire.broker import Config
from fanwire.broker.cli.options import SETTINGS
from fanwire.broker.telemetry.statistics import LIMITS

from .pages import ROOT
from .tables import code_in, rows_in

PAGE = ROOT / "docs" / "limits.md"


def test_every_limit_has_its_row() -> None:
    """In the order in which they are counted, and none is made up."""
    rows = list(rows_in(PAGE.read_text(encoding="utf-8")))

    assert [code_in(row[0])[0] for row in rows] == list(LIMITS)


def test_defaults_are_those_of_the_settings() -> None:
    """The number that a row begins with."""
    fields = {setting.name: setting.field for setting in SETTINGS}
    rows = {code_in(row[0])[0]: row[1] for row in rows_in(PAGE.read_text(encoding="utf-8"))}
    for name, shown in rows.items():
        if name == "open_files":
            continue
        default = getattr(attrs.fields(Config), fields[name]).default
        if name.startswith("max_") and fields[name].endswith("_bytes"):
            expected = f"{default // 1024**2} MiB"
        else:
            expected = "none" if default is None else f"{default:,}"
        assert shown.startswith(expected), name
