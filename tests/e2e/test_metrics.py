"""The metrics of the real daemon: all of the catalogue and nothing else, lags that are true, usage counted once."""

import math
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from tailer.demo.stage.player import play
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.metrics.catalogue import CATALOGUE
from tailer.metrics.declaration import Kind, Metric
from tests.e2e.daemon import Daemon, Metrics, langfuse_settings, start
from tests.e2e.databases import STREAMS, Databases, open_databases
from tests.e2e.expectations import place
from tests.e2e.playing import QUICK
from tests.e2e.test_aftercare import Afterwards, sent
from tests.fakes.langfuse import FakeLangfuse, answer

USAGE = {"TAILER_USAGE_METRICS": "true"}


@pytest.fixture(scope="module")
def own_set() -> Iterator[ReplicaSet]:
    """A replica set that a test may stop."""
    with ReplicaSet() as running:
        yield running


@pytest.fixture
async def stoppable(own_set: ReplicaSet) -> AsyncIterator[Databases]:
    async with open_databases(own_set) as pair:
        yield pair


def series_of(metric: Metric) -> tuple[str, ...]:
    """The names that a scrape shows of a metric."""
    if metric.kind is Kind.HISTOGRAM:
        return f"{metric.name}_bucket", f"{metric.name}_count", f"{metric.name}_sum"
    return (metric.name,)


def lags(metrics: Metrics) -> list[float]:
    return [metrics.value("tailer_stream_lag_seconds", stream=stream) for stream in STREAMS]


def has_lag(metrics: Metrics, *, least: float) -> bool:
    return min(lags(metrics)) >= least


def is_idle(metrics: Metrics) -> bool:
    return lags(metrics) == [0, 0] and metrics.total("tailer_stream_connected") == len(STREAMS)


async def see_growth(daemon: Daemon) -> None:
    """Over three seconds every lag grows with the clock, in every scrape a number."""
    first = await daemon.wait_for_metrics(partial(has_lag, least=3))
    later = await daemon.wait_for_metrics(partial(has_lag, least=min(lags(first)) + 3))
    for metrics in (first, later):
        assert not any(math.isnan(value) or value == -1 for value in metrics.series.values())
        assert metrics.total("tailer_stream_connected") == 0
    assert all(after - before >= 2 for before, after in zip(lags(first), lags(later), strict=True))


async def test_a_lag_grows_while_mongodb_is_away_and_ends_when_it_answers(
    stoppable: Databases, own_set: ReplicaSet, tmp_path: Path
) -> None:
    """Idle, frozen, idle again, killed, idle again: 0, growing, 0, growing, 0."""
    settings = {**stoppable.settings, **QUICK, "TAILER_FILE_PATH": "turns.jsonl"}
    async with start(settings, directory=tmp_path) as daemon:
        await daemon.wait_until_ready()
        await daemon.wait_for_metrics(is_idle)
        member = await own_set.primary()
        await member.stop()
        try:
            await see_growth(daemon)
        finally:
            await member.resume()
        await daemon.wait_for_metrics(is_idle)

        await member.kill()
        try:
            await see_growth(daemon)
            metrics = await daemon.metrics()
            failed = [
                metrics.value("tailer_stream_restarts_total", stream=stream, reason="network")
                for stream in STREAMS
            ]
            assert min(failed) >= 1
        finally:
            await member.restart()
        metrics = await daemon.wait_for_metrics(is_idle, timeout_seconds=60)
        behind = metrics.value("tailer_source_cluster_timestamp_seconds") - metrics.value(
            "tailer_stream_position_timestamp_seconds", stream="messages"
        )
        assert behind <= 1


