"""The metrics of what the models were used for, which only an operator who asks for them gets."""

from typing import Final

from tailer.metrics import labels
from tailer.metrics.declaration import Kind, Label, Metric, Section

LLM_TURNS: Final = Metric(
    "tailer_llm_turns_total",
    Kind.COUNTER,
    "Turns acknowledged",
    (
        labels.ENDPOINT,
        labels.MODEL,
        labels.TURN_OUTCOME,
    ),
)
LLM_TOKENS: Final = Metric(
    "tailer_llm_tokens_total",
    Kind.COUNTER,
    "Tokens of acknowledged model calls, in Langfuse's exclusive buckets",
    (labels.ENDPOINT, labels.MODEL, labels.TOKEN_BUCKET),
)
LLM_COST: Final = Metric(
    "tailer_llm_cost_usd_total",
    Kind.COUNTER,
    "Cost of acknowledged model calls, in US dollars",
    (labels.ENDPOINT, labels.MODEL, labels.COST_SOURCE),
)
LLM_TOOL_CALLS: Final = Metric(
    "tailer_llm_tool_calls_total",
    Kind.COUNTER,
    "Tool calls of acknowledged turns",
    (
        labels.TOOL,
        Label("outcome", "", ("ok", "error")),
    ),
)
LABEL_OVERFLOW: Final = Metric(
    "tailer_label_overflow_total",
    Kind.COUNTER,
    "Counts that went to other, because the label already had all the values it may have",
    (Label("label", "", ("endpoint", "model", "tool")),),
)

USAGE: Final = Section(
    "What the models were used for (TAILER_USAGE_METRICS)",
    (LLM_TURNS, LLM_TOKENS, LLM_COST, LLM_TOOL_CALLS, LABEL_OVERFLOW),
)
