"""What comes after a trace: feedback becomes a score, an edit becomes one more event and, for an answer, a correction.

Scores overwrite, so they are repeated until the destination has accepted them, and remembered only then. Edits are sent
like traces, and stored before they are sent.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from tailer.core.identity import DocumentKey, TraceId
from tailer.core.librechat.documents import Message, Transaction
from tailer.core.stream.hints import LEDGER, Interest
from tailer.core.stream.open_turns import Entry
from tailer.core.trace.content_policy import ContentPolicy
from tailer.core.trace.export import trace_id_of
from tailer.core.trace.followup import (
    Edit,
    EditedText,
    FollowupOperation,
    SentTurn,
    feedback_digest,
    feedback_score_id,
    find_edit,
    make_correction_score,
    make_edit_trace,
    make_feedback_score,
)
from tailer.core.trace.late import build_late_trace, find_news
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.core.turn.readback import Row
from tailer.core.turn.turns import answer_text
from tailer.errors import TailerError
from tailer.flow.lanes.asking import Asking
from tailer.flow.lanes.lane import Lane
from tailer.flow.lanes.round import Round, Workbench
from tailer.flow.lanes.turns import FollowedChanges
from tailer.flow.ports import FollowupSink
from tailer.flow.sending.outgoing import Outgoing, join

_AT_ONCE: Final = 8
"""Follow-ups in progress at a time: a backlog of thumbs does not wait for a single answer, and no server is flooded."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """An entry with what was read for it: the message as it is, and the sent turns in whose traces it appears."""

    entry: Entry
    message: Message
    turns: tuple[SentTurn, ...]
    transactions: tuple[Transaction, ...] = ()


class Followups(Lane):
    """Handles rows that changed after their turn was sent."""

    name: ClassVar[str] = "followups"
    works: ClassVar[tuple[Interest, ...]] = (Interest.FOLLOWUP,)

    def __init__(
        self,
        bench: Workbench,
        sink: FollowupSink,
        asking: Asking,
        followed: FollowedChanges,
        mask: ContentPolicy,
    ) -> None:
        super().__init__(bench)
        self._sink = sink
        self._asking = asking
        self._followed = followed
        self._mask = mask

    async def _work(self, work: Round) -> None:
        subjects = await self._read(work)
        while subjects:
            some, subjects = subjects[:_AT_ONCE], subjects[_AT_ONCE:]
            if not await self._follow_some(work, some):
                # The destination accepts nothing at the moment, so the others need not be tried.
                for subject in subjects:
                    work.postpone(subject.entry)
                await self._asking.pause()
                return

    async def _read(self, work: Round) -> list[_Subject]:
        """The changes to follow, with their traces claimed; entries that need nothing are closed."""
        entries = work.by_row()
        located = await self._bench.reader.locate(list(entries))
        for key in entries.keys() - {row.key for row in located}:
            work.close(entries[key], EntryOutcome.DELETED)
        answers = await self._answers_of(located)
        for row in located:
            work.name(entries[row.key], f"{trace_id_of(row)}:followup", row.message_id)
        claimed = [row for row in located if self._claim(work, entries[row.key], answers[row.key])]
        traces = {row.key: [trace_id_of(answer) for answer in answers[row.key]] for row in claimed}
        sent = await self._bench.state.load_sent([each for those in traces.values() for each in those])
        messages = await self._bench.reader.read_messages([row.key for row in claimed])
        ledgers = await self._read_ledgers(entries, claimed, sent)
        subjects = []
        for row in claimed:
            message = messages.get(row.key)
            turns = tuple(sent[trace_id] for trace_id in traces[row.key] if trace_id in sent)
            if message is not None and turns:
                ledger = tuple(ledgers.get(row.message_id, ()))
                subjects.append(_Subject(entries[row.key], message, turns, ledger))
            else:
                work.close(entries[row.key], _nothing_followed(row, was_read=message is not None))
        return subjects

    async def _read_ledgers(
        self, entries: Mapping[DocumentKey, Entry], rows: Sequence[Row], sent: Mapping[TraceId, SentTurn]
    ) -> Mapping[str, Sequence[Transaction]]:
        """The ledgers of the answers that were billed after they were sent."""
        billed = [
            sent[trace_id_of(row)]
            for row in rows
            if LEDGER in entries[row.key].changed and trace_id_of(row) in sent
        ]
        return await self._bench.reader.read_ledgers(billed) if billed else {}

    async def _answers_of(self, rows: Sequence[Row]) -> Mapping[DocumentKey, Sequence[Row]]:
        """The rows in whose traces each of these appears: a response in its own, a question in those of its answers."""
        answers: dict[DocumentKey, list[Row]] = {
            row.key: [] if row.created_by_user else [row] for row in rows
        }
        questions = [row for row in rows if row.created_by_user]
        for answer, question in await self._bench.reader.locate_answers(questions) if questions else ():
            answers[question.key].append(answer)
        return answers

    def _claim(self, work: Round, entry: Entry, answers: Sequence[Row]) -> bool:
        """Whether nothing of the traces is on its way: an answer built before an edit must be recorded first."""
        is_open = any(
            self._bench.backlog.is_open(Interest.RESPONSE, row.key)
            for row in answers
            if row.key != entry.key.document_key
        )
        if not is_open and work.claim(entry, {trace_id_of(row): row.key for row in answers}):
            return True
        work.postpone(entry)
        return False

    async def _follow_some(self, work: Round, subjects: Sequence[_Subject]) -> bool:
        """Follow several at the same time. Returns whether anything was accepted, or nothing had to be asked for."""
        followed = await asyncio.gather(*map(self._follow, subjects), return_exceptions=True)
        outgoing: list[Outgoing] = []
        turned_away = 0
        for subject, made in zip(subjects, followed, strict=True):
            if isinstance(made, Outgoing):
                outgoing.append(made)
            elif isinstance(made, float):
                work.postpone(subject.entry, made)
                turned_away += 1
            elif made is None:
                work.close(subject.entry, _followed(subject))
        await work.hand_over(outgoing)
        errors = [made for made in followed if isinstance(made, BaseException)]
        if errors:
            # An error of the whole daemon goes before an error of one item.
            raise next((error for error in errors if isinstance(error, TailerError)), errors[0])
        return turned_away < len(subjects)

    async def _follow(self, subject: _Subject) -> Outgoing | float | None:
        """The edits to send, None without any; or the seconds until the next try."""
        is_answer = not subject.message.created_by_user
        if is_answer and self._followed.feedback:
            wait_seconds = await self._follow_feedback(subject)
            if wait_seconds is not None:
                return wait_seconds
        pieces: list[Outgoing] = []
        for turn in subject.turns if self._followed.edits else ():
            edit = self._find_edit(subject, turn)
            if edit is None:
                continue
            wait_seconds = await self._correct(subject.entry, turn, edit)
            if wait_seconds is not None:
                return wait_seconds
            trace = make_edit_trace(turn, edit, self._mask)
            edits = {trace.record_id: edit}
            pieces.append(
                self._bench.packing.pack(subject.entry.key, EntryOutcome.EDITED, [trace], edits=edits)
            )
        if is_answer:
            pieces += self._find_late(subject, edits_before=len(pieces))
        return join(pieces) if pieces else None

    def _find_late(self, subject: _Subject, *, edits_before: int) -> list[Outgoing]:
        """What LibreChat wrote late into the one turn of an answer; its number follows that of an edit found with
        it."""
        (turn,), entry, message = subject.turns, subject.entry, subject.message
        turn = replace(turn, edits=turn.edits + edits_before)
        if not self._followed.edits:
            turn = replace(turn, parts=None)
        written = entry.written_milliseconds or message.updated_milliseconds or turn.end_milliseconds
        news = find_news(turn, message, subject.transactions, written)
        trace = None if news is None else build_late_trace(turn, news, self._mask)
        if news is None or trace is None:
            return []
        return [self._bench.packing.pack(entry.key, EntryOutcome.LATE, [trace], late=news.marks)]

    async def _follow_feedback(self, subject: _Subject) -> float | None:
        (turn,), message = subject.turns, subject.message
        digest = feedback_digest(message.feedback)
        if digest == turn.feedback:
            return None
        if message.feedback is None:
            score_id = feedback_score_id(turn.trace_id)
            wait_seconds = await self._asking.ask(
                subject.entry.key,
                FollowupOperation.DELETE_SCORE,
                lambda: self._sink.delete_score(score_id),
            )
        else:
            score = make_feedback_score(turn, message, message.feedback, self._mask)
            wait_seconds = await self._asking.ask(
                subject.entry.key, FollowupOperation.PUT_SCORE, lambda: self._sink.put_score(score)
            )
        if wait_seconds is None:
            await self._bench.state.record_feedback(turn.trace_id, digest)
        return wait_seconds

    def _find_edit(self, subject: _Subject, turn: SentTurn) -> Edit | None:
        entry, message = subject.entry, subject.message
        written = entry.written_milliseconds or message.updated_milliseconds or turn.start_milliseconds
        if message.created_by_user:
            return find_edit(EditedText.QUESTION, turn, message.text or "", written)
        return find_edit(EditedText.ANSWER, turn, answer_text(message), written)

    async def _correct(self, entry: Entry, turn: SentTurn, edit: Edit) -> float | None:
        correction = make_correction_score(turn, edit, self._mask)
        if correction is None:
            return None
        return await self._asking.ask(
            entry.key, FollowupOperation.PUT_CORRECTION, lambda: self._sink.put_score(correction)
        )


def _nothing_followed(row: Row, *, was_read: bool) -> EntryOutcome:
    if row.created_by_user:
        return EntryOutcome.NOT_A_RESPONSE
    return EntryOutcome.SENT_BEFORE if was_read else EntryOutcome.DELETED


def _followed(subject: _Subject) -> EntryOutcome:
    return EntryOutcome.NOT_A_RESPONSE if subject.message.created_by_user else EntryOutcome.FOLLOWED
