"""A real Prometheus scrapes the real daemon while recordings play and things break."""

import asyncio
import json
import re
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from tailer.demo.stage.player import play
from tailer.demo.stage.replica_set import ReplicaSet
from tests.deploy.test_dashboards import FILES, panels, read
from tests.deploy.test_prometheus_rules import RULES
from tests.e2e.daemon import Daemon, langfuse_settings, start
from tests.e2e.databases import Databases, open_databases
from tests.e2e.expectations import place
from tests.fakes.langfuse import FakeLangfuse, answer, hang, too_large
from tests.rows import answer as message_answer
from tests.rows import question

PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="needs Debian's package prometheus")
SETTINGS: Final = {
    "TAILER_SETTLE_SECONDS": "0.2",
    "TAILER_CHECKPOINT_SECONDS": "0.2",
    "TAILER_PARK_SECONDS": "1",
    "TAILER_REQUEST_TIMEOUT_SECONDS": "1",
    "TAILER_LOOKUP_SECONDS": "1",
    "TAILER_USAGE_METRICS": "true",
}
MOST_OPEN: Final = 120
VARIABLES: Final = {"$namespace": ".*", "$job": ".*", "$instance": ".*", "$__rate_interval": "1m"}
_CONFIGURATION: Final = """\
global: {{scrape_interval: 250ms, evaluation_interval: 250ms}}
rule_files: [{rules}]
scrape_configs:
  - job_name: librechat-tailer
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
_PATIENCE_SECONDS: Final = 40.0
_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server; asked over its HTTP API."""

    url: str
    session: aiohttp.ClientSession

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query; AssertionError when it is refused."""
        async with self.session.get(f"{self.url}/api/v1/query", params={"query": expression}) as response:
            body = await response.json()
        assert body["status"] == "success", (expression, body)
        result: list[dict[str, Any]] = body["data"]["result"]
        return result

    async def alerts(self) -> set[str]:
        """The names of the alerts that fire or are about to."""
        return {found["metric"]["alertname"] for found in await self.query("ALERTS")}

    async def wait_for(self, what: str, condition: Callable[[set[str]], bool]) -> None:
        """Return once a condition on the alerts holds."""
        found: set[str] = set()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not condition(found := await self.alerts()):  # noqa: ASYNC110 - another process is asked
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise TimeoutError(f"never {what}: {sorted(found)}") from None


@asynccontextmanager
async def scraping(daemon: Daemon, directory: Path, rules: str) -> AsyncIterator[Prometheus]:
    """A Prometheus with these rules that scrapes the daemon four times a second."""
    rule_file, configuration = directory / "rules.yaml", directory / "prometheus.yml"
    rule_file.write_text(rules, encoding="utf-8")
    configuration.write_text(
        _CONFIGURATION.format(rules=rule_file, port=await daemon.port()), encoding="utf-8"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        str(PROMETHEUS),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with aiohttp.ClientSession() as session:
            server = Prometheus(f"http://127.0.0.1:{port}", session)
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not await is_scraping(server):
                    assert process.returncode is None, "prometheus has ended"
                    await asyncio.sleep(_POLL_SECONDS)
            yield server
    finally:
        process.kill()
        await process.wait()


def new_directory(parent: Path) -> Path:
    directory = parent / "prometheus"
    directory.mkdir()
    return directory


async def is_scraping(server: Prometheus) -> bool:
    try:
        return bool(await server.query("up == 1"))
    except aiohttp.ClientError:
        return False


async def play_all(databases: Databases, *names: str) -> None:
    now = datetime.now(UTC)
    for name in names:
        await play(place(name, now).recording, databases.source, speed=None)


def is_data(found: list[dict[str, Any]]) -> bool:
    return any(sample["value"][1] not in {"NaN", "+Inf", "-Inf"} for sample in found)


async def test_every_panel_has_data_while_recordings_play_and_all_alerts_are_quiet_when_it_is_over(
    databases: Databases, tmp_path: Path
) -> None:
    """The dashboards' own expressions, with Grafana's variables as it would fill them in; the rules as they are
    shipped."""
    expressions = {
        (path.stem, panel["title"], target["expr"])
        for path in FILES
        for panel in panels(read(path))
        for target in panel["targets"]
    }
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        async with (
            start(settings, directory=tmp_path) as daemon,
            scraping(daemon, new_directory(tmp_path), RULES.read_text(encoding="utf-8")) as prometheus,
        ):
            await daemon.wait_until_ready()
            await play_all(databases, "09-agent-tools", "07-errors")
            # The answer of one batch is lost, so that it must be looked up.
            fake.faults.add(hang(stored=True))
            await play_all(databases, "01-single-turn")
            await databases.wait_until_done(daemon.must_run)
            missing = expressions
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while missing:
                    missing = {
                        (dashboard, title, expression)
                        for dashboard, title, expression in missing
                        if not is_data(await prometheus.query(fill_in(expression)))
                    }
            await prometheus.wait_for("quiet", lambda alerts: not alerts)
            again = [await prometheus.alerts() for _ in range(5)]

    assert len(expressions) > 40
    assert again == [set()] * 5


def fill_in(expression: str) -> str:
    """What Grafana makes of its variables."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def hurry(rules: str) -> str:
    """The same rules for a test that cannot wait: nothing must last, a minute is a second, an hour some seconds."""
    rules = re.sub(r"^ +for: .*\n", "", rules, flags=re.MULTILINE)
    rules = re.sub(r"\[(?:5m|15m|30m|1h|6h)\]", "[8s]", rules)
    return re.sub(r"(> )60\b", r"\g<1>3", rules)


