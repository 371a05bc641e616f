"""The settings of delivery and operation: where traces go, how, and how the daemon is watched."""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from tailer.logs import LogFormat, LogLevel
from tailer.settings.environment import Group, Setting
from tailer.settings.kinds import UnfitValueError, choice, duration, quote, text, whole_number


class SinkChoice(StrEnum):
    """Where traces go."""

    LANGFUSE = "langfuse"
    FILE = "file"


def _check_host(name: str) -> str:
    if "/" in name or " " in name:
        raise UnfitValueError(problem=f"is {quote(name)}, which is no host name")
    return name


def _choose_sink(validated: dict[str, Any]) -> SinkChoice:
    keys = (validated.get("langfuse_public_key"), validated.get("langfuse_secret_key"))
    return SinkChoice.FILE if None in keys else SinkChoice.LANGFUSE


class DeliverySettings(BaseModel):
    """Sink, batches, limits of time, and what the outside sees of the daemon."""

    sink: Annotated[
        SinkChoice,
        Setting(
            Group.DELIVERY,
            choice(SinkChoice),
            ("TAILER_SINK",),
            fallback="langfuse with both keys, else file",
        ),
    ] = Field(
        default_factory=_choose_sink,
        description="Where traces go. Langfuse as soon as both keys are there, so that a first try needs "
        "none.",
    )
    file_path: Annotated[Path, Setting(Group.DELIVERY, text("the path of a file"), ("TAILER_FILE_PATH",))] = (
        Field(
            default=Path("traces.jsonl"),
            description="File of the file sink, a line a trace. In the working directory, where it is easily "
            "found.",
        )
    )
    batch_traces: Annotated[
        int, Setting(Group.DELIVERY, whole_number(1, 10_000), ("TAILER_BATCH_TRACES",))
    ] = Field(
        default=128,
        description="The most traces in one request. 128: more saves nothing, and one bad span holds up "
        "them all.",
    )
    batch_bytes: Annotated[
        int,
        Setting(Group.DELIVERY, whole_number(10_000, 16_000_000, unit="bytes"), ("TAILER_BATCH_BYTES",)),
    ] = Field(
        default=1_500_000,
        description="The most bytes in one request before compression; a larger trace goes alone. 1500000: "
        "chats compress to about a third, and ingress-nginx refuses bodies above 1 MiB unless "
        "told otherwise.",
    )
    concurrent_requests: Annotated[
        int, Setting(Group.DELIVERY, whole_number(1, 16), ("TAILER_CONCURRENT_REQUESTS",))
    ] = Field(
        default=4,
        description="Requests to Langfuse under way at a time. 4: hides the way there and back without "
        "crowding a small server.",
    )
    request_timeout: Annotated[
        timedelta, Setting(Group.DELIVERY, duration(1, 300), ("TAILER_REQUEST_TIMEOUT_SECONDS",))
    ] = Field(
        default=timedelta(seconds=10),
        description="After this the outcome of a request is unknown. 10: far above a healthy answer, and "
        "two fit into the shutdown limit.",
    )
    lookup_time: Annotated[
        timedelta, Setting(Group.DELIVERY, duration(0, 3_600), ("TAILER_LOOKUP_SECONDS",))
    ] = Field(
        default=timedelta(seconds=30),
        description="How long a batch of unknown outcome is looked for in Langfuse before the same bytes go "
        "again, counted while Langfuse answers. 30: it stores what it accepted through a queue.",
    )
    checkpoint_interval: Annotated[
        timedelta, Setting(Group.DELIVERY, duration(0.05, 300), ("TAILER_CHECKPOINT_SECONDS",))
    ] = Field(
        default=timedelta(seconds=1),
        description="How often the position is stored. 1: one small write, and a crash reads one second "
        "again.",
    )
    shutdown_time: Annotated[
        timedelta, Setting(Group.DELIVERY, duration(0, 3_600), ("TAILER_SHUTDOWN_SECONDS",))
    ] = Field(
        default=timedelta(seconds=25),
        description="The longest that SIGTERM waits for open requests. 25: below the 30 seconds after which "
        "Kubernetes kills; docker stop waits 10 unless told otherwise.",
    )
    export_record_lifetime: Annotated[
        timedelta,
        Setting(Group.DELIVERY, duration(1, 3_650, timedelta(days=1)), ("TAILER_EXPORT_RECORD_DAYS",)),
    ] = Field(
        default=timedelta(days=90),
        description="How long it is remembered what was sent. 90: far longer than an oplog "
        "reaches back, so nothing that can be read again is sent again.",
    )

    lease_time: Annotated[
        timedelta, Setting(Group.OPERATION, duration(1, 120), ("TAILER_LEASE_SECONDS",))
    ] = Field(
        default=timedelta(seconds=8),
        description="How long the active instance may be silent before a standby takes over; also what a single "
        "instance waits after a crash. 8: with the look of a standby and its start a killed instance is replaced "
        "within 15 seconds, and three renewals may fail before.",
    )
    http_host: Annotated[
        str,
        Setting(Group.OPERATION, text("a host name or an IP address", _check_host), ("TAILER_HTTP_HOST",)),
    ] = Field(
        default="0.0.0.0",  # noqa: S104 - probes and Prometheus come from outside the container
        description="Address for probes and metrics. All, because both come from outside the container.",
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
            description="Form of the log lines. Auto: text for the person at a terminal, JSON for what collects "
            "logs.",
        )
    )
    log_level: Annotated[LogLevel, Setting(Group.OPERATION, choice(LogLevel), ("TAILER_LOG_LEVEL",))] = Field(
        default=LogLevel.INFO,
        description="The least level that is logged. Info: starts, stops and what changes, nothing for each "
        "turn.",
    )

    @field_validator("sink")
    @classmethod
    def _check_sink(cls, sink: SinkChoice, info: ValidationInfo) -> SinkChoice:
        keys = ("langfuse_public_key", "langfuse_secret_key")
        if sink is SinkChoice.LANGFUSE and any(
            name in info.data and info.data[name] is None for name in keys
        ):
            raise UnfitValueError(
                "is langfuse, but the keys are not both set",
                "set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY, or TAILER_SINK=file",
            )
        return sink

    @field_validator("log_level")
    @classmethod
    def _follow_debug(cls, level: LogLevel, info: ValidationInfo) -> LogLevel:
        return LogLevel.DEBUG if info.data.get("langfuse_debug") else level
