"""Certificates for tests, made by openssl: an authority, and what it signs."""

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


def _run(*arguments: str | Path) -> None:
    openssl = shutil.which("openssl")
    assert openssl is not None, "these tests need openssl"
    subprocess.run([openssl, *map(str, arguments)], check=True, capture_output=True)


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate and its key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates for localhost; everything lies in `directory`."""

    directory: Path
    certificate: Path
    key: Path

    def sign(self, name: str) -> Signed:
        """A certificate for localhost, of a server or of a client."""
        key, request, certificate = (self.directory / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        names = self.directory / f"{name}.ext"
        names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        _run(
            *(
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                f"/CN={name}",
            ),
            *("-keyout", key, "-out", request),
        )
        _run(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial"),
            *("-days", "2", "-extfile", names, "-out", certificate),
        )
        return Signed(certificate, key)

    def serve(self, signed: Signed, *, ask_clients: bool = False) -> ssl.SSLContext:
        """A server's context with a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(signed.certificate, signed.key)
        if ask_clients:
            context.load_verify_locations(self.certificate)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def make_authority(directory: Path, name: str) -> Authority:
    """An authority of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    key, certificate = directory / f"{name}.key", directory / f"{name}.pem"
    _run(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
        *("-subj", f"/CN={name}", "-keyout", key, "-out", certificate),
    )
    return Authority(directory, certificate, key)
