"""What comes after a trace: feedback becomes a score, an edit becomes one more event and, for an answer, a correction.

Scores overwrite, so they are repeated until the destination has accepted them, and remembered only then. Edits are sent
like traces, and stored before they are sent.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Final

from tailer.core.librechat.messages import Message
from tailer.core.librechat.transactions import Transaction
from tailer.core.stream.entries import Entry
from tailer.core.stream.hints import Interest
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
from tailer.core.trace.late import build_late_trace, find_continuation, find_news, find_second_run
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.core.turn.turns import answer_text
from tailer.errors import TailerError
from tailer.flow.lanes.asking import Asking, Settled, pause
from tailer.flow.lanes.changed_turns import ChangedTurns, Subject
from tailer.flow.lanes.lane import Lane
from tailer.flow.lanes.round import Round, Workbench
from tailer.flow.lanes.setbacks import Waiting
from tailer.flow.lanes.turns import FollowedChanges
from tailer.flow.sending.outgoing import Outgoing, join

_AT_ONCE: Final = 8
"""Follow-ups in progress at a time: a backlog of thumbs does not wait for a single answer, and no server is flooded."""


class Followups(Lane):
    """Handles rows that changed after their turn was sent. `asking` is the way to each destination, by name."""

    name: ClassVar[str] = "followups"
    works: ClassVar[tuple[Interest, ...]] = (Interest.FOLLOWUP,)

    def __init__(self, bench: Workbench, asking: Mapping[str, Asking], followed: FollowedChanges) -> None:
        super().__init__(bench)
        self._asking = asking
        self._followed = followed
        self._changed = ChangedTurns(bench, followed)

    async def _work(self, work: Round) -> None:
        subjects = await self._changed.read(work)
        # Side by side: a destination that takes long does not hold up the others.
        ended = await asyncio.gather(
            *(self._follow_all(work, own) for own in subjects.values()),
            return_exceptions=True,
        )
        _raise_first(ended)
        if len(ended) == len(self._bench.destinations) and not any(ended):
            await pause(self._asking[name] for name in subjects)

    async def _follow_all(self, work: Round, subjects: Sequence[Subject]) -> bool:
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

    async def _follow_some(self, work: Round, subjects: Sequence[Subject]) -> bool:
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

    async def _follow(self, subject: Subject) -> Outgoing | Waiting | None:
        """The edits to send, None without any; or how long it waits for the next try."""
        message, pieces = subject.message, list[Outgoing]()
        continued: Edit | None = None
        charged: Sequence[Transaction] = ()
        if message is not None:
            continued, charged = await self._find_continuation(subject, message)
            followed = await self._follow_row(subject, message, continued)
            if isinstance(followed, Waiting):
                return followed
            pieces += followed
        if message is None or not message.created_by_user:
            pieces += self._find_late(subject, continued, charged, edits_before=len(pieces))
        return join(pieces) if pieces else None

    async def _find_continuation(
        self, subject: Subject, message: Message
    ) -> tuple[Edit | None, Sequence[Transaction]]:
        """What a model added to an answer, and what was charged for that; nothing where a person did."""
        if message.created_by_user or not self._followed.edits:
            return None, ()
        (turn,) = subject.turns
        edit = self._find_edit(subject.entry, message, turn)
        if edit is None:
            return None, ()
        ledger = (await self._bench.reader.read_ledgers([turn])).get(turn.message_id, ())
        written = find_second_run(turn, edit, message.usage, ledger)
        if written or not is_lengthened(edit):
            return (edit, written) if written else (None, ())
        unnamed = await self._bench.reader.read_unnamed(
            message.conversation_id, message.user_id, edit.written_milliseconds // 1000
        )
        charged = find_continuation(turn, edit, unnamed)
        return (edit, charged) if charged else (None, ())

    async def _follow_row(
        self, subject: Subject, message: Message, continued: Edit | None
    ) -> list[Outgoing] | Waiting:
        """The edits of a row that is still stored, after its feedback, but for what a model `continued`; or how long it
        waits for the next try."""
        if self._followed.feedback and not message.created_by_user:
            waiting = await self._follow_feedback(subject, message)
            if waiting is not None:
                return waiting
        pieces: list[Outgoing] = []
        destination = subject.destination
        for turn in subject.turns if self._followed.edits else ():
            edit = self._find_edit(subject.entry, message, turn)
            if edit is None or continued is not None:
                continue
            answer = await self._correct(subject, turn, edit)
            if isinstance(answer, Waiting):
                return answer
            trace = make_edit_trace(turn, edit, destination.options.mask)
            edits = {trace.record_id: edit}
            pieces.append(
                destination.packing.pack(subject.entry.key, EntryOutcome.EDITED, [trace], edits=edits)
            )
        return pieces

    def _find_late(
        self, subject: Subject, continued: Edit | None, charged: Sequence[Transaction], *, edits_before: int
    ) -> list[Outgoing]:
        """What LibreChat wrote late into the one turn of an answer; its number follows that of an edit found with
        it."""
        (turn,), entry, message = subject.turns, subject.entry, subject.message
        turn = replace(turn, edits=turn.edits + edits_before + (continued is not None))
        if not self._followed.edits:
            turn = replace(turn, parts=None)
        updated = message.updated_milliseconds if message is not None else None
        written = entry.written_milliseconds or updated or turn.end_milliseconds
        news = find_news(turn, message, subject.transactions, written, continued=continued, charged=charged)
        destination = subject.destination
        trace = None if news is None else build_late_trace(turn, news, destination.options.mask)
        if news is None or trace is None:
            return []
        edits = None if continued is None else {trace.record_id: continued}
        return [destination.packing.pack(entry.key, EntryOutcome.LATE, [trace], edits=edits, late=news.marks)]

    async def _follow_feedback(self, subject: Subject, message: Message) -> Waiting | None:
        (turn,), destination = subject.turns, subject.destination
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

    def _find_edit(self, entry: Entry, message: Message, turn: SentTurn) -> Edit | None:
        written = entry.written_milliseconds or message.updated_milliseconds or turn.start_milliseconds
        if message.created_by_user:
            return find_edit(EditedText.QUESTION, turn, message.text or "", written)
        return find_edit(EditedText.ANSWER, turn, answer_text(message), written)

    async def _correct(self, subject: Subject, turn: SentTurn, edit: Edit) -> Settled | Waiting | None:
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


def _followed(subject: Subject) -> EntryOutcome:
    if subject.message is None:
        return EntryOutcome.DELETED
    return EntryOutcome.NOT_A_RESPONSE if subject.message.created_by_user else EntryOutcome.FOLLOWED
