"""Requests without an answer: why, in words that lead to the setting, and whether anything was sent."""

import socket
import ssl
from dataclasses import dataclass
from typing import Final

import httpx

from tailer.flow.sending.outcomes import RequestResult, Retry, Unknown
from tailer.outbound.client import SendingDoubted

_NOTHING_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.WriteError,
    httpx.WriteTimeout,
)
"""The failures after which the server cannot have the whole request; after every other one it may have."""
PROXY_REMEDY: Final = (
    "the proxy asks for a user and a password, or does not accept them: write them into HTTPS_PROXY, HTTP_PROXY or "
    "ALL_PROXY (http://user:password@proxy:3128, other characters as %XX), or name the host in NO_PROXY"
)
"""What to do about HTTP 407, which only a proxy of our own side answers."""


@dataclass(frozen=True, slots=True)
class SettingNames:
    """The settings that decide on a way: of the address, of the authorities, of the certificate that is shown."""

    address: str
    authorities: str
    certificate: str


LANGFUSE_SETTINGS: Final = SettingNames(
    "LANGFUSE_HOST", "TAILER_LANGFUSE_CA_FILE", "TAILER_LANGFUSE_CERT_FILE"
)


def judge_failure(error: httpx.RequestError, names: SettingNames = LANGFUSE_SETTINGS) -> Retry | Unknown:
    """What a request without an answer says of what was sent. Unknown covers every case in which the server may have
    it."""
    if isinstance(error, SendingDoubted):
        return Retry("lease in doubt", result=RequestResult.WITHHELD)
    remedy = describe_failure(error, names)
    if isinstance(error, _NOTHING_SENT):
        return Retry("connection", result=RequestResult.CONNECTION, remedy=remedy)
    is_late = isinstance(error, httpx.TimeoutException)
    result = RequestResult.TIMEOUT if is_late else RequestResult.CONNECTION
    return Unknown(type(error).__name__, result, remedy=remedy)


def describe_failure(error: httpx.RequestError, names: SettingNames = LANGFUSE_SETTINGS) -> str:
    """Why there was no answer, in words that lead to the setting; never a part of the request."""
    cause: BaseException | None = error
    while cause is not None:
        described = _describe_cause(cause, names)
        if described is not None:
            return described
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ProxyError):
        # A proxy's answer to CONNECT, which httpcore puts into words with its status in front.
        if str(error).startswith("407"):
            return PROXY_REMEDY
        return "the proxy refused: check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY"
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time: a firewall, or an overloaded server"
    if isinstance(error, SendingDoubted):
        return "the lease is in doubt"
    if isinstance(error, httpx.DecodingError):
        return "the answer is not packed as it says"
    return "the connection broke: a proxy, a firewall, or a server that restarts"


def _describe_cause(cause: BaseException, names: SettingNames) -> str | None:
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
        return "the connection was refused: nothing listens there, or at the proxy before it"
    return None
