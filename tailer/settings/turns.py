"""The settings of turns: how long each kind waits, and how much of its text is sent."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, Field

from tailer.core.bounds import Bounds
from tailer.settings.source import Group, Setting
from tailer.settings.values import choice, duration, whole_number, words

_BOUNDS: Final = Bounds()
_DAY_SECONDS: Final = 86_400
_WEEK_SECONDS: Final = 7 * _DAY_SECONDS
_MONTH_SECONDS: Final = 30 * _DAY_SECONDS


class ContentPolicy(StrEnum):
    """How much of what people wrote is sent: everything, with personal data and keys masked, or no text."""

    FULL = "full"
    MASKED = "masked"
    NONE = "none"


class TurnSettings(BaseModel):
    """When a turn is done, and what of it becomes part of its trace."""

    settle_time: Annotated[timedelta, Setting(Group.TURNS, duration(0, 300), ("TAILER_SETTLE_SECONDS",))] = (
        Field(
            default=timedelta(seconds=3),
            description="How long a finished response must be quiet before it is read back and sent. 3: "
            "LibreChat saves a finished response and its transactions several times within 2 to 5 "
            "seconds.",
        )
    )
    park_after: Annotated[timedelta, Setting(Group.TURNS, duration(1, 3_600), ("TAILER_PARK_SECONDS",))] = (
        Field(
            default=timedelta(seconds=10),
            description="After this a waiting question is written to the state database, so that it does not "
            "hold the resume token. 10: most answers take less and cost no write, and a restart "
            "reads little again.",
        )
    )
    unanswered_after: Annotated[
        timedelta, Setting(Group.TURNS, duration(60, _WEEK_SECONDS), ("TAILER_UNANSWERED_SECONDS",))
    ] = Field(
        default=timedelta(minutes=30),
        description="After this a question without a response counts as unanswered. 1800: retries inside "
        "LibreChat can be silent for 100 seconds, and long agent runs store nothing before they end.",
    )
    unfinished_after: Annotated[
        timedelta, Setting(Group.TURNS, duration(60, _WEEK_SECONDS), ("TAILER_UNFINISHED_SECONDS",))
    ] = Field(
        default=timedelta(minutes=15),
        description="After this a response that was saved unfinished is sent as partial. 900: when a tab is "
        "closed LibreChat goes on generating and finishes the row later.",
    )
    approval_time: Annotated[
        timedelta, Setting(Group.TURNS, duration(60, _MONTH_SECONDS), ("TAILER_APPROVAL_SECONDS",))
    ] = Field(
        default=timedelta(days=1),
        description="How long a response may wait for a person to approve a tool. 86400: people answer the "
        "next day.",
    )
    open_turns: Annotated[int, Setting(Group.TURNS, whole_number(100, 1_000_000), ("TAILER_OPEN_TURNS",))] = (
        Field(
            default=20_000,
            description="Reading pauses while more turns than this are open. 20000: the oplog is the buffer, "
            "and memory stays small.",
        )
    )

    content: Annotated[ContentPolicy, Setting(Group.CONTENT, choice(ContentPolicy), ("TAILER_CONTENT",))] = (
        Field(
            default=ContentPolicy.FULL,
            description="How much text is sent: all, with personal data and keys masked, or none. Full, because "
            "a trace without its text shows little; it is the operator's to narrow.",
        )
    )
    tags: Annotated[tuple[str, ...], Setting(Group.CONTENT, words(200), ("TAILER_TAGS",))] = Field(
        default=("librechat",),
        description="Tags of every trace; a comma alone means none. librechat, to tell them from others in "
        "the project.",
    )
    history_bytes: Annotated[
        int,
        Setting(Group.CONTENT, whole_number(0, _BOUNDS.trace_bytes, unit="bytes"), ("TAILER_HISTORY_BYTES",)),
    ] = Field(
        default=_BOUNDS.history_bytes,
        description="How much of the conversation before the turn goes into its input. 64000: every turn "
        "repeats it, so a long conversation would grow with the square of its length.",
    )
    field_bytes: Annotated[
        int,
        Setting(
            Group.CONTENT, whole_number(1_000, _BOUNDS.trace_bytes, unit="bytes"), ("TAILER_FIELD_BYTES",)
        ),
    ] = Field(
        default=_BOUNDS.field_bytes,
        description="The most that one text may take; the rest is cut with a mark. 1000000: Langfuse drops "
        "an observation above 9.5 MB without a word.",
    )
