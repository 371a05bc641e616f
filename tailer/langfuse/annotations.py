"""Scores and deletions, through the langfuse package. Each of them may be repeated without harm.

The package knows lists of scores (server 4) and nothing older: servers before that get the event or the single score
that they know, as plain requests.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, assert_never, cast
from uuid import NAMESPACE_URL, uuid5

import httpx

from tailer.core.identity import TraceId
from tailer.core.json_text import encode_json, encode_json_bytes
from tailer.core.trace.followup import Score
from tailer.flow.sending.outcomes import Delivered, DeliveryOutcome, Refused, Rejected, Retry
from tailer.langfuse.answers import Answer, Meaning, understand
from tailer.langfuse.connection import LangfuseConnection
from tailer.langfuse.package import ONCE, LangfusePackage, Reply
from tailer.outbound.failures import describe_failure
from tailer.outbound.replies import read_json

if TYPE_CHECKING:
    from langfuse.api import CreateScoreRequest

_SCORES_PATH: Final = "/api/public/scores"
_INGESTION_PATH: Final = "/api/public/ingestion"
_JSON: Final = {"content-type": "application/json"}
_MULTI_STATUS: Final = 207
_LARGEST_SCORE_BYTES: Final = 1_000_000
"""Langfuse takes 1 MiB in a request with scores (4.16); the rest is for headers and for what a proxy adds."""


class _Way(Enum):
    """How a server takes scores."""

    LIST = "list"
    EVENT = "event"
    SINGLE = "single"


class LangfuseAnnotations:
    """`Annotations` of one Langfuse project."""

    def __init__(self, connection: LangfuseConnection, *, environment: str) -> None:
        self._connection = connection
        self._package = LangfusePackage(connection)
        self._environment = environment
        self._ways = list(_Way)

    async def put_score(self, score: Score) -> DeliveryOutcome:
        """Create or overwrite a score. A server without lists of scores gets a single score."""
        body = self._describe(score)
        outcome: DeliveryOutcome = Rejected("no way to send a score")
        for way in tuple(self._ways):
            outcome = await self._put(way, score, body)
            if not isinstance(outcome, Rejected):
                if isinstance(outcome, Delivered):
                    # What was refused before this one is not known to this server.
                    self._ways = self._ways[self._ways.index(way) :]
                return outcome
        return outcome

    async def delete_score(self, score_id: str) -> DeliveryOutcome:
        """Delete a score; a missing score counts as deleted."""
        return _judge_deletion(
            await self._package.ask(
                lambda api: api.scores.with_raw_response.delete(score_id, request_options=ONCE)
            )
        )

    async def delete_traces(self, trace_ids: Sequence[TraceId]) -> DeliveryOutcome:
        """Ask for the deletion of traces. The server does it some seconds later and reports nothing."""
        return _judge_deletion(
            await self._package.ask(
                lambda api: api.trace.with_raw_response.delete_multiple(
                    trace_ids=list(trace_ids), request_options=ONCE
                )
            )
        )

    async def _put(self, way: _Way, score: Score, body: dict[str, object]) -> DeliveryOutcome:
        match way:
            case _Way.LIST:
                answer = await self._put_list(score, body)
            case _Way.EVENT:
                answer = await self._post(_INGESTION_PATH, {"batch": [_event(score, body)]})
            case _Way.SINGLE:
                answer = await self._post(_SCORES_PATH, body)
            case _:
                assert_never(way)
        if not isinstance(answer, Answer):
            return answer
        if answer.meaning in (Meaning.NOT_THERE, Meaning.NO_LANGFUSE) and way is not _Way.SINGLE:
            return Rejected(answer.reason)
        return _classify(answer)

    async def _put_list(self, score: Score, body: dict[str, object]) -> Answer | DeliveryOutcome:
        # Read back from JSON, where broken characters are replaced: the package would refuse them.
        document = [{**json.loads(encode_json_bytes(body)), "timestamp": _moment(score)}]
        reply = await self._package.ask(
            lambda api: api.scores.with_raw_response.create(
                # The names of the API, as the package itself would write them.
                request=cast("list[CreateScoreRequest]", document),
                request_options=ONCE,
            )
        )
        return reply if isinstance(reply, Retry) else _judge_each(reply.response, reply.answer)

    def _describe(self, score: Score) -> dict[str, object]:
        body: dict[str, object] = {
            "id": score.id,
            "traceId": score.trace_id,
            "name": score.name,
            "value": score.value,
            "comment": score.comment,
            "metadata": dict(score.metadata),
            "environment": self._environment,
            "dataType": score.type.value,
        }
        too_long = len(encode_json_bytes(body)) - _LARGEST_SCORE_BYTES
        if too_long > 0 and isinstance(score.value, str):
            body["value"] = _shorten(score.value, too_long)
        return body

    async def _post(self, path: str, document: object) -> Answer | DeliveryOutcome:
        """The answer, or what came instead of one."""
        try:
            response = await self._connection.http.post(
                path, content=encode_json_bytes(document), headers=_JSON
            )
        except httpx.RequestError as error:
            return Retry(type(error).__name__, remedy=describe_failure(error))
        return _judge_each(response, understand(response))


def _judge_deletion(reply: Reply[Any] | Retry) -> DeliveryOutcome:
    if isinstance(reply, Retry):
        return reply
    # What is to be deleted may not be there.
    return Delivered() if reply.answer.meaning is Meaning.NOT_THERE else _classify(reply.answer)


def _judge_each(response: httpx.Response, answer: Answer) -> Answer | DeliveryOutcome:
    if response.status_code == _MULTI_STATUS:
        return _read_each(response) or answer
    return answer


def _event(score: Score, body: dict[str, object]) -> dict[str, object]:
    """The envelope of a score; its time is the score's, and its id the same for the same content."""
    content = f"{score.id}:{_moment(score)}:{encode_json(body)}"
    return {
        "id": str(uuid5(NAMESPACE_URL, content)),
        "type": "score-create",
        "timestamp": _moment(score),
        "body": body,
    }


