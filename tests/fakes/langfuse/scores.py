"""Scores: what POST /api/public/scores takes, GET /api/public/v3/scores shows and DELETE removes.

A score overwrites another with the same id, name and UTC date of its timestamp. Stricter than Langfuse, whose
worker drops an invalid score without a word: here the answer says so.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.fakes.langfuse.content_rules import is_amount
from tests.fakes.langfuse.observation_filters import moment_of, single_value
from tests.fakes.langfuse.request_body import RefusedRequestError
from tests.fakes.langfuse.rules import ENVIRONMENT

Score = dict[str, Any]

KNOWN_KEYS = frozenset(
    {
        "id", "traceId", "sessionId", "observationId", "datasetRunId", "name", "value", "comment", "metadata",
        "environment", "queueId", "dataType", "configId", "source", "timestamp",
    }
)  # fmt: skip
LONGEST_TEXT = 500
LARGEST_PAGE = 100
FIELD_GROUPS: Mapping[str, tuple[str, ...]] = {
    "details": ("comment", "configId", "metadata"),
    "subject": ("subject",),
    "annotation": ("authorUserId", "queueId"),
}
ALWAYS = (
    "id", "projectId", "name", "value", "dataType", "source", "timestamp", "environment", "createdAt",
    "updatedAt",
)  # fmt: skip
FILTERS = ("id", "name", "source", "dataType", "environment", "traceId", "sessionId", "observationId")
VALUE_TESTS: Mapping[str, Callable[[Any], bool]] = {
    "NUMERIC": lambda value: is_amount(abs(value)) if isinstance(value, int | float) else False,
    "BOOLEAN": lambda value: isinstance(value, int | float) and value in {0, 1},
    "CATEGORICAL": lambda value: isinstance(value, str) and bool(value),
    "TEXT": lambda value: isinstance(value, str) and 1 <= len(value) <= LONGEST_TEXT,
    "CORRECTION": lambda value: isinstance(value, str),
}


def score_problem(score: Any) -> str | None:
    """Why Langfuse would not keep the score, None when it would."""
    if not isinstance(score, dict):
        return "a score is an object"
    unknown = set(score) - KNOWN_KEYS
    data_type = _data_type(score)
    subjects = [key for key in ("traceId", "sessionId", "datasetRunId") if score.get(key)]
    environment = score.get("environment")
    test = VALUE_TESTS.get(str(data_type))
    checks = (
        (bool(unknown), f"unknown keys {sorted(unknown)}"),
        (not isinstance(score.get("name"), str) or not score["name"], "name is missing"),
        (test is None, f"dataType {data_type!r} is unknown"),
        (test is not None and not test(score.get("value")), f"value does not fit {data_type}"),
        (len(subjects) != 1, "exactly one of traceId, sessionId and datasetRunId must be given"),
        (bool(score.get("observationId")) and not score.get("traceId"), "observationId needs traceId"),
        (environment is not None and not ENVIRONMENT.fullmatch(str(environment)), "environment is not valid"),
        (score.get("source", "API") not in {"API", "ANNOTATION"}, "source is not valid"),
        (not _zoned(score.get("timestamp")), "timestamp must be an ISO 8601 time with its zone"),
    )
    return next((problem for broken, problem in checks if broken), None)


@dataclass(slots=True)
class ScoreStore:
    """Scores by overwrite key; `posted` keeps every accepted score in order, `deleted_ids` every deletion."""

    current: dict[tuple[str, str, str], Score] = field(default_factory=dict)
    posted: list[Score] = field(default_factory=list)
    deleted_ids: list[str] = field(default_factory=list)

    def put(self, score: Score, *, received_at: float, project_id: str) -> str:
        """Keep a valid score and give its id."""
        data_type = _data_type(score)
        received = _iso(datetime.fromtimestamp(received_at, tz=UTC))
        timestamp = _iso(moment_of(score["timestamp"])) if score.get("timestamp") else received
        row: Score = {
            "comment": None,
            "configId": None,
            "metadata": {},
            "queueId": None,
            "authorUserId": None,
            "environment": "default",
            "source": "API",
            **{key: value for key, value in score.items() if value is not None},
            "id": score.get("id") or str(uuid.uuid4()),
            "name": "output" if data_type == "CORRECTION" else score["name"],
            "value": bool(score["value"]) if data_type == "BOOLEAN" else score["value"],
            "dataType": data_type,
            "timestamp": timestamp,
            "projectId": project_id,
            "createdAt": received,
            "updatedAt": received,
            "subject": _subject(score),
        }
        self.posted.append(row)
        self.current[row["id"], row["name"], timestamp[:10]] = row
        return str(row["id"])

    def delete(self, score_id: str) -> None:
        """Drop all scores with the id; one that is not there is no error, as in Langfuse."""
        self.deleted_ids.append(score_id)
        self.current = {key: row for key, row in self.current.items() if key[0] != score_id}

    def read(self, query: Mapping[str, list[str]]) -> dict[str, Any]:
        """The answer to a read, newest first."""
        unknown = set(query) - {*FILTERS, "limit", "cursor", "fields", "fromTimestamp", "toTimestamp"}
        groups = [group for group in (single_value(query, "fields") or "").split(",") if group]
        limit = single_value(query, "limit") or "50"
        if unknown or not set(groups) <= set(FIELD_GROUPS):
            raise RefusedRequestError(
                400, f"Unknown parameters or field groups: {sorted(unknown | set(groups))}"
            )
        if not limit.isdecimal() or not 1 <= int(limit) <= LARGEST_PAGE:
            raise RefusedRequestError(400, f"limit must be a number from 1 to {LARGEST_PAGE}")
        if "observationId" in query and "traceId" not in query:
            raise RefusedRequestError(400, "observationId filter requires traceId")
        start = _offset(single_value(query, "cursor"))
        rows = sorted(
            (row for row in self.current.values() if _matches(row, query)),
            key=lambda row: (row["timestamp"], row["id"], row["name"]),
            reverse=True,
        )
        names = [*ALWAYS, *(name for group in groups for name in FIELD_GROUPS[group])]
        end = start + int(limit)
        meta: dict[str, Any] = {"limit": int(limit)}
        if end < len(rows):
            meta["cursor"] = base64.urlsafe_b64encode(str(end).encode()).decode()
        return {"data": [{name: row[name] for name in names} for row in rows[start:end]], "meta": meta}


def _data_type(score: Mapping[str, Any]) -> Any:
    return score.get("dataType") or ("CATEGORICAL" if isinstance(score.get("value"), str) else "NUMERIC")


def _subject(score: Mapping[str, Any]) -> dict[str, Any]:
    if score.get("observationId"):
        return {"kind": "observation", "id": score["observationId"], "traceId": score["traceId"]}
    if score.get("traceId"):
        return {"kind": "trace", "id": score["traceId"]}
    if score.get("sessionId"):
        return {"kind": "session", "id": score["sessionId"]}
    return {"kind": "experiment", "id": score["datasetRunId"]}


def _matches(row: Score, query: Mapping[str, list[str]]) -> bool:
    moment = moment_of(row["timestamp"])
    since, until = single_value(query, "fromTimestamp"), single_value(query, "toTimestamp")
    return (
        all(str(row.get(name)) in ",".join(query[name]).split(",") for name in FILTERS if name in query)
        and (since is None or moment >= moment_of(since))
        and (until is None or moment < moment_of(until))
    )


def _offset(cursor: str | None) -> int:
    try:
        return 0 if cursor is None else int(base64.urlsafe_b64decode(cursor))
    except (binascii.Error, ValueError) as error:
        raise RefusedRequestError(400, "Invalid cursor format") from error


def _zoned(timestamp: Any) -> bool:
    if timestamp is None:
        return True
    try:
        return datetime.fromisoformat(timestamp).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
