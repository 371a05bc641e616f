"""A trace as Langfuse shows it: observations with their attributes, before any wire format."""

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from tailer.core.identity import ObservationId, TraceId
from tailer.core.light_dataclass import light_dataclass


class ObservationType(StrEnum):
    """The observation types in use (`langfuse.observation.type`)."""

    AGENT = "agent"
    GENERATION = "generation"
    TOOL = "tool"
    EVENT = "event"
    RETRIEVER = "retriever"


class Level(StrEnum):
    """How an observation is marked (`langfuse.observation.level`)."""

    DEFAULT = "DEFAULT"
    WARNING = "WARNING"
    ERROR = "ERROR"


@light_dataclass(frozen=True, slots=True)
class Observation:
    """One span. `input` and `output` are JSON-like values or None; times are milliseconds since 1970; `usage` has
    Langfuse's exclusive buckets; `cost` is in USD and always has `total`."""

    id: ObservationId
    parent_id: ObservationId | None
    type: ObservationType
    name: str
    start_milliseconds: int
    end_milliseconds: int
    level: Level = Level.DEFAULT
    status_message: str | None = None
    input: object = None
    output: object = None
    model: str | None = None
    model_parameters: Mapping[str, object] | None = None
    usage: Mapping[str, int] | None = None
    cost: Mapping[str, float] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@light_dataclass(frozen=True, slots=True)
class Trace:
    """One trace: what every observation repeats, and the observations, root first.

    `message_id` is the row behind the trace, `document_key` that row's `_id` (deletions name only that). `piece` names
    a part of the trace that is sent later. `provider` is that of the saved agent that was asked, as LibreChat names it,
    where the agent may be read.
    """

    id: TraceId
    name: str
    message_id: str
    document_key: str
    user_id: str | None
    session_id: str
    tags: tuple[str, ...]
    metadata: Mapping[str, str]
    observations: tuple[Observation, ...]
    piece: str | None = None
    provider: str | None = None

    @property
    def record_id(self) -> str:
        """The name of the export record of this trace, or of this piece of it."""
        return self.id if self.piece is None else f"{self.id}:{self.piece}"

    @property
    def root(self) -> Observation:
        """The observation that holds the trace's input and output."""
        return self.observations[0]
