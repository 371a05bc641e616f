"""What happens to certificates on disk while the daemon runs."""

from dataclasses import dataclass
from typing import ClassVar

from tailer.events.base import Event


@dataclass(frozen=True, slots=True)
class CertificateRenewed(Event):
    """Files of certificates changed on disk; new connections use them."""

    name: ClassVar[str] = "certificate_renewed"
    files: str


@dataclass(frozen=True, slots=True)
class CertificateUnusable(Event):
    """A file of certificates changed into something that cannot be used; the former goes on being used."""

    level: ClassVar[str | None] = "error"
    name: ClassVar[str] = "certificate_unusable"
    file: str
    reason: str
