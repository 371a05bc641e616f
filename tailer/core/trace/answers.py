"""The answer of a turn as its root shows it. Answers of agents that ran side by side are under their names."""

from tailer.core.turn.authors import find_authors
from tailer.core.turn.segments import are_grouped, split_stretches
from tailer.core.turn.turns import Turn, join_text


def show_answer(turn: Turn) -> str:
    """The answer. If several agents answered at the same time, each answer is under its agent's name."""
    response = turn.record.response
    if response is None or not are_grouped(response.parts):
        return turn.answer
    spoken = [
        (stretch, text) for stretch in split_stretches(response.parts) if (text := join_text(stretch.parts))
    ]
    groups = [stretch.group_id for stretch, _ in spoken if stretch.group_id is not None]
    if len(groups) == len(set(groups)):
        return turn.answer
    authors = find_authors(turn.record)
    seen: dict[str, int] = {}
    blocks = []
    for stretch, text in spoken:
        name = authors.name_of(stretch.agent_id) or authors.model_of(None) or "answer"
        seen[name] = seen.get(name, 0) + 1
        number = f" ({seen[name]})" if seen[name] > 1 else ""
        blocks.append(f"[{name}{number}]\n{text}")
    return "\n\n".join(blocks)
