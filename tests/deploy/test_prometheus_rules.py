"""The rules by themselves: their form, their runbooks, and each alert in its fault, in promtool's simulated time."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tailer.metrics.catalogue import CATALOGUE
from tests.deploy.manifests import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "rules" / "librechat-tailer.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs Debian's package prometheus")
_METRIC = re.compile(r"\btailer_[a-z_]+\b")
_SUFFIX = re.compile(r"_(?:bucket|count|sum)$")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def declared() -> set[str]:
    return {metric.name for section in CATALOGUE for metric in section.metrics}


def metrics_in(expression: str) -> set[str]:
    return {_SUFFIX.sub("", name) for name in _METRIC.findall(expression)}


def test_rules_ask_only_for_metrics_that_there_are() -> None:
    asked = {name for rule in rules() for name in metrics_in(rule["expr"])}

    assert asked
    assert asked - declared() == set()


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(alerts())
    for name, alert in alerts().items():
        assert alert["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert {"summary", "description"} <= alert["annotations"].keys()


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_a_runbook_says_what_it_means_what_it_does_and_what_to_do(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)

    assert text.startswith(f"# {path.stem}\n")
    assert headings == ["Meaning", "Impact", "Diagnosis", "Remedy"]
    for other in re.findall(r"\]\((\w+\.md)\)", text):
        assert (RUNBOOKS / other).is_file()
    assert metrics_in(text) - declared() == set()


@needs_promtool
def test_promtool_finds_no_fault_in_rules_and_configuration() -> None:
    for arguments in (
        ["check", "rules", str(RULES)],
        ["check", "config", str(PROMETHEUS / "prometheus.yml")],
    ):
        done = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("name", ["alerts", "traps"])
def test_alerts_fire_in_their_faults_and_none_while_all_is_well(name: str) -> None:
    tests = PROMETHEUS / "tests" / f"{name}.yaml"
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(tests)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_shown_to_fire() -> None:
    text = (PROMETHEUS / "tests" / "alerts.yaml").read_text(encoding="utf-8")

    assert set(re.findall(r'alertname="(\w+)"', text)) == set(alerts())


def test_the_series_of_the_tests_are_those_of_the_daemon() -> None:
    """A label that the daemon does not have would let a rule pass here and be silent in earnest."""
    known = {
        metric.name: {label.name: label.values for label in metric.labels}
        for section in CATALOGUE
        for metric in section.metrics
    }
    for path in sorted((PROMETHEUS / "tests").glob("*.yaml")):
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for series in test["input_series"]:
                name, _, rest = series["series"].partition("{")
                given = dict(re.findall(r'(\w+)="([^"]*)"', rest))
                assert given.pop("job") == "librechat-tailer"
                assert given.pop("instance")
                given.pop("namespace", None)
                if name in {"up", "process_start_time_seconds"}:
                    assert given == {}
                    continue
                labels = known[_SUFFIX.sub("", name)]
                if name.endswith("_bucket"):
                    given.pop("le")
                assert given.keys() == labels.keys(), series
                for label, value in given.items():
                    allowed = labels[label]
                    assert allowed is None or value in allowed, series
