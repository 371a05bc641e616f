"""Builds the trace of a turn and of its title: root, inner steps, metadata.

Everything comes from the turn, so the same turn gives the same trace.
"""

from collections.abc import Callable, Mapping

from tailer.core.identity import (
    TraceId,
    native_copy_trace_id,
    observation_id,
    title_trace_id,
    turn_trace_id,
)
from tailer.core.librechat.agent_ids import ASSISTANT_PREFIX
from tailer.core.librechat.conversations import SubagentThread
from tailer.core.masking.masker import Masker
from tailer.core.trace.answers import show_answer
from tailer.core.trace.bounds import Allowance, Bounds
from tailer.core.trace.content_policy import mask_beginning
from tailer.core.trace.files import describe_files
from tailer.core.trace.generations import Frame, build_generation
from tailer.core.trace.observations import Level, Observation, ObservationType, Trace
from tailer.core.trace.retrievals import build_retrievals
from tailer.core.trace.steps import StepBuilder
from tailer.core.turn.branches import find_branch
from tailer.core.turn.history import build_prompt, take_beginning
from tailer.core.turn.times import Start
from tailer.core.turn.turns import Outcome, Turn, unknown_parts
from tailer.core.turn.usage import TITLE_CONTEXT

TURN_TRACE_NAME = "librechat-turn"
TITLE_TRACE_NAME = "librechat-title"

_LEVELS = {
    Outcome.COMPLETE: Level.DEFAULT,
    Outcome.ERROR: Level.ERROR,
    Outcome.ABORTED: Level.WARNING,
    Outcome.PARTIAL: Level.WARNING,
    Outcome.UNANSWERED: Level.ERROR,
    Outcome.COPIED: Level.DEFAULT,
}
_STATUS = {
    Outcome.ABORTED: "stopped before the answer was complete",
    Outcome.PARTIAL: "the answer was never finished",
    Outcome.UNANSWERED: "no answer was ever stored",
}


def build_turn_trace(turn: Turn, trace_id: TraceId, *, bounds: Bounds, masker: Masker | None = None) -> Trace:
    """The trace of a turn: the root with question and answer, and the inner steps. The user is as stored, and so are
    the texts without a masker."""
    record = turn.record
    allowance = Allowance(bounds, masker)
    root_id = observation_id(turn.anchor.message_id, "root")
    question = allowance.take(record.question.text or "") if record.question is not None else None
    answer = allowance.take(show_answer(turn)) if turn.answer else None
    status = turn.error_message if turn.outcome is Outcome.ERROR else _STATUS.get(turn.outcome)
    status = allowance.take(status) if status is not None else None
    level = _LEVELS[turn.outcome]
    # One reference a key: Langfuse shows a value as a file only where it is exactly one reference (4.16).
    notes = {f"media_{number}": reference for number, reference in enumerate(record.media, 1)}
    steps: list[Observation] = []
    if turn.usage is not None:
        prompt = build_prompt(record, byte_limit=bounds.history_bytes, begin=_beginning(masker))
        builder = StepBuilder(turn, turn.usage, root_id, prompt, allowance, level, status)
        steps = builder.build()
        notes.update(builder.notes)
    root = Observation(
        id=root_id,
        parent_id=None,
        type=ObservationType.AGENT,
        name=_answering_name(turn),
        start_milliseconds=turn.start_milliseconds,
        end_milliseconds=turn.end_milliseconds,
        level=level,
        status_message=status,
        input=question,
        output=answer,
        metadata=notes,
    )
    if turn.usage is not None:
        steps += build_retrievals(turn, root, steps, allowance)
    metadata = _describe_turn(turn)
    metadata.update(record.then.marks)
    if turn.start is not Start.STORED:
        metadata["start"] = turn.start.value
    if len(steps) > bounds.observations:
        metadata["observations_left_out"] = str(len(steps) - bounds.observations)
    if allowance.cut_bytes:
        metadata["content_cut_bytes"] = str(allowance.cut_bytes)
    observations = (root, *steps[: bounds.observations])
    provider = record.agent.provider if record.agent is not None else None
    return _make_trace(turn, trace_id, TURN_TRACE_NAME, (), metadata, observations, provider)


def build_title_trace(turn: Turn, *, bounds: Bounds, masker: Masker | None = None) -> Trace | None:
    """The trace of the title generation, with its own tokens and cost; None when none was billed for this turn.

    The first observation is the root. LibreChat stores no time of the generation: it lasts from the end of the answer
    to the event that stored the title, or to the row that charged for it, and else stands after the turn, which it
    follows in a session. Its input is what it was made of: the question.
    """
    usage, response, then = turn.title_usage, turn.record.response, turn.record.then
    if usage is None or response is None:
        return None
    allowance, question = Allowance(bounds, masker), turn.record.question
    generated = then.first_title or turn.title
    title = allowance.take(generated) if generated is not None else None
    text = allowance.take(question.text) if question is not None and question.text else None
    start, end = _title_times(turn)
    notes = {"timing": "estimated" if end > start else "not stored"}
    if then.title_read_later:
        notes["title"] = "as of the reading, perhaps renamed"
    seed = f"title-{response.message_id}"
    root_id = observation_id(seed, "root")
    observations = []
    for index, call in enumerate(usage.calls):
        frame = Frame(
            id=root_id if index == 0 else observation_id(seed, "generation", index),
            parent_id=None if index == 0 else root_id,
            name="title",
            start_milliseconds=start,
            end_milliseconds=end,
        )
        observations.append(
            build_generation(
                frame,
                call,
                usage,
                model=None,
                input_=text if index == 0 else None,
                output=title if index == 0 else None,
                metadata=notes,
            )
        )
    metadata = {"message_id": response.message_id}
    # The plain id belongs to LibreChat's own title trace. Under one id the two would be added up.
    is_second = bool(response.native_destinations)
    trace_id = native_copy_trace_id(seed) if is_second else title_trace_id(response.message_id)
    return _make_trace(turn, trace_id, TITLE_TRACE_NAME, ("title",), metadata, tuple(observations))


