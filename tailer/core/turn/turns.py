"""What a turn is and what became of it: one response row, with its question, history, model, usage and times.

It decides, and builds nothing for Langfuse. The rules are the data contract's classification (a response row R, its
question U). A failure of the agent framework is an `error` part and not `error:true`; `unfinished` alone is not final.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeAlias

from tailer.core.librechat.agent_ids import SAVED_PREFIXES
from tailer.core.librechat.content import ErrorPart, OtherPart, Part, TextPart, ToolCall
from tailer.core.librechat.messages import Message
from tailer.core.librechat.transactions import STOPPED_CONTEXTS, Transaction
from tailer.core.light_dataclass import light_dataclass
from tailer.core.policy.policies import CopyPolicy, NativePolicy, Policies, TemporaryPolicy
from tailer.core.turn.copies import ALONE, Surroundings, is_copy
from tailer.core.turn.own_counts import may_be_own_count
from tailer.core.turn.providers import providers_of
from tailer.core.turn.record import Sibling, TurnRecord
from tailer.core.turn.temporary import ASSISTANTS
from tailer.core.turn.times import Start, resolve_times
from tailer.core.turn.usage import (
    ANSWERING_CONTEXTS,
    NO_USAGE,
    Usage,
    resolve_title_usage,
    resolve_turn_usage,
)

__all__ = [
    "Exclusion",
    "Outcome",
    "Sibling",
    "Turn",
    "TurnRecord",
    "Verdict",
    "Wait",
    "answer_text",
    "build_turn",
    "is_billed_as_aborted",
    "join_text",
    "judge_question",
    "judge_response",
    "unknown_parts",
]

_DEFAULT_POLICIES = Policies()
_ERROR_PREFIXES = (
    "An error occurred while processing the request: ",
    "An error occurred while resuming the request: ",
)
_DEFAULT_TITLE = "New Chat"
_MOST_TYPE_CHARACTERS = 60


class Outcome(StrEnum):
    """How a turn ended."""

    COMPLETE = "complete"
    ERROR = "error"
    ABORTED = "aborted"
    PARTIAL = "partial"
    COPIED = "copied"
    UNANSWERED = "unanswered"


class Wait(StrEnum):
    """What an unfinished turn waits for."""

    RESPONSE = "response"
    FINISH = "finish"
    APPROVAL = "approval"


class Exclusion(StrEnum):
    """The reason why a row gives no trace."""

    NOT_A_RESPONSE = "not_a_response"
    COPIED = "copied"
    TEMPORARY = "temporary"
    TRACED_NATIVELY = "traced_natively"
    ANSWERED = "answered"
    NOT_SAMPLED = "not_sampled"


Verdict: TypeAlias = Outcome | Wait | Exclusion


@light_dataclass(frozen=True, slots=True)
class Turn:
    """A turn as it happened. `anchor` is the row that gives it its id: the response, or the question without a
    response. `usage` is None for an unanswered question; `start` says how its start is known."""

    record: TurnRecord
    anchor: Message
    outcome: Outcome
    answer: str
    error_message: str | None
    model: str | None
    usage: Usage | None
    title: str | None
    title_usage: Usage | None
    start_milliseconds: int
    end_milliseconds: int
    start: Start = Start.STORED


def judge_response(
    response: Message,
    *,
    deadline_passed: bool,
    policies: Policies = _DEFAULT_POLICIES,
    surroundings: Surroundings = ALONE,
) -> Verdict:
    """Whether a row is a turn to send, and with which outcome; or what it waits for; or why it gives no trace."""
    if response.created_by_user:
        return Exclusion.NOT_A_RESPONSE
    if response.temporary and policies.temporary is TemporaryPolicy.SKIP:
        return Exclusion.TEMPORARY
    if is_copy(response, surroundings):
        return Exclusion.COPIED if policies.copies is CopyPolicy.SKIP else Outcome.COPIED
    if response.native_destinations and policies.native is NativePolicy.SKIP:
        return Exclusion.TRACED_NATIVELY
    return _judge_ending(response, deadline_passed=deadline_passed)


def is_billed_as_aborted(transactions: Sequence[Transaction]) -> bool:
    """Whether LibreChat billed a stopped answer (until 0.8.1, whose rows look complete)."""
    return not STOPPED_CONTEXTS.isdisjoint([entry.context for entry in transactions])


def was_never_begun(response: Message, transactions: Sequence[Transaction]) -> bool:
    """Whether an answer was stopped before its first word, although its row looks complete (0.8.6 and 0.8.7): nothing
    was written, nothing reported, and no call was billed. An answer that a model left empty has its numbers."""
    is_blank = not response.parts and not response.text
    # Later than 0.8.5: there a stream shows how such a row was first stored.
    if not is_blank or not response.says_temporary or response.subagent_task is not None:
        return False
    if response.usage is not None or response.run_id is not None or response.sampling_decided:
        return False
    return ANSWERING_CONTEXTS.isdisjoint([entry.context for entry in transactions])


def judge_question(
    question: Message,
    *,
    answered: bool,
    deadline_passed: bool,
    policies: Policies = _DEFAULT_POLICIES,
    surroundings: Surroundings = ALONE,
) -> Verdict:
    """Whether a question is still waiting, was answered, or became a turn without an answer."""
    if answered or not question.created_by_user:
        return Exclusion.ANSWERED
    if is_copy(question, surroundings):
        # A copied question without its answer belongs to no turn.
        return Exclusion.COPIED
    if question.temporary and policies.temporary is TemporaryPolicy.SKIP:
        return Exclusion.TEMPORARY
    return Outcome.UNANSWERED if deadline_passed else Wait.RESPONSE


def _judge_ending(response: Message, *, deadline_passed: bool) -> Outcome | Wait:
    task = response.subagent_task
    if response.error or ErrorPart in map(type, response.parts) or (task is not None and task.has_failed):
        return Outcome.ERROR
    if response.finish_reason == "incomplete" or (task is not None and task.was_cancelled):
        return Outcome.ABORTED
    if not response.unfinished:
        return _judge_run(response) if response.endpoint in ASSISTANTS else Outcome.COMPLETE
    pending = _awaits_approval(response)
    if response.text is not None and not pending:
        return Outcome.ABORTED
    if deadline_passed:
        return Outcome.PARTIAL
    return Wait.APPROVAL if pending else Wait.FINISH


def _judge_run(response: Message) -> Outcome:
    """How the run of an assistant ended. Of one that was cancelled LibreChat stores what the thread has: a row without
    a sender and without a text, which every answer of its own has. A failed one is stored as an empty answer, without a
    word of why."""
    if response.sender is None and response.text is None:
        return Outcome.ABORTED
    return Outcome.COMPLETE if response.parts or response.text else Outcome.ERROR


def _awaits_approval(response: Message) -> bool:
    """Whether the run is paused: saved in full shape, with an empty text and a tool call without output."""
    if response.text:
        return False
    calls = [part for part in response.parts if isinstance(part, ToolCall)]
    if response.usage is not None and response.run_id is None:
        # Stop during a pause leaves the usage and takes the context away (0.8.7).
        return False
    if any(call.awaits_approval for call in calls):
        return True
    full_shape = response.sampling_decided or response.run_id is not None
    return full_shape and any(call.output is None for call in calls)


def build_turn(record: TurnRecord, outcome: Outcome) -> Turn:
    """Assemble a turn from what was read back; raises ValueError for a record without any row."""
    response, question = record.response, record.question
    anchor = response or question
    if anchor is None:
        message = "a turn needs a response or a question"
        raise ValueError(message)
    times = resolve_times(record, anchor)
    usage = None
    if response is not None and outcome is Outcome.COPIED:
        # Nothing was generated for a copy: its numbers are those of the original.
        usage = NO_USAGE
    elif response is not None and record.billed_with is not None:
        usage = NO_USAGE
    elif response is not None:
        usage = resolve_turn_usage(
            response,
            record.transactions,
            failed=outcome is not Outcome.COMPLETE,
            provider=record.agent.provider if record.agent is not None else None,
            others=providers_of(record, response),
            context_tokens=_context_tokens(record, response),
        )
    title_usage = None if outcome is Outcome.COPIED else resolve_title_usage(response, record.transactions)
    title = record.conversation.title if record.conversation is not None else None
    return Turn(
        record=record,
        anchor=anchor,
        outcome=outcome,
        answer=answer_text(response),
        error_message=_error_message(response) if outcome is Outcome.ERROR else None,
        model=_resolve_model(record, usage),
        usage=usage,
        title=None if title == _DEFAULT_TITLE else title,
        title_usage=title_usage,
        start_milliseconds=times.start_milliseconds,
        end_milliseconds=times.end_milliseconds,
        start=times.start,
    )


def _context_tokens(record: TurnRecord, response: Message) -> int | None:
    """What LibreChat counted of everything up to the question, None if it is not known or tells nothing."""
    question, earlier = record.question, record.earlier_tokens
    if earlier is None or not may_be_own_count(response, question, record.transactions):
        return None
    return None if question is None or question.token_count is None else question.token_count + earlier


def join_text(parts: Sequence[Part]) -> str:
    """The answer in the parts, joined as LibreChat joins it, with a space where two pieces would touch."""
    joined = ""
    for part in parts:
        if isinstance(part, TextPart) and part.text:
            if joined and not joined.endswith(" ") and not part.text.startswith(" "):
                joined += " "
            joined += part.text
    return joined


def answer_text(response: Message | None) -> str:
    """The answer of a response: its text parts, or its text if it has no parts. LibreChat's own word is no answer."""
    if response is None:
        return ""
    return join_text(response.parts) or ("" if response.holds_notice else response.text or "")


