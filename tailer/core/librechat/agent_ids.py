"""How the ids of saved agents and of assistants begin. They stand in the place of a model in messages and in the
ledger; the id of an agent that is not saved is made of an endpoint and a model (`endpoint__model`)."""

from typing import Final

AGENT_PREFIX: Final = "agent_"
ASSISTANT_PREFIX: Final = "asst_"
SAVED_PREFIXES: Final = (AGENT_PREFIX, ASSISTANT_PREFIX)
