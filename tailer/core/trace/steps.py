"""What happened inside a turn, in order: model calls, tool calls, sub-agents, hand-offs, steering, compaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tailer.core.identity import ObservationId, observation_id
from tailer.core.librechat.content import (
    ErrorPart,
    HandOffPart,
    Part,
    SteerPart,
    SummaryPart,
    ToolCall,
)
from tailer.core.trace.bounds import Allowance
from tailer.core.trace.generations import Frame, build_generation
from tailer.core.trace.inputs import Inputs
from tailer.core.trace.observations import Level, Observation, ObservationType
from tailer.core.trace.plan import Plan, make_plan
from tailer.core.trace.texts import Texts, summary_text
from tailer.core.trace.timeline import PlacedStep, Span, place_steps, weigh
from tailer.core.trace.tools import build_subagent, build_tool
from tailer.core.turn.assignment import Step
from tailer.core.turn.authors import Authors, find_authors
from tailer.core.turn.history import Prompt
from tailer.core.turn.segments import are_grouped
from tailer.core.turn.times import Start
from tailer.core.turn.turns import Outcome, Turn, join_text
from tailer.core.turn.usage import ANSWERING_CONTEXTS, Usage, UsageSource


@dataclass(slots=True)
class StepBuilder:
    """Builds a turn's inner observations under its root, within the trace's byte allowance.

    `notes` are the root's remarks about them; `build` fills them.
    """

    turn: Turn
    usage: Usage
    root_id: ObservationId
    prompt: Prompt
    allowance: Allowance
    level: Level
    status: str | None
    notes: dict[str, str] = field(default_factory=dict)
    _authors: Authors = field(init=False)
    _inputs: Inputs = field(init=False)
    _texts: Texts = field(init=False)
    _plan: Plan = field(init=False)
    _last: Step | None = field(init=False, default=None)
    _exact: bool = field(init=False, default=False)
    _alone: bool = field(init=False, default=False)
    _steps: list[Observation] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)

    def build(self) -> list[Observation]:
        """The observations below the root, in the order in which they happened."""
        turn, response = self.turn, self.turn.record.response
        parts = response.parts if response is not None else ()
        self._authors = find_authors(turn.record)
        self._texts = Texts(self.allowance)
        self._inputs = Inputs(turn.record, self.prompt, self._authors)
        cut_short = turn.outcome not in (Outcome.COMPLETE, Outcome.COPIED) and not self._is_guess_of_all()
        self._plan = make_plan(parts, self.usage, self._authors, cut_short=cut_short)
        steps = self._plan.steps
        named = [step for step in steps if not step.nameless]
        self._alone = len({step.agent_id for step in steps if _answers(step)}) == 1
        self._last = _find_last([step for step in named if _answers(step)])
        self._exact = len(named) == 1 and turn.start is Start.STORED and ToolCall not in map(type, parts)
        whole = Span(turn.start_milliseconds, turn.end_milliseconds)
        placed = place_steps([stage.rows for stage in self._plan.stages], whole)
        for stage, stage_rows in zip(self._plan.stages, placed, strict=True):
            for row in stage_rows:
                for number, step in enumerate(row):
                    before = stage.before if number == 0 else None
                    self._add_step(step, self.root_id, before=before)
        if self._plan.beside:
            self._add_beside([step for stage_rows in placed for row in stage_rows for step in row], whole)
        if len(named) < len(steps):
            self.notes["authorship"] = "not told apart"
        return self._steps

    def _add_beside(self, placed: Sequence[PlacedStep], whole: Span) -> None:
        """Calls that ran beside the answer: as fast as it was written, and done when it was."""
        spent = sum(item.call.length for item in placed)
        weight = sum(weigh(item.step) for item in placed) or 1
        for step in self._plan.beside:
            length = min(whole.length, spent * weigh(step) // weight)
            span = Span(whole.end - length, whole.end)
            self._add_generation(PlacedStep(step, span, {}), self.root_id, before=None)

    def _add_step(
        self,
        placed: PlacedStep,
        parent_id: ObservationId,
        *,
        before: tuple[Part, ...] | None,
        inner: bool = False,
    ) -> None:
        if placed.step.nameless:
            self._note_reasoning(placed.step)
        else:
            self._add_generation(placed, parent_id, before=before, inner=inner)
        if placed.step.call is not None and placed.step.call.context == "summarization":
            return
        for place, span in placed.parts.items():
            self._add_part(placed.step.parts[place], span, parent_id, inner=inner)

    def _note_reasoning(self, step: Step) -> None:
        thought = self._texts.reasoning(step.parts)
        if thought:
            self.notes["reasoning"] = self.notes.get("reasoning", "") + thought

    def _frame(self, role: str, index: int | None, name: str, parent_id: ObservationId, span: Span) -> Frame:
        return Frame(
            id=observation_id(self.turn.anchor.message_id, role, index),
            parent_id=parent_id,
            name=name,
            start_milliseconds=span.start,
            end_milliseconds=span.end,
        )

    def _next(self, role: str) -> int:
        number = self._counts.get(role, 0)
        self._counts[role] = number + 1
        return number

    def _add_generation(
        self,
        placed: PlacedStep,
        parent_id: ObservationId,
        *,
        before: tuple[Part, ...] | None,
        inner: bool = False,
    ) -> None:
        step, call = placed.step, placed.step.call
        has_the_end = step is self._last and not self._went_well(step)
        # Of several agents' calls, one of which nothing but numbers is known may be anybody's.
        model = self._authors.model_of(step.agent_id) if self._alone or step.parts else None
        model = model or (self.turn.model if self._alone else None)
        answers = _answers(step) and not inner
        name = (call.model if call is not None else None) or model or "model call"
        if call is not None and not answers and not inner:
            name = call.context
        role = "generation" if answers else "inner-generation" if inner else "call"
        index = step.place if role == "call" else self._next(role)
        shown = self._inputs.messages_for(step.agent_id, before) if answers and before is not None else None
        self._steps.append(
            build_generation(
                self._frame(role, index, name, parent_id, placed.call),
                call,
                self.usage,
                model=model if answers or inner else None,
                input_=self._texts.prompt(shown) if shown is not None else None,
                output=self._texts.answer(step.parts, fallback=lambda: self._fallback(step)),
                model_parameters=self._texts.parameters(self._inputs.parameters_for(step.agent_id))
                if answers
                else None,
                level=self.level if has_the_end else Level.DEFAULT,
                status_message=self.status if has_the_end else None,
                metadata=self._describe(placed, first=shown is not None and not before),
            )
        )

    def _is_guess_of_all(self) -> bool:
        """Whether LibreChat charged for a whole stopped answer (until 0.8.6), with a prompt as long as its own
        count of the question. What a provider tells of a call that ended is more than that."""
        question, calls = self.turn.record.question, self.usage.calls
        if self.turn.outcome is not Outcome.ABORTED or question is None or len(calls) != 1:
            return False
        tokens = calls[0].tokens
        return tokens is not None and tokens.input is not None and tokens.input == question.token_count

    def _went_well(self, step: Step) -> bool:
        """Whether a call may have ended well although the turn failed. LibreChat reports only calls that ended: the
        error after their words is that of the next agent of a chain, of which nothing else is stored. Among agents that
        answer side by side it may be any one's."""
        if self.turn.outcome is not Outcome.ERROR:
            return False
        is_reported = self.usage.told_apart and self.usage.usage_source is UsageSource.REPORTED
        return (is_reported and step.call is not None) or are_grouped(step.parts)

    def _describe(self, placed: PlacedStep, *, first: bool) -> Mapping[str, str]:
        step = placed.step
        notes: dict[str, str] = {}
        if placed.call.start == placed.call.end:
            notes["timing"] = "not stored"
        elif not self._exact:
            notes["timing"] = "estimated"
        if first and self.prompt.is_cut:
            notes["history_cut"] = "true"
        elif first and self.prompt.left_out:
            notes["history_messages_left_out"] = str(self.prompt.left_out)
        thought = self._texts.reasoning(step.parts)
        if thought:
            notes["reasoning"] = thought
        if step.agent_id is not None:
            notes["agent_id"] = step.agent_id
            notes["agent_name"] = self._authors.name_of(step.agent_id) or step.agent_id
        if step.joined:
            notes["calls"] = "not told apart"
        elif step.by_order:
            notes["assignment"] = "by order"
        return notes

    def _fallback(self, step: Step) -> str:
        """What a call wrote whose parts hold no text: a summary, or an answer that older releases keep in `text`."""
        if not _answers(step):
            return summary_text(step.parts)
        response = self.turn.record.response
        is_parted = response is not None and bool(join_text(response.parts))
        return "" if step is not self._last or is_parted else self.turn.answer

    def _add_part(self, part: Part, span: Span, parent_id: ObservationId, *, inner: bool) -> None:
        match part:
            case ToolCall():
                self._add_tool(part, span, parent_id, inner=inner)
            case HandOffPart(agent_id):
                self._add_event("hand-off", self._receiver(agent_id), span, parent_id)
            case SteerPart(text):
                self._add_event("steer", self.allowance.take(text), span, parent_id)
            case SummaryPart(text):
                self._add_event("summary", self.allowance.take(text), span, parent_id)
            case _:
                pass

    def _receiver(self, agent_id: str | None) -> Mapping[str, str | None]:
        name = self._authors.name_of(agent_id)
        return {"agent_id": agent_id} if name == agent_id else {"agent": name, "agent_id": agent_id}

    def _add_tool(self, call: ToolCall, span: Span, parent_id: ObservationId, *, inner: bool) -> None:
        role = "inner-tool" if inner else "tool"
        frame = self._frame(role, self._next(role), self._tool_name(call), parent_id, span)
        finished = self.turn.outcome is Outcome.COMPLETE
        agent_name = self._authors.name_of(call.agent_id)
        tool = build_tool(frame, call, self.allowance, finished=finished, agent_name=agent_name)
        self._steps.append(tool)
        if call.is_subagent:
            self._add_subagent(call, tool)

    def _tool_name(self, call: ToolCall) -> str:
        receiver = call.receiver_id
        name = self._authors.name_of(receiver)
        return call.name if receiver is None or name is None else call.name.removesuffix(receiver) + name

    def _add_subagent(self, call: ToolCall, tool: Observation) -> None:
        """The agent that a tool call ran, below that call, with its own calls and tools."""
        span = Span(tool.start_milliseconds, tool.end_milliseconds)
        agent_id = self._authors.resolve(call.subagent_type, call.agent_id)
        name = self._authors.name_of(agent_id) or "sub-agent"
        frame = self._frame("agent", self._next("agent"), name, tool.id, span)
        self._steps.append(build_subagent(frame, call, agent_id, self.allowance))
        steps = self._plan.subagents.get(id(call)) or (Step(None, None, call.inner, agent_id, nameless=True),)
        # Without a row of its own a call of a sub-agent is known by the agent alone.
        known = [step if step.call is not None else replace(step, nameless=True) for step in steps]
        for stage in place_steps([[known]], span):
            for row in stage:
                for placed in row:
                    self._add_step(placed, frame.id, before=None, inner=True)

    def _add_event(self, name: str, value: object, span: Span, parent_id: ObservationId) -> None:
        frame = self._frame("event", self._next("event"), name, parent_id, span)
        self._steps.append(
            Observation(
                id=frame.id,
                parent_id=frame.parent_id,
                type=ObservationType.EVENT,
                name=name,
                start_milliseconds=frame.start_milliseconds,
                end_milliseconds=frame.end_milliseconds,
                input=value,
            )
        )


def _find_last(answering: Sequence[Step]) -> Step | None:
    """The call that ended the turn: the last one that failed, else the last one."""
    failed = [step for step in answering if ErrorPart in map(type, step.parts)]
    ends = failed or answering
    return ends[-1] if ends else None


def _answers(step: Step) -> bool:
    return step.call is None or step.call.context in ANSWERING_CONTEXTS