def _error_message(response: Message | None) -> str:
    if response is None:
        return ""
    messages = [part.message for part in response.parts if isinstance(part, ErrorPart)]
    message = messages[-1] if messages else response.text or ""
    for prefix in _ERROR_PREFIXES:
        message = message.removeprefix(prefix)
    if response.endpoint in ASSISTANTS and not message:
        return "the run ended without an answer, and LibreChat stores no reason"
    return message.strip() or "the provider's message was not stored"


def _resolve_model(record: TurnRecord, usage: Usage | None) -> str | None:
    """Transactions name the provider's model; the row names it unless an agent answered; then the agent, then the
    conversation. A conversation's `agent_id` of a plain chat is an encoded model and no agent."""
    if usage is not None:
        for call in usage.calls:
            if call.model is not None:
                return call.model
    response, conversation = record.response, record.conversation
    named = response.model if response is not None else None
    if named is not None and not named.startswith(SAVED_PREFIXES):
        return named
    if record.agent is not None and record.agent.model is not None:
        return record.agent.model
    return conversation.model if conversation is not None else None


def unknown_parts(record: TurnRecord) -> tuple[str, ...]:
    """The types of a response's parts that this release does not know, once each."""
    parts = record.response.parts if record.response is not None else ()
    names = [
        part.type[:_MOST_TYPE_CHARACTERS] for part in parts if isinstance(part, OtherPart) and part.is_unknown
    ]
    return tuple(dict.fromkeys(names)) if names else ()
