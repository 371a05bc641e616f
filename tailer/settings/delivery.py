"""The settings of delivery and operation: where traces go, how, and how the daemon is watched."""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from tailer.settings.environment import Group, Setting
from tailer.settings.group import SettingsGroup
from tailer.settings.kinds import UnfitValueError, choice, duration, text, whole_number
from tailer.settings.places import check_file


class SinkChoice(StrEnum):
    """Where traces go."""

    LANGFUSE = "langfuse"
    FILE = "file"


def _choose_sink(validated: dict[str, Any]) -> SinkChoice:
    keys = (validated.get("langfuse_public_key"), validated.get("langfuse_secret_key"))
    return SinkChoice.FILE if None in keys else SinkChoice.LANGFUSE


class DeliverySettings(SettingsGroup):
    """Sink, batches, limits of time, and what the outside sees of the daemon."""

    destinations_file: Annotated[
        Path | None,
        Setting(
            Group.DELIVERY,
            text("the path of a TOML file with destinations and routes", check_file),
            ("TAILER_DESTINATIONS",),
        ),
    ] = Field(
        default=None,
        description="File that names several destinations and the routes to them (docs/destinations.md); what it does "
        "not state is as the other settings say. None, because most need one destination, which the environment names "
        "by itself.",
    )
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
        description="Where traces go. Langfuse as soon as both keys are set, so that a first try needs none.",
    )
    file_path: Annotated[Path, Setting(Group.DELIVERY, text("the path of a file"), ("TAILER_FILE_PATH",))] = (
        Field(
            default=Path("traces.jsonl"),
            description="File of the file sink, one line per trace. In the working directory, where it is "
            "easy to find.",
        )
    )
    batch_traces: Annotated[
        int, Setting(Group.DELIVERY, whole_number(1, 10_000), ("TAILER_BATCH_TRACES",))
    ] = Field(
        default=128,
        description="The most traces in one request. 128: more saves nothing, and one bad span delays all "
        "of them.",
    )
    batch_bytes: Annotated[
        int,
        Setting(Group.DELIVERY, whole_number(10_000, 16_000_000, unit="bytes"), ("TAILER_BATCH_BYTES",)),
    ] = Field(
        default=1_500_000,
        description="The most bytes in one request before compression; a larger trace goes alone. 1500000: "
        "chats compress to about a third, and ingress-nginx refuses bodies above 1 MiB unless "
        "configured otherwise.",
    )
    concurrent_requests: Annotated[
        int, Setting(Group.DELIVERY, whole_number(1, 16), ("TAILER_CONCURRENT_REQUESTS",))
    ] = Field(
        default=4,
        description="The most requests to Langfuse at the same time. 4: hides the round trip without "
        "crowding a small server.",
    )
    request_timeout: Annotated[
        timedelta, Setting(Group.DELIVERY, duration(1, 300), ("TAILER_REQUEST_TIMEOUT_SECONDS",))
    ] = Field(
        default=timedelta(seconds=10),
        description="How long each step of a request may take: the way to Langfuse, what is sent, and the whole "
        "answer. Without the whole answer the outcome is unknown. 10: far above a healthy answer, and two fit into "
        "the shutdown limit.",
    )
    lookup_time: Annotated[
        timedelta, Setting(Group.DELIVERY, duration(0, 3_600), ("TAILER_LOOKUP_SECONDS",))
    ] = Field(
        default=timedelta(seconds=30),
        description="How long a batch of unknown outcome is looked up in Langfuse before the same bytes "
        "are sent again, counted while Langfuse answers. 30: Langfuse stores what it accepted "
        "through a queue.",
    )
    checkpoint_interval: Annotated[
        timedelta, Setting(Group.DELIVERY, duration(0.05, 300), ("TAILER_CHECKPOINT_SECONDS",))
    ] = Field(
        default=timedelta(seconds=4),
        description="After how long the position is stored by itself where no batch carried it. 4: while turns are sent "
        "each batch carries it, so that this costs nothing; and a crash reads four seconds again.",
    )
    shutdown_time: Annotated[
        timedelta, Setting(Group.DELIVERY, duration(0, 3_600), ("TAILER_SHUTDOWN_SECONDS",))
    ] = Field(
        default=timedelta(seconds=25),
        description="The longest that SIGTERM waits for open requests. 25: below the 30 seconds after "
        "which Kubernetes kills; docker stop waits 10 by default.",
    )
    export_record_lifetime: Annotated[
        timedelta,
        Setting(Group.DELIVERY, duration(1, 3_650, timedelta(days=1)), ("TAILER_EXPORT_RECORD_DAYS",)),
    ] = Field(
        default=timedelta(days=730),
        description="How long the tailer remembers what was sent, some 500 bytes a turn. 730: for two years an answer may be "
        "rated, edited or deleted, and that follows its trace. Later changes are left out, because nobody knows any more "
        "what was sent.",
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
