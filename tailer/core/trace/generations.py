"""A model call as a generation observation: model, exclusive token buckets, cost, and the source of each number."""

from collections.abc import Mapping

from tailer.core.identity import ObservationId
from tailer.core.light_dataclass import light_dataclass
from tailer.core.trace.observations import Level, Observation, ObservationType
from tailer.core.turn.calls import ModelCall, Tokens
from tailer.core.turn.costs import Cost
from tailer.core.turn.usage import NO_USAGE, Usage

_OUTPUT_ALONE = {"output"}


@light_dataclass(frozen=True, slots=True)
class Frame:
    """The place of an observation: its id, its parent and its times."""

    id: ObservationId
    parent_id: ObservationId | None
    name: str
    start_milliseconds: int
    end_milliseconds: int


def build_generation(
    frame: Frame,
    call: ModelCall | None,
    usage: Usage,
    *,
    model: str | None,
    input_: object = None,
    output: object = None,
    model_parameters: Mapping[str, object] | None = None,
    level: Level = Level.DEFAULT,
    status_message: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Observation:
    """The generation of one call, None if no row describes it; `model` is used if the call itself names none.

    If neither the cost nor the prompt's tokens of a model are known, the model stays in the metadata. Langfuse would
    count the text itself, or price the answer alone, and show its guess as if it had been reported.
    """
    if call is None:
        call, usage = NO_USAGE.calls[0], NO_USAGE
    details = _usage_details(call.tokens)
    cost = None if call.cost is None else _cost_details(call.cost)
    told = cost is not None or (details is not None and details.keys() != _OUTPUT_ALONE)
    name = call.model or model
    notes = {
        "usage_source": str(usage.usage_source_of(call)),
        "cost_source": str(usage.cost_source_of(call)),
    }
    if call.paired_by_order:
        notes["output_tokens"] = "paired by order"
    if call.billed_twice:
        notes["billed"] = "twice"
    if metadata is not None:
        notes.update(metadata)
    if not told and name is not None:
        notes["model"] = name
    return Observation(
        id=frame.id,
        parent_id=frame.parent_id,
        type=ObservationType.GENERATION,
        name=frame.name,
        start_milliseconds=frame.start_milliseconds,
        end_milliseconds=frame.end_milliseconds,
        level=level,
        status_message=status_message,
        input=input_,
        output=output,
        model=name if told else None,
        model_parameters=model_parameters or None,
        usage=details,
        cost=cost,
        metadata=notes,
    )


def _cost_details(cost: Cost) -> dict[str, float]:
    """The buckets that are known apart, by the names of the usage's, and always the total."""
    details: dict[str, float] = {}
    if cost.input is not None:
        details["input"] = cost.input
    if cost.cache_read is not None:
        details["input_cached_tokens"] = cost.cache_read
    if cost.cache_write is not None:
        details["input_cache_creation"] = cost.cache_write
    if cost.output is not None:
        details["output"] = cost.output
    details["total"] = cost.total
    return details


def _usage_details(tokens: Tokens | None) -> dict[str, int] | None:
    if tokens is None:
        return None
    details: dict[str, int] = {}
    if tokens.input is not None:
        details["input"] = tokens.input
    if tokens.cache_read:
        details["input_cached_tokens"] = tokens.cache_read
    if tokens.cache_write:
        details["input_cache_creation"] = tokens.cache_write
    if tokens.output is not None:
        details["output"] = tokens.output
    return details or None
