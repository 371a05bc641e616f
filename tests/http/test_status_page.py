"""The status page over real HTTP: headers, names, and what is not served."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest

from tailer.core.policy.policies import TracesShown
from tailer.health import Condition, Health
from tailer.metrics import Metrics
from tailer.web.page.board import StatusBoard
from tailer.web.page.figures import read_figures
from tailer.web.server import WebServer
from tailer.web.status_page import StatusPage

Open = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def opened() -> Open:
    @asynccontextmanager
    async def opening(
        *, names: tuple[str, ...] = (), with_page: bool = True
    ) -> AsyncIterator[httpx.AsyncClient]:
        metrics = Metrics("1.2.3")
        board = StatusBoard(
            "1.2.3",
            lambda: read_figures(metrics.registry),
            lambda: Condition("streaming", (), 0, 1.0),
            shown=TracesShown.NONE,
            monotonic=lambda: 1.0,
            wall_clock=lambda: 2.0,
        )
        page = StatusPage(board.report, names) if with_page else None
        health = Health(started_seconds=0, loop_seconds=0)
        server = WebServer("127.0.0.1", 0, health, metrics.registry, monotonic=lambda: 1.0, page=page)
        async with server, httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
            yield client

    return opening


async def test_every_file_of_the_page_is_there_and_nothing_of_it_may_come_from_elsewhere(
    opened: Open,
) -> None:
    async with opened() as client:
        for path in (
            "/",
            "/status.css",
            "/status.js",
            "/status-plots.js",
            "/status-words.js",
            "/status-traces.js",
        ):
            found = await client.get(path)
            policy = found.headers["content-security-policy"]
            assert found.status_code == 200
            assert policy.startswith("default-src 'none'; script-src 'self'")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert found.headers["x-content-type-options"] == "nosniff"
            assert "http://" not in found.text.replace("http://www.w3.org/2000/svg", "")
            assert "https://" not in found.text
        report = (await client.get("/status.json")).json()

    assert (report["version"], report["state"], report["traces"]) == ("1.2.3", "streaming", [])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9464", 200),
        ("[::1]:9464", 200),
        ("tailer", 200),
        ("tailer.chat.svc.cluster.local", 200),
        ("tailer.example.com", 200),
        ("TAILER.example.com.", 200),
        ("rebound.attacker.example", 421),
        ("", 421),
    ],
)
async def test_a_name_that_could_be_anybodys_is_refused(opened: Open, host: str, status: int) -> None:
    """DNS rebinding: the page of a stranger whose name leads here."""
    async with opened(names=("tailer.example.com",)) as client:
        found = {
            path: (await client.get(path, headers={"Host": host})).status_code
            for path in ("/", "/status.json")
        }
        alive = (await client.get("/livez", headers={"Host": host})).status_code

    assert found == {"/": status, "/status.json": status}
    # Probes and scrapers may call it what they like.
    assert alive == 200


async def test_where_it_is_switched_off_there_is_none(opened: Open) -> None:
    async with opened(with_page=False) as client:
        assert (await client.get("/")).status_code == 404
        assert (await client.get("/status.json")).status_code == 404
        assert (await client.get("/metrics")).status_code == 200
