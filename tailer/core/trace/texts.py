"""The texts of model calls as far as a trace's allowance lets them through: prompts, answers, tool calls, reasoning."""

from collections.abc import Callable, Mapping, Sequence

from tailer.core.json_text import decode_json, encode_json
from tailer.core.librechat.bson_values import mapping
from tailer.core.librechat.content import Part, ReasoningPart, SummaryPart, ToolCall
from tailer.core.librechat.replay import ChatMessage, tool_call_shape
from tailer.core.light_dataclass import light_dataclass
from tailer.core.trace.bounds import Allowance
from tailer.core.turn.turns import join_text


@light_dataclass(frozen=True, slots=True)
class Texts:
    """Takes what is shown from one allowance, in the order asked for."""

    allowance: Allowance

    def prompt(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """The chat messages that a call was sent."""
        texts = [str(message["content"]) for message in messages]
        if self.allowance.take_all(texts):
            return list(messages)
        shown = []
        for message, text in zip(messages, texts, strict=True):
            taken = self.allowance.take(text)
            shown.append(message if taken is text else {**message, "content": taken})
        return shown

    def answer(self, parts: Sequence[Part], *, fallback: Callable[[], str]) -> ChatMessage | None:
        """What a call wrote, as an assistant's message; `fallback` is asked where its parts hold neither text nor
        tools."""
        calls = [tool_call_shape(part) for part in parts if isinstance(part, ToolCall)]
        text = join_text(parts) or ("" if calls else fallback())
        if not text and not calls:
            return None
        message: ChatMessage = {"role": "assistant", "content": self.allowance.take(text)}
        if calls:
            message["tool_calls"] = [self._tool_call(call) for call in calls]
        return message

    def parameters(self, parameters: Mapping[str, object]) -> Mapping[str, object]:
        """Model parameters; none where they are too long."""
        text = encode_json(parameters)
        shown = self.allowance.take(text)
        return parameters if shown == text else mapping(decode_json(shown))

    def reasoning(self, parts: Sequence[Part]) -> str:
        """What a call thought; empty where nothing is stored."""
        thought = "".join([part.text for part in parts if isinstance(part, ReasoningPart)])
        return self.allowance.take(thought) if thought else ""

    def _tool_call(self, call: ChatMessage) -> ChatMessage:
        function = call["function"]
        if isinstance(function, dict):
            function["arguments"] = self.allowance.take(str(function["arguments"]))
        return call


def summary_text(parts: Sequence[Part]) -> str:
    """The summary among the parts."""
    return "".join(part.text for part in parts if isinstance(part, SummaryPart))