async def test_the_daemon_exposes_the_catalogue_and_nothing_else(
    databases: Databases, tmp_path: Path
) -> None:
    """All that was ever exposed over a life with a backfill, an outage, tools and masking; no value is an id."""
    before, traffic = place("01-single-turn", datetime.now(UTC)), place("09-agent-tools", datetime.now(UTC))
    await play(before.recording, databases.source, speed=None)
    seen: dict[str, set[frozenset[tuple[str, str]]]] = {}

    def note(metrics: Metrics) -> None:
        for name, labels in metrics.series:
            seen.setdefault(name, set()).add(labels)

    def backfills(metrics: Metrics) -> bool:
        note(metrics)
        return "tailer_backfill_position_timestamp_seconds" in metrics.names()

    def holds(metrics: Metrics) -> bool:
        note(metrics)
        return "tailer_export_oldest_unacked_timestamp_seconds" in metrics.names()

    def knows_the_oplog(metrics: Metrics) -> bool:
        note(metrics)
        return "tailer_oplog_headroom_seconds" in metrics.names()

    async with FakeLangfuse() as fake:
        settings = {
            **databases.settings,
            **QUICK,
            **langfuse_settings(fake.url),
            **USAGE,
            "TAILER_CONTENT": "masked",
            "TAILER_START": "all",
            "TAILER_BACKFILL_RATE": "1",
            "TAILER_USAGE_LABEL_VALUES": "1",
        }
        async with start(settings, directory=tmp_path) as daemon:
            await daemon.wait_until_ready()
            await daemon.wait_for_metrics(backfills)
            fake.faults.add(answer(503, times=None, retry_after="0.1"))
            await play(traffic.recording, databases.source, speed=None)
            await daemon.wait_for_metrics(holds)
            fake.faults.clear()
            await databases.wait_until_done(daemon.must_run)
            await daemon.wait_for_metrics(knows_the_oplog)

    fields = ("_id", "messageId", "parentMessageId", "conversationId", "user")
    ids = {str(value) for field in fields for value in await databases.source["messages"].distinct(field)}
    assert len(ids) > 10
    declared = {
        name: metric for section in CATALOGUE for metric in section.metrics for name in series_of(metric)
    }
    others = {name for name in seen if not name.startswith(("process_", "python_"))}
    assert others == declared.keys()
    for name, metric in declared.items():
        expected = {label.name: label for label in metric.labels}
        for labels in seen[name]:
            shown = {key: value for key, value in labels if key != "le" or metric.kind is not Kind.HISTOGRAM}
            assert shown.keys() == expected.keys(), name
            for key, value in shown.items():
                assert value not in ids, (name, key, value)
                assert expected[key].fit(value) == value, (name, key, value)


def used(metrics: Metrics) -> dict[object, float]:
    return {key: value for key, value in metrics.series.items() if key[0].startswith("tailer_llm_")}


def total_of(metrics: Metrics, name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(value for (found, pairs), value in metrics.series.items() if found == name and wanted <= pairs)


def sent_tokens(afterwards: Afterwards, bucket: str) -> int:
    return sum(span.usage_details.get(bucket, 0) for span in afterwards.fake.spans)


@pytest.mark.parametrize("content", ["full", "none"])
async def test_usage_is_counted_as_it_was_sent_and_once(
    databases: Databases, tmp_path: Path, content: str
) -> None:
    """What Langfuse holds is what was counted, and a thumb or an edit afterwards counts nothing again."""
    async with sent(databases, tmp_path, "09-agent-tools", **USAGE, TAILER_CONTENT=content) as afterwards:
        turns = len(afterwards.traffic.turns())
        metrics = await afterwards.daemon.wait_for_metrics(
            lambda found: found.total("tailer_llm_turns_total") >= turns
        )
        assert metrics.total("tailer_llm_turns_total") == turns
        assert total_of(metrics, "tailer_llm_tokens_total", type="input") == sent_tokens(afterwards, "input")
        assert total_of(metrics, "tailer_llm_tokens_total", type="output") == sent_tokens(
            afterwards, "output"
        )
        tools = [span for span in afterwards.fake.spans if span.type == "tool"]
        assert len(tools) > 0
        assert metrics.total("tailer_llm_tool_calls_total") == len(tools)

        await afterwards.write({"text": "changed"}, by_user=True)
        assert len(afterwards.edits()) > 0
        assert used(await afterwards.daemon.metrics()) == used(metrics)


async def test_the_file_sink_counts_usage_and_without_the_switch_nothing_does(
    databases: Databases, tmp_path: Path
) -> None:
    traffic = place("01-single-turn", datetime.now(UTC))
    settings = {**databases.settings, **QUICK, "TAILER_FILE_PATH": "turns.jsonl"}
    async with start({**settings, **USAGE}, directory=tmp_path) as daemon:
        await daemon.wait_until_ready()
        await play(traffic.recording, databases.source, speed=None)
        await databases.wait_until_done(daemon.must_run)
        metrics = await daemon.metrics()
        assert metrics.total("tailer_llm_turns_total") == len(traffic.turns())
        assert metrics.total("tailer_llm_tokens_total") > 0
    async with start(settings, directory=tmp_path) as daemon:
        await daemon.wait_until_ready()
        assert used(await daemon.metrics()) == {}
