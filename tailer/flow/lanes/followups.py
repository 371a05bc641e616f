"""What comes after a trace: feedback becomes a score, an edit becomes one more event and, for an answer, a correction.

Scores overwrite, so they are repeated until the destination has accepted them, and remembered only then. Edits are sent
like traces, and stored before they are sent.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from tailer.core.identity import DocumentKey, TraceId
from tailer.core.librechat.messages import Message
from tailer.core.librechat.transactions import Transaction
from tailer.core.stream.entries import Entry
from tailer.core.stream.hints import LEDGER, Interest
from tailer.core.trace.export import trace_id_of
from tailer.core.trace.followup import (
    Edit,
    EditedText,
    FollowupOperation,
    SentTurn,
    feedback_digest,
    feedback_score_id,
    find_edit,
    is_lengthened,
    make_correction_score,
    make_edit_trace,
    make_feedback_score,
)
from tailer.core.trace.late import build_late_trace, find_continuation, find_news
from tailer.core.trace.tightening import tighten
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.core.turn.ledgers import entries_of_user
from tailer.core.turn.readback import Row
from tailer.core.turn.turns import answer_text
from tailer.errors import TailerError
from tailer.flow.destinations import Destination
from tailer.flow.lanes.asking import Asking, Settled, pause
from tailer.flow.lanes.lane import Lane
from tailer.flow.lanes.round import Round, Workbench
from tailer.flow.lanes.setbacks import Waiting
from tailer.flow.lanes.turns import FollowedChanges
from tailer.flow.sending.outgoing import Outgoing, join

_AT_ONCE: Final = 8
"""Follow-ups in progress at a time: a backlog of thumbs does not wait for a single answer, and no server is flooded."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """A share with what was read for it: the message as it is, and the turns in whose traces it appears, as they were
    sent to the destination."""

    entry: Entry
    destination: Destination
    message: Message
    turns: tuple[SentTurn, ...]
    transactions: tuple[Transaction, ...] = ()


class Followups(Lane):
    """Handles rows that changed after their turn was sent. `asking` is the way to each destination, by name."""

    name: ClassVar[str] = "followups"
    works: ClassVar[tuple[Interest, ...]] = (Interest.FOLLOWUP,)

    def __init__(self, bench: Workbench, asking: Mapping[str, Asking], followed: FollowedChanges) -> None:
        super().__init__(bench)
        self._asking = asking
        self._followed = followed

    async def _work(self, work: Round) -> None:
        subjects = await self._read(work)
        # Side by side: a destination that takes long does not hold up the others.
        ended = await asyncio.gather(
            *(self._follow_all(work, own) for own in subjects.values()),
            return_exceptions=True,
        )
        _raise_first(ended)
        if len(ended) == len(self._bench.destinations) and not any(ended):
            await pause(self._asking[name] for name in subjects)

    async def _follow_all(self, work: Round, subjects: Sequence[_Subject]) -> bool:
        """Follow the changes at one destination. False if it accepts nothing at the moment."""
        destination = subjects[0].destination
        if self._asking[destination.name].is_closed:
            await work.owe([subject.entry for subject in subjects], at=destination)
            return True
        while subjects:
            some, subjects = subjects[:_AT_ONCE], subjects[_AT_ONCE:]
            if not await self._follow_some(work, some):
                # The others need not be tried.
                for subject in subjects:
                    work.postpone(subject.entry, at=subject.destination)
                return False
        return True

    async def _read(self, work: Round) -> Mapping[str, Sequence[_Subject]]:
        """The changes to follow, by destination, with their traces claimed; shares that need nothing are closed."""
        entries = work.by_row()
        located = await self._bench.reader.locate(list(entries))
        for key in entries.keys() - {row.key for row in located}:
            work.close(entries[key], EntryOutcome.DELETED)
        answers = await self._answers_of(located)
        claimed: dict[DocumentKey, list[Destination]] = {}
        for row in located:
            entry = entries[row.key]
            work.name(entry, f"{trace_id_of(row)}:followup", row.message_id)
            claimed[row.key] = await self._claim(work, entry, answers[row.key])
        rows = [row for row in located if claimed[row.key]]
        traces = {row.key: [trace_id_of(answer) for answer in answers[row.key]] for row in rows}
        sent = {
            destination.name: await destination.state.load_sent(
                [each for row in rows if destination in claimed[row.key] for each in traces[row.key]]
            )
            for destination in work.destinations
        }
        messages = await self._bench.reader.read_messages([row.key for row in rows])
        ledgers = await self._read_ledgers(entries, rows, list(sent.values()))
        subjects: dict[str, list[_Subject]] = {}
        for row in rows:
            entry, message = entries[row.key], messages.get(row.key)
            for destination in claimed[row.key]:
                known = sent[destination.name]
                turns = tuple(known[trace_id] for trace_id in traces[row.key] if trace_id in known)
                if message is None or not turns:
                    outcome = _nothing_followed(row, was_read=message is not None)
                    work.close(entry, outcome, at=destination)
                    continue
                options = destination.options
                turns = tuple(tighten(turn, message, options.policies, options.mask) for turn in turns)
                ledger = entries_of_user(row.user_id, tuple(ledgers.get(row.message_id, ())))
                subject = _Subject(entry, destination, message, turns, ledger)
                subjects.setdefault(destination.name, []).append(subject)
        return subjects

    async def _read_ledgers(
        self,
        entries: Mapping[DocumentKey, Entry],
        rows: Sequence[Row],
        sent: Sequence[Mapping[TraceId, SentTurn]],
    ) -> Mapping[str, Sequence[Transaction]]:
        """The ledgers of the answers that were billed after they were sent."""
        billed = {
            row.key: known[trace_id_of(row)]
            for row in rows
            for known in sent
            if LEDGER in entries[row.key].changed and trace_id_of(row) in known
        }
        return await self._bench.reader.read_ledgers(list(billed.values())) if billed else {}

    async def _answers_of(self, rows: Sequence[Row]) -> Mapping[DocumentKey, Sequence[Row]]:
        """The rows in whose traces each of these appears: a response in its own, a question in those of its answers."""
        answers: dict[DocumentKey, list[Row]] = {
            row.key: [] if row.created_by_user else [row] for row in rows
        }
        questions = [row for row in rows if row.created_by_user]
        for answer, question in await self._bench.reader.locate_answers(questions) if questions else ():
            answers[question.key].append(answer)
        return answers

    async def _claim(self, work: Round, entry: Entry, answers: Sequence[Row]) -> list[Destination]:
        """The destinations to which nothing of the traces is on its way: an answer built before an edit must be
        recorded first."""
        is_open = any(
            self._bench.backlog.is_open(Interest.RESPONSE, row.key)
            for row in answers
            if row.key != entry.key.document_key
        )
        claimed = []
        for destination in work.destinations:
            if not work.is_open(entry, destination):
                continue
            if is_open:
                work.postpone(entry, at=destination)
            elif work.claim(entry, destination, {trace_id_of(row): row.key for row in answers}):
                claimed.append(destination)
            else:
                await work.wait_or_owe([(entry, None)], at=destination)
        return claimed

    async def _follow_some(self, work: Round, subjects: Sequence[_Subject]) -> bool:
        """Follow several at the same time. Returns whether anything was accepted, or nothing had to be asked for."""
        followed = await asyncio.gather(*map(self._follow, subjects), return_exceptions=True)
        outgoing: list[Outgoing] = []
        waiting: list[tuple[Entry, Waiting | None]] = []
        destination = subjects[0].destination
        for subject, made in zip(subjects, followed, strict=True):
            if isinstance(made, Outgoing):
                outgoing.append(made)
            elif isinstance(made, Waiting):
                waiting.append((subject.entry, made))
            elif made is None:
                work.close(subject.entry, _followed(subject), at=destination)
        await work.wait_or_owe(waiting, at=destination)
        await work.hand_over(outgoing, at=destination)
        _raise_first(followed)
        return len(waiting) < len(subjects)

    async def _follow(self, subject: _Subject) -> Outgoing | Waiting | None:
        """The edits to send, None without any; or how long it waits for the next try."""
        is_answer = not subject.message.created_by_user
        if is_answer and self._followed.feedback:
            waiting = await self._follow_feedback(subject)
            if waiting is not None:
                return waiting
        pieces: list[Outgoing] = []
        continued: Edit | None = None
        destination = subject.destination
        for turn in subject.turns if self._followed.edits else ():
            edit = self._find_edit(subject, turn)
            if edit is None:
                continue
            charged = await self._find_continuation(subject, turn, edit)
            if charged:
                subject, continued = replace(subject, transactions=(*subject.transactions, *charged)), edit
                continue
            answer = await self._correct(subject, turn, edit)
            if isinstance(answer, Waiting):
                return answer
            trace = make_edit_trace(turn, edit, destination.options.mask)
            edits = {trace.record_id: edit}
            pieces.append(
                destination.packing.pack(subject.entry.key, EntryOutcome.EDITED, [trace], edits=edits)
            )
        if is_answer:
            pieces += self._find_late(subject, continued, edits_before=len(pieces))
        return join(pieces) if pieces else None

    async def _find_continuation(
        self, subject: _Subject, turn: SentTurn, edit: Edit
    ) -> Sequence[Transaction]:
        """What a model was charged for that wrote what an edit shows; nothing where a person did."""
        if not is_lengthened(edit):
            return ()
        message = subject.message
        unnamed = await self._bench.reader.read_unnamed(
            message.conversation_id, message.user_id, edit.written_milliseconds // 1000
        )
        return find_continuation(turn, edit, unnamed)

    def _find_late(self, subject: _Subject, continued: Edit | None, *, edits_before: int) -> list[Outgoing]:
        """What LibreChat wrote late into the one turn of an answer; its number follows that of an edit found with
        it."""
        (turn,), entry, message = subject.turns, subject.entry, subject.message
        turn = replace(turn, edits=turn.edits + edits_before + (continued is not None))
        if not self._followed.edits:
            turn = replace(turn, parts=None)
        written = entry.written_milliseconds or message.updated_milliseconds or turn.end_milliseconds
        news = find_news(turn, message, subject.transactions, written, continued=continued)
        destination = subject.destination
        trace = None if news is None else build_late_trace(turn, news, destination.options.mask)
        if news is None or trace is None:
            return []
        edits = None if continued is None else {trace.record_id: continued}
        return [destination.packing.pack(entry.key, EntryOutcome.LATE, [trace], edits=edits, late=news.marks)]

    async def _follow_feedback(self, subject: _Subject) -> Waiting | None:
        (turn,), message, destination = subject.turns, subject.message, subject.destination
        asking, sink = self._asking[destination.name], destination.followups
        digest = feedback_digest(message.feedback)
        if digest == turn.feedback:
            return None
        if message.feedback is None:
            score_id = feedback_score_id(turn.trace_id)
            answer = await asking.ask(
                subject.entry.key, FollowupOperation.DELETE_SCORE, lambda: sink.delete_score(score_id)
            )
        else:
            score = make_feedback_score(turn, message, message.feedback, destination.options.mask)
            answer = await asking.ask(
                subject.entry.key, FollowupOperation.PUT_SCORE, lambda: sink.put_score(score)
            )
        if isinstance(answer, Waiting):
            return answer
        # One that is refused for good is remembered too: the same is not sent again, and a changed one is.
        await destination.state.record_feedback(turn.trace_id, digest)
        return None

    def _find_edit(self, subject: _Subject, turn: SentTurn) -> Edit | None:
        entry, message = subject.entry, subject.message
        written = entry.written_milliseconds or message.updated_milliseconds or turn.start_milliseconds
        if message.created_by_user:
            return find_edit(EditedText.QUESTION, turn, message.text or "", written)
        return find_edit(EditedText.ANSWER, turn, answer_text(message), written)

    async def _correct(self, subject: _Subject, turn: SentTurn, edit: Edit) -> Settled | Waiting | None:
        destination = subject.destination
        correction = make_correction_score(turn, edit, destination.options.mask)
        if correction is None:
            return None
        return await self._asking[destination.name].ask(
            subject.entry.key,
            FollowupOperation.PUT_CORRECTION,
            lambda: destination.followups.put_score(correction),
        )


def _raise_first(ended: Iterable[object]) -> None:
    """Raise what broke, if anything did. An error of the whole daemon goes before an error of one item."""
    errors = [error for error in ended if isinstance(error, BaseException)]
    if errors:
        raise next((error for error in errors if isinstance(error, TailerError)), errors[0])


def _nothing_followed(row: Row, *, was_read: bool) -> EntryOutcome:
    if row.created_by_user:
        return EntryOutcome.NOT_A_RESPONSE
    return EntryOutcome.SENT_BEFORE if was_read else EntryOutcome.DELETED


def _followed(subject: _Subject) -> EntryOutcome:
    return EntryOutcome.NOT_A_RESPONSE if subject.message.created_by_user else EntryOutcome.FOLLOWED
