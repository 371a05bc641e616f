"""The Helm chart, rendered by Helm's own engine: valid for Kubernetes, strict with values, hardened by default."""

import json
import re
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tailer import __version__
from tailer.core.stream.shard import Shard
from tailer.settings import Settings, load_settings
from tailer.settings.environment import collect_settings
from tailer.settings.sharding import ShardingSettings
from tests.deploy.manifests import (
    CHART,
    check_strictly,
    container_of,
    environment_of,
    has_name,
    helm,
    names_in_schema,
    only,
    pod_of,
    render_chart,
    render_notes,
    yaml,
)

EVERYTHING: Mapping[str, Any] = yaml.safe_load(Path(__file__).with_name("everything.yaml").read_text())
DEFAULTS: Mapping[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: Mapping[str, Any] = json.loads((CHART / "values.schema.json").read_text())
SECRET_SETTINGS = {
    "TAILER_MONGO_URI",
    "TAILER_STATE_URI",
    "LANGFUSE_PUBLIC_KEY",
    "LANGFUSE_SECRET_KEY",
    "TAILER_LANGFUSE_HEADERS",
    "TAILER_USER_ID_SECRET",
}
MONITORED = {"metrics": {name: {"enabled": True} for name in ("podMonitor", "prometheusRule", "dashboards")}}

DESTINATIONS = """\
otherwise = ["default"]
[destinations.default]
kind = "langfuse"
public_key = "pk-lf-1"
secret_key_file = "/etc/librechat-tailer/secrets/team-a/secret"
[destinations.collector]
kind = "otlp"
endpoint = "http://collector:4318"
headers_env = "OTLP_HEADERS"
[[routes]]
when = { tenant = ["a"] }
to = ["default", "collector"]
"""
RULES = """\
groups:
  - name: tailer
    rules:
      - record: tailer:lag
        expr: max(tailer_stream_lag_seconds)
      - alert: TailerDown
        expr: up{job="librechat-tailer"} == 0
        labels: {severity: critical}
      - alert: StreamGap
        expr: increase(tailer_stream_gaps_total[10m]) > 0
        for: 5m
        labels: {severity: critical}
        annotations:
          summary: '{{ $labels.stream }} lost {{ $value | humanize }} stretches'
"""
DASHBOARD = '{"title": "Tailer {{ x }}", "panels": []}\n'


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_helm_lint_finds_nothing_but_the_missing_icon(values: Mapping[str, Any]) -> None:
    report = helm.lint(CHART, dict(values), strict=True)

    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("values", [{}, MONITORED, EVERYTHING], ids=["defaults", "monitored", "everything"])
def test_what_is_rendered_passes_the_strict_schemas_of_kubernetes(values: Mapping[str, Any]) -> None:
    check_strictly(render_chart(values))


def test_every_value_has_a_default_a_schema_and_a_place_in_the_test_of_everything() -> None:
    names = list(names_in_schema(SCHEMA))

    assert [name for name in names if not has_name(DEFAULTS, name)] == []
    assert [name for name in names if not has_name(EVERYTHING, name)] == []
    assert set(DEFAULTS) == set(SCHEMA["properties"])


def test_chart_and_application_have_the_version_of_the_tailer() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert (__version__, __version__) == (chart["version"], chart["appVersion"])


def test_every_setting_can_be_given_or_has_a_secret_of_its_own() -> None:
    names = {setting.names[0] for setting in collect_settings(Settings.model_fields).values()}
    values = {
        "settings": dict.fromkeys(names - SECRET_SETTINGS, "1"),
        "langfuse": {"headers": {"existingSecret": {"name": "gateway"}}},
        "state": {"existingSecret": {"name": "state"}},
        "userIdHash": {"existingSecret": {"name": "pepper"}},
    }

    given = environment_of(render_chart(values))

    assert names == given.keys()
    assert {name for name, value in given.items() if isinstance(value, dict)} == SECRET_SETTINGS


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2_500_000, "2500000"), (0.25, "0.25"), (False, "false"), ("a,b", "a,b"), (3, "3"), (0, "0")],
)
def test_a_setting_reaches_the_daemon_as_it_was_written(value: object, expected: str) -> None:
    given = environment_of(render_chart({"settings": {"TAILER_FIELD_BYTES": value}}))

    assert given["TAILER_FIELD_BYTES"] == expected


