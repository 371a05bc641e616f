"""`gen_ai.provider.name`, by the convention's own names, from what LibreChat stores of where a model runs."""

import re
from typing import Final

UNKNOWN: Final = "unknown"
"""The provider of a call of which nothing tells one. The convention requires a value."""

_ENDPOINTS: Final = {
    "openai": "openai",
    "assistants": "openai",
    "azureopenai": "azure.ai.openai",
    "azureassistants": "azure.ai.openai",
    "anthropic": "anthropic",
    "bedrock": "aws.bedrock",
    "google": "gcp.gen_ai",
    "vertexai": "gcp.vertex_ai",
    # Names that people give to custom endpoints, as LibreChat's examples have them.
    "cohere": "cohere",
    "deepseek": "deepseek",
    "groq": "groq",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "moonshot": "moonshot_ai",
    "perplexity": "perplexity",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""LibreChat's endpoints (`EModelEndpoint`) and well-known custom ones, in small letters without other characters."""
_NEUTRAL: Final = frozenset({"agents"})
"""Endpoints that say nothing of the provider."""
_FAMILIES: Final = (
    (
        re.compile(r"(?:(?:us|eu|apac|global)\.)?(?:anthropic|amazon|meta|mistral|cohere|ai21|deepseek)\.\S"),
        "aws.bedrock",
    ),
    (re.compile(r"gpt-|chatgpt-|o[1-9](?:-|$)"), "openai"),
    (re.compile(r"claude-"), "anthropic"),
    (re.compile(r"gemini-"), "gcp.gen_ai"),
    (re.compile(r"(?:mistral|ministral|magistral|codestral|devstral|pixtral)-"), "mistral_ai"),
    (re.compile(r"deepseek-"), "deepseek"),
    (re.compile(r"grok-"), "x_ai"),
    (re.compile(r"command-"), "cohere"),
    (re.compile(r"sonar(?:-|$)"), "perplexity"),
)
"""Families of models that one provider makes. A guess: the same model may run elsewhere."""
_LONGEST_CHARACTERS: Final = 100


def find_provider(endpoint: str | None, of_agent: str | None, model: str | None) -> tuple[str, bool]:
    """The provider's name, and whether it is a guess by the name of the model. `of_agent` is the provider of a saved
    agent, which counts where the endpoint says nothing. A custom endpoint of another name keeps that name, which the
    convention allows."""
    named = of_agent if endpoint is None or endpoint in _NEUTRAL else endpoint
    plain = re.sub(r"[^a-z0-9]", "", (named or "").lower())
    if plain in _ENDPOINTS:
        return _ENDPOINTS[plain], False
    if named and named not in _NEUTRAL:
        return named[:_LONGEST_CHARACTERS], False
    for family, provider in _FAMILIES:
        if model is not None and family.match(model.lower()):
            return provider, True
    return UNKNOWN, False
