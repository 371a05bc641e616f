"""A lost answer is settled whatever the limit on reads. Real HTTP, and a clock that only the pauses move."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from tailer.core.trace.observations import Trace
from tailer.events import LookupRetried
from tailer.flow.sending.lookup import Lookup, Verdict
from tailer.flow.sending.outcomes import Found, LookupAnswer, Unanswered, Unreadable
from tailer.langfuse.spans import LangfuseSpans
from tests.evidence import Events, make_trace, observation_ids, probes
from tests.fakes.langfuse import (
    EVENTS_ONLY,
    LEGACY,
    SELF_HOSTED_3,
    FakeLangfuse,
    Fault,
    Route,
    answer,
    cut,
    html_page,
)
from tests.http.wire import Wire, spans_to

PATIENCE = timedelta(seconds=30)
BEGAN = 1_760_000_000.0


@dataclass(slots=True)
class Clock:
    """Seconds since 1970, moved by pauses alone."""

    now: float = BEGAN
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    @property
    def passed(self) -> float:
        return self.now - BEGAN


@dataclass(slots=True)
class World:
    fake: FakeLangfuse
    sink: LangfuseSpans
    lookup: Lookup
    clock: Clock
    wire: Wire
    events: Events

    async def deliver(self, *message_ids: str) -> None:
        traces: list[Trace] = [make_trace(message_id) for message_id in message_ids]
        await self.sink.deliver(self.sink.frame([self.sink.encode(trace) for trace in traces]))

    @property
    def reads(self) -> int:
        return len([path for _, path, _ in self.wire.requests if "observations" in path])


@asynccontextmanager
async def world(*, sight: timedelta | None = None, **how: Any) -> AsyncIterator[World]:
    clock, wire, events = Clock(), Wire(), Events()
    async with (
        FakeLangfuse(clock=clock, **how) as fake,
        spans_to(fake, wire, patience_seconds=20, sight=sight, clock=clock) as sink,
    ):
        lookup = Lookup(sink, events, patience=PATIENCE, monotonic=clock, sleep=clock.sleep)
        yield World(fake, sink, lookup, clock, wire, events)


async def test_what_is_not_there_is_known_after_a_few_reads() -> None:
    """The pauses double, and the last look comes when the patience is over."""
    async with world(visible_after_seconds=3600) as here:
        await here.deliver("m1")

        assert await here.lookup.settle(probes("m1", "m9")) is Verdict.SENT_AGAIN
        assert here.clock.pauses == [0.5, 1, 2, 4, 8, 14.5]
        assert (here.reads, here.clock.passed) == (7, 30)


async def test_what_is_older_than_what_a_server_shows_is_not_taken_for_missing() -> None:
    """Langfuse Cloud shows the last 30 days on Hobby. Something younger in the batch tells of all of it."""
    month = timedelta(days=30)
    async with world(shown_back_seconds=month.total_seconds(), sight=month - timedelta(days=1)) as here:
        here.clock.now += 2 * month.total_seconds()
        await here.deliver("m1", "m2")
        young = replace(probes("m9")[0], started_milliseconds=round(here.clock.now * 1000))

        assert await here.lookup.settle(probes("m1", "m2")) is Verdict.SENT_AGAIN_UNREAD
        assert await here.lookup.settle([*probes("m1", "m2"), young]) is Verdict.SENT_AGAIN
        here.fake.state.shown_back_seconds = None
        assert await here.lookup.settle(probes("m1", "m2")) is Verdict.FOUND


async def test_what_shows_late_is_found() -> None:
    async with world(visible_after_seconds=12) as here:
        await here.deliver("m1")

        assert await here.lookup.settle(probes("m1", "m9")) is Verdict.FOUND
        assert here.clock.passed == 15.5


@pytest.mark.parametrize("visible_after_seconds", [2.0, 12.0, 3600.0])
@pytest.mark.parametrize("used_reads", [0, 25, 29])
async def test_with_thirty_reads_a_minute_a_lost_request_is_settled_within_three_minutes(
    visible_after_seconds: float, used_reads: int
) -> None:
    """Langfuse Cloud on Hobby; other clients may have used the minute already."""
    async with world(reads_a_minute=30, visible_after_seconds=visible_after_seconds) as here:
        for _ in range(used_reads):
            await here.sink.find(probes("m0"))
        await here.deliver("m1", "m2")
        verdict = await here.lookup.settle(probes("m1", "m2"))

        assert verdict is (Verdict.SENT_AGAIN if visible_after_seconds == 3600 else Verdict.FOUND)
        assert here.clock.passed < 180
        assert here.reads - used_reads <= 9


async def test_a_limit_neither_begins_the_search_anew_nor_counts_as_silence() -> None:
    """It waits for as long as it is told, and then an answer has the last word."""
    async with world(visible_after_seconds=50) as here:
        await here.deliver("m1")
        here.fake.faults.add(answer(429, retry_after="60", route=Route.OBSERVATIONS, after=2, times=1))

        # Seen after 61.5 seconds, which is past the patience: what counts is what is there then.
        assert await here.lookup.settle(probes("m1")) is Verdict.FOUND
        assert here.clock.pauses == [0.5, 1, 60]
        assert [event.reason for event in here.events.of(LookupRetried)] == ["http_429"]


async def test_a_limit_without_a_word_of_time_is_met_with_growing_pauses() -> None:
    async with world() as here:
        here.fake.faults.add(answer(429, route=Route.OBSERVATIONS, times=5))
        await here.deliver("m1")

        assert await here.lookup.settle(probes("m1")) is Verdict.FOUND
        assert here.clock.pauses == [0.5, 1, 2, 4, 8]


@pytest.mark.parametrize("fault", [answer(500), answer(502), answer(503), answer(422), cut(stored=False)])
async def test_a_silence_begins_the_search_anew(fault: Fault) -> None:
    """What a server took before it went away is shown only a while after it is back."""
    async with world(visible_after_seconds=40) as here:
        await here.deliver("m1")
        silence = Fault(**{**fault.as_json(), "route": Route.OBSERVATIONS, "after": 5, "times": 1})
        here.fake.faults.add(silence)

        assert await here.lookup.settle(probes("m1")) is Verdict.FOUND
        assert here.clock.passed > 30


async def test_all_traces_are_asked_for_in_one_read() -> None:
    """Hundreds in a few; each URL stays below the 8 KB that nginx takes."""
    names = [f"m{number}" for number in range(500)]
    async with world() as here:
        await here.deliver(*names[:300])
        found = await here.sink.find(probes(*names))

        assert found == Found(frozenset(observation_ids(*names[:300])))
        assert here.reads == 3


async def test_copies_are_counted_over_all_pages() -> None:
    async with world() as here:
        for _ in range(2):
            await here.deliver(*(f"m{number}" for number in range(700)))
        counted = await here.sink.count(probes(*(f"m{number}" for number in range(190))))

        assert isinstance(counted, dict)
        assert set(counted.values()) == {2}


@pytest.mark.parametrize("status", [400, 414, 431])
async def test_a_gateway_with_shorter_urls_is_asked_for_fewer_at_once(status: int) -> None:
    """And is remembered."""
    names = [f"m{number}" for number in range(100)]
    async with world() as here:
        await here.deliver(*names)
        here.fake.faults.add(answer(status, route=Route.OBSERVATIONS, times=2))
        found = await here.sink.find(probes(*names))
        reads = here.reads
        again = await here.sink.find(probes(*names))

        assert found == again == Found(frozenset(observation_ids(*names)))
        assert (reads, here.reads - reads) == (6, 4)


async def test_a_server_that_ignores_the_filter_is_asked_for_each_trace() -> None:
    """It would answer with the traces of others, page after page."""
    async with world() as here:
        await here.deliver("m1", "m2", "m3")
        rows = '{"data": [{"id": "x", "traceId": "other"}], "meta": {"cursor": "more"}}'
        here.fake.faults.add(answer(200, body=rows, route=Route.OBSERVATIONS))

        assert await here.sink.find(probes("m1", "m9")) == Found(frozenset(observation_ids("m1")))
        assert await here.sink.find(probes("m2", "m8")) == Found(frozenset(observation_ids("m2")))
        assert here.reads == 5


async def test_traces_of_others_in_the_read_of_one_trace_are_no_answer() -> None:
    async with world() as here:
        await here.deliver("m1")
        rows = '{"data": [{"id": "x", "traceId": "other"}], "meta": {"cursor": "more"}}'
        here.fake.faults.add(answer(200, body=rows, route=Route.OBSERVATIONS, times=None))

        assert await here.sink.find(probes("m1", "m9")) == Unreadable("traces of others")
        assert await here.sink.find(probes("m1")) == Unreadable("traces of others")


async def test_a_read_that_is_too_much_for_the_server_is_asked_again_and_then_for_fewer() -> None:
    """422: ClickHouse has too little time or memory for it (4.16)."""
    names = [f"m{number}" for number in range(100)]
    async with world() as here:
        await here.deliver(*names)
        here.fake.faults.add(answer(422, route=Route.OBSERVATIONS, times=3))
        answers = [await here.sink.find(probes(*names)) for _ in range(4)]

        assert answers == [Unanswered("http_422")] * 3 + [Found(frozenset(observation_ids(*names)))]
        assert here.reads == 3 + 2


@pytest.mark.parametrize("status", [404, 405, 410, 501])
async def test_a_server_without_the_newer_read_is_asked_by_the_older_one(status: int) -> None:
    async with world(release=LEGACY) as here:
        await here.deliver("m1")
        here.fake.faults.add(answer(status, route=Route.OBSERVATIONS, times=None))

        assert await here.sink.find(probes("m1", "m3")) == Found(frozenset(observation_ids("m1")))


@pytest.mark.parametrize("release", [EVENTS_ONLY, LEGACY, SELF_HOSTED_3])
async def test_every_release_can_be_asked(release: object) -> None:
    """4.16 as it comes, and in the mode of release 3, which has no read of many; release 3 itself, which says 501."""
    async with world(release=release) as here:
        await here.deliver("m1", "m2")

        assert await here.sink.find(probes("m1", "m3", "m2")) == Found(frozenset(observation_ids("m1", "m2")))


async def test_a_page_instead_of_a_single_observation_is_no_answer() -> None:
    """404 as a web page comes from something other than Langfuse."""
    async with world(release=LEGACY) as here:
        here.fake.faults.add(html_page(404, route=Route.OBSERVATION))
        found: LookupAnswer = await here.sink.find(probes("m1"))

        assert found == Unreadable("http_404")
