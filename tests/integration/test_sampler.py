"""What the gauges say of streams that do not answer, never opened, or are not asked."""

import asyncio
import time
from pathlib import Path

from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import ChangeHint, Operation, Stream
from tailer.core.stream.positions import Answer, StreamPosition
from tailer.flow.records import Checkpoint, StreamBatch
from tailer.metrics import Metrics
from tests.e2e.databases import Databases
from tests.integration.running import making


def lag(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("tailer_stream_lag_seconds", {"stream": "messages"})


async def test_a_stream_that_never_opened_lags_since_its_checkpoint(
    databases: Databases, tmp_path: Path
) -> None:
    """A minute's silence on top of what lay between the checkpoint and the server's first word; and growing."""
    said = int(time.time()) - 60
    async with making(databases, None, file_path=tmp_path / "t") as made:
        await made.state.save_checkpoint(Stream.MESSAGES, Checkpoint(StreamPosition(None, said - 100)))
    began = Answer(said, time.monotonic() - 60)
    async with making(databases, None, began=began, file_path=tmp_path / "t") as made:
        made.pipeline.sampler.sample()
        first = lag(made.metrics)
        assert first is not None
        assert 160 <= first < 170
        made.pipeline.sampler.sample()
        assert (lag(made.metrics) or 0) > first
        value = made.metrics.registry.get_sample_value
        assert value("tailer_stream_connected", {"stream": "messages"}) == 0
        assert value("tailer_stream_position_timestamp_seconds", {"stream": "messages"}) == said - 100
        assert value("tailer_stream_last_poll_timestamp_seconds", {"stream": "messages"}) is None
        assert lag(made.metrics) is not None


async def test_a_first_start_that_never_opens_lags_since_it_began(
    databases: Databases, tmp_path: Path
) -> None:
    """There is no position yet: behind is what was written since the start."""
    began = Answer(int(time.time()) - 30, time.monotonic() - 30)
    async with making(databases, None, began=began, file_path=tmp_path / "t") as made:
        made.pipeline.sampler.sample()

        assert 30 <= (lag(made.metrics) or 0) < 40
        value = made.metrics.registry.get_sample_value
        assert value("tailer_stream_position_timestamp_seconds", {"stream": "messages"}) is None


async def test_a_standby_that_takes_over_after_days_does_not_show_days_of_lag(
    databases: Databases, tmp_path: Path
) -> None:
    """Its server spoke when it started; the position is the one that the instance before it stored just now."""
    async with making(databases, None, file_path=tmp_path / "t") as made:
        stored = Checkpoint(StreamPosition(None, int(time.time())))
        await made.state.save_checkpoint(Stream.MESSAGES, stored)
    days = 200_000
    began = Answer(int(time.time()) - days, time.monotonic() - days)
    async with making(databases, None, began=began, file_path=tmp_path / "t") as made:
        made.pipeline.sampler.sample()

        assert (lag(made.metrics) or 0) < 10


async def test_a_paused_stream_lags_more_every_second_and_is_not_called_silent(
    databases: Databases, tmp_path: Path
) -> None:
    """Too much is open, so nobody asks MongoDB: what is written meanwhile is not read; `/readyz` blames nobody."""
    now = int(time.time())
    async with making(databases, None, file_path=tmp_path / "t", open_turns=100) as made:
        backlog, sampler, value = (
            made.pipeline.backlog,
            made.pipeline.sampler,
            made.metrics.registry.get_sample_value,
        )
        after = StreamPosition(None, now)
        hints = [(response(f"{number:024x}", now), after) for number in range(100)]
        backlog.take_hints(Stream.MESSAGES, StreamBatch(hints, after, now))
        sampler.sample()
        assert lag(made.metrics) == 0
        assert Stream.MESSAGES in made.pipeline.health.answered_seconds

        waiting = asyncio.create_task(backlog.wait_for_room(Stream.MESSAGES))
        async with asyncio.timeout(20):
            while (lag(made.metrics) or 0) < 3:
                await asyncio.sleep(0.05)
                sampler.sample()
        assert value("tailer_stream_connected", {"stream": "messages"}) == 1
        assert made.pipeline.health.answered_seconds == {}
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_what_holds_the_position_is_shown_only_while_something_is_open(
    databases: Databases, tmp_path: Path
) -> None:
    """A time that stands still after the last turn would look like one that is never acknowledged."""
    now = int(time.time())
    async with making(databases, None, file_path=tmp_path / "t") as made:
        backlog, value = made.pipeline.backlog, made.metrics.registry.get_sample_value
        before, after = StreamPosition(None, now - 10), StreamPosition(None, now)
        backlog.start(Stream.MESSAGES, Checkpoint(before))
        backlog.take_hints(Stream.MESSAGES, StreamBatch([(response("a" * 24, now), after)], after, now))
        made.pipeline.sampler.sample()
        assert value("tailer_export_oldest_unacked_timestamp_seconds") == now - 10

        (entry,) = await backlog.take_due(limit=1, gather_seconds=0)
        backlog.close(entry.key)
        made.pipeline.sampler.sample()
        assert value("tailer_export_oldest_unacked_timestamp_seconds") is None
        assert value("tailer_export_lag_seconds", {"destination": "default"}) == 0


def response(key: str, cluster_seconds: int) -> ChangeHint:
    """An answer that was inserted."""
    return ChangeHint(
        Operation.INSERT,
        DocumentKey(key),
        cluster_seconds,
        None,
        frozenset(),
        f"m{key}",
        None,
        created_by_user=False,
    )
