"""What a trace shows of the inside of a turn, before it has times: calls and what they wrote, stage by stage.

Calls beside the answer are separate. A summary is made before it, labels are made while it is written, and the calls of
a sub-agent belong to the tool call that started it.
"""

from collections.abc import Sequence
from dataclasses import replace

from tailer.core.librechat.content import ErrorPart, Part, SummaryPart, TextPart, ToolCall
from tailer.core.light_dataclass import light_dataclass
from tailer.core.turn.assignment import Assigned, Step, assign_calls
from tailer.core.turn.authors import Authors
from tailer.core.turn.calls import ModelCall
from tailer.core.turn.segments import Stretch, split_stretches
from tailer.core.turn.usage import ANSWERING_CONTEXTS, NO_USAGE, SUBAGENT_CONTEXT, Usage, UsageSource

_SUMMARY_CONTEXT = "summarization"


@light_dataclass(frozen=True, slots=True)
class Stage:
    """Rows of steps that ran side by side: one row, or one for each agent of a group. `before` are the parts of the
    stages before this one; None where the stage is no agent's beginning."""

    rows: tuple[tuple[Step, ...], ...]
    before: tuple[Part, ...] | None = None


@light_dataclass(frozen=True, slots=True)
class Plan:
    """The stages of the answer, the calls before and beside it, and the steps of sub-agents by the identity of the tool
    call that started them."""

    stages: tuple[Stage, ...]
    beside: tuple[Step, ...]
    subagents: dict[int, tuple[Step, ...]]

    @property
    def steps(self) -> list[Step]:
        """The steps of the answer, one after the other."""
        return [step for stage in self.stages for row in stage.rows for step in row]


def make_plan(parts: Sequence[Part], usage: Usage, authors: Authors, *, cut_short: bool) -> Plan:
    """The plan of a turn; `cut_short` says that it was stopped or failed."""
    numbered = list(enumerate(usage.calls))
    answering = [item for item in numbered if item[1].context in ANSWERING_CONTEXTS]
    if numbered and not answering:
        # Only calls beside the answer were billed, as for a stopped run: the answer is shown without numbers.
        answering = [(len(numbered), NO_USAGE.calls[0])]
    stretches = split_stretches(parts)
    if len(stretches) > 1 and len({stretch.agent_id for stretch in stretches}) > 1:
        # Several agents are several calls; one of which nothing is known adds nothing to that.
        answering = [item for item in answering if item[1] != NO_USAGE.calls[0]]
    # A report of a stopped turn holds the calls that finished, as that of each tool had.
    may_lack_last = cut_short and (
        usage.told_apart or (usage.usage_source is UsageSource.REPORTED and not _ends_with_tool(parts))
    )
    assigned = assign_calls(stretches, answering, authors, may_lack_last=may_lack_last)
    if assigned.silent and not usage.told_apart:
        silent = tuple([replace(step, joined=True) for step in assigned.silent])
        assigned = Assigned(assigned.stretches, silent)
    stages = _stages(stretches, assigned)
    if not numbered:
        # LibreChat refused the question: whatever the row holds, no model wrote it.
        stages = [_without_calls(stage) for stage in stages]
    by_agents: list[tuple[int, ModelCall]] = []
    summaries: list[tuple[int, ModelCall]] = []
    beside: list[Step] = []
    for item in numbered:
        place, call = item
        if call.context in ANSWERING_CONTEXTS:
            continue
        if call.context == _SUMMARY_CONTEXT:
            summaries.append(item)
        elif call.context == SUBAGENT_CONTEXT:
            by_agents.append(item)
        else:
            beside.append(Step(call, place, ()))
    subagents, spare = _plan_subagents(stages, parts, by_agents, authors)
    return Plan(
        stages=(*_plan_summaries(summaries, parts), *stages) if summaries else tuple(stages),
        beside=(*spare, *beside),
        subagents=subagents,
    )


