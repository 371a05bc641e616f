"""What happens to the daemon as a whole."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from tailer.events.base import Event


@dataclass(frozen=True, slots=True)
class Started(Event):
    """What this run watches, where it writes, and from which position it continues."""

    name: ClassVar[str] = "started"
    version: str
    watches: str
    writes_to: str
    state_database: str
    resumes_from: str
    http_port: int


@dataclass(frozen=True, slots=True)
class Listening(Event):
    """The HTTP server answers probes; `addresses` are hosts with the port."""

    name: ClassVar[str] = "listening"
    http_port: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SettingDoubted(Event):
    """A setting that is valid but may not be what was meant."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "setting_doubted"
    warning: str


@dataclass(frozen=True, slots=True)
class SendingDisabled(Event):
    """LANGFUSE_ENABLED is false: turns are read, counted and not sent."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "sending_disabled"


@dataclass(frozen=True, slots=True)
class Stopping(Event):
    """A signal asked for the end: reading has stopped, and what is open is being sent."""

    name: ClassVar[str] = "stopping"
    open_turns: int
    limit_seconds: float


@dataclass(frozen=True, slots=True)
class Drained(Event):
    """Stopping: everything open was sent, or the limit came first. What is open is read again after a start."""

    name: ClassVar[str] = "drained"
    complete: bool
    left_open: int


@dataclass(frozen=True, slots=True)
class Stopped(Event):
    """The run is over."""

    name: ClassVar[str] = "stopped"
    forced: bool


@dataclass(frozen=True, slots=True)
class TaskFailed(Event):
    """A task of the daemon ended with an unexpected error, and the daemon stops. `where` names code only."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "task_failed"
    error: str
    where: str


class SideTask(StrEnum):
    """What the side tasks look at, beside the daily work."""

    BEAT = "beat"
    OPLOG = "oplog"
    DEAD_LETTERS = "dead_letters"
    SHARDS = "shards"


@dataclass(frozen=True, slots=True)
class SideTaskFailed(Event):
    """A task that only watches met an unexpected error. It looks again on time, and the daemon continues."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "task_failed"
    task: SideTask
    error: str
    where: str


@dataclass(frozen=True, slots=True)
class DaemonFailed(Event):
    """The daemon ends by an error that an operator must mend: what was tried, on what, the remedy, and its exit
    code."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "daemon_failed"
    operation: str
    subject: str
    hint: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class CredentialsRenewed(Event):
    """MongoDB did not answer, and files that its URI names have changed since they were read: all connections are
    renewed."""

    level: ClassVar[str | None] = "warning"
    name: ClassVar[str] = "credentials_renewed"
    files: tuple[str, ...]
