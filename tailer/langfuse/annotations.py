"""Scores and deletions, through the langfuse package. All of them may be repeated without harm."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
from langfuse.api.commons.types.score_data_type import ScoreDataType
from langfuse.api.core.api_error import ApiError
from langfuse.api.scores.types.create_score_request import CreateScoreRequest
from pydantic import ValidationError

from tailer.core.identity import TraceId
from tailer.core.trace.followup import Score
from tailer.flow.sending.outcomes import Delivered, DeliveryOutcome, Refused, Rejected, Retry
from tailer.langfuse.connection import LangfuseConnection

_SUCCESS = range(200, 300)
_SCORES_PATH = "/api/public/scores"
_NO_RETRIES: dict[str, Any] = {"max_retries": 0}


class LangfuseAnnotations:
    """`Annotations` of one Langfuse project."""

    def __init__(self, connection: LangfuseConnection, *, environment: str) -> None:
        self._connection = connection
        self._environment = environment

    async def put_score(self, score: Score) -> DeliveryOutcome:
        """Create or overwrite a score; a server from before lists of scores gets it alone."""
        request = CreateScoreRequest(
            id=score.id,
            trace_id=score.trace_id,
            name=score.name,
            value=score.value,
            comment=score.comment,
            metadata=dict(score.metadata),
            environment=self._environment,
            data_type=ScoreDataType(score.type.value),
            timestamp=datetime.fromtimestamp(score.timestamp_milliseconds / 1000, UTC),
        )
        outcome = await _attempt(
            lambda: self._connection.api.scores.create(request=[request], request_options=_NO_RETRIES)
        )
        if not isinstance(outcome, Rejected):
            return outcome
        return await self._put_alone(score)

    async def delete_score(self, score_id: str) -> DeliveryOutcome:
        """Delete a score; one that is gone is deleted."""
        return await _attempt(
            lambda: self._connection.api.scores.delete(score_id, request_options=_NO_RETRIES),
            gone_is_done=True,
        )

    async def delete_traces(self, trace_ids: Sequence[TraceId]) -> DeliveryOutcome:
        """Ask for the deletion of traces; the server does it some seconds later and tells nobody."""
        return await _attempt(
            lambda: self._connection.api.trace.delete_multiple(
                trace_ids=list(trace_ids), request_options=_NO_RETRIES
            ),
            gone_is_done=True,
        )

    async def _put_alone(self, score: Score) -> DeliveryOutcome:
        body = {
            "id": score.id,
            "traceId": score.trace_id,
            "name": score.name,
            "value": score.value,
            "comment": score.comment,
            "metadata": score.metadata,
            "environment": self._environment,
            "dataType": score.type.value,
        }
        try:
            response = await self._connection.http.post(_SCORES_PATH, json=body)
        except httpx.RequestError as error:
            return Retry(type(error).__name__)
        return _classify(response.status_code, response.headers)


async def _attempt(call: Callable[[], Awaitable[object]], *, gone_is_done: bool = False) -> DeliveryOutcome:
    try:
        await call()
    except ApiError as error:
        if gone_is_done and error.status_code == httpx.codes.NOT_FOUND:
            return Delivered()
        return _classify(error.status_code or 0, error.headers or {})
    except ValidationError:
        # The server took the request and answered in a shape that this release does not know.
        return Delivered()
    except httpx.RequestError as error:
        return Retry(type(error).__name__)
    return Delivered()


def _classify(status: int, headers: Mapping[str, str]) -> DeliveryOutcome:
    if status in _SUCCESS:
        # Taken, and answered with something that is no JSON, such as nothing; a page comes from something else.
        is_page = headers.get("content-type", "").startswith("text/html")
        return Retry("answered with a page") if is_page else Delivered()
    if status in (401, 403):
        return Refused(f"http_{status}")
    # A redirect is a setting that somebody will mend; the others are the server's own trouble.
    if 300 <= status < 400 or status in (408, 409, 429) or status >= 500:  # noqa: PLR2004 - HTTP
        return Retry(f"http_{status}")
    return Rejected(f"http_{status}")
