"""Which parts of a response each model call wrote.

Nothing stored links the two. The order of both is known, a model is called again after its tool calls, and parts of
agents that answer in parallel carry an id that names the model.
"""

from collections.abc import Sequence

from tailer.core.librechat.content import ErrorPart, HandOffPart, Part, ReasoningPart, TextPart, ToolCall
from tailer.core.turn.calls import ModelCall


def assign_parts(parts: Sequence[Part], calls: Sequence[ModelCall]) -> list[list[Part]]:
    """The parts of each call, in the order of the calls; every part is somebody's.

    With more calls than segments some wrote nothing; with fewer the last call holds the rest.
    """
    if len(calls) < 2:  # noqa: PLR2004 - one call wrote everything
        return [list(parts) for _ in calls]
    segments = split_segments(parts)
    named: dict[int, list[Part]] = {}
    for index, call in enumerate(calls):
        place = next((at for at, segment in enumerate(segments) if _is_by(segment, call)), None)
        if place is not None:
            named[index] = segments.pop(place)
    # Who is named has its segment by now; the others take theirs in order.
    assigned = [
        named[index] if index in named else segments.pop(0) if segments else [] for index in range(len(calls))
    ]
    for segment in segments:
        assigned[-1].extend(segment)
    return assigned


def split_segments(parts: Sequence[Part]) -> list[list[Part]]:
    """The parts by model call: a new one after tool calls, and where another agent goes on.

    An error part belongs to the call that it ended.
    """
    segments: list[list[Part]] = []
    after_tool, agent_id = False, None
    for part in parts:
        another = _agent_of(part) is not None and agent_id is not None and _agent_of(part) != agent_id
        begins = after_tool and not isinstance(part, ToolCall | ErrorPart | HandOffPart)
        if not segments or begins or another:
            segments.append([])
        segments[-1].append(part)
        agent_id = _agent_of(part) or agent_id
        after_tool = isinstance(part, ToolCall) or (after_tool and isinstance(part, HandOffPart))
    return segments


def _agent_of(part: Part) -> str | None:
    return part.agent_id if isinstance(part, TextPart | ReasoningPart | ToolCall) else None


def _is_by(segment: Sequence[Part], call: ModelCall) -> bool:
    """Whether a segment's agent is an encoded model (`endpoint__model___sender____index`) and it is the call's."""
    if call.model is None:
        return False
    # LibreChat writes a colon of the model's name as two underscores.
    name = f"__{call.model.replace(':', '__')}"
    ids = (_agent_of(part) for part in segment)
    return any(
        agent_id is not None and (agent_id.endswith(name) or f"{name}___" in agent_id) for agent_id in ids
    )
