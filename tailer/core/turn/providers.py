"""Which provider each model of a turn belongs to, where several agents or models answered it.

They count cached tokens differently, and until 0.8.5 LibreChat charges what they told as it stands.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from tailer.core.librechat.agent_ids import SAVED_PREFIXES
from tailer.core.librechat.content import TextPart
from tailer.core.librechat.messages import Message
from tailer.core.turn.record import TurnRecord

_NONE: Final[Mapping[str | None, str]] = MappingProxyType({})
_AGENTS = "agents"
_ANTHROPIC = "anthropic"


def providers_of(record: TurnRecord, response: Message) -> Mapping[str | None, str]:
    """Providers by model, without that of the agent or model that answers first: of the saved agents that a part of the
    answer names, and of the models that stand in the ids of parts (`endpoint__model____1`, since 0.8.2). Empty from
    0.8.6 on, where all counts are alike."""
    if response.says_temporary:
        return _NONE
    found: dict[str | None, str] = {
        agent.model: agent.provider
        for agent in record.agents.values()
        if agent.model is not None and agent.provider is not None
    }
    found.update(_encoded(response))
    if response.endpoint == _AGENTS:
        # Until 0.7.8 the parts of a chain do not name its agents.
        found |= {
            entry.model: _ANTHROPIC
            for entry in record.transactions
            if entry.model is not None and entry.model.startswith("claude") and entry.model not in found
        }
    found.pop(record.agent.model if record.agent is not None else response.model, None)
    return found


def _encoded(response: Message) -> Iterator[tuple[str, str]]:
    for part in response.parts:
        if (
            not isinstance(part, TextPart)
            or part.agent_id is None
            or part.agent_id.startswith(SAVED_PREFIXES)
        ):
            continue
        provider, _, rest = part.agent_id.partition("__")
        model = rest.split("___", 1)[0].replace("__", ":")
        if provider and model:
            yield model, provider
