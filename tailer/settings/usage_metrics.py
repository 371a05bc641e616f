"""The settings of the metrics that tell what the models were used for."""

from typing import Annotated

from pydantic import BaseModel, Field

from tailer.settings.environment import Group, Setting
from tailer.settings.kinds import switch, whole_number


class UsageMetricSettings(BaseModel):
    """Whether there are such metrics, and how many values their labels may have."""

    usage_metrics: Annotated[bool, Setting(Group.OPERATION, switch(), ("TAILER_USAGE_METRICS",))] = Field(
        default=False,
        description="Whether /metrics also counts turns, tokens, cost and tool calls by endpoint, model and tool. "
        "False: Langfuse has all of it with more detail, and whoever reaches the port reads it without a log-in.",
    )
    usage_label_values: Annotated[
        int, Setting(Group.OPERATION, whole_number(1, 1_000), ("TAILER_USAGE_LABEL_VALUES",))
    ] = Field(
        default=50,
        description="How many endpoints, models and tools the usage metrics tell apart, each; what comes later is "
        "counted as other. 50: more than most teams use, and few enough for any Prometheus.",
    )
