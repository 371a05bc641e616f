"""The kustomizations: valid for Kubernetes, and the same pod as the Helm chart's."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tailer import __version__
from tests.deploy.manifests import (
    DEPLOY,
    KUSTOMIZE,
    Manifest,
    build_kustomization,
    check_strictly,
    container_of,
    environment_of,
    only,
    pod_of,
    render_chart,
    yaml,
)

BUILDABLE = [KUSTOMIZE / "base", *sorted((KUSTOMIZE / "overlays").iterdir())]


@pytest.fixture(scope="module")
def built() -> Mapping[str, list[Manifest]]:
    """The base and every overlay, by name."""
    return {path.name: build_kustomization(path) for path in BUILDABLE}


def settings_of(manifests: list[Manifest]) -> Mapping[str, str]:
    """The settings in the ConfigMap that the container reads."""
    names = {source["configMapRef"]["name"] for source in container_of(manifests)["envFrom"]}
    (found,) = [
        item for item in manifests if item["kind"] == "ConfigMap" and item["metadata"]["name"] in names
    ]
    return dict(found["data"])


@pytest.mark.parametrize("name", [path.name for path in BUILDABLE])
def test_what_is_built_passes_the_strict_schemas_of_kubernetes(
    built: Mapping[str, list[Manifest]], name: str
) -> None:
    check_strictly(built[name])


def test_the_base_runs_the_same_pod_as_the_chart(built: Mapping[str, list[Manifest]]) -> None:
    chart, base = render_chart({"fullnameOverride": "librechat-tailer"}), built["base"]

    def without(specification: dict[str, Any], *names: str) -> dict[str, Any]:
        return {name: value for name, value in specification.items() if name not in names}

    assert without(pod_of(base), "containers") == without(pod_of(chart), "containers")
    assert without(container_of(base), "env", "envFrom") == without(container_of(chart), "env")
    assert only(base, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert container_of(base)["image"] == f"librechat-tailer:{__version__}"


def test_every_selector_finds_the_pod(built: Mapping[str, list[Manifest]]) -> None:
    for manifests in built.values():
        labels = only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
        for manifest in manifests:
            selector = manifest.get("spec", {}).get("selector") or manifest.get("spec", {}).get("podSelector")
            if selector is not None:
                assert selector["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("name", ["librechat-configmap", "monitoring", "high-availability"])
def test_beside_librechats_chart_the_uri_is_the_one_of_librechat(
    built: Mapping[str, list[Manifest]], name: str
) -> None:
    expected = dict(environment_of(render_chart()))
    # The chart's default for a setting is a line of the map of settings here, so that an overlay can change it.
    host = expected.pop("TAILER_HTTP_HOST")

    assert environment_of(built[name]) == expected
    assert settings_of(built[name])["TAILER_HTTP_HOST"] == host


def test_with_mongodb_elsewhere_both_uris_come_from_a_secret(built: Mapping[str, list[Manifest]]) -> None:
    given = environment_of(built["external-mongodb"])

    for name, key in (("TAILER_MONGO_URI", "MONGO_URI"), ("TAILER_STATE_URI", "TAILER_STATE_URI")):
        assert given[name] == {"secretKeyRef": {"name": "librechat-tailer-mongodb", "key": key}}


def test_high_availability_is_what_the_chart_makes_of_two_replicas(
    built: Mapping[str, list[Manifest]],
) -> None:
    chart = only(render_chart({"replicas": 2}), "Deployment")["spec"]
    overlay = only(built["high-availability"], "Deployment")["spec"]

    assert (overlay["replicas"], overlay["strategy"]) == (chart["replicas"], chart["strategy"])
    (spread,) = overlay["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"] == overlay["selector"]


def test_the_network_policy_is_the_one_of_the_chart(built: Mapping[str, list[Manifest]]) -> None:
    chart = only(render_chart({"networkPolicy": {"enabled": True}}), "NetworkPolicy")["spec"]
    component = only(built["high-availability"], "NetworkPolicy")["spec"]

    assert (component["ingress"], component["egress"]) == (chart["ingress"], chart["egress"])


def test_the_pod_monitor_is_the_one_of_the_chart(built: Mapping[str, list[Manifest]]) -> None:
    chart = only(render_chart({"metrics": {"podMonitor": {"enabled": True}}}), "PodMonitor")["spec"]
    component = only(built["monitoring"], "PodMonitor")["spec"]

    assert component["podMetricsEndpoints"] == chart["podMetricsEndpoints"]
    assert component["jobLabel"] == chart["jobLabel"]


def test_rules_and_dashboards_are_those_of_prometheus_and_grafana(
    built: Mapping[str, list[Manifest]],
) -> None:
    rules = [manifest["spec"] for manifest in built["monitoring"] if manifest["kind"] == "PrometheusRule"]
    sources = sorted((DEPLOY / "prometheus" / "rules").glob("*.y*ml"))

    assert rules == [yaml.safe_load(path.read_text()) for path in sources]
    assert _dashboards(built["monitoring"]) == {
        path.name: path.read_text() for path in (DEPLOY / "grafana").rglob("*.json")
    }


def _dashboards(manifests: list[Manifest]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for manifest in manifests:
        if manifest["metadata"].get("labels", {}).get("grafana_dashboard") == "1":
            found.update(manifest["data"])
    return found


def test_the_overlay_in_the_readme_builds_with_its_image_and_its_langfuse(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", (KUSTOMIZE / "README.md").read_text(), re.DOTALL)
    shutil.copytree(KUSTOMIZE, tmp_path / "deploy" / "kustomize")
    overlay = tmp_path / "my-overlay"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(example)

    manifests = build_kustomization(overlay)

    check_strictly(manifests)
    assert container_of(manifests)["image"] == f"registry.example.com/librechat-tailer:{__version__}"
    assert only(manifests, "ConfigMap")["data"] == {
        "LANGFUSE_HOST": "https://us.cloud.langfuse.com",
        "TAILER_HTTP_HOST": "::",
    }


def test_the_file_of_destinations_is_mounted_where_its_setting_names_it(
    built: Mapping[str, list[Manifest]],
) -> None:
    """With the path that the chart uses, so that a file can move from one to the other."""
    manifests = built["destinations"]
    file = Path(settings_of(manifests)["TAILER_DESTINATIONS"])
    volumes = {volume["name"]: volume for volume in pod_of(manifests)["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container_of(manifests)["volumeMounts"]}
    (config,) = [item for item in manifests if item.get("data", {}).get(file.name) is not None]
    chart = environment_of(render_chart({"destinations": {"config": config["data"][file.name]}}))

    assert mounts[str(file.parent)]["configMap"]["name"] == config["metadata"]["name"]
    assert mounts["/etc/librechat-tailer/secrets"]["secret"]["optional"] is True
    assert chart["TAILER_DESTINATIONS"] == str(file)


def test_every_overlay_is_named_in_the_readme() -> None:
    readme = Path(KUSTOMIZE / "README.md").read_text()

    assert [path.name for path in BUILDABLE if f"`{path.name}`" not in readme and path.name != "base"] == []


def test_every_shard_is_an_overlay_as_the_page_on_scaling_shows_it(tmp_path: Path) -> None:
    """Two Deployments with numbers, selectors and settings of their own."""
    shutil.copytree(KUSTOMIZE, tmp_path / "kustomize")
    page = (KUSTOMIZE.parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")
    (first,) = re.findall(r"```yaml\n(# kustomization.*?)```", page, re.DOTALL)
    second = first.replace('"-0"', '"-1"').replace('"0"', '"1"').replace("SHARD=0", "SHARD=1")
    for name, text in (("first", first), ("second", second)):
        folder = tmp_path / "kustomize" / "shards" / name
        folder.mkdir(parents=True)
        (folder / "kustomization.yaml").write_text(text)
    (tmp_path / "kustomize" / "shards" / "kustomization.yaml").write_text("resources: [first, second]\n")

    manifests = build_kustomization(tmp_path / "kustomize" / "shards")

    check_strictly(manifests)
    deployments = [each for each in manifests if each["kind"] == "Deployment"]
    settings = [each["data"] for each in manifests if "TAILER_SHARD" in each.get("data", {})]
    assert [each["TAILER_SHARD"] for each in settings] == ["0", "1"]
    assert {each["TAILER_TOTAL_SHARDS"] for each in settings} == {"2"}
    assert [each["spec"]["selector"]["matchLabels"]["shard"] for each in deployments] == ["0", "1"]
    assert len({each["metadata"]["name"] for each in deployments}) == 2
