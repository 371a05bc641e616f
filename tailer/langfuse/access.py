"""The way through whatever is before Langfuse: headers, certificates and proxies. All requests to Langfuse use it."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from tailer.events import Emit, Event
from tailer.outbound.certificates import CertificateFiles, Certificates


@dataclass(frozen=True, slots=True)
class Access:
    """The operator's settings for the way to Langfuse. Headers are secrets and appear in no representation."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: CertificateFiles = field(default_factory=CertificateFiles)


DIRECT = Access()


def unheard(event: Event) -> None:
    """For callers without a log, such as commands."""
    del event


def open_certificates(access: Access, emit: Emit = unheard) -> Certificates:
    """The certificates of an access; raises DestinationError, which names the variable, for an unusable file."""
    return Certificates(access.files, os.environ, emit, time.monotonic)
