"""Questions to Langfuse for `tailer doctor`."""

from dataclasses import dataclass
from datetime import timedelta

import httpx

from tailer.langfuse.access import DIRECT, Access, open_certificates
from tailer.langfuse.answers import NO_LANGFUSE_REMEDY, Meaning, understand
from tailer.langfuse.connection import Credentials, LangfuseConnection, Unreachable
from tailer.outbound.client import open_client
from tailer.outbound.failures import describe_failure
from tailer.outbound.replies import read_json

CLOUDS = ("https://cloud.langfuse.com", "https://us.cloud.langfuse.com")


@dataclass(frozen=True, slots=True)
class Health:
    """`version` as the server states it, None if it does not; `seconds` is the duration of the request."""

    version: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Ailing:
    """Why there is no health page: a word, and the remedy."""

    reason: str
    remedy: str


async def ask_health(host: str, patience: timedelta, access: Access = DIRECT) -> Health | Ailing:
    """The answer of the server's health page. Raises DestinationError if the way there cannot be opened."""
    try:
        async with open_client(
            host, open_certificates(access), timeout=patience, connections=1, headers=access.headers
        ) as http:
            response = await http.get("/api/public/health")
    except httpx.RequestError as error:
        return Ailing(type(error).__name__, describe_failure(error))
    answer = understand(response)
    if answer.meaning is not Meaning.TAKEN:
        return Ailing(answer.reason, answer.remedy or "see Langfuse's own log")
    try:
        version = read_json(response).get("version")
    except (ValueError, AttributeError):
        return Ailing("no_langfuse", NO_LANGFUSE_REMEDY)
    return Health(version if isinstance(version, str) else None, response.elapsed.total_seconds())


async def ask_project(
    credentials: Credentials, patience: timedelta, access: Access = DIRECT
) -> str | Unreachable | None:
    """The project of the keys; raises DestinationError if they are refused."""
    async with LangfuseConnection(
        credentials, request_timeout=patience, connections=1, access=access
    ) as connection:
        proven = await connection.prove()
    return proven if isinstance(proven, Unreachable) else proven.project