def _ends_with_tool(parts: Sequence[Part]) -> bool:
    return isinstance(
        next((part for part in reversed(parts) if not isinstance(part, ErrorPart)), None), ToolCall
    )


def _without_calls(stage: Stage) -> Stage:
    return Stage(
        tuple(tuple(Step(None, None, step.parts, nameless=True) for step in row) for row in stage.rows)
    )


def _stages(stretches: Sequence[Stretch], assigned: Assigned) -> list[Stage]:
    stages: list[Stage] = []
    places: list[int] = []
    before: list[Part] = []
    group: int | None = None
    waiting: list[Part] = []
    for stretch, steps in zip(stretches, assigned.stretches, strict=True):
        place = max([step.place for step in steps if step.place is not None], default=-1)
        if stages and group is not None and stretch.group_id == group:
            stages[-1] = Stage((*stages[-1].rows, steps), stages[-1].before)
            places[-1] = max(places[-1], place)
        else:
            before += waiting
            waiting = []
            stages.append(Stage((steps,), tuple(before)))
            places.append(place)
        waiting += stretch.parts
        group = stretch.group_id
    for step in assigned.silent:
        if _put_between(stages, step):
            continue
        at = sum(1 for place in places if step.place is None or place < step.place)
        # A call before all words was sent the question like the first that wrote some.
        stages.insert(at, Stage(((step,),), () if at == 0 else None))
        places.insert(at, step.place or 0)
    return stages


def _put_between(stages: list[Stage], step: Step) -> bool:
    """Whether a call stands in the ledger between two calls of one stage; there it is put. Of tools that two calls
    asked for in a row it is not known which asked for which, so one of the two has none."""
    for number, stage in enumerate(stages):
        if step.place is None or len(stage.rows) != 1:
            continue
        (row,) = stage.rows
        earlier = [at for at, item in enumerate(row) if item.place is not None and item.place < step.place]
        if earlier and any(item.place is not None and item.place > step.place for item in row):
            at = earlier[-1] + 1
            stages[number] = Stage(((*row[:at], step, *row[at:]),), stage.before)
            return True
    return False


def _plan_summaries(calls: Sequence[tuple[int, ModelCall]], parts: Sequence[Part]) -> list[Stage]:
    """A summary replaces the history before it is sent, so its call is the first; it wrote the stored summary."""
    written = [part for part in parts if isinstance(part, SummaryPart)]
    own: list[tuple[Part, ...]] = [()] * len(calls)
    if len(calls) == 1:
        own = [tuple(written)]
    elif len(calls) == len(written):
        own = [(part,) for part in written]
    return [Stage(((Step(call, place, made),),)) for (place, call), made in zip(calls, own, strict=True)]


def _plan_subagents(
    stages: Sequence[Stage], parts: Sequence[Part], calls: Sequence[tuple[int, ModelCall]], authors: Authors
) -> tuple[dict[int, tuple[Step, ...]], tuple[Step, ...]]:
    """The steps of each sub-agent, and the calls that no sub-agent is known to have made."""
    tools: list[ToolCall] = []
    stretches: list[Stretch] = []
    has_tools = ToolCall in map(type, parts)
    steps = [step for stage in stages for row in stage.rows for step in row] if has_tools else ()
    for number, step in enumerate(steps):
        started = [part for part in step.parts if isinstance(part, ToolCall) and part.is_subagent]
        for tool in started:
            inner = list(tool.inner) or [TextPart("" if tool.is_detached else tool.output or "")]
            agent_id = authors.resolve(tool.subagent_type, tool.agent_id)
            tools.append(tool)
            stretches.append(Stretch(agent_id, number if len(started) > 1 else None, inner))
    if not tools:
        return {}, tuple(Step(call, place, ()) for place, call in calls)
    assigned = assign_calls(stretches, calls, authors, may_lack_last=False)
    found = {id(tool): steps for tool, steps in zip(tools, assigned.stretches, strict=True)}
    if len(tools) == 1:
        return {id(tools[0]): (*found[id(tools[0])], *assigned.silent)}, ()
    return found, assigned.silent
