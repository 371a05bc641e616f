"""From what was read back of a turn to its traces, under everything that the operator has decided."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tailer.core.identity import TraceId, native_copy_trace_id, turn_trace_id, unanswered_trace_id
from tailer.core.light_dataclass import light_dataclass
from tailer.core.masking.masker import Masker
from tailer.core.policy.policies import (
    ContentChoice,
    Fact,
    Facts,
    Policies,
    TemporaryPolicy,
    is_sampled,
)
from tailer.core.policy.users import UserNaming
from tailer.core.trace.bounds import Bounds
from tailer.core.trace.build import build_title_trace, build_turn_trace
from tailer.core.trace.content_policy import MakeMasker, show_tags, show_trace
from tailer.core.trace.facts import cut_tags, fact_tags, facts_of_spending, facts_of_turn, with_role
from tailer.core.trace.files import files_of
from tailer.core.trace.followup import SentTurn, TextMark, mark_text
from tailer.core.trace.late import PartMarks, mark_parts, mark_transactions
from tailer.core.trace.observations import Trace
from tailer.core.trace.spending import Spending, build_spending_traces
from tailer.core.turn.entry_outcomes import EntryOutcome, denied, outcome_of
from tailer.core.turn.history import has_temporary_rows, without_temporary_rows
from tailer.core.turn.readback import Row
from tailer.core.turn.turns import (
    Exclusion,
    Outcome,
    Turn,
    TurnRecord,
    Wait,
    build_turn,
    is_billed_as_aborted,
    judge_question,
    judge_response,
    was_never_begun,
)


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The settings that decide what is exported.

    `sample_rate` is a share of conversations; `tag_facts` are facts that become tags as `fact:value`; `mask` makes the
    masker of a turn for the choice `masked`, None where nothing of such a turn is to be shown; `receives` says of a
    turn's facts whether the turn goes to this destination at all.
    """

    bounds: Bounds
    tags: tuple[str, ...]
    tag_facts: tuple[Fact, ...]
    sample_rate: float
    policies: Policies
    naming: UserNaming
    mask: MakeMasker | None
    receives: Callable[[Facts], bool] = lambda facts: True  # noqa: ARG005 - a destination alone gets everything


@light_dataclass(frozen=True, slots=True)
class _Told:
    """A turn with one outcome: its facts, and the marks of its texts and rows."""

    turn: Turn
    facts: Facts
    answer: TextMark
    question: TextMark | None
    parts: PartMarks
    transactions: tuple[str, ...]


@light_dataclass(frozen=True, slots=True)
class _Draft:
    """What the traces of a turn depend on before they are named: all that two destinations must have in common."""

    outcome: Outcome
    bounds: Bounds
    content: ContentChoice
    mask: MakeMasker | None
    all_history: bool


@light_dataclass(frozen=True, slots=True)
class Exported:
    """The traces of a turn, its own first; how the turn ended; what is remembered of it; whether it has feedback."""

    outcome: Outcome
    traces: tuple[Trace, ...]
    sent: SentTurn
    has_feedback: bool


def trace_id_of(row: Row) -> TraceId:
    """The trace that a row's turn has, or had."""
    if row.created_by_user:
        return unanswered_trace_id(row.message_id)
    # The other trace of this turn is LibreChat's own. Under one id the two would be added up.
    return native_copy_trace_id(row.message_id) if row.traced_natively else turn_trace_id(row.message_id)


def possible_turn_traces(message_id: str) -> tuple[TraceId, TraceId]:
    """The traces that the turn of a response may have, whose row is not there to tell: its own, or the one beside
    LibreChat's own."""
    return turn_trace_id(message_id), native_copy_trace_id(message_id)


def is_chosen(conversation_id: str, options: ExportOptions) -> bool:
    """Whether a conversation belongs to the sample."""
    return is_sampled(conversation_id, options.sample_rate)


