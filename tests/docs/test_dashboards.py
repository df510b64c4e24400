"""The dashboard and the alerts ask for figures that /metrics has, and lead to pages that are there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fanwire.broker.http.metrics import GAUGES
from tests.integration.http_client import http, serving

from .pages import ROOT

DASHBOARD = ROOT / "deploy" / "grafana-dashboard.json"
ALERTS = ROOT / "deploy" / "alerts.yml"

_OURS = re.compile(r"\b(?:fanwire|process)_\w+")
_BY = re.compile(r"by \(([\w, ]+)\)")
_OF_PROMETHEUS = {"instance", "le", "job"}


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [panel for panel in panels if panel["type"] != "row"]


def _expressions() -> list[str]:
    asked = [target["expr"] for panel in _panels() for target in panel["targets"]]
    return asked + re.findall(r"^ *expr: (.*)$", ALERTS.read_text(encoding="utf-8"), re.MULTILINE)


def _names(expression: str) -> set[str]:
    return set(_OURS.findall(re.sub(r"\{[^}]*\}|\"[^\"]*\"", "", expression)))


async def _told() -> tuple[set[str], dict[str, set[str]]]:
    """Samples that /metrics has, also those that have not been counted yet; and labels by sample."""
    async with serving() as broker:
        counters = broker._hub.counters
        for counted in (
            counters.lost,
            counters.slow_by_measure,
            counters.unauthenticated,
            counters.forbidden,
            counters.turned_away,
        ):
            counted["x"] = 1
        counters.count_close(1011)
        client = await http(broker)
        await client.get("/healthz")
        text = (await client.get("/metrics")).body.decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    labels = {each.name: set(each.labels) for each in samples}
    labels |= {f"fanwire_{name}": set() for name, _ in GAUGES.values()}  # also that of the certificate
    return set(labels), labels


async def test_every_figure_that_is_asked_for_is_told() -> None:
    """By the dashboard and the alerts."""
    names, _ = await _told()
    asked = {name for expression in _expressions() for name in _names(expression)}

    assert len(asked) > 25
    assert asked - names == set()


async def test_every_label_that_is_asked_for_is_there() -> None:
    """`sum by (…)` and `{{…}}` name labels of the figure that they stand with."""
    _, labels = await _told()
    for expression in _expressions():
        (has,) = {frozenset(labels[name]) for name in _names(expression)} or {frozenset()}
        for names in _BY.findall(expression):
            assert set(names.split(", ")) <= has | _OF_PROMETHEUS, expression


def test_every_panel_says_what_it_shows_and_has_its_own_place() -> None:
    """Titles, descriptions, one data source, nothing on top of another."""
    places: set[tuple[int, int]] = set()
    for panel in _panels():
        assert panel["title"]
        assert len(panel["description"]) > 3
        assert panel["datasource"]["uid"] == "${datasource}"
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & places
        places |= cells
    identities = [panel["id"] for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]]
    assert len(set(identities)) == len(identities)


def test_every_alert_leads_to_a_heading_that_is_there() -> None:
    """Of a page of ours; and the page has a row for it."""
    text = ALERTS.read_text(encoding="utf-8")
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    }
    alerts = re.findall(r"- alert: (\w+)", text)

    assert len(alerts) == len(re.findall(r"^ +summary: ", text, re.MULTILINE)) > 8
    assert {target.partition("#")[2] for target in re.findall(r"runbook: (\S+)", text)} <= anchors
    assert [name for name in alerts if f"`{name}`" not in page] == []


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed here")
def test_prometheus_takes_the_alerts() -> None:
    """As it reads them itself."""
    ended = subprocess.run(
        ["promtool", "check", "rules", ALERTS], capture_output=True, text=True, check=False, timeout=60
    )

    assert ended.returncode == 0, ended.stderr