def test_the_daemon_takes_the_environment_that_the_chart_gives_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rendered by Helm, read by the tailer's own settings."""
    in_secrets = {
        "uri": "mongodb://mongodb:27017/LibreChat",
        "state-uri": "mongodb://state:27017",
        "public": "pk-lf-1",
        "secret": "sk-lf-1",
        "headers": "X-Gateway-Key=secret",
        "pepper": "a-key-of-the-hash-that-is-long-enough",
    }
    monkeypatch.chdir(tmp_path)
    for name, value in environment_of(render_chart(EVERYTHING)).items():
        given = value == {"fieldRef": {"fieldPath": "metadata.name"}} and "traces-5"
        monkeypatch.setenv(
            name, given or (value if isinstance(value, str) else in_secrets[value["secretKeyRef"]["key"]])
        )

    settings = load_settings()

    assert settings.langfuse_url == "http://langfuse-web.langfuse:3000"
    assert settings.shutdown_time == timedelta(seconds=40.5)
    assert settings.field_bytes == 2_500_000
    assert settings.http_port == 9000
    assert not settings.warnings


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"setings": {}}, "setings"),
        ({"settings": {"TAILER_CONTENTS": "masked"}}, "TAILER_CONTENTS"),
        ({"settings": {"LANGFUSE_SECRET_KEY": "sk-lf-1"}}, "LANGFUSE_SECRET_KEY"),
        ({"mongodb": {"uri": "mongodb://me:password@mongodb/LibreChat"}}, "uri"),
        ({"state": {"uri": "mongodb://me:password@mongodb"}}, "uri"),
        ({"metrics": {"podMonitor": {"interval": "often"}}}, "interval"),
        ({"replicas": "two"}, "replicas"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"settings": {"TAILER_HTTP_PORT": 0}}, "TAILER_HTTP_PORT"),
        ({"mongodb": {"uri": "mongodb://m/L", "existingSecret": {"name": "mongodb"}}}, "exclude each other"),
        ({"mongodb": {"librechatRelease": ""}}, "give librechatRelease"),
        ({"state": {"uri": "mongodb://m", "existingSecret": {"name": "state"}}}, "exclude each other"),
        ({"langfuse": {"existingSecret": {"name": ""}}}, "langfuse.existingSecret.name is empty"),
        ({"settings": {"TAILER_USER_ID": "hash"}}, "userIdHash.existingSecret.name"),
        ({"settings": {"TAILER_LANGFUSE_HEADERS": "X-Key=secret"}}, "TAILER_LANGFUSE_HEADERS"),
        (
            {"destinations": {"config": DESTINATIONS, "existingSecret": {"name": "destinations"}}},
            "exclude each other",
        ),
        ({"destinations": {"config": DESTINATIONS}, "settings": {"TAILER_SINK": "langfuse"}}, "TAILER_SINK"),
        (
            {"destinations": {"config": DESTINATIONS}, "settings": {"TAILER_DESTINATIONS": "/x"}},
            "exclude each other",
        ),
        ({"destinations": {"config": '[destinations.a]\n  secret_key = "sk-lf-1"'}}, "secret_key_file"),
        ({"destinations": {"config": '[destinations.a]\n"user_id_secret"="x"'}}, "ConfigMap"),
        ({"destinations": {"config": '[destinations]\na = {kind="langfuse", secret_key="x"}'}}, "ConfigMap"),
        ({"destinations": {"config": '[destinations.a]\nheaders = {api-key = "x"}'}}, "headers_file"),
        ({"destinations": {"config": '[destinations.a]\nheaders.api-key = "x"'}}, "headers_file"),
        ({"destinations": {"config": '[destinations.a."headers"]\napi-key = "x"'}}, "headers_file"),
        ({"destinations": {"config": '[destinations]\na = {endpoint="x", headers={b="c"}}'}}, "headers_file"),
        (
            {"langfuse": {"existingSecret": {"name": ""}}, "settings": {"TAILER_SINK": "file"}},
            "TAILER_FILE_PATH",
        ),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(values: Mapping[str, Any], complaint: str) -> None:
    with pytest.raises(helm.HelmError, match=re.escape(complaint)):
        render_chart(values)


