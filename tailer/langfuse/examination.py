"""Questions to Langfuse for `tailer doctor`."""

from dataclasses import dataclass
from datetime import timedelta

import httpx

from tailer.langfuse.connection import Credentials, LangfuseConnection, Unreachable

CLOUDS = ("https://cloud.langfuse.com", "https://us.cloud.langfuse.com")


@dataclass(frozen=True, slots=True)
class Health:
    """`version` as the server tells it, None where it does not; `seconds` is the time of the request."""

    version: str | None
    seconds: float


async def ask_health(host: str, patience: timedelta) -> Health | str:
    """What the server's health page says; a word for why there is none."""
    try:
        async with httpx.AsyncClient(base_url=host, timeout=patience.total_seconds()) as http:
            response = await http.get("/api/public/health")
    except httpx.RequestError as error:
        return type(error).__name__
    if not response.is_success:
        return f"http_{response.status_code}"
    try:
        version = response.json().get("version")
    except (ValueError, AttributeError):
        return "no_langfuse"
    return Health(version if isinstance(version, str) else None, response.elapsed.total_seconds())


async def ask_project(credentials: Credentials, patience: timedelta) -> str | Unreachable | None:
    """The project of the keys; raises DestinationError where they are refused."""
    async with LangfuseConnection(credentials, request_timeout=patience, connections=1) as connection:
        proven = await connection.prove()
    return proven if isinstance(proven, Unreachable) else proven.project
