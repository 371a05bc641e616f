"""What the fake knows: accepted spans and scores, violations, counts of requests, faults in force.

Owns the decision whether a request is accepted; knows nothing of HTTP beyond a status.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.fakes.langfuse import attributes as names
from tests.fakes.langfuse.faults import FaultPlan, Route
from tests.fakes.langfuse.journal import Journal, Record
from tests.fakes.langfuse.media import MediaStore
from tests.fakes.langfuse.observations import has_observation, read_observations
from tests.fakes.langfuse.otlp import decode_spans, span_keys
from tests.fakes.langfuse.releases import ReadLimit, Release
from tests.fakes.langfuse.request_body import RefusedRequestError, decompress
from tests.fakes.langfuse.rules import Rules, Violation, check_batch
from tests.fakes.langfuse.scores import ScoreStore, score_problem
from tests.fakes.langfuse.store import SpanStore

INGESTION_VERSION = "4"
SCORES_LIMIT_BYTES = 1024 * 1024
MOST_TRACE_DELETIONS = 1000
# The largest that a real one was seen to take; at 1000 its transaction timed out.
MOST_TRACE_DELETIONS_IN_TIME = 700
EVENTS_LIMIT_BYTES = 4_500_000
MOST_NAMED_VIOLATIONS = 20


class LangfuseState:
    """Everything behind the routes; `clock` gives seconds since 1970."""

    def __init__(
        self,
        *,
        rules: Rules,
        project_id: str,
        light: bool,
        journal_path: Path | None,
        visible_after_seconds: float,
        deleted_after_seconds: float,
        release: Release,
        reads_a_minute: int | None,
        shown_back_seconds: float | None,
        clock: Callable[[], float],
    ) -> None:
        self.rules = rules
        self.project_id = project_id
        self.light = light
        self.visible_after_seconds = visible_after_seconds
        self.deleted_after_seconds = deleted_after_seconds
        self.shown_back_seconds = shown_back_seconds
        self.release = release
        self.clock = clock
        self.read_limit = ReadLimit(reads_a_minute, clock)
        self.spans = SpanStore(light=light)
        self.scores = ScoreStore()
        self.media = MediaStore()
        self.violations: list[Violation] = []
        self.requests: Counter[tuple[Route, str]] = Counter()
        self.unknown_requests: list[str] = []
        self.faults = FaultPlan()
        self._deletions: list[tuple[float, list[str]]] = []
        self._journal = None if journal_path is None else Journal(journal_path)
        self._replay()

    def accept_spans(
        self, body: bytes, *, content_type: str, encoding: str | None, ingestion_version: str | None
    ) -> None:
        """Check and keep a batch of spans, all or nothing."""
        if len(body) > self.rules.body_limit_bytes:
            raise RefusedRequestError(
                413, f"The body has {len(body)} bytes, the limit is {self.rules.body_limit_bytes}"
            )
        if ingestion_version != INGESTION_VERSION:
            self._refuse(
                [Violation("ingestion_version", f"x-langfuse-ingestion-version is {ingestion_version!r}")]
            )
        plain = decompress(body, encoding=encoding, limit_bytes=self.rules.decompressed_limit_bytes)
        record = Record(Route.SPANS, self.clock(), content_type, encoding, body)
        if self.light:
            keys = span_keys(plain, content_type)
            self._write(record)
            self.spans.add_light(
                keys, received_at=record.received_at, wire_bytes=len(body), body_bytes=len(plain)
            )
            return
        spans = decode_spans(plain, content_type)
        violations = check_batch(spans, rules=self.rules, voice_of=self.spans.voice_of)
        if violations:
            self._refuse(violations)
        self._write(record)
        self.spans.add(spans, received_at=record.received_at, wire_bytes=len(body), body_bytes=len(plain))

    def accept_scores(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """Keep the valid scores of a list, or a single score; gives status and answer."""
        if len(body) > SCORES_LIMIT_BYTES:
            raise RefusedRequestError(
                413, f"The body has {len(body)} bytes, the limit is {SCORES_LIMIT_BYTES}"
            )
        document = _json(body)
        if isinstance(document, list) and not self.release.takes_score_lists:
            raise RefusedRequestError(400, "Invalid request data: expected an object, received an array")
        scores = document if isinstance(document, list) else [document]
        if not scores:
            raise RefusedRequestError(400, "At least one score is required")
        problems = [score_problem(score) for score in scores]
        found = [problem for problem in problems if problem is not None]
        self.violations.extend(Violation("score", problem) for problem in found)
        if found and not isinstance(document, list):
            raise RefusedRequestError(400, found[0])
        valid = [score for score, problem in zip(scores, problems, strict=True) if problem is None]
        if not isinstance(document, list) and not self.release.keeps_time_of_single_scores:
            valid = [{key: value for key, value in score.items() if key != "timestamp"} for score in valid]
        ids = self._keep_scores(valid)
        if not isinstance(document, list):
            return 200, {"id": ids[0]}
        if found:
            errors = [{"message": problem} for problem in found]
            return 207, {"accepted": len(valid), "rejected": len(found), "errors": errors}
        return 202, {"message": "Accepted"}

    def accept_events(self, body: bytes) -> dict[str, Any]:
        """The old way in: scores are kept with the time of their envelope, everything else is refused one by one."""
        if len(body) > EVENTS_LIMIT_BYTES:
            raise RefusedRequestError(
                413, f"The body has {len(body)} bytes, the limit is {EVENTS_LIMIT_BYTES}"
            )
        document = _json(body)
        batch = document.get("batch") if isinstance(document, dict) else None
        if not isinstance(batch, list):
            raise RefusedRequestError(400, "Invalid request data")
        answer: dict[str, Any] = {"successes": [], "errors": []}
        for event in batch:
            problem = self._event_problem(event)
            if problem is not None:
                self.violations.append(Violation("score", problem))
                answer["errors"].append({"id": event.get("id"), "status": 400, "message": problem})
                continue
            self._keep_scores([{**event["body"], "timestamp": event["timestamp"]}])
            answer["successes"].append({"id": event["id"], "status": 201})
        return answer

    def _event_problem(self, event: Any) -> str | None:
        if not isinstance(event, dict) or not event.get("id") or event.get("type") != "score-create":
            return "Event type not accepted"
        if "timestamp" in event["body"]:
            return "the time of a score is that of its envelope"
        return score_problem({**event["body"], "timestamp": event.get("timestamp") or "none"})

    def _keep_scores(self, valid: list[dict[str, Any]]) -> list[str]:
        received_at = self.clock()
        if valid:
            self._write(
                Record(Route.SCORES, received_at, "application/json", None, json.dumps(valid).encode())
            )
        return [
            self.scores.put(score, received_at=received_at, project_id=self.project_id) for score in valid
        ]

    def delete_score(self, score_id: str) -> None:
        """Remove a score."""
        self._write(Record(Route.SCORE_DELETE, self.clock(), "text/plain", None, score_id.encode()))
        self.scores.delete(score_id)

    def delete_traces(self, body: bytes) -> None:
        """Remove the traces named by `traceIds`."""
        document = _json(body)
        trace_ids = document.get("traceIds") if isinstance(document, dict) else None
        if (
            not isinstance(trace_ids, list)
            or not 1 <= len(trace_ids) <= MOST_TRACE_DELETIONS
            or not all(isinstance(trace_id, str) for trace_id in trace_ids)
            or set(document) != {"traceIds"}
        ):
            raise RefusedRequestError(
                400, f"traceIds must be an array of 1 to {MOST_TRACE_DELETIONS} strings"
            )
        if len(trace_ids) > MOST_TRACE_DELETIONS_IN_TIME:
            raise RefusedRequestError(500, "Transaction API error: P2028")
        self._write(Record(Route.TRACE_DELETE, self.clock(), "application/json", None, body))
        self._deletions.append((self.clock() + self.deleted_after_seconds, trace_ids))
        self.delete_what_is_due()

    def delete_what_is_due(self) -> None:
        """Deletions are done by a worker, some time after they were asked for."""
        now = self.clock()
        due = [trace_ids for at, trace_ids in self._deletions if at <= now]
        self._deletions = [(at, trace_ids) for at, trace_ids in self._deletions if at > now]
        for trace_ids in due:
            self.spans.delete_traces(trace_ids)

    def read_observations(self, query: Mapping[str, list[str]]) -> dict[str, Any]:
        """Observations that have become visible."""
        if self.light:
            raise RefusedRequestError(501, "A light fake keeps no observations")
        if not self.release.reads_pages:
            raise RefusedRequestError(*self.release.says_of_pages)
        self.delete_what_is_due()
        visible_until = self.clock() - self.visible_after_seconds
        shown_since = 0.0 if self.shown_back_seconds is None else self.clock() - self.shown_back_seconds
        return read_observations(
            self.spans,
            query,
            project_id=self.project_id,
            visible_until=visible_until,
            shown_since=shown_since,
        )

    def read_observation(self, observation_id: str) -> dict[str, Any]:
        """A single observation, as release 3 reads it."""
        if not self.release.reads_single:
            raise RefusedRequestError(
                404, "This endpoint is not available on deployments running in Langfuse v4 events_only mode."
            )
        visible_until = self.clock() - self.visible_after_seconds
        if not has_observation(self.spans, observation_id, visible_until=visible_until):
            raise RefusedRequestError(404, "Observation not found within authorized project")
        return {"id": observation_id}

    def holds_marker(self, body: bytes, *, content_type: str, encoding: str | None, marker: str) -> bool:
        """Whether a span of the batch has `marker` in its name or input."""
        try:
            plain = decompress(body, encoding=encoding, limit_bytes=self.rules.decompressed_limit_bytes)
            spans = decode_spans(plain, content_type)
        except RefusedRequestError:
            return False
        return any(marker in span.name or marker in (span.text(names.INPUT) or "") for span in spans)

    def reset(self) -> None:
        """Forget data, faults, counts and the journal."""
        self.spans = SpanStore(light=self.light)
        self.scores = ScoreStore()
        self.media = MediaStore()
        self.violations.clear()
        self.requests.clear()
        self.unknown_requests.clear()
        self.faults.clear()
        if self._journal is not None:
            self._journal.clear()

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()

    def as_json(self) -> dict[str, Any]:
        """Counts and violations, for the control routes."""
        requests: dict[str, dict[str, int]] = {}
        for (route, outcome), count in self.requests.items():
            requests.setdefault(route.value, {})[outcome] = count
        return {
            "light": self.light,
            "batches": self.spans.batches,
            "spans": self.spans.arrived,
            "uniqueSpans": self.spans.unique_count(),
            "traces": self.spans.trace_count(),
            "wireBytes": self.spans.wire_bytes,
            "bodyBytes": self.spans.body_bytes,
            "duplicates": [list(key) for key in self.spans.duplicates()],
            "unresolvedParents": [list(key) for key in self.spans.unresolved_parents()],
            "deletedTraceIds": list(self.spans.deleted_trace_ids),
            "scores": list(self.scores.current.values()),
            "postedScores": len(self.scores.posted),
            "deletedScoreIds": list(self.scores.deleted_ids),
            "violations": [str(violation) for violation in self.violations],
            "requests": requests,
            "unknownRequests": list(self.unknown_requests),
            "faults": self.faults.as_json(),
            "visibleAfterSeconds": self.visible_after_seconds,
        }

    def _refuse(self, violations: list[Violation]) -> None:
        self.violations.extend(violations)
        named = "; ".join(str(violation) for violation in violations[:MOST_NAMED_VIOLATIONS])
        raise RefusedRequestError(400, f"Invalid OTLP trace export, nothing was ingested: {named}")

    def _write(self, record: Record) -> None:
        if self._journal is not None:
            self._journal.append(record)

    def _replay(self) -> None:
        if self._journal is None:
            return
        for record in self._journal.records():
            if record.kind == Route.SPANS:
                self._replay_spans(record)
            elif record.kind == Route.SCORES:
                for score in _json(record.body):
                    self.scores.put(score, received_at=record.received_at, project_id=self.project_id)
            elif record.kind == Route.SCORE_DELETE:
                self.scores.delete(record.body.decode())
            elif record.kind == Route.TRACE_DELETE:
                self.spans.delete_traces(_json(record.body)["traceIds"])

    def _replay_spans(self, record: Record) -> None:
        plain = decompress(
            record.body, encoding=record.encoding, limit_bytes=self.rules.decompressed_limit_bytes
        )
        sizes = {"wire_bytes": len(record.body), "body_bytes": len(plain)}
        if self.light:
            self.spans.add_light(
                span_keys(plain, record.content_type), received_at=record.received_at, **sizes
            )
        else:
            self.spans.add(decode_spans(plain, record.content_type), received_at=record.received_at, **sizes)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise RefusedRequestError(400, "The body is not valid JSON") from error
