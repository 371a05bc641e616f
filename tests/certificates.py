"""Authorities and certificates for a server on 127.0.0.1, made with the `openssl` command."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Authority:
    """`authority` is its own certificate, `server` certificate and key of a server, in one file each."""

    authority: Path
    server: Path


def make_authority(directory: Path, name: str) -> Authority:
    """A new authority, and a certificate that it gave to 127.0.0.1."""
    key, authority, request = (directory / f"{name}.{kind}" for kind in ("key", "ca.pem", "csr"))
    server_key, certificate, extension = (
        directory / f"{name}.{kind}" for kind in ("server.key", "crt", "ext")
    )
    extension.write_text("subjectAltName=IP:127.0.0.1\n")
    _run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", key, "-out", authority)  # fmt: skip
    _run("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1/O=server", "-keyout", server_key, "-out", request)  # fmt: skip
    _run("x509", "-req", "-days", "2", "-in", request, "-CA", authority, "-CAkey", key, "-CAcreateserial", "-extfile", extension, "-out", certificate)  # fmt: skip
    server = directory / f"{name}.server.pem"
    server.write_bytes(certificate.read_bytes() + server_key.read_bytes())
    return Authority(authority, server)


def _run(*arguments: str | Path) -> None:
    command = shutil.which("openssl")
    assert command is not None, "the openssl command is needed to make certificates"
    subprocess.run([command, *map(str, arguments)], check=True, capture_output=True)
