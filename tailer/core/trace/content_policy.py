"""How much of a turn's text is sent: all of it, masked, or none. Ids, numbers and times are always sent.

Fails closed: if a mask is not certain, the text is withheld, and the trace says so.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, assert_never

from tailer.core.json_text import encode_json
from tailer.core.masking.masker import Masker, MaskingError
from tailer.core.policy.policies import ContentChoice, Fact
from tailer.core.trace.observations import Level, Observation, ObservationType, Trace

MakeMasker: TypeAlias = Callable[[], Masker]
"""A fresh masker for each turn."""

_WRITTEN_METADATA = frozenset(
    {
        "agent_name",
        "conversation_tags",
        "conversation_title",
        "files",
        "model_spec",
        "reasoning",
        "sender",
        "skills",
    }
)
"""Metadata that people or models wrote; the name of an agent, a preset or a skill is such a text."""
_AGENT_ID = "agent_id"
_SAVED_AGENT = re.compile(r"(?:agent|asst)_[A-Za-z0-9_-]+")
_LABEL = re.compile(r"(?<!_)___(?!_\d+\Z)(.*?)(?=(?:____\d+)?\Z)", re.DOTALL)
"""The label of a preset in the id of an agent that is not saved, `endpoint__model___label____index`."""
_HAND_OFF = "lc_transfer_to_"
"""The beginning of a tool's name that ends in the name of an agent."""
ANY_HAND_OFF = _HAND_OFF.rstrip("_")
"""The name of such a tool without that of the agent."""
_WRITTEN_TAG = f"{Fact.TAG.value}:"
"""The beginning of a trace's tag that ends in a tag of the conversation, which its user wrote."""
_WITHHELD = "[content withheld: it could not be masked]"
_NO_CONTENT_STATUS = "the message is not shown by the content policy"


def is_hand_off(tool_name: str) -> bool:
    """Whether a tool hands over to an agent, whose name is in its own."""
    return tool_name.startswith(_HAND_OFF)


def show_content(trace: Trace) -> Trace:
    """Policy `full`: the trace as it is."""
    return trace


def drop_content(trace: Trace) -> Trace:
    """Policy `none`: no text; the number of characters is in the metadata."""
    return replace(
        trace,
        metadata=_without_written(trace.metadata),
        observations=tuple(_drop(observation) for observation in trace.observations),
    )


def mask_content(trace: Trace, masker: Masker) -> Trace:
    """Policy `masked`: every text goes through the masker. It knows those that an allowance took, which are masked
    before they are cut."""
    return replace(
        trace,
        metadata=_mask_written(trace.metadata, masker),
        observations=tuple(_mask(observation, masker) for observation in trace.observations),
    )


def mask_beginning(text: str, length: int, masker: Masker) -> str:
    """So many characters of a text under the policy `masked`, without a part of a value at their end."""
    try:
        return masker.mask_beginning(text, length)
    except MaskingError:
        return _WITHHELD


def show_trace(trace: Trace, choice: ContentChoice, masker: Masker | None) -> Trace:
    """A trace under a choice of content; without a masker nothing of one that is to be masked is shown."""
    match choice:
        case ContentChoice.FULL:
            return show_content(trace)
        case ContentChoice.MASKED:
            return mask_content(trace, masker) if masker is not None else drop_content(trace)
        case ContentChoice.NONE:
            return drop_content(trace)
        case _:
            assert_never(choice)


def show_tags(tags: Sequence[str], choice: ContentChoice, make_masker: MakeMasker | None) -> tuple[str, ...]:
    """Tags under a choice of content: those of a conversation are texts of its user."""
    if choice is ContentChoice.FULL or not any(tag.startswith(_WRITTEN_TAG) for tag in tags):
        return tuple(dict.fromkeys(tags))
    if choice is ContentChoice.NONE or make_masker is None:
        return tuple(dict.fromkeys([tag for tag in tags if not tag.startswith(_WRITTEN_TAG)]))
    masker = make_masker()
    return tuple(dict.fromkeys([_mask_tag(tag, masker) for tag in tags]))


