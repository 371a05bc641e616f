"""Writes what the chart, the Kustomize components and the documents repeat of other files, so that each fact has one
source.

`python deploy/derive.py` brings them up to date, with `--check` it only tells what is stale (exit code 1). Sources are
the settings of the tailer, the Prometheus rules in `deploy/prometheus/rules` and the dashboards in `deploy/grafana`. A
chart and a kustomization can only read files of their own folders, which is why there are copies at all.
"""

import argparse
import json
import runpy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tailer.events import listing as events_listing
from tailer.metrics import listing as metrics_listing
from tailer.settings import Settings
from tailer.settings import listing as settings_listing
from tailer.settings.environment import collect_settings

DEPLOY: Final = Path(__file__).resolve().parent
CHART: Final = DEPLOY / "helm" / "librechat-tailer"
MONITORING: Final = DEPLOY / "kustomize" / "components" / "monitoring"
RULES: Final = DEPLOY / "prometheus" / "rules"
DASHBOARDS: Final = DEPLOY / "grafana"
COMPOSE: Final = DEPLOY / "compose"
DOCS: Final = DEPLOY.parent / "docs"

# They have places of their own in the values, which name a Secret.
KEPT_IN_SECRETS: Final = frozenset(
    {
        "LANGFUSE_PUBLIC_KEY",
        "LANGFUSE_SECRET_KEY",
        "TAILER_LANGFUSE_HEADERS",
        "TAILER_MONGO_URI",
        "TAILER_STATE_URI",
        "TAILER_USER_ID_SECRET",
    }
)
_RULE_OBJECT: Final = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: librechat-tailer-{name}
  labels:
    app.kubernetes.io/name: librechat-tailer
    app.kubernetes.io/component: tailer
spec:
"""
_COMPONENT: Final = """\
# Written by `make derive`: rules and dashboards are those of deploy/prometheus and deploy/grafana.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
resources:
  - podmonitor.yaml
"""
_DASHBOARD_MAP: Final = """\
configMapGenerator:
  - name: librechat-tailer-dashboards
    options:
      disableNameSuffixHash: true
      labels:
        grafana_dashboard: "1"
        app.kubernetes.io/name: librechat-tailer
    files:
"""


def derive() -> dict[Path, str]:
    """What every derived file should hold."""
    return {
        **{DASHBOARDS / name: text for name, text in _dashboards().items()},
        CHART / "values.schema.json": _schema(),
        MONITORING / "kustomization.yaml": _monitoring(),
        DOCS / "log.md": events_listing.write_document(),
        DOCS / "metrics.md": metrics_listing.write_document(),
        DOCS / "settings.md": settings_listing.write_document(),
        **dict(_copies()),
        **dict(_rule_objects()),
        **_compose_files(),
    }


def stale(derived: Mapping[Path, str]) -> list[Path]:
    """Derived files that are missing, differ, or have lost their source."""
    present = {
        path for pattern in ("files/rules/*.yaml", "files/dashboards/*.json") for path in CHART.glob(pattern)
    }
    present |= {*MONITORING.glob("rules/*.yaml"), *MONITORING.glob("dashboards/*.json")}
    changed = {path for path, text in derived.items() if not path.is_file() or path.read_text() != text}
    return sorted(changed | (present - derived.keys()))


def _copies() -> Iterator[tuple[Path, str]]:
    for rules in _rules():
        yield CHART / "files" / "rules" / f"{rules.stem}.yaml", rules.read_text()
    for name, text in _dashboards().items():
        for folder in (CHART / "files" / "dashboards", MONITORING / "dashboards"):
            yield folder / name, text


def _dashboards() -> dict[str, str]:
    """Built by a module that stands beside them and is no part of any package."""
    built: dict[str, str] = runpy.run_path(str(DASHBOARDS / "build.py"))["build"]()
    return dict(sorted(built.items()))


def _rules() -> list[Path]:
    return sorted((*RULES.glob("*.yaml"), *RULES.glob("*.yml")))


def _rule_objects() -> Iterator[tuple[Path, str]]:
    for rules in _rules():
        groups = "".join(f"  {line}".rstrip() + "\n" for line in rules.read_text().splitlines())
        yield MONITORING / "rules" / f"{rules.stem}.yaml", _RULE_OBJECT.format(name=rules.stem) + groups


def _monitoring() -> str:
    """The component's list of files, which knows no wildcards."""
    rules = "".join(f"  - rules/{path.stem}.yaml\n" for path in _rules())
    dashboards = "".join(f"      - dashboards/{name}\n" for name in _dashboards())
    return _COMPONENT + rules + (_DASHBOARD_MAP + dashboards if dashboards else "")


def _compose_files() -> dict[Path, str]:
    """The script goes into the file itself, so that there is one to copy; LibreChat's other compose file has a twin."""
    file = COMPOSE / "docker-compose.tailer.yml"
    written, mark, _ = file.read_text().partition("    content: |\n")
    script = (COMPOSE / "mongod-in-a-set.sh").read_text().replace("$", "$$")
    lines = "".join(f"      {line}".rstrip() + "\n" for line in script.splitlines())
    head, services, rest = (written + mark + lines).partition("services:\n")
    override = "# (leave out docker-compose.override.yml where there is none).\n"
    twin = head.replace(override, "").replace(" -f docker-compose.override.yml", "")
    twin = twin.replace("docker-compose.", "deploy-compose.")
    return {file: head + services + rest, COMPOSE / "deploy-compose.tailer.yml": twin + services + rest}


def _schema() -> str:
    path = CHART / "values.schema.json"
    schema = json.loads(path.read_text())
    schema["properties"]["settings"]["properties"] = {
        name: {
            "description": description,
            "type": ["string", "number", "boolean", "null"],
            **({"minimum": 1} if name == "TAILER_HTTP_PORT" else {}),
        }
        for name, description in _settings().items()
        if name not in KEPT_IN_SECRETS
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _settings() -> dict[str, str]:
    """The explanation of every setting by its first name."""
    fields = Settings.model_fields
    return {
        setting.names[0]: fields[attribute].description or ""
        for attribute, setting in sorted(collect_settings(fields).items(), key=lambda item: item[1].names[0])
    }


def main() -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only tell what is stale")
    check = parser.parse_args().check
    derived = derive()
    found = stale(derived)
    for path in found:
        print(f"{path.relative_to(DEPLOY.parent)} {'is stale' if check else 'renewed'}")
        if check:
            continue
        if path in derived:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(derived[path])
        else:
            path.unlink()
    if check and found:
        print("remedy: make derive", file=sys.stderr)
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main())
