"""Rendering of the chart and of kustomizations, and the strict check of what comes out.

The tools come with `make test` (tests/deploy/tools.lock); without them these tests are skipped and say so.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

_MISSING: Final = "`make test` installs it from tests/deploy/tools.lock"
yaml = pytest.importorskip("yaml", reason=f"PyYAML is missing: {_MISSING}")
helm = pytest.importorskip("helm_python", reason=f"helm-python-sdk is missing: {_MISSING}")
kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason=f"kubernetes-validate is missing: {_MISSING}"
)

Manifest: TypeAlias = Mapping[str, Any]

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
CHART: Final = DEPLOY / "helm" / "librechat-tailer"
KUSTOMIZE: Final = DEPLOY / "kustomize"
OLDEST, NEWEST = "1.27", "1.37"
"""Releases of Kubernetes against whose published schemas everything is checked; before 1.27 a disruption budget has
no `unhealthyPodEvictionPolicy`, which the chart leaves out there."""

# The Prometheus operator's definitions are no part of Kubernetes: what of them is used here, by kind.
_OPERATOR_FIELDS: Final[Mapping[str, set[str]]] = {
    "PodMonitor": {"jobLabel", "selector", "podMetricsEndpoints"},
    "ServiceMonitor": {"jobLabel", "selector", "endpoints"},
    "PrometheusRule": {"groups"},
}


def render_chart(
    values: Mapping[str, Any] | None = None,
    *,
    release: str = "tailer",
    namespace: str = "chat",
    chart: Path = CHART,
) -> list[Manifest]:
    """The objects that `helm install` would make; raises helm_python.HelmError for values that the chart refuses."""
    with helm.Chart.load(chart) as loaded:
        rendered = loaded.render(dict(values or {}), name=release, namespace=namespace)
    return [
        manifest
        for path, text in sorted(rendered.items())
        if path.endswith(".yaml")
        for manifest in yaml.safe_load_all(text)
        if manifest
    ]


def render_notes(values: Mapping[str, Any] | None = None) -> str:
    """What `helm install` prints."""
    with helm.Chart.load(CHART) as chart:
        rendered = chart.render(dict(values or {}), name="tailer", namespace="chat")
    return str(rendered["librechat-tailer/templates/NOTES.txt"])


def build_kustomization(path: Path) -> list[Manifest]:
    """The objects that `kubectl apply -k` would make."""
    done = subprocess.run([*_kustomize(), str(path)], check=True, capture_output=True, text=True)
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def _kustomize() -> Sequence[str]:
    kubectl = Path(sys.executable).with_name("kubectl")
    if kubectl.is_file():
        return [str(kubectl), "kustomize"]
    if found := shutil.which("kubectl"):
        return [found, "kustomize"]
    if found := shutil.which("kustomize"):
        return [found, "build"]
    pytest.skip(f"neither kubectl nor kustomize is there: {_MISSING}")


def check_strictly(manifests: Sequence[Manifest]) -> None:
    """Raise for a field that Kubernetes or the Prometheus operator does not know, and for a name that is there
    twice."""
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert len(names) == len(set(names)), names
    for manifest in manifests:
        if manifest["apiVersion"] == "monitoring.coreos.com/v1":
            assert manifest["spec"].keys() == _OPERATOR_FIELDS[manifest["kind"]]
        else:
            for version in (OLDEST, NEWEST):
                kubernetes_validate.validate(json.loads(json.dumps(manifest)), version, strict=True)


def only(manifests: Sequence[Manifest], kind: str) -> Manifest:
    """The one object of a kind."""
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def pod_of(manifests: Sequence[Manifest]) -> dict[str, Any]:
    """The pod's specification in the Deployment, or the StatefulSet of shards."""
    (found,) = [each for each in manifests if each["kind"] in ("Deployment", "StatefulSet")]
    return dict(found["spec"]["template"]["spec"])


def container_of(manifests: Sequence[Manifest]) -> dict[str, Any]:
    """The tailer's container."""
    (found,) = [item for item in pod_of(manifests)["containers"] if item["name"] == "tailer"]
    return dict(found)


def environment_of(manifests: Sequence[Manifest]) -> dict[str, Any]:
    """The container's variables: a text, or the reference that the value comes from."""
    env = container_of(manifests)["env"]
    assert len({variable["name"] for variable in env}) == len(env)
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in env}


def names_in_schema(schema: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Dotted names of the values that a schema lists, down to those whose insides are Kubernetes' own."""
    for name, inner in schema["properties"].items():
        if "properties" in inner and name != "settings":
            yield from names_in_schema(inner, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def has_name(values: Any, name: str) -> bool:
    """Whether a dotted name is in values."""
    for part in name.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True
