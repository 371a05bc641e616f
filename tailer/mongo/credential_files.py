"""Files that the URIs name: certificates, keys and authorities. A driver reads them once, when its client is made.

Renewal (cert-manager, certbot, a mounted secret) replaces the file: existing connections continue, and new ones are
refused. So a client is made anew when it gets no answer and a file has changed.
"""

import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from tailer.settings.connection_options import given_options, uses_tls

_OPTIONS: Final = (
    "tlscafile", "tlscertificatekeyfile", "tlscrlfile", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_crlfile",
)  # fmt: skip


def named_files(uri: str) -> Mapping[str, Path]:
    """The files that a URI names, by option in lower case, or the authorities of this machine in their place."""
    given = given_options(uri)
    found = {option: Path(given[option]) for option in _OPTIONS if given.get(option)}
    store = os.environ.get("SSL_CERT_FILE")
    if store and uses_tls(uri) and not {"tlscafile", "ssl_ca_certs"} & found.keys():
        found["SSL_CERT_FILE"] = Path(store)
    return found


def unreadable_files(uri: str) -> list[str]:
    """Those that are unreadable now, each as `option=path (why)`."""
    found = []
    for option, path in named_files(uri).items():
        try:
            path.read_bytes()
        except OSError as error:
            found.append(f"{option}={path} ({type(error).__name__})")
    return found


class CredentialFiles:
    """The files of some URIs, and those that hold the URIs themselves, as they were when this object was made."""

    def __init__(self, uris: Iterable[str], *, holders: Iterable[Path] = ()) -> None:
        paths = {*holders, *(path for uri in uris for path in named_files(uri).values())}
        self._marks = {path: _mark(path) for path in sorted(paths)}

    def changed(self) -> list[Path]:
        """Those with other contents now. A file that is being replaced is briefly absent, and is waited for."""
        return [
            path for path, before in self._marks.items() if (now := _mark(path)) is not None and now != before
        ]


def _mark(path: Path) -> bytes | None:
    try:
        return sha256(path.read_bytes()).digest()
    except OSError:
        return None
