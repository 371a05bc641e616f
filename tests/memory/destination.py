"""A destination in memory: what it holds, and how it answers. It outlives the sinks that write to it."""

import asyncio
import json
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tailer.core.identity import ObservationId, TraceId
from tailer.core.trace.followup import Score
from tailer.flow.records import Probe
from tailer.flow.sending.outcomes import (
    Delivered,
    DeliveryOutcome,
    Found,
    LookupAnswer,
    Refused,
    Rejected,
    Retry,
    TooLarge,
    Unanswered,
    Unreadable,
)

Chunk = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request is told. `taken` says that it was stored all the same: its answer was lost on the way."""

    outcome: DeliveryOutcome
    taken: bool = False


@dataclass(slots=True)
class MemoryDestination:
    """What a Langfuse holds. The switches are what an operator, a network or a limit does to it.

    `rejects` and `spoils` name message ids by which a whole request is refused, the latter with the answer to it.
    `answers` are given to the next requests for spans, `score_answers` to the next ones for scores and deletions;
    `rejects_score` names scores that are turned away. `requests` counts all of them.
    `history` tells what happened, in its order: ("trace", record id), ("score", id), ("unscore", id), ("delete", id).
    """

    seconds: Callable[[], float]
    latency_seconds: float = 0.0
    score_latency_seconds: float = 0.0
    is_away: bool = False
    refuses_keys: bool = False
    is_unreadable: bool = False
    largest_bytes: int | None = None
    rejects: Callable[[str], bool] | None = None
    spoils: Callable[[str], DeliveryOutcome | None] | None = None
    visible_after_seconds: float = 0.0
    answers: deque[Answer] = field(default_factory=deque)
    score_answers: deque[DeliveryOutcome] = field(default_factory=deque)
    rejects_score: Callable[[str], DeliveryOutcome | None] | None = None
    requests: int = 0
    payloads: list[bytes] = field(default_factory=list)
    scores: dict[str, Score] = field(default_factory=dict)
    history: list[tuple[str, str]] = field(default_factory=list)
    _taken: list[tuple[float, Chunk]] = field(default_factory=list)

    def trace_ids(self) -> list[TraceId]:
        """The traces that are held, in the order of their arrival, each once."""
        return list(dict.fromkeys(TraceId(chunk["trace_id"]) for _, chunk in self._taken))

    def record_ids(self) -> list[str]:
        """The traces and later pieces that are held, in the order of their arrival."""
        return [chunk["record_id"] for _, chunk in self._taken]

    def duplicates(self) -> list[str]:
        """What was taken more than once."""
        return [record_id for record_id, copies in Counter(self.record_ids()).items() if copies > 1]

    def observations_of(self, trace_id: TraceId) -> list[dict[str, Any]]:
        """The observations of a trace, those of later pieces behind."""
        return [
            item
            for _, chunk in self._taken
            if chunk["trace_id"] == trace_id
            for item in chunk["observations"]
        ]

    async def take(self, payload: bytes) -> DeliveryOutcome:
        """One request for spans: all of it is taken, or nothing."""
        await asyncio.sleep(self.latency_seconds)
        self.requests += 1
        self.payloads.append(payload)
        trouble = self._trouble()
        if trouble is not None:
            return trouble
        chunks = [json.loads(line) for line in payload.splitlines()]
        if self.answers:
            answer = self.answers.popleft()
            if answer.taken or isinstance(answer.outcome, Delivered):
                self._keep(chunks)
            return answer.outcome
        if self.largest_bytes is not None and len(payload) > self.largest_bytes:
            return TooLarge()
        if self.rejects is not None and any(self.rejects(chunk["message_id"]) for chunk in chunks):
            return Rejected("http_400")
        if self.spoils is not None:
            for chunk in chunks:
                spoilt = self.spoils(chunk["message_id"])
                if spoilt is not None:
                    return spoilt
        self._keep(chunks)
        return Delivered()

    async def look_up(self, probes: Sequence[Probe]) -> LookupAnswer:
        """Which of the observations are shown by now."""
        await asyncio.sleep(self.latency_seconds)
        if self.is_away:
            return Unanswered("connection")
        if self.refuses_keys or self.is_unreadable:
            return Unreadable("http_401" if self.refuses_keys else "http_403")
        shown_until = self.seconds() - self.visible_after_seconds
        shown = {
            (chunk["trace_id"], item["id"])
            for at, chunk in self._taken
            if at <= shown_until
            for item in chunk["observations"]
        }
        return Found(
            frozenset(
                ObservationId(probe.observation_id)
                for probe in probes
                if (probe.trace_id, probe.observation_id) in shown
            )
        )

    async def put_score(self, score: Score) -> DeliveryOutcome:
        """Create or overwrite a score."""
        outcome = await self._annotate(score.id)
        if isinstance(outcome, Delivered):
            self.scores[score.id] = score
            self.history.append(("score", score.id))
        return outcome

    async def delete_score(self, score_id: str) -> DeliveryOutcome:
        """Delete a score; one that is not there is no error."""
        outcome = await self._annotate()
        if isinstance(outcome, Delivered):
            self.scores.pop(score_id, None)
            self.history.append(("unscore", score_id))
        return outcome

    async def delete_traces(self, trace_ids: Sequence[TraceId]) -> DeliveryOutcome:
        """Delete traces with all they hold."""
        outcome = await self._annotate()
        if isinstance(outcome, Delivered):
            self._taken = [entry for entry in self._taken if entry[1]["trace_id"] not in trace_ids]
            self.history.extend(("delete", trace_id) for trace_id in trace_ids)
        return outcome

    async def _annotate(self, score_id: str = "") -> DeliveryOutcome:
        await asyncio.sleep(self.latency_seconds + self.score_latency_seconds)
        self.requests += 1
        trouble = self._trouble()
        if trouble is None and self.rejects_score is not None:
            trouble = self.rejects_score(score_id)
        if trouble is not None:
            return trouble
        return self.score_answers.popleft() if self.score_answers else Delivered()

    def _trouble(self) -> DeliveryOutcome | None:
        if self.is_away:
            return Retry("connection")
        return Refused("http_401") if self.refuses_keys else None

    def _keep(self, chunks: Sequence[Chunk]) -> None:
        self._taken.extend((self.seconds(), chunk) for chunk in chunks)
        self.history.extend(("trace", chunk["record_id"]) for chunk in chunks)