async def test_faults_of_a_real_daemon_raise_their_alerts_and_mending_them_ends_them(tmp_path: Path) -> None:
    """One after another: an unsendable turn, refused keys, a failing Langfuse, more turns than may be open, a row that
    is no message, a MongoDB that is stopped, the end, and a start from a position that is no longer one."""
    with ReplicaSet() as replica_set:
        async with open_databases(replica_set) as databases, FakeLangfuse() as fake:
            settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
            settings["TAILER_OPEN_TURNS"] = "100"
            rules = hurry(RULES.read_text(encoding="utf-8"))
            async with (
                start(settings, directory=tmp_path) as daemon,
                scraping(daemon, new_directory(tmp_path), rules) as prometheus,
            ):
                await daemon.wait_until_ready()

                fake.faults.add(too_large(10, times=None))
                await play_all(databases, "01-single-turn")
                await prometheus.wait_for("a dead letter", lambda alerts: "TailerDeadLetters" in alerts)
                fake.faults.clear()

                fake.faults.add(answer(401, times=None))
                await play_all(databases, "02-multi-turn")
                await prometheus.wait_for("refused", lambda alerts: "TailerExportAuthRejected" in alerts)
                fake.faults.clear()
                await prometheus.wait_for("mended", lambda alerts: "TailerExportAuthRejected" not in alerts)

                fake.faults.add(answer(503, times=None, retry_after="0.1"))
                await play_all(databases, "07-errors")
                late = {"TailerExportFailing", "TailerExportLagHigh"}
                await prometheus.wait_for("failing", lambda alerts: late <= alerts)
                # More than may be open: reading pauses, which is no silence of MongoDB.
                await databases.source["messages"].insert_many(many_turns(MOST_OPEN))
                await prometheus.wait_for("saturated", lambda alerts: "TailerQueueSaturated" in alerts)
                paused = await read_pauses(prometheus)
                assert paused == [{"TailerQueueSaturated"}] * len(paused)
                fake.faults.clear()
                late |= {"TailerQueueSaturated"}
                await prometheus.wait_for("mended", lambda alerts: not late & alerts)

                await databases.source["messages"].insert_one({"conversationId": "c", "text": "no message"})
                await prometheus.wait_for("unreadable", lambda alerts: "TailerSchemaDrift" in alerts)

                for member in replica_set.members:
                    await member.stop()
                silent = {"TailerPollStalled", "TailerStreamLagHigh"}
                await prometheus.wait_for("silent", lambda alerts: silent <= alerts)
                for member in replica_set.members:
                    await member.resume()
                await prometheus.wait_for("answering", lambda alerts: not silent & alerts)

                port = str(await daemon.port())
                await daemon.kill()
                await prometheus.wait_for("down", lambda alerts: "TailerDown" in alerts)

                await databases.state["checkpoints"].update_one(
                    {"_id": "messages"}, {"$set": {"token": "damaged"}}
                )
                await databases.state["slots"].update_many({}, {"$unset": {"positions": ""}})
                async with start({**settings, "TAILER_HTTP_PORT": port}, directory=tmp_path) as again:
                    await again.wait_until_ready()
                    await prometheus.wait_for(
                        "lost", lambda alerts: "TailerHistoryLost" in alerts and "TailerDown" not in alerts
                    )


async def read_pauses(prometheus: Prometheus) -> list[set[str]]:
    """Which of the two alerts of a stream that is not asked are there, over some looks."""
    found = []
    for _ in range(10):
        found.append(await prometheus.alerts() & {"TailerPollStalled", "TailerQueueSaturated"})
        await asyncio.sleep(_POLL_SECONDS * 5)
    return found


def many_turns(number: int) -> list[dict[str, Any]]:
    rows = []
    for index in range(number):
        fields = {"conversationId": f"many-{index}"}
        rows += [
            question(f"many-q{index}", None, **fields),
            message_answer(f"many-a{index}", f"many-q{index}", **fields),
        ]
    return rows


def test_hurried_rules_are_the_same_rules() -> None:
    shipped = RULES.read_text(encoding="utf-8")

    assert re.findall(r"alert: (\w+)", hurry(shipped)) == re.findall(r"alert: (\w+)", shipped)
    assert "for:" not in hurry(shipped)
    assert json.dumps(shipped) != json.dumps(hurry(shipped))
