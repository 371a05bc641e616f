"""The way to one Langfuse project, and the proof at the start that the keys are good."""

from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

import httpx
from langfuse.api import AsyncLangfuseAPI
from langfuse.api.core.api_error import ApiError
from pydantic import ValidationError

from tailer.errors import DestinationError
from tailer.flow.ports import UNCONDITIONAL, Permit

_KEEP_ALIVE_SECONDS = 3.0
"""Less than the five seconds after which a Node server closes an idle connection: a request sent into that moment
would have an unknown outcome."""


_HARMLESS_METHODS = frozenset({"GET", "HEAD"})
_FIRST_BYTES = ("send_request_headers.started", "send_request_body.started")
"""httpcore's names for the moments right before it writes: the whole of a request that it writes no body of is lost."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where a project is and its key pair; the secret shows in no representation."""

    host: str
    public_key: str
    secret_key: str

    def __repr__(self) -> str:
        """Host and public key only."""
        return f"Credentials(host={self.host!r}, public_key={self.public_key!r})"


@dataclass(frozen=True, slots=True)
class Proven:
    """The keys are good; the project they belong to, where the server names it."""

    project: str | None


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Nothing answers, or an answer says that the server is not well: it may be better later."""

    reason: str


class SendingDoubted(httpx.RequestError):
    """The right to send came into doubt while the connection was opened: the request was not sent as a whole."""


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
    ) -> None:
        self.credentials = credentials
        self._permit = permit
        self._http = httpx.AsyncClient(
            base_url=credentials.host,
            auth=(credentials.public_key, credentials.secret_key),
            timeout=request_timeout.total_seconds(),
            limits=httpx.Limits(max_connections=connections + 4, keepalive_expiry=_KEEP_ALIVE_SECONDS),
            follow_redirects=False,
            event_hooks={"request": [self._ask_permit]},
        )
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
        """For what the langfuse package cannot do: posting spans."""
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
        """Ask which project the keys belong to; raises DestinationError for bad keys and for a host that is none."""
        try:
            projects = await self._api.projects.get(request_options={"max_retries": 0})
        except ApiError as error:
            return self._explain_refusal(error)
        except ValidationError:
            # The server took the keys and describes the project in a shape that this release does not know.
            return Proven(None)
        except httpx.RequestError as error:
            return Unreachable(type(error).__name__)
        return Proven(projects.data[0].name if projects.data else None)

    def _explain_refusal(self, error: ApiError) -> Unreachable:
        status = error.status_code or 0
        if status in (401, 403):
            hint = (
                "the keys are not accepted; check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY (project settings, API "
                "keys) and that LANGFUSE_HOST is the region or server they were made on"
            )
        elif status in (408, 429) or status >= 500:  # noqa: PLR2004 - HTTP: the server's own trouble
            return Unreachable(f"http_{status}")
        else:
            hint = (
                f"this address answers HTTP {status} and not like a Langfuse server; set LANGFUSE_HOST to the address "
                "that Langfuse's page has in the browser, without a path, for example https://cloud.langfuse.com"
            )
        raise DestinationError(
            operation="logging in to Langfuse", subject=self.credentials.host, hint=hint
        ) from error