def _drop(observation: Observation) -> Observation:
    sizes = {
        f"{name}_characters": str(_characters(value))
        for name, value in (("input", observation.input), ("output", observation.output))
        if value is not None
    }
    failed = observation.level is Level.ERROR and observation.status_message is not None
    return replace(
        observation,
        name=_without_name(observation),
        input=None,
        output=None,
        model_parameters=_without_text(observation.model_parameters),
        status_message=_NO_CONTENT_STATUS if failed else observation.status_message,
        metadata={**_without_written(observation.metadata), **sizes},
    )


def _mask(observation: Observation, masker: Masker) -> Observation:
    status, parameters = observation.status_message, observation.model_parameters
    masked_parameters = _masked(parameters, masker)
    return replace(
        observation,
        name=str(_masked(observation.name, masker)) if _is_named_by_people(observation) else observation.name,
        input=_masked(observation.input, masker),
        output=_masked(observation.output, masker),
        model_parameters=masked_parameters if isinstance(masked_parameters, dict) else None,
        status_message=None if status is None else str(_masked(status, masker)),
        metadata=_mask_written(observation.metadata, masker),
    )


def _is_named_by_people(observation: Observation) -> bool:
    """Whether an observation is named after an agent; every other one after a model, a tool or what it is."""
    return observation.type is ObservationType.AGENT or is_hand_off(observation.name)


def _without_name(observation: Observation) -> str:
    if not _is_named_by_people(observation):
        return observation.name
    if observation.type is not ObservationType.AGENT:
        return ANY_HAND_OFF
    return "turn" if observation.parent_id is None else "agent"


def _mask_tag(tag: str, masker: Masker) -> str:
    if not tag.startswith(_WRITTEN_TAG):
        return tag
    return f"{_WRITTEN_TAG}{_masked(tag.removeprefix(_WRITTEN_TAG), masker)}"


def _masked(value: object, masker: Masker) -> object:
    if value is None:
        return None
    try:
        return masker.mask_value(value)
    except MaskingError:
        return _WITHHELD


def _mask_written(metadata: Mapping[str, str], masker: Masker) -> dict[str, str]:
    masked = {
        name: str(_masked(value, masker)) if name in _WRITTEN_METADATA else value
        for name, value in metadata.items()
    }
    agent_id = masked.get(_AGENT_ID)
    if agent_id is not None:
        masked[_AGENT_ID] = _show_agent_id(agent_id, lambda text: str(_masked(text, masker)))
    return masked


def _without_written(metadata: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in metadata.items() if name not in _WRITTEN_METADATA}
    agent_id = kept.get(_AGENT_ID)
    if agent_id is not None:
        kept[_AGENT_ID] = _show_agent_id(agent_id, lambda _: "")
        if not kept[_AGENT_ID]:
            del kept[_AGENT_ID]
    return kept


def _show_agent_id(agent_id: str, show_text: Callable[[str], str]) -> str:
    """An agent's id with what people and models wrote of it as `show_text` shows it: a preset's label, or all of what a
    model gave as the id of a sub-agent."""
    if _SAVED_AGENT.fullmatch(agent_id):
        return agent_id
    if "__" not in agent_id:
        return show_text(agent_id)
    return _LABEL.sub(lambda found: f"___{shown}" if (shown := show_text(found[1])) else "", agent_id)


def _without_text(parameters: Mapping[str, object] | None) -> Mapping[str, object] | None:
    """Only numbers and switches, because people write stop sequences and the parameters of agents as text."""
    kept = {
        name: value for name, value in (parameters or {}).items() if isinstance(value, bool | int | float)
    }
    return kept or None


def _characters(value: object) -> int:
    return len(value) if isinstance(value, str) else len(encode_json(value))
