"""What happened inside a turn, in order: model calls, tool calls, hand-offs, steering, compaction.

LibreChat stores the order of the parts and the duration of a tool call, and no other time. So each step starts one
millisecond after the one before it, which keeps the order on a timeline and nothing more; only a turn of one single
model call has a true duration for its generation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tailer.core.identity import ObservationId, observation_id
from tailer.core.json_text import decode_json, encode_json
from tailer.core.librechat.content import HandOffPart, Part, SteerPart, SummaryPart, ToolCall
from tailer.core.trace.bounds import Allowance
from tailer.core.trace.generations import Frame, build_generation
from tailer.core.trace.observations import Level, Observation, ObservationType
from tailer.core.turn.calls import ModelCall
from tailer.core.turn.history import ChatMessage, Prompt, tool_call_shape
from tailer.core.turn.segments import assign_parts
from tailer.core.turn.turns import Outcome, Turn, join_text
from tailer.core.turn.usage import NO_USAGE, Usage

_ANSWERING_CONTEXTS = frozenset({"message", "abort", "incomplete"})
"""Transaction contexts of the calls that wrote the answer; other contexts are calls beside it."""


@dataclass(slots=True)
class StepBuilder:
    """Builds a turn's inner observations under its root, spending the trace's byte allowance."""

    turn: Turn
    usage: Usage
    root_id: ObservationId
    prompt: Prompt
    allowance: Allowance
    level: Level
    status: str | None
    _steps: list[Observation] = field(default_factory=list)
    _tool_count: int = 0
    _event_count: int = 0

    def build(self) -> list[Observation]:
        """The observations below the root, in the order in which they happened."""
        response = self.turn.record.response
        parts = response.parts if response is not None else ()
        answering = [call for call in self.usage.calls if call.context in _ANSWERING_CONTEXTS]
        if not answering and self.usage.calls:
            # Only calls beside the answer were billed, as for a stopped run: the answer is shown without numbers.
            answering = [*NO_USAGE.calls]
        for index, (call, own) in enumerate(zip(answering, assign_parts(parts, answering), strict=True)):
            last = index == len(answering) - 1
            self._add_generation(call, own, index=index, alone=len(answering) == 1, last=last)
            for part in own:
                self._add_part(part)
        for index, call in enumerate(self.usage.calls):
            if call.context not in _ANSWERING_CONTEXTS:
                frame = self._frame("call", index, call.context)
                self._steps.append(build_generation(frame, call, self.usage, model=None))
        return self._steps

    def _frame(self, role: str, index: int | None, name: str, *, lasts_milliseconds: int = 0) -> Frame:
        start = min(self.turn.start_milliseconds + len(self._steps), self.turn.end_milliseconds)
        return Frame(
            id=observation_id(self.turn.anchor.message_id, role, index),
            parent_id=self.root_id,
            name=name,
            start_milliseconds=start,
            end_milliseconds=start + lasts_milliseconds,
        )

    def _add_generation(
        self, call: ModelCall, parts: Sequence[Part], *, index: int, alone: bool, last: bool
    ) -> None:
        turn = self.turn
        model = call.model or turn.model
        lasts = turn.end_milliseconds - turn.start_milliseconds if alone else 0
        frame = self._frame("generation", index, model or "model call", lasts_milliseconds=lasts)
        metadata = {}
        if not alone:
            metadata["timing"] = "order only"
        if index == 0 and self.prompt.left_out:
            metadata["history_messages_left_out"] = str(self.prompt.left_out)
        if turn.reasoning and last:
            metadata["reasoning"] = self.allowance.take(turn.reasoning)
        conversation, agent = turn.record.conversation, turn.record.agent
        settings = conversation.settings if conversation is not None else {}
        parameters = agent.parameters if agent is not None else settings
        self._steps.append(
            build_generation(
                frame,
                call,
                self.usage,
                model=turn.model,
                input_=self._bounded_chat(self.prompt.messages) if index == 0 else None,
                output=self._output(parts, fallback=self._unparted_answer() if last else ""),
                model_parameters=self._bounded_parameters(parameters),
                level=self.level if last else Level.DEFAULT,
                status_message=self.status if last else None,
                metadata=metadata,
            )
        )

    def _bounded_parameters(self, parameters: Mapping[str, object]) -> Mapping[str, object]:
        text = encode_json(parameters)
        return parameters if self.allowance.take(text) == text else {}

    def _unparted_answer(self) -> str:
        """The answer of a response whose parts hold none: older releases keep it in `text`."""
        response = self.turn.record.response
        return "" if response is not None and join_text(response.parts) else self.turn.answer

    def _bounded_chat(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        return [{**message, "content": self.allowance.take(str(message["content"]))} for message in messages]

    def _output(self, parts: Sequence[Part], *, fallback: str) -> ChatMessage | None:
        text = join_text(parts) or ("" if any(isinstance(part, ToolCall) for part in parts) else fallback)
        calls = [tool_call_shape(part) for part in parts if isinstance(part, ToolCall)]
        if not text and not calls:
            return None
        message: ChatMessage = {"role": "assistant", "content": self.allowance.take(text)}
        if calls:
            message["tool_calls"] = [self._bounded_call(call) for call in calls]
        return message

    def _bounded_call(self, call: ChatMessage) -> ChatMessage:
        function = call["function"]
        if isinstance(function, dict):
            function["arguments"] = self.allowance.take(str(function["arguments"]))
        return call

    def _add_part(self, part: Part) -> None:
        match part:
            case ToolCall():
                self._add_tool(part)
            case HandOffPart(agent_id):
                self._add_event("hand-off", {"agent_id": agent_id})
            case SteerPart(text):
                self._add_event("steer", self.allowance.take(text))
            case SummaryPart(text):
                self._add_event("summary", self.allowance.take(text))
            case _:
                pass

    def _add_tool(self, call: ToolCall) -> None:
        duration = call.duration_milliseconds
        frame = self._frame("tool", self._tool_count, call.name, lasts_milliseconds=duration or 0)
        self._tool_count += 1
        metadata = {"timing": "order only" if duration is None else "duration stored"}
        if call.call_id is not None:
            metadata["tool_call_id"] = call.call_id
        if call.agent_id is not None:
            metadata["agent_id"] = call.agent_id
        missing = call.output is None and self.turn.outcome is not Outcome.COMPLETE
        level = Level.ERROR if call.failed else Level.WARNING if missing else Level.DEFAULT
        status = "the tool failed" if call.failed else "no output was stored" if missing else None
        self._steps.append(
            Observation(
                id=frame.id,
                parent_id=frame.parent_id,
                type=ObservationType.TOOL,
                name=frame.name,
                start_milliseconds=frame.start_milliseconds,
                end_milliseconds=frame.end_milliseconds,
                level=level,
                status_message=status,
                input=self._arguments(call.arguments),
                output=self.allowance.take(call.output) if call.output is not None else None,
                metadata=metadata,
            )
        )

    def _arguments(self, arguments: object) -> object:
        if arguments is None:
            return None
        text = arguments if isinstance(arguments, str) else encode_json(arguments)
        bounded = self.allowance.take(text)
        return decode_json(bounded) if bounded == text else bounded

    def _add_event(self, name: str, value: object) -> None:
        frame = self._frame("event", self._event_count, name)
        self._event_count += 1
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