class TurnExport:
    """What becomes of one record: judged and built once, however many destinations ask for it.

    Each destination has its own options. What they have in common (a turn that ended so, traces with such bounds
    and such content) is kept for the next.
    """

    __slots__ = ("_drafts", "_record", "_row", "_told")

    def __init__(self, row: Row, record: TurnRecord) -> None:
        self._row = row
        self._record = record
        self._told: dict[Outcome, _Told] = {}
        self._drafts: list[tuple[_Draft, tuple[Trace, ...]]] = []

    def export(self, options: ExportOptions, *, deadline_passed: bool) -> Exported | Wait | EntryOutcome:
        """The traces of the turn, or what it waits for, or the reason why it gives none."""
        verdict = _judge(self._record, options.policies, deadline_passed=deadline_passed)
        if isinstance(verdict, Exclusion):
            return outcome_of(verdict)
        if isinstance(verdict, Wait):
            return verdict
        told = self._tell(verdict)
        turn, facts = told.turn, told.facts
        if not options.receives(facts):
            return EntryOutcome.NOT_ROUTED
        denial = options.policies.denied_by(facts)
        if denial is not None:
            return denied(denial)
        content = options.policies.content_for(facts, temporary=turn.anchor.temporary)
        finished = tuple(
            [_finish(draft, turn, facts, content, options) for draft in self._draft(turn, content, options)]
        )
        response = self._record.response
        is_rated = response is not None and response.feedback is not None
        return Exported(
            outcome=verdict,
            traces=finished,
            sent=_remember(told, finished[0], options),
            has_feedback=is_rated and verdict is not Outcome.COPIED,
        )

    def _tell(self, outcome: Outcome) -> _Told:
        known = self._told.get(outcome)
        if known is None:
            known = self._told[outcome] = _tell(build_turn(self._record, outcome))
        return known

    def _draft(self, turn: Turn, content: ContentChoice, options: ExportOptions) -> tuple[Trace, ...]:
        """The traces with their content, the turn's own first, then its title's."""
        all_history = options.policies.temporary is TemporaryPolicy.FULL or not has_temporary_rows(
            turn.record
        )
        wanted = _Draft(turn.outcome, options.bounds, content, options.mask, all_history)
        for draft, traces in self._drafts:
            if draft == wanted:
                return traces
        if not all_history:
            turn = replace(turn, record=without_temporary_rows(turn.record))
        masker = _start_masking(content, options)
        own = build_turn_trace(turn, trace_id_of(self._row), bounds=options.bounds, masker=masker)
        title = build_title_trace(turn, bounds=options.bounds, masker=masker)
        built = tuple([show_trace(trace, content, masker) for trace in (own, title) if trace is not None])
        self._drafts.append((wanted, built))
        return built


def export_turn(
    row: Row, record: TurnRecord, options: ExportOptions, *, deadline_passed: bool
) -> Exported | Wait | EntryOutcome:
    """What becomes of a record for one destination."""
    return TurnExport(row, record).export(options, deadline_passed=deadline_passed)


def shows_media(record: TurnRecord, options: ExportOptions) -> bool:
    """Whether the bytes of a turn's files may be sent: only if all of its content is."""
    anchor = record.response or record.question
    if anchor is None or not any(files_of(record)):
        return False
    verdict = _judge(record, options.policies, deadline_passed=True)
    if not isinstance(verdict, Outcome):
        return False
    facts = facts_of_turn(build_turn(record, verdict))
    choice = options.policies.content_for(facts, temporary=anchor.temporary)
    is_sent = options.receives(facts) and options.policies.denied_by(facts) is None
    return is_sent and choice is ContentChoice.FULL


def export_title(record: TurnRecord, options: ExportOptions) -> Trace | None:
    """The trace of the title alone, for a title that was stored after its turn was sent; None if there is none."""
    verdict = _judge(record, options.policies, deadline_passed=False)
    if isinstance(verdict, Exclusion):
        return None
    turn = build_turn(record, Outcome.COMPLETE)
    facts = facts_of_turn(turn)
    if not options.receives(facts) or options.policies.denied_by(facts) is not None:
        return None
    content = options.policies.content_for(facts, temporary=turn.anchor.temporary)
    masker = _start_masking(content, options)
    title = build_title_trace(turn, bounds=options.bounds, masker=masker)
    if title is None:
        return None
    return _finish(show_trace(title, content, masker), turn, facts, content, options)


