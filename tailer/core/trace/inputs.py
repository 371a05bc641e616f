"""What each agent of a turn is known to have received: instructions, history, question, and earlier agents' answers.

An agent that ran first, or beside another, received the question. An agent that ran after others also received what
they wrote; the form in which LibreChat passes that on is not stored.
"""

from collections.abc import Mapping, Sequence

from tailer.core.librechat.agent_ids import AGENT_PREFIX
from tailer.core.librechat.content import Part
from tailer.core.librechat.replay import ChatMessage, chat_from_parts
from tailer.core.light_dataclass import light_dataclass
from tailer.core.turn.authors import Authors
from tailer.core.turn.history import Prompt
from tailer.core.turn.turns import TurnRecord


@light_dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of one turn's agents. `prompt` is that of the agent that was asked."""

    record: TurnRecord
    prompt: Prompt
    authors: Authors

    def messages_for(self, agent_id: str | None, before: Sequence[Part]) -> list[ChatMessage]:
        """The chat messages of an agent's first call; `before` are the parts of the agents before it."""
        messages = list(self.prompt.messages)
        if not self._was_asked(agent_id):
            messages = [message for message in messages if message["role"] != "system"]
            agent = self.authors.agents.get(agent_id or "")
            if agent is not None and agent.instructions is not None:
                messages.insert(0, {"role": "system", "content": agent.instructions})
        return [*messages, *chat_from_parts(before)]

    def parameters_for(self, agent_id: str | None) -> Mapping[str, object]:
        """The model parameters of an agent."""
        agent = self.authors.agents.get(agent_id or "")
        if agent is not None:
            return agent.parameters
        if not self._was_asked(agent_id):
            return {}
        if self.record.agent is not None:
            return self.record.agent.parameters
        return self.record.conversation.settings if self.record.conversation is not None else {}

    def _was_asked(self, agent_id: str | None) -> bool:
        """Whether the question went to this agent; an encoded model with an index is another agent."""
        if agent_id is None or agent_id == self.authors.default_id:
            return True
        return not agent_id.startswith(AGENT_PREFIX) and "____" not in agent_id
