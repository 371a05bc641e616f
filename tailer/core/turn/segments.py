"""A response's parts by author, and by model call as far as the parts alone show it.

A model is called again after its tool calls: if it speaks or thinks after a tool, a new call begins. Two consecutive
tool calls may belong to one call or to two. Parts of one `groupId` were written side by side and are mixed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tailer.core.librechat.content import (
    HandOffPart,
    Part,
    ReasoningPart,
    SteerPart,
    SummaryPart,
    TextPart,
    ToolCall,
)

_AUTHORED = (TextPart, ReasoningPart, ToolCall)
"""The parts that name their agent and its group."""
_SPOKEN = (TextPart, ReasoningPart)
_INSERTED = (SteerPart, SummaryPart)


@dataclass(slots=True)
class Stretch:
    """What one agent wrote without interruption. Stretches of one `group_id` ran side by side."""

    agent_id: str | None
    group_id: int | None
    parts: list[Part] = field(default_factory=list)

    @property
    def rounds(self) -> list[list[Part]]:
        """The parts by model call, in the fewest calls that can have written them."""
        rounds: list[list[Part]] = []
        after_tool = False
        for part in self.parts:
            if not rounds or (after_tool and _speaks(part)):
                rounds.append([])
                after_tool = False
            rounds[-1].append(part)
            after_tool = after_tool or isinstance(part, ToolCall)
        return rounds


def split_stretches(parts: Sequence[Part]) -> list[Stretch]:
    """The parts by agent, in the order in which the agents began; every part is in one stretch."""
    stretches: list[Stretch] = []
    for part in parts:
        if isinstance(part, _AUTHORED):
            found = _stretch_of(stretches, part.agent_id, part.group_id)
            if found is None:
                found = Stretch(part.agent_id, part.group_id)
                stretches.append(found)
            elif (
                found.agent_id is None
                and part.agent_id is not None
                and not any(map(_is_written, found.parts))
            ):
                found.agent_id = part.agent_id
            found.parts.append(part)
            continue
        current = stretches[-1] if stretches else None
        if current is None:
            current = Stretch(None, None)
            stretches.append(current)
        current.parts.append(part)
        if isinstance(part, HandOffPart) and part.agent_id is not None and part.agent_id != current.agent_id:
            # The receiver's parts name it, or, in some releases, no agent at all.
            stretches.append(Stretch(part.agent_id, None))
    return [stretch for stretch in stretches if stretch.parts]


def are_grouped(parts: Sequence[Part]) -> bool:
    """Whether some parts were written side by side."""
    groups = [part.group_id for part in parts if isinstance(part, _AUTHORED) and part.group_id is not None]
    return bool(groups)


def author_of(part: Part) -> str | None:
    """The agent id that a part names."""
    return part.agent_id if isinstance(part, _AUTHORED) else None


def split_tools(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """The parts of a round, cut before each further tool call: what can be a call of its own."""
    piece: list[Part] = []
    has_tool = False
    for part in parts:
        if isinstance(part, ToolCall):
            if has_tool:
                yield piece
                piece = []
            has_tool = True
        piece.append(part)
    if piece:
        yield piece


def _stretch_of(stretches: Sequence[Stretch], agent_id: str | None, group_id: int | None) -> Stretch | None:
    """Where a part goes on: the running stretch of its agent, in a group that of any agent that runs beside."""
    if not stretches:
        return None
    last = stretches[-1]
    if group_id is None:
        return last if last.group_id is None and _agrees(last, agent_id) else None
    for stretch in reversed(stretches):
        if stretch.group_id != group_id:
            return None
        if stretch.agent_id == agent_id:
            return stretch
    return None


def _agrees(stretch: Stretch, agent_id: str | None) -> bool:
    """Whether a part without an agent continues the one before; a stretch without words of its own may be any
    agent's."""
    if agent_id is None or stretch.agent_id == agent_id:
        return True
    return stretch.agent_id is None and not any(map(_is_written, stretch.parts))


def _is_written(part: Part) -> bool:
    return isinstance(part, ToolCall) or (isinstance(part, _SPOKEN) and bool(part.text))


def _speaks(part: Part) -> bool:
    """Whether only a second call can have written a part. Empty texts may precede tool calls."""
    if isinstance(part, _SPOKEN):
        return bool(part.text)
    return isinstance(part, _INSERTED)
