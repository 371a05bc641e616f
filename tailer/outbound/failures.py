"""Requests without an answer: why, in words that lead to the setting, and whether anything was sent."""

import socket
import ssl
from dataclasses import dataclass
from typing import Final

import httpx

NOTHING_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.WriteError,
    httpx.WriteTimeout,
)
"""The failures after which the server cannot have the whole request; after every other one it may have."""


@dataclass(frozen=True, slots=True)
class SettingNames:
    """The settings that decide on a way: of the address, of the authorities, of the certificate that is shown."""

    address: str
    authorities: str
    certificate: str


LANGFUSE_SETTINGS: Final = SettingNames(
    "LANGFUSE_HOST", "TAILER_LANGFUSE_CA_FILE", "TAILER_LANGFUSE_CERT_FILE"
)


def describe_failure(error: httpx.RequestError, names: SettingNames = LANGFUSE_SETTINGS) -> str:
    """Why there was no answer, in words that lead to the setting; never a part of the request."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted ({cause.verify_message}): set {names.authorities}"
        if isinstance(cause, ssl.SSLError):
            return (
                f"the TLS handshake failed ({cause.reason or 'no reason given'}): https where the server speaks http, or "
                f"it asks for a certificate ({names.certificate})"
            )
        if isinstance(cause, socket.gaierror):
            return f"the name of the host, or of the proxy before it, is not known here: check {names.address} and DNS"
        if isinstance(cause, ConnectionRefusedError):
            return "the connection was refused: nothing listens there"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ProxyError):
        return "the proxy refused: check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY"
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time: a firewall, or an overloaded server"
    return type(error).__name__
