"""What the daemon tells on its HTTP port, and what `tailer healthcheck` makes of it."""

import asyncio
import json
import math
import socket
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tailer.demo.stage.player import play
from tailer.demo.stage.recording import RecordedEvent
from tests.e2e.daemon import Metrics, langfuse_settings, run_to_end, start
from tests.e2e.databases import STREAMS, Databases
from tests.e2e.expectations import place
from tests.fakes.langfuse import FakeLangfuse, Route, answer, hang

SETTINGS = {"TAILER_SETTLE_SECONDS": "0.2", "TAILER_CHECKPOINT_SECONDS": "0.2", "TAILER_PARK_SECONDS": "1"}
NAMES = {
    "tailer_build_info",
    "tailer_state",
    "tailer_event_loop_lag_seconds_count",
    "process_resident_memory_bytes",
    "tailer_stream_connected",
    "tailer_stream_events_total",
    "tailer_stream_last_poll_timestamp_seconds",
    "tailer_source_cluster_timestamp_seconds",
    "tailer_stream_position_timestamp_seconds",
    "tailer_stream_lag_seconds",
    "tailer_checkpoint_timestamp_seconds",
    "tailer_checkpoint_last_success_timestamp_seconds",
    "tailer_checkpoint_writes_total",
    "tailer_checkpoint_write_duration_seconds_count",
    "tailer_pairs_pending",
    "tailer_pair_oldest_pending_age_seconds",
    "tailer_pairs_total",
    "tailer_export_requests_total",
    "tailer_export_request_duration_seconds_count",
    "tailer_export_observations_total",
    "tailer_export_bytes_total",
    "tailer_export_lag_seconds",
    "tailer_export_paused",
    "tailer_queue_length",
    "tailer_queue_capacity",
    "tailer_end_to_end_latency_seconds_count",
    "tailer_oplog_first_timestamp_seconds",
    "tailer_oplog_window_seconds",
    "tailer_oplog_headroom_seconds",
    "tailer_clock_skew_seconds",
    "tailer_dead_letters_kept",
    "tailer_stream_last_event_timestamp_seconds",
}
FORBIDDEN_LABELS = {"user", "user_id", "conversation", "conversation_id", "message", "message_id", "url"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def beats(metrics: Metrics) -> float:
    """How often the gauges were set."""
    return metrics.value("tailer_event_loop_lag_seconds_count")


def has_beaten(metrics: Metrics, *, times: float) -> bool:
    return beats(metrics) >= times


async def test_while_starting_it_is_alive_and_not_ready(databases: Databases, tmp_path: Path) -> None:
    """The probes answer from the first moment on, also while Langfuse does not."""
    port = free_port()
    async with FakeLangfuse() as fake:
        fake.faults.add(hang(stored=False, route=Route.PROJECTS))
        settings = {
            **databases.settings,
            **SETTINGS,
            **langfuse_settings(fake.url),
            "TAILER_HTTP_PORT": str(port),
            "TAILER_REQUEST_TIMEOUT_SECONDS": "60",
        }
        async with start(settings, directory=tmp_path) as daemon:
            await fake.wait_until(
                lambda: (Route.PROJECTS, "hang before") in fake.requests, timeout_seconds=30
            )
            alive, _ = await daemon.ask("/livez", port=port)
            ready, body = await daemon.ask("/readyz", port=port)
            scraped, _ = await daemon.ask("/metrics", port=port)
            code, checked = await run_to_end(settings, directory=tmp_path, arguments=("healthcheck",))

        assert (alive, ready, scraped) == (200, 503, 200)
        assert json.loads(body) == {
            "status": "not ready",
            "state": "starting",
            "problems": "the daemon is starting",
        }
        assert code == 1
        assert "starting" in checked.output


async def test_refused_keys_make_it_not_ready_until_they_are_taken_again(
    databases: Databases, tmp_path: Path
) -> None:
    """401 on spans: the reason stands in /readyz and in the metrics; the turn waits and arrives once."""
    traffic = place("01-single-turn", datetime.now(UTC))
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        async with start(settings, directory=tmp_path) as daemon:
            assert json.loads(await daemon.wait_until_ready()) == {"status": "ready", "state": "streaming"}
            fake.faults.add(answer(401, times=None))
            await play(traffic.recording, databases.source, speed=None)
            refused = json.loads(await daemon.wait_until_ready(status=503))
            assert "LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY" in refused["problems"]
            assert (await daemon.ask("/livez"))[0] == 200
            metrics = await daemon.metrics()
            assert metrics.value("tailer_export_paused") == 1
            assert metrics.value("tailer_export_requests_total", result="auth") >= 1
            assert len(daemon.lines("delivery_paused")) == 1
            url = f"http://127.0.0.1:{await daemon.port()}/readyz"
            code, checked = await run_to_end(
                settings, directory=tmp_path, arguments=("healthcheck", "--url", url)
            )
            assert code == 1
            assert "LANGFUSE_SECRET_KEY" in checked.output

            fake.faults.clear()
            await daemon.wait_until_ready()
            await databases.wait_until_done(daemon.must_run)
            metrics = await daemon.metrics()
            assert metrics.value("tailer_export_paused") == 0
        assert set(fake.trace_ids()) == {turn.trace_id for turn in traffic.turns()} | traffic.titles().keys()
        assert fake.duplicates() == []


def arrives(event: RecordedEvent) -> bool:
    """Whether a change is sent to the daemon at all: of a conversation's updates only a title's is."""
    update = event.update
    return event.collection != "conversations" or update is None or "title" in update.updated_fields


async def test_the_metrics_tell_what_happened(databases: Databases, tmp_path: Path) -> None:
    """Every core series is there and a number; what was played and sent is what was counted."""
    traffic = place("09-agent-tools", datetime.now(UTC))
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await play(traffic.recording, databases.source, speed=None)
            await databases.wait_until_done(daemon.must_run)
            # The gauges follow with the next beat.
            done = beats(await daemon.metrics())
            metrics = await daemon.wait_for_metrics(partial(has_beaten, times=done + 2))

        assert metrics.names() >= NAMES
        assert not any(math.isnan(value) for value in metrics.series.values())
        labels = {name for _, pairs in metrics.series for name, _ in pairs}
        assert labels.isdisjoint(FORBIDDEN_LABELS)
        for stream in STREAMS:
            played = sum(event.collection == stream and arrives(event) for event in traffic.recording.events)
            counted = sum(
                value
                for (name, pairs), value in metrics.series.items()
                if name == "tailer_stream_events_total" and ("stream", stream) in pairs
            )
            assert counted == played
            assert metrics.value("tailer_stream_connected", stream=stream) == 1
        turns = len(traffic.turns())
        assert metrics.value("tailer_pairs_total", outcome="complete") == turns
        assert metrics.value("tailer_export_observations_total") == len(fake.spans)
        assert metrics.value("tailer_export_traces_total") == len(fake.trace_ids())
        assert metrics.value("tailer_end_to_end_latency_seconds_count") == turns
        assert metrics.value("tailer_state", state="streaming") == 1
        assert metrics.total("tailer_state") == 1


async def test_nothing_lags_while_nothing_happens(databases: Databases, tmp_path: Path) -> None:
    """Every lag is a number in each scrape over some beats, and 0 when idle."""
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            for beat in range(2, 7):
                metrics = await daemon.wait_for_metrics(partial(has_beaten, times=beat))
                for stream in STREAMS:
                    assert metrics.value("tailer_stream_lag_seconds", stream=stream) == 0
                assert metrics.value("tailer_export_lag_seconds") == 0
                assert metrics.value("tailer_pair_oldest_pending_age_seconds") == 0
                assert list(metrics.of("tailer_pairs_pending")) == [0, 0, 0, 0]


async def keep_writing(databases: Databases) -> None:
    """What else goes on in a LibreChat: lags are cluster time, which moves with writes alone."""
    while True:
        await databases.source["sessions"].insert_one({})
        await asyncio.sleep(0.1)


async def test_a_lag_grows_while_langfuse_does_not_take_a_turn(databases: Databases, tmp_path: Path) -> None:
    """The export lags behind the stream by the age of the oldest turn, and not for ever."""
    traffic = place("01-single-turn", datetime.now(UTC))
    async with FakeLangfuse() as fake:
        settings = {**databases.settings, **SETTINGS, **langfuse_settings(fake.url)}
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            fake.faults.add(answer(503, times=None, retry_after="0.1"))
            await play(traffic.recording, databases.source, speed=None)
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(keep_writing(databases))
                await daemon.wait_for_metrics(lambda found: found.value("tailer_export_lag_seconds") >= 2)
                writing.cancel()
            fake.faults.clear()
            await databases.wait_until_done(daemon.must_run)
            await daemon.wait_for_metrics(lambda found: found.value("tailer_export_lag_seconds") == 0)


async def test_the_healthcheck_tells_by_its_exit_code(databases: Databases, tmp_path: Path) -> None:
    """0 ready, 1 when nobody answers; by the port of the settings or by --url."""
    port = free_port()
    settings = {
        **databases.settings,
        **SETTINGS,
        "TAILER_HTTP_PORT": str(port),
        "TAILER_FILE_PATH": "turns.jsonl",
    }
    async with start(settings, directory=tmp_path) as daemon:
        await daemon.wait_until_ready()
        checks = await asyncio.gather(
            run_to_end(settings, directory=tmp_path, arguments=("healthcheck",)),
            run_to_end(
                {"TAILER_HTTP_PORT": "0"},
                directory=tmp_path,
                arguments=("healthcheck", "--url", f"http://127.0.0.1:{port}/readyz"),
            ),
        )
        assert [code for code, _ in checks] == [0, 0]
        assert all("ready" in checked.output for _, checked in checks)
    code, checked = await run_to_end(settings, directory=tmp_path, arguments=("healthcheck",))
    assert code == 1
    assert "not ready" in checked.output
    assert "Traceback" not in checked.output
