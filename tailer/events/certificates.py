"""What happens to certificates on disk while the daemon runs."""

from dataclasses import dataclass
from typing import ClassVar

from tailer.events.base import Event


@dataclass(frozen=True, slots=True)
class CertificateRenewed(Event):
    """Certificate files changed on disk; new connections use them."""

    name: ClassVar[str] = "certificate_renewed"
    files: str


@dataclass(frozen=True, slots=True)
class CertificateUnusable(Event):
    """A certificate file changed and is now unusable; the previous one remains in use."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "certificate_unusable"
    file: str
    reason: str
