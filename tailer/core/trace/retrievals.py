"""The sources of a search as a `retriever` observation below the tool call that found them."""

import re
from collections.abc import Iterator

from tailer.core.identity import ObservationId, observation_id
from tailer.core.librechat.sources import Source, SourceList
from tailer.core.trace.bounds import Allowance
from tailer.core.trace.observations import Observation, ObservationType
from tailer.core.turn.turns import Turn


def build_retrievals(
    turn: Turn, root: Observation, steps: list[Observation], allowance: Allowance
) -> list[Observation]:
    """One observation for each search of the response that found something."""
    response = turn.record.response
    if response is None or not response.sources:
        return []
    tools = {step.metadata["tool_call_id"]: step for step in steps if "tool_call_id" in step.metadata}
    return [
        _build(index, found, tools.get(found.call_id or "", root), root.id, turn, allowance)
        for index, found in enumerate(response.sources)
    ]


def _build(
    index: int, found: SourceList, tool: Observation, root_id: ObservationId, turn: Turn, allowance: Allowance
) -> Observation:
    is_tool = tool.id != root_id
    return Observation(
        id=observation_id(turn.anchor.message_id, "retriever", index),
        parent_id=tool.id,
        type=ObservationType.RETRIEVER,
        name=found.kind,
        start_milliseconds=tool.start_milliseconds,
        end_milliseconds=tool.end_milliseconds,
        input=tool.input if is_tool else None,
        output=[dict(_describe(source, turn.answer, allowance)) for source in found.sources],
        metadata={"sources": str(len(found.sources))},
    )


def _describe(source: Source, answer: str, allowance: Allowance) -> Iterator[tuple[str, object]]:
    if source.name is not None:
        yield "name", allowance.take(source.name)
    if source.address is not None:
        yield "address", allowance.take(source.address)
    if source.relevance is not None:
        yield "relevance", source.relevance
    if source.pages:
        yield "pages", list(source.pages)
    if source.anchor is not None and re.search(rf"{source.anchor}(?!\d)", answer):
        yield "cited", True