def export_spending(spending: Spending, options: ExportOptions) -> tuple[Trace, ...] | EntryOutcome:
    """The trace of a call of the agents API, or those of a deleted turn, or the reason why it gives none."""
    if not is_chosen(spending.conversation_id, options):
        return EntryOutcome.NOT_SAMPLED
    if spending.may_be_temporary and options.policies.temporary is TemporaryPolicy.SKIP:
        return EntryOutcome.DELETED
    facts = facts_of_spending(spending)
    if not options.receives(facts):
        return EntryOutcome.NOT_ROUTED
    denial = options.policies.denied_by(facts)
    if denial is not None:
        return denied(denial)
    name = options.naming.name(spending.user_id, spending.user)
    tags = cut_tags([*options.tags, *fact_tags(facts, options.tag_facts)])
    return build_spending_traces(spending, user_name=name, tags=tags) or EntryOutcome.NO_TOKENS


def _judge(record: TurnRecord, policies: Policies, *, deadline_passed: bool) -> Outcome | Wait | Exclusion:
    if record.response is not None:
        verdict = judge_response(
            record.response,
            deadline_passed=deadline_passed,
            policies=policies,
            surroundings=record.surroundings,
        )
        was_stopped = record.then.stopped or is_billed_as_aborted(record.transactions)
        if verdict is Outcome.COMPLETE and (
            was_stopped or was_never_begun(record.response, record.transactions)
        ):
            return Outcome.ABORTED
        return verdict
    if record.question is not None:
        answered = bool(record.siblings)
        return judge_question(
            record.question,
            answered=answered,
            deadline_passed=deadline_passed,
            policies=policies,
            surroundings=record.surroundings,
        )
    return Exclusion.NOT_A_RESPONSE


def _tell(turn: Turn) -> _Told:
    question = turn.record.question
    return _Told(
        turn=turn,
        facts=facts_of_turn(turn),
        answer=mark_text(turn.answer),
        question=mark_text(question.text or "") if question is not None else None,
        parts=mark_parts(turn.anchor),
        transactions=mark_transactions(turn.record.transactions),
    )


def _remember(told: _Told, trace: Trace, options: ExportOptions) -> SentTurn:
    turn = told.turn
    anchor = turn.anchor
    return SentTurn(
        trace_id=trace.id,
        message_id=anchor.message_id,
        document_key=anchor.key,
        user_id=trace.user_id,
        session_id=trace.session_id,
        tags=trace.tags,
        content=options.policies.content_for(told.facts, temporary=anchor.temporary),
        answer=told.answer,
        question=told.question,
        edits=0,
        feedback=None,
        start_milliseconds=turn.start_milliseconds,
        end_milliseconds=trace.root.end_milliseconds,
        expires_milliseconds=anchor.expires_milliseconds,
        parts=told.parts,
        transactions=told.transactions,
        usage_source=str(turn.usage.usage_source) if turn.usage is not None else None,
        content_digest=options.policies.content_digest,
    )


def _start_masking(content: ContentChoice, options: ExportOptions) -> Masker | None:
    return options.mask() if content is ContentChoice.MASKED and options.mask is not None else None


def _finish(trace: Trace, turn: Turn, facts: Facts, content: ContentChoice, options: ExportOptions) -> Trace:
    """Names the user and adds tags."""
    anchor = turn.anchor
    tags = [*options.tags, *trace.tags]
    if anchor.temporary:
        tags.append("temporary")
    if turn.outcome is Outcome.COPIED:
        tags.append("copied")
    tags += fact_tags(facts, options.tag_facts)
    return Trace(
        id=trace.id,
        name=trace.name,
        message_id=trace.message_id,
        document_key=trace.document_key,
        user_id=options.naming.name(anchor.user_id, turn.record.user),
        session_id=trace.session_id,
        tags=cut_tags(show_tags(tags, content, options.mask)),
        metadata=with_role(trace.metadata, facts),
        observations=trace.observations,
        provider=trace.provider,
    )
