"""The probes and metrics over real HTTP, as Kubernetes and Prometheus ask for them."""

import asyncio
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

import httpx
import pytest

from tailer.core.stream.hints import Stream
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.errors import SettingsError
from tailer.events import TurnDone
from tailer.health import Health, State
from tailer.metrics import Metrics
from tailer.web.connections import MOST_CONNECTIONS
from tailer.web.guard import HEADERS
from tailer.web.server import WebServer


class Clock:
    """A monotonic clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(started_seconds=clock.now, loop_seconds=clock.now)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("1.2.3")


@pytest.fixture
async def server(clock: Clock, health: Health, metrics: Metrics) -> AsyncIterator[WebServer]:
    async with WebServer("127.0.0.1", 0, health, metrics.registry, monotonic=clock) as running:
        yield running


@pytest.fixture
async def probe(server: WebServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        yield client


async def test_a_running_loop_is_alive_whatever_else_is_wrong(
    probe: httpx.AsyncClient, clock: Clock, health: Health
) -> None:
    """A restart would not mend MongoDB or the keys, so those are no question of life."""
    health.refusals = {"Langfuse": "check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY"}
    health.answered_seconds[Stream.MESSAGES] = clock.now - 9999
    clock.now += 30

    answer = await probe.get("/livez")

    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


async def test_a_stalled_loop_is_not_alive(probe: httpx.AsyncClient, clock: Clock, health: Health) -> None:
    """The sampler has not run for more than half a minute; once it runs again, all is well."""
    clock.now += 30.5
    answer = await probe.get("/livez")
    assert (answer.status_code, answer.json()) == (503, {"status": "stalled", "silent_seconds": 30})

    health.loop_seconds = clock.now
    assert (await probe.get("/livez")).status_code == 200


@pytest.mark.parametrize("state", [State.STARTING, State.HALTED, State.STOPPING])
async def test_only_a_streaming_daemon_is_ready(
    probe: httpx.AsyncClient, health: Health, state: State
) -> None:
    """Each other state is named."""
    health.state = state
    answer = await probe.get("/readyz")

    assert answer.status_code == 503
    assert answer.json() == {
        "status": "not ready", "state": state.value, "problems": f"the daemon is {state.value}",
    }  # fmt: skip


async def test_every_problem_is_listed_with_what_to_look_at(
    probe: httpx.AsyncClient, clock: Clock, health: Health
) -> None:
    """A silent stream, refused keys; gaps are told and do no harm to readiness."""
    health.state = State.STREAMING
    health.answered_seconds = {Stream.MESSAGES: clock.now - 16, Stream.CONVERSATIONS: clock.now - 14}
    health.refusals = {"Langfuse": "check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY"}
    health.gaps = 2
    answer = await probe.get("/readyz")

    assert answer.status_code == 503
    found = answer.json()
    first, second = found["problems"].split("; ")
    assert first == "stream messages has not answered for 16 s: MongoDB may be away"
    assert "LANGFUSE_SECRET_KEY" in second
    assert found["gaps"].startswith("2 stretches")

    health.answered_seconds[Stream.MESSAGES] = clock.now
    health.refusals = {}
    answer = await probe.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    assert "problems" not in answer.json()


@pytest.mark.parametrize(
    ("accept", "kind", "ending"),
    [
        ("*/*", "text/plain", ""),
        ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text", "# EOF\n"),
    ],
)
async def test_metrics_come_in_the_format_that_is_asked_for(
    probe: httpx.AsyncClient, metrics: Metrics, accept: str, kind: str, ending: str
) -> None:
    """What was recorded is what is shown."""
    metrics.record(TurnDone(EntryOutcome.COMPLETE, 3))
    answer = await probe.get("/metrics", headers={"Accept": accept})

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert 'tailer_pairs_total{outcome="complete"} 3.0' in answer.text
    assert 'tailer_build_info{version="1.2.3"} 1.0' in answer.text
    assert answer.text.endswith(ending)


async def test_nothing_else_is_served(probe: httpx.AsyncClient) -> None:
    """No page, no write."""
    assert (await probe.get("/")).status_code == 404
    assert (await probe.post("/livez")).status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/livez", 200), ("HEAD", "/livez", 200), ("GET", "/livez/", 404), ("PUT", "/metrics", 405)],
)
async def test_every_answer_is_dated_and_has_the_headers_of_the_guard(
    probe: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await probe.request(method, path)

    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert abs(parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()) < 10
    assert (answer.content == b"") == (method == "HEAD")


async def test_what_is_no_http_is_refused_and_the_others_are_answered(
    server: WebServer, probe: httpx.AsyncClient
) -> None:
    """A scraper that speaks TLS, and one that hangs in the middle."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    _, hanging = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
    hanging.write(b"GET /livez HT")
    refused = await reader.read()
    alive = await probe.get("/livez")
    for each in (writer, hanging):
        each.close()
        await each.wait_closed()

    assert refused.startswith(b"HTTP/1.1 400 ")
    assert alive.status_code == 200