def _beginning(masker: Masker | None) -> Callable[[str, int], str]:
    """How the beginning of a text is taken."""
    if masker is None:
        return take_beginning
    return lambda text, length: mask_beginning(text, length, masker)


def _title_times(turn: Turn) -> tuple[int, int]:
    """From the answer's end to the event that stored the title, else to the row that charged for it. A title that was
    charged before the answer's end was made beside it. A session is shown in the order of its traces' times, so a title
    never begins with its turn."""
    begins = turn.start_milliseconds + 1
    after = max(turn.end_milliseconds, begins)
    billed = max(
        (
            entry.created_milliseconds or 0
            for entry in turn.record.transactions
            if entry.context == TITLE_CONTEXT
        ),
        default=0,
    )
    for known in (turn.record.then.titled_milliseconds or 0, billed):
        if known > after:
            return after, known
    return (begins, billed) if billed > begins else (after, after)


def _answering_name(turn: Turn) -> str:
    """Who answered: the agent, else what LibreChat calls the model that did, else the model."""
    response, agent = turn.record.response, turn.record.agent
    if response is None:
        return "turn"
    return (agent.name if agent is not None else None) or response.sender or turn.model or "turn"


def _make_trace(
    turn: Turn,
    trace_id: TraceId,
    name: str,
    tags: tuple[str, ...],
    metadata: Mapping[str, str],
    observations: tuple[Observation, ...],
    provider: str | None = None,
) -> Trace:
    """A trace of a turn. That of a title names no provider: it may have been made elsewhere."""
    anchor = turn.anchor
    return Trace(
        id=trace_id,
        name=name,
        message_id=anchor.message_id,
        document_key=anchor.key,
        user_id=anchor.user_id,
        session_id=anchor.conversation_id,
        tags=tags,
        metadata=metadata,
        observations=observations,
        provider=provider,
    )


def _chosen_model(turn: Turn) -> str | None:
    """The model that was asked for, where the one that answered has another name: Azure's are those of deployments."""
    response, conversation = turn.record.response, turn.record.conversation
    if (
        response is None
        or conversation is None
        or turn.record.agent is not None
        or "settings" in turn.record.then.marks
    ):
        return None
    chosen, answered = conversation.model, response.model
    if (
        chosen is None
        or answered is None
        or answered.startswith(ASSISTANT_PREFIX)
        or chosen in (answered, turn.model)
    ):
        return None
    # Two models that answer side by side (until 0.8.1) share a conversation, which names the one of them.
    is_of_another = any(sibling.model == chosen for sibling in turn.record.siblings)
    return None if is_of_another else chosen


def _describe_turn(turn: Turn) -> dict[str, str]:
    anchor, conversation, agent = turn.anchor, turn.record.conversation, turn.record.agent
    branch, question = find_branch(turn.record), turn.record.question
    entries = {
        "message_id": anchor.message_id,
        "parent_message_id": anchor.parent_message_id,
        "outcome": str(turn.outcome),
        "endpoint": anchor.endpoint,
        "sender": anchor.sender,
        "tenant_id": anchor.tenant_id,
    }
    thread = conversation.thread if conversation is not None else None
    if thread is not None or anchor.subagent_task is not None:
        entries |= _describe_parent(turn, thread)
    if agent is not None:
        entries |= {"agent_id": agent.agent_id, "agent_name": agent.name}
    entries["conversation_title"] = turn.title
    if conversation is not None:
        entries["conversation_tags"] = ", ".join(conversation.tags)
        entries["conversation_project_id"] = conversation.project_id
        entries["conversation_archived"] = "true" if conversation.archived else None
        entries["chosen_model"] = _chosen_model(turn)
        entries["model_spec"] = conversation.model_spec
    if branch is not None:
        entries["branch_index"] = str(branch.index)
        entries["branch_sibling_of"] = branch.sibling_of
        entries["branch_reason"] = branch.reason.value
    entries["files"] = describe_files(turn.record)
    if question is not None:
        entries["skills"] = ", ".join(question.skills)
    entries["parts_not_shown"] = ", ".join(unknown_parts(turn.record))
    return {name: value for name, value in entries.items() if value}


def _describe_parent(turn: Turn, thread: SubagentThread | None) -> dict[str, str | None]:
    """Where a conversation is that of a sub-agent: the turn whose tool call started the task. The conversation names
    the one that started its first task."""
    task, billed_with = turn.anchor.subagent_task, turn.record.billed_with
    message_id = task.parent_run_id if task is not None else None
    entries: dict[str, str | None] = {}
    if thread is not None:
        message_id = message_id or thread.parent_message_id
        entries |= {
            "parent_conversation_id": thread.parent_conversation_id,
            "subagent_type": thread.subagent_type,
        }
    entries["parent_turn_message_id"] = message_id
    entries["parent_trace_id"] = turn_trace_id(message_id) if message_id is not None else None
    entries["billed_in_trace_id"] = turn_trace_id(billed_with) if billed_with is not None else None
    return entries
