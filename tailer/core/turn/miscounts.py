"""What releases of LibreChat are known to charge otherwise than the provider counted.

Which amounts are wrong depends on the release, as its rows show it, and on the provider of the model.
"""

from collections.abc import Mapping, Sequence

from tailer.core.librechat.messages import Message
from tailer.core.librechat.transactions import Transaction
from tailer.core.turn.calls import ModelCall, names_agent

_INCLUSIVE_OF_NOTHING = frozenset({"anthropic", "bedrock"})
"""Providers whose `inputTokens` never held the cached tokens."""


def counts_cache_in_input(response: Message, own: Sequence[Transaction], provider: str) -> bool:
    """Until 0.8.5 `inputTokens` holds the cached tokens too, where the provider's own count does."""
    if response.says_temporary:
        return False
    return not _is_anthropic(own, provider) and provider not in _INCLUSIVE_OF_NOTHING


def counted_otherwise(
    response: Message, own: Sequence[Transaction], others: Mapping[str | None, str], *, cache_in_input: bool
) -> frozenset[str | None]:
    """The models for whose providers the contrary of `cache_in_input` is true."""
    return frozenset(
        [
            model
            for model, other in others.items()
            if counts_cache_in_input(response, own, other) != cache_in_input
        ]
    )


def _is_anthropic(own: Sequence[Transaction], provider: str) -> bool:
    """Anthropic itself. An agent that may not be read names no provider; its model's name then tells."""
    if provider != "agents":
        return provider == "anthropic"
    return any((entry.model or "").startswith("claude") for entry in own)


def _has_anthropic(own: Sequence[Transaction], provider: str) -> bool:
    """Whether some of the calls are Anthropic's, as that of one agent of several is."""
    if _is_anthropic(own, provider):
        return True
    models = {entry.model or "" for entry in own}
    return len(models) > 1 and any(model.startswith("claude") for model in models)


def counted_by_itself(response: Message, own: Sequence[Transaction], provider: str) -> bool:
    """Whether LibreChat's own count was charged: a newer release would have stored what the provider reported. The
    agents API stores no report, and charges what the provider told."""
    if not response.is_of_api and (response.sampling_decided or response.run_id is not None):
        return True
    return all(names_agent(entry.model) for entry in own) or miscounts(response, own, provider)


def miscounts(response: Message, own: Sequence[Transaction], provider: str) -> bool:
    """Whether a release is known to charge otherwise than the provider counts.

    Those before 0.7.9 (whose answers are text alone, as those of the agents API are still) count every plain prompt
    themselves; 0.7.9 to 0.8.5 double what Anthropic tells (in all amounts) and inflate Bedrock's output by its cache.
    0.8.6 charges cached tokens of Anthropic as plain ones too, and still Bedrock's as output; 0.8.7 would report.
    """
    structured = any(entry.input_tokens is not None for entry in own)
    if response.says_temporary:
        caches = provider == "bedrock" or _has_anthropic(own, provider)
        return structured and caches and not response.is_of_api
    if not response.parts and response.text and not response.is_of_api:
        return not structured
    return _has_anthropic(own, provider) or (provider == "bedrock" and structured)


def miscounts_model(
    response: Message, own: Sequence[Transaction], call: ModelCall, others: Mapping[str | None, str]
) -> bool:
    """As `miscounts`, of one call of another agent: by that agent's provider and what was charged for its model."""
    charged = [entry for entry in own if entry.model == call.model]
    return miscounts(response, charged, others[call.model])
