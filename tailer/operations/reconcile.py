"""Compares LibreChat's collections with Langfuse. The work of `tailer reconcile`.

Every turn is read and judged as the daemon does it, so turns that the settings leave out are not missed. Then Langfuse
is asked for the root of each. Titles and later pieces are not looked up.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tailer.core.identity import DocumentKey, ObservationId, TraceId, observation_id
from tailer.core.trace.export import Exported, ExportOptions, export_turn, is_chosen
from tailer.core.turn.readback import Row
from tailer.core.turn.turns import TurnRecord, Wait
from tailer.daemon.destinations import describe_unreachable, open_destination
from tailer.daemon.options import make_options_for, needs_groups, needs_users
from tailer.errors import DestinationError, RequestRefused
from tailer.flow.letter_reasons import LetterKind, LetterReason
from tailer.flow.ports import UNCONDITIONAL
from tailer.flow.records import DeadLetter, Probe
from tailer.flow.sending.outcomes import Unanswered, Unreadable, explain
from tailer.langfuse.spans import LangfuseSpans
from tailer.mongo.collections import Collections
from tailer.mongo.documents import MongoDocuments
from tailer.mongo.resuming import server_seconds
from tailer.mongo.state import StateDatabase
from tailer.mongo.state.requests import ask_anew
from tailer.mongo.state.survey import find_sent_times
from tailer.mongo.walk import MongoWalk
from tailer.operations.backfill import Request, make_job
from tailer.operations.naming import choose_destinations
from tailer.operations.opening import ignore_event, open_both
from tailer.outbound.proof import Unreachable
from tailer.retrying import Backoff, try_until
from tailer.settings import Settings
from tailer.settings.destinations import LangfuseDestination

_CHUNK_ROWS = 200
_COMPARING = "comparing with Langfuse"
_PROBES_AT_ONCE = 380
"""Two reads of Langfuse: its cloud counts them by the minute."""
_PATIENCE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A turn that is not in Langfuse exactly once. `sent_at` is when it was acknowledged, None if it never was."""

    trace_id: TraceId
    message_id: str
    document_key: str
    copies: int
    sent_at: datetime | None


@dataclass(slots=True)
class Comparison:
    """What came of it: turns that should be there, those that are not or are there twice, and why others should not.

    `recent` are turns that were sent so lately that Langfuse may not show them yet, `out_of_sight` those that began
    longer ago than it is sure to show."""

    expected: int = 0
    recent: int = 0
    out_of_sight: int = 0
    missing: list[Discrepancy] = field(default_factory=list)
    doubled: list[Discrepancy] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


class Reconciliation:
    """One comparison of two databases; `destination` is the name of the project that is looked up."""

    def __init__(
        self,
        walk: MongoWalk,
        reader: MongoDocuments,
        spans: LangfuseSpans,
        state: StateDatabase,
        destination: str,
        options: ExportOptions,
        visible_after: timedelta,
    ) -> None:
        self.destination = destination
        self._walk = walk
        self._reader = reader
        self._spans = spans
        self._state = state
        self._options = options
        self._visible_after = visible_after

    async def compare(self, request: Request, now_seconds: int) -> Comparison:
        """Walk the turns of a stretch and ask for each; raises RequestRefused if no turn can lie in it, and
        DestinationError where Langfuse cannot be read."""
        job = make_job(request, now_seconds, operation=_COMPARING)
        comparison, position = Comparison(), None
        waiting: dict[TraceId, Row] = {}
        while True:
            chunk = await self._walk.read(job, position, _CHUNK_ROWS)
            if chunk.last is None:
                await self._look_for(waiting, comparison)
                return comparison
            position = chunk.last
            responses = [row for row in chunk.rows if not row.created_by_user]
            chosen = [row for row in responses if is_chosen(row.conversation_id, self._options)]
            comparison.left_out["not_sampled"] += len(responses) - len(chosen)
            async for group in self._reader.read_turns(chosen):
                waiting.update(self._judge_group(group, comparison))
            if len(waiting) >= _PROBES_AT_ONCE:
                await self._look_for(waiting, comparison)
                waiting.clear()

    async def repair(self, missing: Sequence[Discrepancy]) -> None:
        """Forget that the turns were sent, and request them from the active instance as dead letters to be replayed."""
        letters = [
            DeadLetter(
                found.trace_id,
                found.message_id,
                DocumentKey(found.document_key),
                LetterReason(LetterKind.MISSING_IN_LANGFUSE),
                None,
            )
            for found in missing
        ]
        await ask_anew(self._state, letters, self.destination)

    def _judge_group(
        self, group: Sequence[tuple[Row, TurnRecord | None]], comparison: Comparison
    ) -> Mapping[TraceId, Row]:
        """The turns of a group that should be in Langfuse; the others are counted."""
        expected: dict[TraceId, Row] = {}
        for row, record in group:
            if record is None:
                comparison.left_out["deleted"] += 1
                continue
            made = export_turn(row, record, self._options, deadline_passed=False)
            if isinstance(made, Exported):
                expected[made.traces[0].id] = row
            else:
                comparison.left_out[f"waits_for_{made.value}" if isinstance(made, Wait) else made] += 1
        return expected

    async def _look_for(self, expected: Mapping[TraceId, Row], comparison: Comparison) -> None:
        sent = await find_sent_times(self._state, list(expected), self.destination)
        probes = {trace_id: _probe_of(trace_id, row) for trace_id, row in expected.items()}
        copies = await self._count(list(probes.values()))
        horizon = datetime.now(UTC) - self._visible_after
        for trace_id, row in expected.items():
            found = Discrepancy(
                trace_id,
                row.message_id,
                row.key,
                copies[probes[trace_id].observation_id],
                sent.get(trace_id),
            )
            comparison.expected += 1
            if found.copies > 1:
                comparison.doubled.append(found)
            elif found.copies == 0 and found.sent_at is not None and found.sent_at > horizon:
                comparison.recent += 1
            elif found.copies == 0 and self._spans.is_out_of_sight(probes[trace_id]):
                comparison.out_of_sight += 1
            elif found.copies == 0:
                comparison.missing.append(found)

    async def _count(self, probes: Sequence[Probe]) -> Mapping[ObservationId, int]:
        answer = await try_until(
            lambda: self._spans.count(probes),
            is_final=lambda answer: not isinstance(answer, Unanswered),
            wait=_wait_seconds,
            patience=_PATIENCE,
        )
        if isinstance(answer, Unanswered | Unreadable):
            why = explain(answer) if isinstance(answer, Unanswered) else answer.reason
            raise DestinationError(
                operation="reading Langfuse",
                subject=self._spans.name,
                hint=f"it does not let its observations be read ({why}): check the keys, and that the server "
                "answers GET /api/public/v2/observations",
            )
        return answer


