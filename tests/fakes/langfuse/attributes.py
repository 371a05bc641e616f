"""The names Langfuse gives to span attributes and the values it knows for them."""

from __future__ import annotations

TRACE_NAME = "langfuse.trace.name"
TRACE_TAGS = "langfuse.trace.tags"
TRACE_PUBLIC = "langfuse.trace.public"
TRACE_METADATA_PREFIX = "langfuse.trace.metadata."
USER_ID = "user.id"
SESSION_ID = "session.id"
ENVIRONMENT = "langfuse.environment"
RELEASE = "langfuse.release"
VERSION = "langfuse.version"

TYPE = "langfuse.observation.type"
LEVEL = "langfuse.observation.level"
STATUS_MESSAGE = "langfuse.observation.status_message"
INPUT = "langfuse.observation.input"
OUTPUT = "langfuse.observation.output"
METADATA_PREFIX = "langfuse.observation.metadata."
MODEL = "langfuse.observation.model.name"
MODEL_PARAMETERS = "langfuse.observation.model.parameters"
USAGE_DETAILS = "langfuse.observation.usage_details"
COST_DETAILS = "langfuse.observation.cost_details"
COMPLETION_START_TIME = "langfuse.observation.completion_start_time"
PROMPT_NAME = "langfuse.observation.prompt.name"
PROMPT_VERSION = "langfuse.observation.prompt.version"
IS_APP_ROOT = "langfuse.internal.is_app_root"

METADATA_PREFIXES = (TRACE_METADATA_PREFIX, METADATA_PREFIX)
TEXT_ATTRIBUTES = frozenset(
    {
        TRACE_NAME, USER_ID, SESSION_ID, ENVIRONMENT, RELEASE, VERSION, TYPE, LEVEL, STATUS_MESSAGE, INPUT,
        OUTPUT, MODEL, MODEL_PARAMETERS, USAGE_DETAILS, COST_DETAILS, COMPLETION_START_TIME, PROMPT_NAME,
    }
)  # fmt: skip
BOOLEAN_ATTRIBUTES = frozenset({TRACE_PUBLIC, IS_APP_ROOT})
KNOWN_ATTRIBUTES = TEXT_ATTRIBUTES | BOOLEAN_ATTRIBUTES | {TRACE_TAGS, PROMPT_VERSION}
FORBIDDEN_ATTRIBUTES = frozenset({"langfuse.trace.input", "langfuse.trace.output"})

OBSERVATION_TYPES = frozenset(
    {
        "agent",
        "generation",
        "tool",
        "span",
        "event",
        "chain",
        "retriever",
        "embedding",
        "guardrail",
        "evaluator",
    }
)
LEVELS = frozenset({"DEBUG", "DEFAULT", "WARNING", "ERROR"})
USAGE_KEYS = frozenset(
    {
        "input", "output", "total", "input_cached_tokens", "input_cache_creation", "input_cache_creation_5m",
        "input_cache_creation_1h", "output_reasoning_tokens",
    }
)  # fmt: skip
