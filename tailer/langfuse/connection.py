"""The way to one Langfuse project, and the proof at the start that the keys are good."""

from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

import httpx

from tailer.errors import DestinationError
from tailer.events import Emit
from tailer.flow.ports import UNCONDITIONAL, Permit
from tailer.langfuse.access import DIRECT, Access, open_certificates, unheard
from tailer.langfuse.answers import NO_LANGFUSE_REMEDY, PASSING, Meaning, understand
from tailer.outbound.client import hold_to_permit, open_client
from tailer.outbound.failures import describe_failure
from tailer.outbound.proof import Proven, Unreachable
from tailer.outbound.replies import read_json

__all__ = ["Credentials", "LangfuseConnection", "Proven", "Unreachable"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """The address of a project and its key pair; no representation shows the secret."""

    host: str
    public_key: str
    secret_key: str

    def __repr__(self) -> str:
        """Host and public key."""
        return f"Credentials(host={self.host!r}, public_key={self.public_key!r})"


class LangfuseConnection:
    """One HTTP client, which everything that is asked of Langfuse shares.

    Whatever changes something in Langfuse is sent only while `permit` holds: it is waited for before the request, and
    looked at again once the connection is there, because opening one can take long.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        request_timeout: timedelta,
        connections: int,
        permit: Permit = UNCONDITIONAL,
        access: Access = DIRECT,
        emit: Emit = unheard,
    ) -> None:
        self.credentials = credentials
        self.access = access
        self.certificates = open_certificates(access, emit)
        self._http = open_client(
            credentials.host,
            self.certificates,
            timeout=request_timeout,
            connections=connections + 4,
            headers=access.headers,
            auth=(credentials.public_key, credentials.secret_key),
        )
        hold_to_permit(self._http, permit)

    async def __aenter__(self) -> Self:
        """The connection itself; nothing is sent yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self._http.aclose()

    @property
    def http(self) -> httpx.AsyncClient:
        """The HTTP client, with address, keys and certificates."""
        return self._http

    async def prove(self) -> Proven | Unreachable:
        """Ask which project the keys belong to; raises DestinationError for bad keys and for a host that is not
        Langfuse."""
        try:
            response = await self._http.get("/api/public/projects")
        except httpx.RequestError as error:
            return Unreachable(type(error).__name__, describe_failure(error))
        answer = understand(response)
        if answer.meaning in PASSING:
            return Unreachable(answer.reason, answer.remedy)
        if answer.meaning in (Meaning.NOT_THERE, Meaning.INVALID):
            # Every Langfuse has this path.
            raise self._refuse(f"HTTP {answer.status}: {NO_LANGFUSE_REMEDY}")
        if answer.meaning is not Meaning.TAKEN:
            raise self._refuse(answer.explained)
        try:
            projects = read_json(response)["data"]
            name = projects[0].get("name") if projects else None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self._refuse(f"HTTP {answer.status}: {NO_LANGFUSE_REMEDY}") from None
        # A later release may describe a project in another shape: the keys are good all the same.
        return Proven(name if isinstance(name, str) else None)

    def _refuse(self, hint: str) -> DestinationError:
        return DestinationError(operation="logging in to Langfuse", subject=self.credentials.host, hint=hint)