async def test_connections_that_ask_nothing_make_room_for_those_that_do(
    server: WebServer, probe: httpx.AsyncClient
) -> None:
    """Each takes a descriptor, and without descriptors nothing could be sent any more."""
    silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2 * MOST_CONNECTIONS)]

    answer = await probe.get("/livez")

    closed = await asyncio.gather(
        *(asyncio.wait_for(reader.read(), 20) for reader, _ in silent[:MOST_CONNECTIONS]),
        return_exceptions=True,
    )
    for _, writer in silent:
        writer.close()
    assert answer.status_code == 200
    assert [found for found in closed if found != b"" and not isinstance(found, ConnectionError)] == []


async def test_variables_that_are_meant_for_other_servers_change_nothing(
    clock: Clock, health: Health, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "nobody")
    async with (
        WebServer("127.0.0.1", 0, health, metrics.registry, monotonic=clock) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client,
    ):
        assert (await client.get("/livez")).status_code == 200


async def test_a_port_that_is_taken_is_an_error_that_names_the_setting(
    server: WebServer, clock: Clock, health: Health, metrics: Metrics
) -> None:
    """Two daemons on one host."""
    second = WebServer("127.0.0.1", server.port, health, metrics.registry, monotonic=clock)
    with pytest.raises(SettingsError, match="TAILER_HTTP_PORT") as taken:
        async with second:
            pass

    assert f"127.0.0.1:{server.port}" in str(taken.value)


async def test_the_port_is_free_again_afterwards(clock: Clock, health: Health, metrics: Metrics) -> None:
    """A restart finds it."""
    async with WebServer("127.0.0.1", 0, health, metrics.registry, monotonic=clock) as first:
        port = first.port
    async with WebServer("127.0.0.1", port, health, metrics.registry, monotonic=clock) as second:
        assert second.port == port


async def test_a_standby_is_ready_as_long_as_it_sees_the_lease(
    probe: httpx.AsyncClient, clock: Clock, health: Health
) -> None:
    """Ready, so that a rolling update goes on; not when it could not take over."""
    health.state, health.looked_seconds = State.STANDBY, clock.now
    answer = await probe.get("/readyz")
    assert (answer.status_code, answer.json()["state"]) == (200, "standby")
    clock.now += 16
    answer = await probe.get("/readyz")
    assert answer.status_code == 503
    assert "state database" in answer.json()["problems"]
    health.begin_term()
    assert "state database" not in (await probe.get("/readyz")).json()["problems"]


async def test_readiness_names_the_destinations_that_refuse_or_accept_nothing(
    probe: httpx.AsyncClient, health: Health
) -> None:
    """While one of several takes its turns, the daemon is ready, and says which others do not."""
    health.state, health.destinations = State.STREAMING, 3
    health.refusals = {"destination team-a": "check its keys"}
    health.absences = {"collector": (41.4, 12)}
    told = [
        "destination team-a refuses what is sent: check its keys",
        "destination collector has accepted nothing for 41 s (turns and changes kept for it: 12)",
    ]
    answer = await probe.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["destinations"].split("; ") == told

    health.destinations = 2
    answer = await probe.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["problems"].split("; ") == told
