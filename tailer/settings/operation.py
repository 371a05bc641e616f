"""The settings of the process itself: lease, port, logs, status page, metrics of usage."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from tailer.core.policy.policies import TracesShown
from tailer.logs import LogFormat, LogLevel
from tailer.settings.environment import Group, Setting
from tailer.settings.group import SettingsGroup
from tailer.settings.kinds import UnfitValueError, choice, duration, pieces, quote, switch, text, whole_number

_NOT_IN_A_HOST = frozenset("/:@ ")


def _parse_host(name: str) -> str:
    if _NOT_IN_A_HOST.intersection(name):
        message = "only the name is needed, without scheme, port and path"
        raise ValueError(message)
    return name.lower().rstrip(".")


def _check_host(name: str) -> str:
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if set(bare) & set("/ []@"):
        raise UnfitValueError(problem=f"is {quote(name)}, which is no host name")
    try:
        # Where a name is looked up it is encoded so, and a name with an empty or a long part has no such form.
        bare.encode("idna")
    except UnicodeError:
        raise UnfitValueError(problem=f"is {quote(name)}, which is no host name") from None
    return bare


class OperationSettings(SettingsGroup):
    """How the process runs and shows itself, independent of what it sends."""

    lease_time: Annotated[
        timedelta, Setting(Group.OPERATION, duration(1, 120), ("TAILER_LEASE_SECONDS",))
    ] = Field(
        default=timedelta(seconds=8),
        description="How long the active instance may be silent before a standby takes over; a single "
        "instance also waits this long after a crash. 8: a killed instance is replaced within "
        "15 seconds, including the standby's look and its start, and three renewals may fail "
        "before that.",
    )
    http_host: Annotated[
        str,
        Setting(Group.OPERATION, text("a host name or an IP address", _check_host), ("TAILER_HTTP_HOST",)),
    ] = Field(
        default="localhost",
        description="Address for probes, metrics and the status page: `localhost` is 127.0.0.1 and ::1, "
        "`::` is every IPv4 and IPv6 address. Localhost, because the port has no log-in; the "
        "image sets `::`, because there all requests come from outside the container.",
    )
    http_port: Annotated[int, Setting(Group.OPERATION, whole_number(0, 65_535), ("TAILER_HTTP_PORT",))] = (
        Field(
            default=9464,
            description="Port for probes and metrics, 0 for any free one. 9464, the port that OpenTelemetry "
            "gave to Prometheus exporters.",
        )
    )
    log_format: Annotated[LogFormat, Setting(Group.OPERATION, choice(LogFormat), ("TAILER_LOG_FORMAT",))] = (
        Field(
            default=LogFormat.AUTO,
            description="Format of the log lines. Auto: text for a person at a terminal, JSON for programs "
            "that collect logs.",
        )
    )
    log_level: Annotated[LogLevel, Setting(Group.OPERATION, choice(LogLevel), ("TAILER_LOG_LEVEL",))] = Field(
        default=LogLevel.INFO,
        description="The lowest level that is logged. Info: starts, stops and changes, and nothing for "
        "each turn.",
    )
    status_page: Annotated[bool, Setting(Group.OPERATION, switch(), ("TAILER_STATUS_PAGE",))] = Field(
        default=True,
        description="Whether `/` shows how the daemon is doing, for people without Grafana. True: it "
        "shows no more than `/metrics` on the same port, and people want it most when they "
        "have prepared nothing.",
    )
    status_traces: Annotated[
        TracesShown, Setting(Group.OPERATION, choice(TracesShown), ("TAILER_STATUS_TRACES",))
    ] = Field(
        default=TracesShown.NONE,
        description="Whether the status page shows the last traces: none, their tree with durations, "
        "tokens and cost, or also the content that TAILER_CONTENT leaves. None, because "
        "whoever reaches the port sees the page, without a log-in.",
    )
    status_hosts: Annotated[
        tuple[str, ...],
        Setting(
            Group.OPERATION,
            pieces("host names with commas between them, such as tailer.example.com", _parse_host),
            ("TAILER_STATUS_HOSTS",),
        ),
    ] = Field(
        default=(),
        description="Host names that browsers may use for the status page behind an ingress or a proxy; "
        "addresses, localhost, names without a dot and those of a Kubernetes cluster are "
        "always allowed. None, so that no web page can read it under a name of its own (DNS "
        "rebinding).",
    )
    usage_metrics: Annotated[bool, Setting(Group.OPERATION, switch(), ("TAILER_USAGE_METRICS",))] = Field(
        default=False,
        description="Whether /metrics also counts turns, tokens, cost and tool calls by endpoint, model and tool. "
        "False: Langfuse has all of it with more detail, and whoever reaches the port reads it without a log-in.",
    )
    usage_label_values: Annotated[
        int, Setting(Group.OPERATION, whole_number(1, 1_000), ("TAILER_USAGE_LABEL_VALUES",))
    ] = Field(
        default=50,
        description="How many endpoints, models and tools the usage metrics distinguish, each; further "
        "ones count as other. 50: more than most teams use, and few enough for any "
        "Prometheus.",
    )

    @field_validator("log_level")
    @classmethod
    def _follow_debug(cls, level: LogLevel, info: ValidationInfo) -> LogLevel:
        return LogLevel.DEBUG if info.data.get("langfuse_debug") else level