def mounted(manifests: list[Any]) -> dict[str, dict[str, Any]]:
    """The volumes of the container by the path where they are mounted."""
    volumes = {volume["name"]: volume for volume in pod_of(manifests)["volumes"]}
    return {mount["mountPath"]: volumes[mount["name"]] for mount in container_of(manifests)["volumeMounts"]}


def test_a_file_of_destinations_is_mounted_where_the_variable_names_it_and_can_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rendered by Helm, read by the tailer's own settings; secrets are beside it, from their own objects."""
    values = {
        "langfuse": {"existingSecret": {"name": ""}},
        "destinations": {"config": DESTINATIONS, "secretFiles": ["team-a"]},
        "extraEnv": [{"name": "OTLP_HEADERS", "value": "api-key=x"}],
    }
    manifests = render_chart(values)
    check_strictly(manifests)
    file = Path(environment_of(manifests)["TAILER_DESTINATIONS"])
    (config,) = [item for item in manifests if item["kind"] == "ConfigMap"]

    volumes = mounted(manifests)
    assert volumes[str(file.parent)]["configMap"] == {"name": config["metadata"]["name"]}
    assert volumes["/etc/librechat-tailer/secrets/team-a"]["secret"] == {"secretName": "team-a"}
    (tmp_path / "secret").write_text("sk-lf-1\n", encoding="utf-8")
    text = config["data"][file.name].replace("/etc/librechat-tailer/secrets/team-a", str(tmp_path))
    (tmp_path / file.name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    given = {"MONGO_URI": "mongodb://m/L", "OTLP_HEADERS": "api-key=x", "TAILER_DESTINATIONS": file.name}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert [destination.name for destination in settings.destinations] == ["default", "collector"]
    assert len(settings.routes.routes) == 1


def test_another_file_of_destinations_is_another_pod() -> None:
    """It is read at the start only."""

    def annotations(config: str) -> dict[str, str]:
        deployment = only(render_chart({"destinations": {"config": config}}), "Deployment")
        found: dict[str, str] = deployment["spec"]["template"]["metadata"]["annotations"]
        return found

    assert annotations(DESTINATIONS) == annotations(DESTINATIONS)
    assert annotations(DESTINATIONS) != annotations(f"{DESTINATIONS}# more\n")
    assert annotations("") == {"kubectl.kubernetes.io/default-container": "tailer"}


@pytest.mark.parametrize(("kind", "key"), [("existingSecret", "secret"), ("existingConfigMap", "configMap")])
def test_a_file_of_destinations_can_be_in_an_object_of_ones_own(kind: str, key: str) -> None:
    manifests = render_chart({"destinations": {kind: {"name": "mine", "key": "tailer.toml"}}})
    check_strictly(manifests)
    volume = mounted(manifests)["/etc/librechat-tailer/destinations"][key]

    assert "mine" in (volume.get("secretName"), volume.get("name"))
    assert volume["items"] == [{"key": "tailer.toml", "path": "destinations.toml"}]
    assert not [item for item in manifests if item["kind"] == "ConfigMap"]


@pytest.mark.parametrize(
    ("release", "config_map"),
    [
        ("librechat", "librechat-librechat-configenv"),
        ("lc", "lc-librechat-configenv"),
        # LibreChat cuts its own name at 63 characters, before the suffix.
        ("a" * 53, "a" * 53 + "-librechat-configenv"),
    ],
)
def test_the_uri_is_read_from_the_config_map_that_librechats_chart_makes(
    release: str, config_map: str
) -> None:
    given = environment_of(render_chart({"mongodb": {"librechatRelease": release}}))

    assert given["TAILER_MONGO_URI"] == {"configMapKeyRef": {"name": config_map, "key": "MONGO_URI"}}


@pytest.mark.parametrize(
    ("mongodb", "expected"),
    [
        (
            {"existingConfigMap": {"name": "chat-configenv"}},
            {"configMapKeyRef": {"name": "chat-configenv", "key": "MONGO_URI"}},
        ),
        (
            {"existingSecret": {"name": "librechat-credentials-env"}},
            {"secretKeyRef": {"name": "librechat-credentials-env", "key": "MONGO_URI"}},
        ),
        ({"uri": "mongodb://mongodb:27017/LibreChat"}, "mongodb://mongodb:27017/LibreChat"),
    ],
)
def test_the_uri_can_come_from_a_secret_another_config_map_or_a_value(
    mongodb: Mapping[str, Any], expected: object
) -> None:
    assert environment_of(render_chart({"mongodb": mongodb}))["TAILER_MONGO_URI"] == expected


@pytest.mark.parametrize("values", [{}, MONITORED], ids=["defaults", "monitored"])
def test_the_pod_has_no_rights_that_it_does_not_need(values: Mapping[str, Any]) -> None:
    manifests = render_chart(values)
    pod, container = pod_of(manifests), container_of(manifests)

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert pod["automountServiceAccountToken"] is False
    assert only(manifests, "ServiceAccount")["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert {manifest["kind"] for manifest in manifests}.isdisjoint({"Secret", "Role", "ClusterRole"})


def test_probes_ask_for_life_and_readiness_and_a_start_may_take_five_minutes() -> None:
    container = container_of(render_chart())
    start = container["startupProbe"]

    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert start["httpGet"] == {"path": "/livez", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert start["periodSeconds"] * start["failureThreshold"] >= 300


def test_one_replica_is_recreated_and_of_several_one_at_a_time_is_replaced() -> None:
    alone, several = only(render_chart(), "Deployment"), only(render_chart({"replicas": 3}), "Deployment")

    assert (alone["spec"]["replicas"], alone["spec"]["strategy"]) == (1, {"type": "Recreate"})
    assert several["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    (spread,) = several["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"] == several["spec"]["selector"]


def test_shards_are_the_ordinals_of_a_stateful_set_with_standbys_behind_them() -> None:
    """Pod 3 of two shards with two replicas is the standby of the second."""
    manifests = render_chart({"shards": 2, "replicas": 2})
    workload, env = only(manifests, "StatefulSet")["spec"], environment_of(manifests)

    assert [each["kind"] for each in manifests if each["kind"] == "Deployment"] == []
    assert (workload["replicas"], workload["podManagementPolicy"]) == (4, "Parallel")
    assert env["TAILER_TOTAL_SHARDS"] == "2"
    assert env["TAILER_SHARD"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert (
        Shard(1, 2)
        == ShardingSettings.model_validate(
            {"total_shards": 2, "shard_ordinal": "tailer-librechat-tailer-3"}
        ).shard
    )
    assert "statefulset/tailer-librechat-tailer" in render_notes({"shards": 2})
    (spread,) = workload["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"] == workload["selector"]
    check_strictly(manifests)


def test_without_shards_no_pod_hears_of_them_and_both_ways_at_once_are_refused() -> None:
    """An operator may number Deployments of their own instead."""
    given = {"TAILER_SHARD": "1", "TAILER_TOTAL_SHARDS": "2"}

    assert not {"TAILER_SHARD", "TAILER_TOTAL_SHARDS"} & environment_of(render_chart()).keys()
    assert environment_of(render_chart({"settings": given}))["TAILER_SHARD"] == "1"
    with pytest.raises(helm.HelmError, match="exclude each other"):
        render_chart({"shards": 2, "settings": given})


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_the_disruption_budget_lets_every_drain_go_on(replicas: int) -> None:
    budget = only(render_chart({"replicas": replicas}), "PodDisruptionBudget")["spec"]

    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize(("shutdown", "grace"), [(None, 60), (0, 35), (40.5, 76), ("120", 155)])
def test_the_grace_period_is_longer_than_the_shutdown_takes(shutdown: object, grace: int) -> None:
    settings = {} if shutdown is None else {"TAILER_SHUTDOWN_SECONDS": shutdown}

    assert pod_of(render_chart({"settings": settings}))["terminationGracePeriodSeconds"] == grace


def test_the_pod_is_reached_in_every_family_unless_told_otherwise() -> None:
    """Kubelet and Prometheus come to the pod's own address, which may be of IPv4 or of IPv6."""
    assert environment_of(render_chart())["TAILER_HTTP_HOST"] == "::"
    other = {"settings": {"TAILER_HTTP_HOST": "fd00::7"}}
    assert environment_of(render_chart(other))["TAILER_HTTP_HOST"] == "fd00::7"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert "host" not in container_of(render_chart())[probe]["httpGet"]


def test_the_network_policy_says_who_may_come_and_nothing_of_a_family() -> None:
    policy = only(render_chart({"networkPolicy": {"enabled": True}}), "NetworkPolicy")["spec"]

    (rule,) = policy["ingress"]
    assert rule["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ]
    assert "ipBlock" not in str(policy)
    nobody = {"networkPolicy": {"enabled": True, "metricsFrom": []}}
    assert only(render_chart(nobody), "NetworkPolicy")["spec"]["ingress"] == []


def test_a_service_can_be_of_both_families() -> None:
    choice = {"enabled": True, "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}
    service = only(render_chart({"service": choice}), "Service")["spec"]

    assert (service["ipFamilyPolicy"], service["ipFamilies"]) == ("PreferDualStack", ["IPv6", "IPv4"])
    assert "ipFamilyPolicy" not in only(render_chart({"service": {"enabled": True}}), "Service")["spec"]


def test_addresses_of_ipv6_are_taken_as_uris_and_as_langfuse() -> None:
    values = {"mongodb": {"uri": "mongodb://[fd00::1]:27017/LibreChat"}}

    assert environment_of(render_chart(values))["TAILER_MONGO_URI"] == values["mongodb"]["uri"]


def test_the_port_follows_its_setting_everywhere() -> None:
    values = {
        "settings": {"TAILER_HTTP_PORT": 9000},
        "networkPolicy": {"enabled": True},
        "service": {"enabled": True},
    }
    manifests = render_chart(values)

    assert environment_of(manifests)["TAILER_HTTP_PORT"] == "9000"
    assert container_of(manifests)["ports"] == [{"name": "http", "containerPort": 9000, "protocol": "TCP"}]
    assert only(manifests, "Service")["spec"]["ports"][0]["port"] == 9000
    assert only(manifests, "NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"] == 9000


@pytest.mark.parametrize(
    ("host", "port"),
    [
        (None, 443),
        ("https://langfuse.example.com", 443),
        ("http://langfuse", 80),
        ("http://langfuse-web.langfuse:3000", 3000),
        ("https://langfuse.example.com:8443/base", 8443),
        ("http://[fd00::7]:3000", 3000),
        ("https://[fd00::7]", 443),
    ],
)
def test_the_network_policy_lets_out_to_dns_mongodb_and_the_port_of_langfuse(
    host: str | None, port: int
) -> None:
    settings = {} if host is None else {"LANGFUSE_HOST": host}
    policy = only(render_chart({"settings": settings, "networkPolicy": {"enabled": True}}), "NetworkPolicy")

    ports = [[item["port"] for item in rule["ports"]] for rule in policy["spec"]["egress"]]
    assert ports == [[53, 53], [27017], [port]]
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert len(policy["spec"]["ingress"]) == 1


def test_monitors_find_the_pods_by_labels_and_name_the_job_after_the_tailer() -> None:
    values = {"metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}}
    manifests = render_chart(values)
    labels = only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]

    for kind in ("PodMonitor", "ServiceMonitor"):
        monitor = only(manifests, kind)["spec"]
        assert monitor["selector"]["matchLabels"].items() <= labels.items()
        assert labels[monitor["jobLabel"]] == "librechat-tailer"
    assert only(manifests, "Service")["spec"]["selector"].items() <= labels.items()
    assert only(manifests, "Service")["metadata"]["labels"][monitor["jobLabel"]] == "librechat-tailer"


@pytest.fixture
def small_chart(tmp_path: Path) -> Path:
    """The chart with rules and a dashboard that are known here."""
    chart = tmp_path / CHART.name
    shutil.copytree(CHART, chart, ignore=shutil.ignore_patterns("files"))
    for path, text in {"rules/tailer.yaml": RULES, "dashboards/tailer.json": DASHBOARD}.items():
        (chart / "files" / path).parent.mkdir(parents=True)
        (chart / "files" / path).write_text(text)
    return chart


def test_the_rule_object_holds_the_rules_unchanged(small_chart: Path) -> None:
    rules = only(render_chart(MONITORED, chart=small_chart), "PrometheusRule")["spec"]

    assert rules == yaml.safe_load(RULES)


def test_single_alerts_can_be_left_out_and_all_can_carry_labels(small_chart: Path) -> None:
    choice = {"enabled": True, "excludeAlerts": ["TailerDown"], "alertLabels": {"team": "chat"}}
    manifests = render_chart({"metrics": {"prometheusRule": choice}}, chart=small_chart)

    recording, alert = only(manifests, "PrometheusRule")["spec"]["groups"][0]["rules"]
    assert recording == {"record": "tailer:lag", "expr": "max(tailer_stream_lag_seconds)"}
    assert alert["alert"] == "StreamGap"
    assert alert["labels"] == {"severity": "critical", "team": "chat"}


def test_alerts_lead_to_where_the_runbooks_can_be_read() -> None:
    """Without that they name the file in the repository."""
    for given, expected in (
        ("", "docs/runbooks/"),
        ("https://git.example.com/x/", "https://git.example.com/x/"),
    ):
        choice = {"enabled": True, "runbookUrl": given}
        groups = only(render_chart({"metrics": {"prometheusRule": choice}}), "PrometheusRule")["spec"][
            "groups"
        ]
        alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]

        assert alerts
        for alert in alerts:
            assert alert["annotations"]["runbook_url"] == f"{expected}{alert['alert']}.md"


@pytest.mark.parametrize("values", [{}, {"nameOverride": "chat-tracer"}])
def test_the_job_has_the_name_that_the_rules_expect(values: Mapping[str, Any]) -> None:
    """Also where the chart's own label has another one; what an operator relabels comes after."""
    own = [{"action": "labeldrop", "regex": "pod"}]
    monitors = {name: {"enabled": True, "relabelings": own} for name in ("podMonitor", "serviceMonitor")}
    manifests = render_chart({**values, "metrics": monitors})

    for kind, endpoints in (("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints")):
        (endpoint,) = only(manifests, kind)["spec"][endpoints]
        assert endpoint["relabelings"] == [
            {"targetLabel": "job", "replacement": "librechat-tailer"},
            *own,
        ]


def test_a_dashboard_is_unchanged_and_carries_the_label_of_grafanas_sidecar(small_chart: Path) -> None:
    config_map = only(render_chart(MONITORED, chart=small_chart), "ConfigMap")

    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config_map["data"] == {"tailer.json": DASHBOARD}


def test_the_file_sink_needs_no_keys_of_langfuse() -> None:
    values = {
        "langfuse": {"existingSecret": {"name": ""}},
        "settings": {"TAILER_SINK": "file", "TAILER_FILE_PATH": "/tmp/traces.jsonl"},  # noqa: S108
    }

    assert environment_of(render_chart(values)).keys() == {
        "TAILER_MONGO_URI",
        "TAILER_HTTP_HOST",
        "TAILER_SINK",
        "TAILER_FILE_PATH",
    }


def test_a_digest_wins_over_a_tag() -> None:
    digest = "sha256:" + "0" * 64

    assert container_of(render_chart())["image"] == f"librechat-tailer:{__version__}"
    assert (
        container_of(render_chart({"image": {"tag": "7", "digest": digest}}))["image"]
        == f"librechat-tailer@{digest}"
    )


def test_the_notes_tell_the_next_steps_with_the_names_of_this_release() -> None:
    notes = render_notes({"settings": {"LANGFUSE_HOST": "https://us.cloud.langfuse.com"}})

    assert "create secret generic librechat-tailer-langfuse" in notes
    assert "--namespace chat rollout status deployment/tailer-librechat-tailer" in notes
    assert "https://us.cloud.langfuse.com" in notes
    assert "WARNING" in render_notes({"replicas": 0})


def test_the_values_in_the_readme_are_values_of_the_chart() -> None:
    examples = re.findall(r"```yaml\n# values.*?\n(.*?)```", (CHART / "README.md").read_text(), re.DOTALL)

    assert examples
    for example in examples:
        check_strictly(
            [m for m in render_chart(yaml.safe_load(example)) if "external" not in m["apiVersion"]]
        )