def _moment(score: Score) -> str:
    moment = datetime.fromtimestamp(score.timestamp_milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shorten(text: str, excess_bytes: int) -> str:
    """The beginning of a text that is too long as JSON, with a mark that says how much is missing."""
    encoded = text.encode("utf-8", "replace")
    in_json = len(encode_json_bytes(text))
    # As dense with escapes as the whole is the part that goes; a text whose end is denser loses a little more.
    kept = max(0, (in_json - excess_bytes - 200) * len(encoded) // in_json)
    short = encoded[:kept].decode("utf-8", "ignore")
    while len(encode_json_bytes(short)) > in_json - excess_bytes - 100:
        short = short[: len(short) * 9 // 10]
    missing = len(encoded) - len(short.encode("utf-8", "replace"))
    return f"{short}… [cut: {missing} bytes left out]"


def _read_each(response: httpx.Response) -> DeliveryOutcome | None:
    """The outcome of the one score in an answer that tells of each; None where it was taken."""
    try:
        errors = read_json(response)["errors"] or []
        told = [error.get("status") for error in errors[:1]]
    except (ValueError, AttributeError, KeyError, TypeError):
        # Taken, and told in a shape that this release does not know.
        return None
    if not told:
        return None
    status = told[0] if isinstance(told[0], int) else 400
    if status in (401, 403):
        return Refused(f"http_{status}")
    if status in (408, 409, 429) or status >= 500:  # noqa: PLR2004 - HTTP: the server's own trouble
        return Retry(f"http_{status}")
    return Rejected(f"http_{status}")


def _classify(answer: Answer) -> DeliveryOutcome:
    match answer.meaning:
        case Meaning.TAKEN:
            return Delivered()
        case Meaning.WRONG_KEYS | Meaning.USAGE_THRESHOLD | Meaning.GATE | Meaning.PROXY:
            return Refused(answer.reason, answer.remedy)
        case Meaning.TOO_LARGE | Meaning.INVALID | Meaning.NOT_THERE:
            return Rejected(answer.reason)
        case (
            Meaning.PAGE
            | Meaning.REDIRECT
            | Meaning.NO_LANGFUSE
            | Meaning.LIMITED
            | Meaning.UNWELL
            | Meaning.ANSWER_LOST
        ):
            # The first three are settings that an operator will fix.
            return Retry(answer.reason, answer.after_seconds, remedy=answer.remedy)
        case _:
            assert_never(answer.meaning)
