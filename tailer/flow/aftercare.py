"""What comes after a trace: feedback becomes a score, an edit one more event, a deletion takes the trace away.

Scores and deletions overwrite or find nothing to do, so they are simply repeated until the destination has taken them,
and remembered only then. Edits go the way of traces, written down before they are sent.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_exponential, wait_random

from tailer.core.identity import DocumentKey, title_trace_id_beside
from tailer.core.librechat.documents import Message
from tailer.core.policy.policies import DeletionPolicy
from tailer.core.stream.hints import Interest
from tailer.core.stream.open_turns import Entry
from tailer.core.trace.content_policy import ContentPolicy
from tailer.core.trace.export import trace_id_of
from tailer.core.trace.followup import (
    EditedText,
    SentTurn,
    feedback_digest,
    feedback_score_id,
    find_edit,
    make_correction_score,
    make_edit_trace,
    make_feedback_score,
)
from tailer.core.turn.readback import Row
from tailer.core.turn.turns import answer_text
from tailer.events import AnnotationFailed, DeliveryRetried, Emit, TurnDone
from tailer.flow.backlog import Backlog
from tailer.flow.ports import Annotations, DocumentReader, Sink
from tailer.flow.sending.outcomes import Delivered, DeliveryOutcome, Refused, Retry, Unknown
from tailer.flow.sending.parcels import Parcel
from tailer.flow.stores import StateStore

_TEXT_FIELDS = frozenset({"text", "content"})
_BUSY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class AftercareOptions:
    """Which late changes are followed, and how content is masked."""

    feedback: bool
    edits: bool
    deletions: DeletionPolicy
    mask: ContentPolicy


class Aftercare:
    """Follows the turns that were sent."""

    def __init__(
        self,
        backlog: Backlog,
        reader: DocumentReader,
        state: StateStore,
        sink: Sink,
        annotations: Annotations,
        options: AftercareOptions,
        in_flight: set[str],
        emit: Emit,
        hand_over: Callable[[Sequence[Parcel]], Awaitable[None]],
    ) -> None:
        self._backlog = backlog
        self._reader = reader
        self._state = state
        self._sink = sink
        self._annotations = annotations
        self._options = options
        self._in_flight = in_flight
        self._emit = emit
        self._hand_over = hand_over

    def concerns(self, entry: Entry) -> bool:
        """Whether an entry asks for more than its trace."""
        edited = self._options.edits and not _TEXT_FIELDS.isdisjoint(entry.changed)
        return edited or (self._options.feedback and "feedback" in entry.changed)

    async def follow_responses(self, entries: Mapping[DocumentKey, Entry], rows: Sequence[Row]) -> None:
        """Feedback and edits of responses whose traces were sent."""
        if not rows:
            return
        # Before the records are read: what lands in between must be seen in one of the two.
        busy = frozenset(self._in_flight)
        sent = await self._state.load_sent([trace_id_of(row) for row in rows])
        messages = await self._reader.read_messages([row.key for row in rows])
        for row in rows:
            entry, message, turn = entries[row.key], messages.get(row.key), sent.get(trace_id_of(row))
            if message is None or turn is None:
                self._close(entry, "deleted" if message is None else "sent_before")
                continue
            if self._options.feedback:
                await self._follow_feedback(turn, message)
            parcel = await self._make_edit(entry, turn, EditedText.ANSWER, answer_text(message), message)
            await self._send_edits(entry, [] if parcel is None else [parcel], busy, otherwise="followed")

    async def follow_questions(self, entries: Mapping[DocumentKey, Entry], questions: Sequence[Row]) -> None:
        """Edits of questions, in the traces of all their answers."""
        if not questions:
            return
        busy = frozenset(self._in_flight)
        pairs = await self._reader.locate_answers(questions)
        sent = {
            turn.document_key: turn
            for turn in await self._state.load_sent_by_document([r.key for r, _ in pairs])
        }
        messages = await self._reader.read_messages([row.key for row in questions])
        parcels: dict[DocumentKey, list[Parcel]] = {row.key: [] for row in questions}
        for answer, question in pairs:
            message, turn = messages.get(question.key), sent.get(answer.key)
            if message is not None and turn is not None:
                text = message.text or ""
                parcel = await self._make_edit(
                    entries[question.key], turn, EditedText.QUESTION, text, message
                )
                if parcel is not None:
                    parcels[question.key].append(parcel)
        for question in questions:
            await self._send_edits(
                entries[question.key], parcels[question.key], busy, otherwise="not_a_response"
            )

    async def _send_edits(
        self, entry: Entry, parcels: Sequence[Parcel], busy: frozenset[str], *, otherwise: str
    ) -> None:
        if not parcels:
            self._close(entry, otherwise)
            return
        joined = _join(parcels)
        records = {trace.record_id for trace in joined.traces}
        if records & busy:
            # An earlier run began to send this edit; it is looked up first.
            self._backlog.postpone(entry.key, seconds=_BUSY_SECONDS)
            return
        self._in_flight.update(records)
        await self._hand_over([joined])

    async def follow_deletions(self, entries: Sequence[Entry]) -> None:
        """Rows that were deleted: their traces stay, or go too, as the policy says."""
        if self._options.deletions is DeletionPolicy.KEEP:
            for entry in entries:
                self._close(entry, "deletion_kept")
            return
        ready = []
        on_their_way = await self._find_on_their_way([entry.key.document_key for entry in entries])
        for entry in entries:
            if entry.key.document_key in on_their_way:
                # What is on its way must be recorded before it can be taken away.
                self._backlog.postpone(entry.key, seconds=_BUSY_SECONDS)
            else:
                ready.append(entry)
        sent = await self._state.load_sent_by_document([entry.key.document_key for entry in ready])
        titles = await self._state.find_traces_by_document([entry.key.document_key for entry in ready])
        trace_ids = sorted({turn.trace_id for turn in sent} | set(titles))
        if trace_ids:
            await self._repeat(lambda: self._annotations.delete_traces(trace_ids), "delete_traces")
            await self._state.record_deleted(trace_ids)
        expired = {
            turn.document_key: turn.expires_milliseconds
            for turn in sent
            if turn.expires_milliseconds is not None
        }
        deleted = {turn.document_key for turn in sent}
        for entry in ready:
            key = entry.key.document_key
            outcome = "deletion_unknown" if key not in deleted else "deletion_followed"
            if key in expired and expired[key] <= entry.cluster_seconds * 1000:
                outcome = "expiry_followed"
            self._close(entry, outcome)

    async def _find_on_their_way(self, keys: Sequence[DocumentKey]) -> frozenset[DocumentKey]:
        """The rows whose trace, title or edit is being worked on, by this run or in a batch of an earlier one."""
        opened = {key for key in keys if self._backlog.is_open(Interest.RESPONSE, key)}
        busy = {record_id.partition(":")[0] for record_id in self._in_flight}
        pending = await self._state.find_pending(keys)
        sent = await self._state.load_sent_by_document(keys)
        moving = {
            turn.document_key
            for turn in sent
            if not busy.isdisjoint({turn.trace_id, title_trace_id_beside(turn.trace_id, turn.message_id)})
        }
        return pending | opened | moving

    async def _follow_feedback(self, turn: SentTurn, message: Message) -> None:
        digest = feedback_digest(message.feedback)
        if digest == turn.feedback:
            return
        if message.feedback is None:
            score_id = feedback_score_id(turn.trace_id)
            await self._repeat(lambda: self._annotations.delete_score(score_id), "delete_score")
        else:
            score = make_feedback_score(turn, message, message.feedback, self._options.mask)
            await self._repeat(lambda: self._annotations.put_score(score), "put_score")
        await self._state.record_feedback(turn.trace_id, digest)

    async def _make_edit(
        self, entry: Entry, turn: SentTurn, which: EditedText, text: str, message: Message
    ) -> Parcel | None:
        """The parcel of an edit, after its correction was taken; None where nothing differs."""
        if not self._options.edits:
            return None
        written = entry.written_milliseconds or message.updated_milliseconds or turn.start_milliseconds
        edit = find_edit(which, turn, text, written)
        if edit is None:
            return None
        correction = make_correction_score(turn, edit, self._options.mask)
        if correction is not None:
            await self._repeat(lambda: self._annotations.put_score(correction), "put_correction")
        trace = make_edit_trace(turn, edit, self._options.mask)
        return Parcel(
            entry.key, "edited", (trace,), (self._sink.encode(trace),), edits={trace.record_id: edit}
        )

    async def _repeat(self, call: Callable[[], Awaitable[DeliveryOutcome]], operation: str) -> None:
        def report(state: RetryCallState) -> None:
            outcome = state.outcome.result() if state.outcome is not None else None
            reason = outcome.reason if isinstance(outcome, Retry | Refused | Unknown) else "unknown"
            self._emit(DeliveryRetried(f"{operation}: {reason}", state.attempt_number, state.upcoming_sleep))

        async def run() -> DeliveryOutcome:
            return await call()

        attempts = AsyncRetrying(
            retry=retry_if_result(lambda outcome: isinstance(outcome, Retry | Refused | Unknown)),
            wait=wait_exponential(multiplier=0.2, max=60) + wait_random(0, 1),
            before_sleep=report,
        )
        outcome: DeliveryOutcome = await attempts(run)
        if not isinstance(outcome, Delivered):
            self._emit(AnnotationFailed(operation))

    def _close(self, entry: Entry, outcome: str) -> None:
        self._emit(TurnDone(outcome))
        self._backlog.close(entry.key)


def _join(parcels: Sequence[Parcel]) -> Parcel:
    """One parcel of several: a question that was edited shows in the traces of all its answers."""
    first = parcels[0]
    return Parcel(
        first.key,
        first.outcome,
        tuple(trace for parcel in parcels for trace in parcel.traces),
        tuple(chunk for parcel in parcels for chunk in parcel.chunks),
        edits={record: edit for parcel in parcels for record, edit in parcel.edits.items()},
    )
