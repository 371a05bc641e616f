"""The way to one Langfuse project, and the proof at the start that the keys are good."""

from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Self

import httpx
from langfuse.api import AsyncLangfuseAPI

from tailer.errors import DestinationError
from tailer.events import Emit
from tailer.flow.ports import UNCONDITIONAL, Permit
from tailer.langfuse.access import DIRECT, Access, open_certificates, open_client, unheard
from tailer.langfuse.answers import NO_LANGFUSE_REMEDY, PASSING, Meaning, describe_failure, understand

_HARMLESS_METHODS = frozenset({"GET", "HEAD"})
_FIRST_BYTES = ("send_request_headers.started", "send_request_body.started")
"""httpcore's names for the moments right before it writes. A request whose body it has not begun to write is lost as a
whole."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The address of a project and its key pair; no representation shows the secret."""

    host: str
    public_key: str
    secret_key: str

    def __repr__(self) -> str:
        """Host and public key."""
        return f"Credentials(host={self.host!r}, public_key={self.public_key!r})"


@dataclass(frozen=True, slots=True)
class Proven:
    """The keys are good; `project` is the project to which they belong, if the server names it."""

    project: str | None


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Nothing answers, or an answer says that the server is unwell. It may be better later. `detail` says more."""

    reason: str
    detail: str = field(default="", compare=False)


class SendingDoubted(httpx.RequestError):
    """The right to send came into doubt while the connection was being opened: nothing of the request was sent."""


class LangfuseConnection:
    """One HTTP client and the langfuse package's API over it.

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
        self._permit = permit
        self.certificates = open_certificates(access, emit)
        self._http = open_client(
            credentials.host,
            self.certificates,
            timeout=request_timeout,
            connections=connections + 4,
            headers=access.headers,
            auth=(credentials.public_key, credentials.secret_key),
        )
        self._http.event_hooks["request"].append(self._ask_permit)
        self._api = AsyncLangfuseAPI(
            base_url=credentials.host,
            username=credentials.public_key,
            password=credentials.secret_key,
            httpx_client=self._http,
        )

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
        """The HTTP client, for what the langfuse package cannot do: posting spans."""
        return self._http

    @property
    def api(self) -> AsyncLangfuseAPI:
        """The langfuse package's client, without retries of its own."""
        return self._api

    async def _ask_permit(self, request: httpx.Request) -> None:
        if request.method in _HARMLESS_METHODS:
            return
        await self._permit.wait()

        async def look_again(step: str, _: object) -> None:
            if step.endswith(_FIRST_BYTES) and not self._permit.holds():
                raise SendingDoubted("the lease is in doubt", request=request)

        request.extensions = {**request.extensions, "trace": look_again}

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
            projects = response.json()["data"]
            name = projects[0].get("name") if projects else None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self._refuse(f"HTTP {answer.status}: {NO_LANGFUSE_REMEDY}") from None
        # A later release may describe a project in another shape: the keys are good all the same.
        return Proven(name if isinstance(name, str) else None)

    def _refuse(self, hint: str) -> DestinationError:
        return DestinationError(operation="logging in to Langfuse", subject=self.credentials.host, hint=hint)
