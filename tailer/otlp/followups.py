"""What comes after a trace, as far as OTLP can carry it. A rating becomes a span of no length in the same trace.

OTLP adds and never takes back: a rating that is withdrawn, and a deletion, are counted and said, and nothing is sent.
An edited answer is a span of the trace already, so its correction score says nothing new here.
"""

from collections.abc import Sequence

from tailer.core.identity import TraceId, observation_id
from tailer.core.json_text import encode_json
from tailer.core.trace.followup import FollowupOperation, Score, ScoreType
from tailer.events import Emit, FollowupLeftOut
from tailer.flow.sending.outcomes import Delivered, DeliveryOutcome
from tailer.otlp.conventions import Kind, SpanShape
from tailer.otlp.encoding import encode_span
from tailer.otlp.spans import OtlpSpans
from tailer.otlp.wire import Value


class OtlpFollowups:
    """A `FollowupSink` that sends through the sink for spans."""

    def __init__(self, spans: OtlpSpans, emit: Emit) -> None:
        self._spans = spans
        self._emit = emit

    async def put_score(self, score: Score) -> DeliveryOutcome:
        """Send a rating as a span. The same rating has the same id, and a changed one another."""
        if score.type is ScoreType.CORRECTION:
            return Delivered()
        return await self._spans.deliver(self._spans.frame([_encode_rating(score)]))

    async def delete_score(self, score_id: str) -> DeliveryOutcome:
        """Say that a rating stays as it was sent."""
        del score_id
        self._emit(FollowupLeftOut(FollowupOperation.DELETE_SCORE, 1))
        return Delivered()

    async def delete_traces(self, trace_ids: Sequence[TraceId]) -> DeliveryOutcome:
        """Say that traces stay."""
        self._emit(FollowupLeftOut(FollowupOperation.DELETE_TRACES, len(trace_ids)))
        return Delivered()


def _encode_rating(score: Score) -> bytes:
    message_id = score.metadata.get("message_id", "")
    attributes: dict[str, Value] = {
        "gen_ai.evaluation.name": score.name,
        "gen_ai.evaluation.score.value": float(score.value),
        **{f"librechat.feedback.{name}": value for name, value in score.metadata.items()},
    }
    if "rating" in score.metadata:
        attributes["gen_ai.evaluation.score.label"] = score.metadata["rating"]
    if score.comment is not None:
        attributes["gen_ai.evaluation.explanation"] = score.comment
    said = encode_json([score.name, score.value, score.comment, score.metadata])
    return encode_span(
        score.trace_id,
        observation_id(score.id, said),
        observation_id(message_id, "root") if message_id else None,
        SpanShape("librechat.feedback", Kind.INTERNAL, attributes, None),
        times=(score.timestamp_milliseconds, score.timestamp_milliseconds),
    )
