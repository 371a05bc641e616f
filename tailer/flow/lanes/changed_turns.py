"""What the follow-ups need of rows that changed after their turn was sent: the row as it is, and what was sent of it.

A row that is gone has nothing more to show. What was billed for its turn since is still to be counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tailer.core.identity import DocumentKey, TraceId
from tailer.core.librechat.messages import Message
from tailer.core.librechat.transactions import Transaction
from tailer.core.policy.policies import ContentChoice, TemporaryPolicy
from tailer.core.stream.entries import Entry
from tailer.core.stream.hints import LEDGER, Interest
from tailer.core.trace.export import possible_turn_traces, trace_id_of
from tailer.core.trace.followup import SentTurn
from tailer.core.trace.tightening import tighten
from tailer.core.turn.entry_outcomes import EntryOutcome
from tailer.core.turn.ledgers import entries_beside, entries_of_user
from tailer.core.turn.readback import Row
from tailer.flow.destinations import Destination
from tailer.flow.lanes.round import Round, Workbench
from tailer.flow.lanes.turns import FollowedChanges


@dataclass(frozen=True, slots=True)
class Subject:
    """A share with what was read for it: the message as it is, None for a row that is gone, and the turns in whose
    traces it appears, as they were sent to the destination."""

    entry: Entry
    destination: Destination
    message: Message | None
    turns: tuple[SentTurn, ...]
    transactions: tuple[Transaction, ...] = ()


@dataclass(frozen=True, slots=True)
class _Changed:
    """An entry with its row, None if that is gone; the traces in which it appears, or may, each for a row."""

    entry: Entry
    row: Row | None
    traces: Mapping[TraceId, DocumentKey]


class ChangedTurns:
    """Reads the subjects of a round of follow-ups."""

    def __init__(self, bench: Workbench, followed: FollowedChanges) -> None:
        self._bench = bench
        self._followed = followed

    async def read(self, work: Round) -> Mapping[str, Sequence[Subject]]:
        """The changes to follow, by destination, with their traces claimed; shares that need nothing are closed."""
        changed = await self._locate(work)
        claimed = {item.entry.key: await self._claim(work, item) for item in changed}
        wanted = [item for item in changed if claimed[item.entry.key]]
        sent = {
            destination.name: await destination.state.load_sent(
                [each for item in wanted if destination in claimed[item.entry.key] for each in item.traces]
            )
            for destination in work.destinations
        }
        rows = [item.row.key for item in wanted if item.row is not None]
        messages = await self._bench.reader.read_messages(rows)
        ledgers = await self._read_ledgers(wanted, list(sent.values()))
        subjects: dict[str, list[Subject]] = {}
        for item in wanted:
            for destination in claimed[item.entry.key]:
                known = sent[destination.name]
                made = _make_subject(
                    item,
                    destination,
                    messages.get(item.entry.key.document_key),
                    tuple(known[trace_id] for trace_id in item.traces if trace_id in known),
                    ledgers,
                )
                if isinstance(made, EntryOutcome):
                    work.close(item.entry, made, at=destination)
                else:
                    subjects.setdefault(destination.name, []).append(made)
        return subjects

    async def _locate(self, work: Round) -> Sequence[_Changed]:
        """The entries with their rows. Of a row that is gone only the ledger is followed."""
        entries = work.by_row()
        located = await self._bench.reader.locate(list(entries))
        answers = await self._answers_of(located)
        changed = []
        for row in located:
            entry = entries.pop(row.key)
            work.name(entry, f"{trace_id_of(row)}:followup", row.message_id)
            changed.append(
                _Changed(entry, row, {trace_id_of(answer): answer.key for answer in answers[row.key]})
            )
        for key, entry in entries.items():
            # Who deletes traces with their rows wants none of what LibreChat deleted.
            if LEDGER not in entry.changed or entry.message_id is None or self._followed.deletions:
                work.close(entry, EntryOutcome.DELETED)
                continue
            traces = possible_turn_traces(entry.message_id)
            work.name(entry, f"{traces[0]}:followup", entry.message_id)
            changed.append(_Changed(entry, None, dict.fromkeys(traces, key)))
        return changed

    async def _read_ledgers(
        self, changed: Sequence[_Changed], sent: Sequence[Mapping[TraceId, SentTurn]]
    ) -> Mapping[str, Sequence[Transaction]]:
        """The ledgers of the answers that were billed after they were sent."""
        billed = {
            item.entry.key: known[trace_id]
            for item in changed
            if LEDGER in item.entry.changed and (item.row is None or not item.row.created_by_user)
            for known in sent
            for trace_id in item.traces
            if trace_id in known
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

    async def _claim(self, work: Round, item: _Changed) -> list[Destination]:
        """The destinations to which nothing of the traces is on its way: an answer built before an edit must be
        recorded first."""
        entry = item.entry
        is_open = any(
            self._bench.backlog.is_open(Interest.RESPONSE, key)
            for key in item.traces.values()
            if key != entry.key.document_key
        )
        claimed = []
        for destination in work.destinations:
            if not work.is_open(entry, destination):
                continue
            if is_open:
                work.postpone(entry, at=destination)
            elif work.claim(entry, destination, item.traces):
                claimed.append(destination)
            else:
                await work.wait_or_owe([(entry, None)], at=destination)
        return claimed


def _make_subject(
    item: _Changed,
    destination: Destination,
    message: Message | None,
    turns: tuple[SentTurn, ...],
    ledgers: Mapping[str, Sequence[Transaction]],
) -> Subject | EntryOutcome:
    """The subject of one share, or the outcome of one that needs nothing."""
    row = item.row
    if row is None:
        own = tuple(turn for turn in turns if turn.document_key == item.entry.key.document_key)
        if not own:
            return EntryOutcome.DELETED
        entries = tuple(ledgers.get(own[0].message_id, ()))
        return Subject(item.entry, destination, None, own, entries_beside(own[0].transactions or (), entries))
    if message is None or not turns:
        return _nothing_followed(row, was_read=message is not None)
    if message.temporary:
        policy = destination.options.policies.temporary
        if policy is TemporaryPolicy.SKIP:
            return EntryOutcome.TEMPORARY
        if policy is TemporaryPolicy.METADATA:
            turns = tuple(replace(turn, content=ContentChoice.NONE) for turn in turns)
    options = destination.options
    turns = tuple(tighten(turn, message, options.policies, options.mask) for turn in turns)
    ledger = entries_of_user(row.user_id, tuple(ledgers.get(row.message_id, ())))
    return Subject(item.entry, destination, message, turns, ledger)


def _nothing_followed(row: Row, *, was_read: bool) -> EntryOutcome:
    if row.created_by_user:
        return EntryOutcome.NOT_A_RESPONSE
    return EntryOutcome.SENT_BEFORE if was_read else EntryOutcome.DELETED
