"""The errors that the tailer raises, each with what was tried, on what, and the remedy.

TailerError
├── SettingsError      a setting is missing, malformed or contradicts another (exit 2)
├── RequestRefused     what a command was asked for cannot be had (exit 1)
├── SourceError        MongoDB cannot be tailed as it is configured (exit 3)
│   └── SourceAway     no server answers; it may come back
├── DestinationError   Langfuse, or the trace file, refuses us (exit 4)
├── StateError         the state database cannot be used (exit 5)
│   └── LeaseLost      another instance is the active one now; this one stands by
└── SoftwareError      a task ended that must not end (exit 70)
"""

from typing import ClassVar


class TailerError(Exception):
    """Something the caller cannot handle; the message names operation, subject and remedy."""

    exit_code: ClassVar[int] = 1

    def __init__(self, *, operation: str, subject: str, hint: str) -> None:
        super().__init__(f"{operation} failed for {subject}: {hint}")
        self.operation = operation
        self.subject = subject
        self.hint = hint


class SettingsError(TailerError):
    """A setting is missing, malformed or contradicts another."""

    exit_code: ClassVar[int] = 2


class RequestRefused(TailerError):
    """A command's request cannot be fulfilled; nothing was changed."""

    exit_code: ClassVar[int] = 1


class SourceError(TailerError):
    """MongoDB cannot be tailed as it is configured: standalone, no privilege, wrong address."""

    exit_code: ClassVar[int] = 3


class SourceAway(SourceError):
    """No server answers; it may come back."""


class DestinationError(TailerError):
    """Langfuse refuses the keys or is not where the settings say; or the trace file is unusable."""

    exit_code: ClassVar[int] = 4


class StateError(TailerError):
    """The state database cannot be used."""

    exit_code: ClassVar[int] = 5


class LeaseLost(StateError):
    """Another instance holds the lease: nothing that this one still does may count."""

    def __init__(self, *, subject: str, epoch: int) -> None:
        super().__init__(
            operation="writing the state",
            subject=f"state database {subject}, epoch {epoch}",
            hint="another instance on the same state database is the active one now; this one goes on when that one "
            "ends. Two LibreChats need a TAILER_STATE_DATABASE each",
        )
        self.epoch = epoch


class SoftwareError(TailerError):
    """A long-lived task ended although nothing asked it to."""

    exit_code: ClassVar[int] = 70