@asynccontextmanager
async def open_reconciliation(
    settings: Settings, name: str | None = None
) -> AsyncIterator[tuple[Reconciliation, int]]:
    """A comparison over connections of its own, and MongoDB's time; raises TailerError where one cannot be used. `name`
    is the project of Langfuse to compare with; it may be left out if there is one."""
    project = _choose_project(settings, name)
    async with AsyncExitStack() as stack:
        source, state = await stack.enter_async_context(open_both(settings, command="reconcile"))
        destination = await stack.enter_async_context(
            open_destination(settings, project, ignore_event, permit=UNCONDITIONAL)
        )
        proven = await destination.prove()
        if isinstance(proven, Unreachable):
            raise describe_unreachable(destination, proven)
        if not isinstance(destination.sink, LangfuseSpans):
            raise _refuse(project.name, "it is no project of Langfuse")
        reader = MongoDocuments(
            source,
            ignore_event,
            history_bytes=settings.history_bytes,
            with_users=needs_users(settings),
            with_groups=needs_groups(settings),
        )
        reconciliation = Reconciliation(
            MongoWalk(source, Collections(source, ignore_event)),
            reader,
            destination.sink,
            state,
            project.name,
            make_options_for(settings, project, None),
            settings.lookup_time + settings.settle_time,
        )
        yield reconciliation, await server_seconds(source)


def _choose_project(settings: Settings, name: str | None) -> LangfuseDestination:
    projects = [
        destination
        for destination in choose_destinations(settings, name)
        if isinstance(destination, LangfuseDestination)
    ]
    if not projects and name is None:
        raise RequestRefused(
            operation=_COMPARING,
            subject=str(settings.plan.path or "TAILER_SINK=file"),
            hint="no traces go to Langfuse: set the keys of a Langfuse project",
        )
    if not projects:
        raise _refuse(name or "", "only what a project of Langfuse has can be looked up")
    if len(projects) > 1:
        known = ", ".join(project.name for project in projects)
        raise _refuse(known, "there are several projects: give one with --destination")
    return projects[0]


def _refuse(subject: str, hint: str) -> RequestRefused:
    return RequestRefused(operation=_COMPARING, subject=subject, hint=hint)


_BACKOFF = Backoff(first_seconds=0.5, longest_seconds=30)


def _wait_seconds(answer: Mapping[ObservationId, int] | Unanswered | Unreadable, tries: int) -> float:
    """Growing, and never less than Langfuse asks for."""
    asked_seconds = answer.after_seconds if isinstance(answer, Unanswered) else None
    return _BACKOFF.wait_seconds(tries, asked_seconds=asked_seconds)


def _probe_of(trace_id: TraceId, row: Row) -> Probe:
    return Probe(trace_id, observation_id(row.message_id, "root"), row.created_milliseconds)
