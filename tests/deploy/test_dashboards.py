"""The dashboards by themselves: what a good one has, checked without a Grafana."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tailer.metrics.catalogue import CATALOGUE
from tests.deploy.test_prometheus_rules import metrics_in

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"
FILES = sorted(GRAFANA.glob("*.json"))
KNOWN = {metric.name for section in CATALOGUE for metric in section.metrics}


def read(path: Path) -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return dashboard


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for panel in dashboard["panels"]:
        found += panel["panels"] if panel["type"] == "row" else [panel]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_panel_has_a_title_a_description_a_unit_and_the_chosen_data_source(path: Path) -> None:
    dashboard = read(path)
    for panel in panels(dashboard):
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert "$namespace" in target["expr"]
            assert metrics_in(target["expr"]) - KNOWN == set()
            # A fixed window breaks where the scrape interval is another one; an hour or a month are meant.
            assert set(re.findall(r"\[(.*?)\]", target["expr"])) <= {"$__rate_interval", "1h", "30d"}
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert names == ["datasource", "namespace", "job", "instance"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_have_ids_of_their_own_and_lie_beside_each_other(path: Path) -> None:
    dashboard = read(path)
    rows = [panel for panel in dashboard["panels"] if panel["type"] == "row"]
    ids = [panel["id"] for panel in [*panels(dashboard), *rows]]
    assert len(ids) == len(set(ids))
    for group in [dashboard["panels"], *(row["panels"] for row in rows)]:
        taken: set[tuple[int, int]] = set()
        for panel in group:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert max(x for x, _ in cells) < 24
            assert not cells & taken
            taken |= cells


def test_lag_comes_first() -> None:
    main = read(GRAFANA / "librechat-tailer.json")

    assert main["panels"][0]["title"] == "Lag"
    assert panels(main)[0]["title"] == "Read lag"
