"""The agent behind an agent id of a part: its name and its model.

A saved agent (`agent_…`) is a row of `agents`. Any other id is an encoded model, `endpoint__model___sender____index`,
in which LibreChat writes a colon as two underscores.
"""

from collections.abc import Mapping

from tailer.core.librechat.agent_ids import AGENT_PREFIX, SAVED_PREFIXES
from tailer.core.librechat.conversations import Agent
from tailer.core.light_dataclass import light_dataclass
from tailer.core.turn.turns import TurnRecord

_SELF = "self"


@light_dataclass(frozen=True, slots=True)
class Authors:
    """The agents of one turn. `default_id` is the agent of parts that name none."""

    agents: Mapping[str, Agent]
    default_id: str | None
    default_model: str | None

    def is_by(self, agent_id: str | None, model: str | None) -> bool | None:
        """Whether an agent has this model, None if unknown."""
        if model is None:
            return None
        if agent_id is None or agent_id == self.default_id:
            return None if self.default_model is None else self.default_model == model
        if agent_id.startswith(AGENT_PREFIX):
            agent = self.agents.get(agent_id)
            return None if agent is None or agent.model is None else agent.model == model
        if "__" not in agent_id:
            return None
        # The model is in the id, between two separators that it may hold itself.
        name = f"__{model.replace(':', '__')}"
        return agent_id.endswith(name) or f"{name}___" in agent_id

    def model_of(self, agent_id: str | None) -> str | None:
        """An agent's model, None if unknown."""
        if agent_id is None or agent_id == self.default_id:
            return self.default_model
        agent = self.agents.get(agent_id)
        return agent.model if agent is not None else _decode_model(agent_id)

    def name_of(self, agent_id: str | None) -> str | None:
        """The name of an agent: a saved agent's name, or the model that an id encodes, else the id."""
        if agent_id is None:
            return None
        agent = self.agents.get(agent_id)
        if agent is not None and agent.name is not None:
            return agent.name
        return _decode_model(agent_id) or agent_id

    def resolve(self, subagent_type: str | None, starter_id: str | None) -> str | None:
        """The agent that a sub-agent's call runs: the id it names, or the agent that makes the call."""
        return starter_id or self.default_id if subagent_type == _SELF else subagent_type


def find_authors(record: TurnRecord) -> Authors:
    """The authors of a turn's parts."""
    response = record.response
    named = response.model if response is not None else None
    if named is not None and not named.startswith(SAVED_PREFIXES):
        return Authors(record.agents, None, named)
    agent = record.agent
    agent_id = named if named is not None and named.startswith(AGENT_PREFIX) else None
    if agent is None:
        return Authors(record.agents, agent_id, None)
    return Authors({**record.agents, agent.agent_id: agent}, agent.agent_id, agent.model)


def _decode_model(agent_id: str) -> str | None:
    """The model in an encoded id; None for an id of any other form."""
    if agent_id.startswith(SAVED_PREFIXES) or "__" not in agent_id:
        return None
    encoded = agent_id.split("___", 1)[0] if "___" in agent_id else agent_id
    model = encoded.partition("__")[2].replace("__", ":")
    return model or None
