"""Which certificates are trusted and presented on the way to a destination, and their renewal on disk.

Certificates that a machine renews are files that change while the daemon runs. They are checked before a request,
seldom, and loaded into the context of new connections.
"""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import certifi

from tailer.errors import DestinationError
from tailer.events import CertificateRenewed, CertificateUnusable, Emit
from tailer.paths import is_directory

_LOOK_SECONDS: Final = 5.0
_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """What the settings name: further authorities to trust, and the certificate and key that the destination asks for.

    `settings` are the names of these three, for messages: those of Langfuse, unless another destination says so.
    """

    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    settings: tuple[str, str, str] = (
        "TAILER_LANGFUSE_CA_FILE",
        "TAILER_LANGFUSE_CERT_FILE",
        "TAILER_LANGFUSE_KEY_FILE",
    )


class Certificates:
    """The TLS context of one connection; raises DestinationError at the start for a file that is missing or
    unusable."""

    def __init__(
        self,
        files: CertificateFiles,
        environment: Mapping[str, str],
        emit: Emit,
        monotonic: Callable[[], float],
    ) -> None:
        self._files = files
        self._emit = emit
        self._monotonic = monotonic
        self._looked_at = monotonic()
        self.context = _trust_usual(environment)
        self._named: dict[Path, str] = {}
        paths = (files.authorities, files.certificate, files.key)
        for path, setting in zip(paths, files.settings, strict=True):
            if path is not None:
                self._named[path] = setting
        usual = environment.get("SSL_CERT_FILE")
        self._usual = Path(usual) if usual else None
        if self._usual is not None:
            self._named.setdefault(self._usual, "SSL_CERT_FILE")
        problem = self._load()
        if problem is not None:
            raise _refuse(*problem)
        self._stamps = self._read_stamps()
        self._is_unusable = False

    def renew(self) -> None:
        """Load files that have changed, at most every five seconds; unusable ones are reported once."""
        now = self._monotonic()
        if not self._named or now < self._looked_at + _LOOK_SECONDS:
            return
        self._looked_at = now
        stamps = self._read_stamps()
        if stamps == self._stamps:
            return
        problem = self._load()
        if problem is None:
            changed = [str(path) for path in self._named if stamps[path] != self._stamps[path]]
            self._stamps, self._is_unusable = stamps, False
            self._emit(CertificateRenewed(", ".join(changed)))
        elif not self._is_unusable:
            # Often half of a renewal: the certificate is there, its key not yet. It is tried again.
            self._is_unusable = True
            self._emit(CertificateUnusable(*problem))

    def _load(self) -> tuple[str, str] | None:
        """Load every file; returns the setting and path of the first unusable one, and the reason."""
        files = self._files
        for path in (self._usual, files.authorities):
            if path is not None:
                problem = self._attempt(path, lambda path=path: self.context.load_verify_locations(path))  # type: ignore[misc]
                if problem is not None:
                    return problem
        certificate, key = files.certificate, files.key
        if certificate is not None:
            return self._attempt(certificate, lambda: self.context.load_cert_chain(certificate, key))
        return None

    def _attempt(self, path: Path, load: Callable[[], None]) -> tuple[str, str] | None:
        subject = f"{self._named.get(path, '')}={path}"
        try:
            load()
        except FileNotFoundError:
            return subject, "there is no such file"
        except ssl.SSLError as error:
            return subject, f"it holds nothing usable ({error.reason or 'no PEM'})"
        except OSError as error:
            return subject, f"it cannot be read ({error.strerror})"
        return None

    def _read_stamps(self) -> dict[Path, _Stamp | None]:
        return {path: _stamp_of(path) for path in self._named}


def _trust_usual(environment: Mapping[str, str]) -> ssl.SSLContext:
    """A context with the authorities that any program trusts: those that the environment names, else Mozilla's."""
    directory = environment.get("SSL_CERT_DIR")
    if environment.get("SSL_CERT_FILE"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    elif directory:
        try:
            is_there = is_directory(directory)
        except OSError as error:
            raise _refuse(f"SSL_CERT_DIR={directory}", f"it cannot be looked at ({error.strerror})") from None
        if not is_there:
            raise _refuse(f"SSL_CERT_DIR={directory}", "there is no such directory")
        context = ssl.create_default_context(capath=directory)
    else:
        context = ssl.create_default_context(cafile=certifi.where())
    # Python 3.13 and later would refuse what a simple authority of the house signs, because it does not identify its
    # key. curl, LibreChat's Node.js and PyMongo take it.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _stamp_of(path: Path) -> _Stamp | None:
    try:
        # Followed to where it leads: Kubernetes renews a mounted secret by turning a link.
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _refuse(subject: str, problem: str) -> DestinationError:
    return DestinationError(
        operation="reading certificates",
        subject=subject,
        hint=f"{problem}; mount it where the variable says, let the tailer's user read it, or remove the variable",
    )
