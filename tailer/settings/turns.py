"""The settings of turns: how long each kind waits for what is still missing."""

from datetime import timedelta
from typing import Annotated, Final

from pydantic import Field

from tailer.core.backfill import Start, StartMode
from tailer.settings.environment import Group, Setting
from tailer.settings.group import SettingsGroup
from tailer.settings.kinds import duration, number, start_point, whole_number

_DAY_SECONDS: Final = 86_400
_WEEK_SECONDS: Final = 7 * _DAY_SECONDS
_MONTH_SECONDS: Final = 30 * _DAY_SECONDS


class TurnSettings(SettingsGroup):
    """When a turn is complete, and how many may be open until then."""

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
            description="Once a question has waited this long, it is written to the state database, so that "
            "it does not hold back the resume token. 10: most answers take less and cost no "
            "write, and little is read again after a restart.",
        )
    )
    unanswered_after: Annotated[
        timedelta, Setting(Group.TURNS, duration(1, _WEEK_SECONDS), ("TAILER_UNANSWERED_SECONDS",))
    ] = Field(
        default=timedelta(minutes=30),
        description="Once a question has waited this long for a response, it counts as unanswered. 1800: "
        "retries inside LibreChat can be silent for 100 seconds, and long agent runs store "
        "nothing before they end.",
    )
    unfinished_after: Annotated[
        timedelta, Setting(Group.TURNS, duration(1, _WEEK_SECONDS), ("TAILER_UNFINISHED_SECONDS",))
    ] = Field(
        default=timedelta(minutes=15),
        description="Once a response has been stored unfinished for this long, it is sent as partial. "
        "900: after a tab is closed, LibreChat continues and finishes the row later.",
    )
    approval_time: Annotated[
        timedelta, Setting(Group.TURNS, duration(1, _MONTH_SECONDS), ("TAILER_APPROVAL_SECONDS",))
    ] = Field(
        default=timedelta(days=1),
        description="How long a response may wait for a person to approve a tool. 86400: people answer the "
        "next day.",
    )
    start: Annotated[Start, Setting(Group.TURNS, start_point(), ("TAILER_START",))] = Field(
        default=Start(StartMode.NOW),
        description="Where the very first start begins; later starts continue from the checkpoint. Now: a "
        "first try sends nothing old. With `all` or a time, older turns are filled in from "
        "the collections while the streams run.",
    )
    backfill_rate: Annotated[
        float, Setting(Group.TURNS, number(0.1, 10_000, unit="turns a second"), ("TAILER_BACKFILL_RATE",))
    ] = Field(
        default=100.0,
        description="The most turns per second that a backfill reads. 100: a million turns take three "
        "hours, and a server hardly notices.",
    )
    open_turns: Annotated[int, Setting(Group.TURNS, whole_number(100, 1_000_000), ("TAILER_OPEN_TURNS",))] = (
        Field(
            default=5_000,
            description="Reading pauses while more turns than this are open. 5000: the oplog is the buffer, "
            "and memory stays small.",
        )
    )
