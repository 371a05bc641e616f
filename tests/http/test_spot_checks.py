"""What Langfuse took and does not keep is told. Real HTTP, and a clock that only the pauses move."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from tailer.core.identity import TraceId, turn_trace_id
from tailer.events import SpotChecked, TraceNotKept
from tailer.flow.records import BatchItem
from tailer.flow.sending.spot_checks import SpotChecks
from tailer.langfuse.spans import LangfuseSpans
from tests.evidence import Events, make_item, make_trace
from tests.fakes.langfuse import FakeLangfuse, Route, answer
from tests.http.wire import Wire, spans_to
from tests.sent import make_sent

MINUTE = 60.0


@dataclass(slots=True)
class Here:
    fake: FakeLangfuse
    sink: LangfuseSpans
    events: Events
    deleted: set[TraceId] = field(default_factory=set)
    now: float = 1_760_000_000.0
    checks: SpotChecks = field(init=False)

    def __post_init__(self) -> None:
        self.checks = SpotChecks(self.sink, self, self.events, monotonic=lambda: self.now)  # type: ignore[arg-type]

    async def load_sent(self, trace_ids: Sequence[TraceId]) -> dict[TraceId, object]:
        return {trace_id: object() for trace_id in trace_ids if trace_id not in self.deleted}

    async def acknowledge(self, *message_ids: str, are_doubted: bool = False) -> None:
        items: list[BatchItem] = []
        for message_id in message_ids:
            trace = make_trace(message_id)
            chunk = self.sink.encode(trace)
            await self.sink.deliver(self.sink.frame([chunk]))
            items.append(replace(make_item(trace, chunk), sent=make_sent(message_id)))
        self.checks.note(items, are_doubted=are_doubted)

    async def pass_minutes(self, minutes: int) -> None:
        for _ in range(minutes // 2):
            self.now += 2 * MINUTE
            await self.checks.look()

    @property
    def results(self) -> list[str]:
        return [event.result for event in self.events.of(SpotChecked)]

    @property
    def reads(self) -> int:
        return sum(count for (route, _), count in self.fake.requests.items() if route is Route.OBSERVATIONS)


@asynccontextmanager
async def world(*, sight: timedelta | None = None, **how: Any) -> AsyncIterator[Here]:
    here: list[Here] = []

    def clock() -> float:
        return here[0].now

    async with (
        FakeLangfuse(clock=clock, **how) as fake,
        spans_to(fake, Wire(), patience_seconds=20, sight=sight, clock=clock) as sink,
    ):
        here.append(Here(fake, sink, Events()))
        yield here[0]


async def test_what_is_kept_is_counted_and_not_told() -> None:
    async with world(visible_after_seconds=2) as here:
        await here.acknowledge("m1")
        await here.pass_minutes(10)

        assert here.results == ["kept"]
        assert here.reads == 1
        assert here.events.of(TraceNotKept) == []


async def test_what_is_taken_and_not_kept_is_told_after_ten_minutes() -> None:
    """A worker that stands still, a database that refuses: the answer was 200."""
    async with world(visible_after_seconds=10**9) as here:
        await here.acknowledge("m1")
        await here.pass_minutes(8)
        early = here.results
        await here.pass_minutes(4)

        assert (early, here.results) == ([], ["missing"])
        assert [event.trace_id for event in here.events.of(TraceNotKept)] == [turn_trace_id("m1")]
        await here.pass_minutes(10)
        assert here.results == ["missing"]


async def test_what_is_older_than_what_a_server_shows_is_no_alarm() -> None:
    """A backfill brings turns of long ago; Langfuse Cloud shows the last 30 days on Hobby."""
    month = timedelta(days=30)
    async with world(shown_back_seconds=month.total_seconds(), sight=month - timedelta(days=1)) as here:
        here.now += 2 * month.total_seconds()
        await here.acknowledge("m1")
        await here.pass_minutes(20)

        assert here.results == ["unread"]
        assert here.events.of(TraceNotKept) == []


async def test_what_shows_after_some_minutes_is_kept() -> None:
    async with world(visible_after_seconds=7 * MINUTE) as here:
        await here.acknowledge("m1")
        await here.pass_minutes(20)

        assert here.results == ["kept"]


async def test_a_turn_that_was_deleted_since_is_not_missed() -> None:
    async with world() as here:
        await here.acknowledge("m1")
        here.fake.state.spans.delete_traces([turn_trace_id("m1")])
        here.deleted.add(turn_trace_id("m1"))
        await here.pass_minutes(20)

        assert here.results == []


async def test_one_turn_a_minute_is_looked_for_in_one_read() -> None:
    """However many are sent: Langfuse Cloud counts reads by the minute."""
    async with world(reads_a_minute=30) as here:
        for number in range(40):
            await here.acknowledge(f"m{number}")
            here.now += 6
        await here.pass_minutes(4)

        assert here.results == ["kept"] * 4
        assert here.reads == 1


async def test_all_turns_of_a_batch_that_was_taken_in_part_are_looked_for() -> None:
    """Nothing says which spans were rejected."""
    async with world(visible_after_seconds=10**9) as here:
        await here.acknowledge("m1", "m2", "m3", are_doubted=True)
        await here.pass_minutes(12)

        assert here.results == ["missing"] * 3


@pytest.mark.parametrize("status", [500, 429, 422])
async def test_a_langfuse_that_does_not_answer_is_asked_later(status: int) -> None:
    async with world() as here:
        await here.acknowledge("m1")
        here.fake.faults.add(answer(status, route=Route.OBSERVATIONS, retry_after="300", times=1))
        await here.pass_minutes(8)

        assert here.results == ["kept"]


async def test_a_langfuse_that_cannot_be_read_is_counted_and_no_alarm() -> None:
    async with world() as here:
        await here.acknowledge("m1")
        here.fake.faults.add(answer(403, route=Route.OBSERVATIONS, times=None))
        await here.pass_minutes(4)

        assert here.results == ["unread"]
