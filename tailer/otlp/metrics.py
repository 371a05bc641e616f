"""The metrics of the GenAI conventions, from acknowledged turns: tokens used, and how long operations took.

Each turn counts once, when its destination has acknowledged it. What was counted and not yet reported is lost with the
process: metrics are sums for dashboards, and the spans are the record.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import httpx

from tailer.core.trace.observations import Observation, ObservationType, Trace
from tailer.core.turn.times import Start
from tailer.events import Emit, MetricsDelayed, MetricsLost
from tailer.flow.sending.outcomes import explain
from tailer.otlp.answers import Answer, Meaning, understand
from tailer.otlp.connection import OtlpConnection
from tailer.otlp.conventions import describe_span
from tailer.otlp.encoding import encode_resource
from tailer.otlp.histograms import Histogram, Instrument, frame_metrics
from tailer.otlp.wire import Attributes, Value
from tailer.outbound.client import SendingDoubted
from tailer.outbound.failures import judge_failure
from tailer.outbound.partial_success import read_partial_success

_TOKENS: Final = Instrument(
    "gen_ai.client.token.usage",
    "{token}",
    "Number of input and output tokens used",
    tuple(float(4**power) for power in range(14)),
)
_DURATION: Final = Instrument(
    "gen_ai.client.operation.duration",
    "s",
    "GenAI operation duration",
    tuple(0.01 * 2**power for power in range(14)),
)
_SHARED: Final = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
)
_KEPT: Final = frozenset(
    {
        Meaning.LIMITED,
        Meaning.UNWELL,
        Meaning.ANSWER_LOST,
        Meaning.REFUSED,
        Meaning.GATE,
        Meaning.PROXY,
        Meaning.PAGE,
        Meaning.REDIRECT,
        Meaning.NO_RECEIVER,
    }
)
"""Answers after which the same report is sent again."""
_UNTIMED: Final = frozenset({"not stored", "start unknown", Start.UNKNOWN.value})
"""Marks of times that LibreChat does not store: they are no durations."""


class GenAiMetrics:
    """Counts acknowledged traces, and reports them now and then. `wall_clock` is in seconds since 1970."""

    def __init__(
        self,
        connection: OtlpConnection,
        resource: Attributes,
        emit: Emit,
        *,
        interval: timedelta,
        wall_clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._resource = encode_resource(resource)
        self._emit = emit
        self._interval_seconds = interval.total_seconds()
        self._wall_clock = wall_clock
        self._tokens = Histogram(_TOKENS)
        self._duration = Histogram(_DURATION)
        self._since = self._now()
        self._report: bytes | None = None

    def observe(self, traces: Sequence[Trace]) -> None:
        """Count what the destination has just acknowledged."""
        for trace in traces:
            for item in trace.observations:
                if item.type in (ObservationType.GENERATION, ObservationType.AGENT):
                    self._count(trace, item)

    async def run(self) -> None:
        """Report for ever, once each interval."""
        while True:
            await asyncio.sleep(self._interval_seconds)
            await self.report()

    async def report(self) -> None:
        """Send what was counted since the last report. A report that was not taken is sent again first, as it is, and
        what comes meanwhile waits for the next one."""
        if self._report is None:
            self._report = self._take()
        if self._report is not None and await self._send(self._report):
            self._report = None

    def _count(self, trace: Trace, item: Observation) -> None:
        said = describe_span(trace, item, leads=False).attributes
        shared = {name: said[name] for name in _SHARED if name in said}
        if item.type is ObservationType.GENERATION:
            source = said.get("librechat.usage.source")
            marked: dict[str, Value] = {} if source is None else {"librechat.usage.source": source}
            for kind in ("input", "output"):
                tokens = said.get(f"gen_ai.usage.{kind}_tokens")
                if isinstance(tokens, int):
                    self._tokens.record(tokens, {**shared, **marked, "gen_ai.token.type": kind})
        timing = _timing_of(trace, item)
        if timing is not None:
            further = {"error.type": said["error.type"]} if "error.type" in said else {}
            seconds = (item.end_milliseconds - item.start_milliseconds) / 1000
            self._duration.record(seconds, {**shared, **further, "librechat.timing": timing})

    def _take(self) -> bytes | None:
        histograms = [histogram for histogram in (self._tokens, self._duration) if len(histogram)]
        start, end = self._since, max(self._now(), self._since + 1)
        self._since = end
        if not histograms:
            return None
        metrics = [histogram.take(start, end) for histogram in histograms]
        return self._connection.pack(frame_metrics(self._resource, metrics))

    async def _send(self, report: bytes) -> bool:
        """Whether the report is done with."""
        try:
            response = await self._connection.post(report)
        except SendingDoubted:
            return False
        except httpx.RequestError as error:
            failure = judge_failure(error, self._connection.names)
            self._emit(MetricsDelayed(explain(failure)))
            return False
        answer = understand(response)
        if answer.meaning in _KEPT:
            self._emit(MetricsDelayed(explain(answer)))
            return False
        self._say_what_was_lost(answer, response)
        return True

    def _say_what_was_lost(self, answer: Answer, response: httpx.Response) -> None:
        if answer.meaning is not Meaning.TAKEN:
            self._emit(MetricsLost(answer.reason))
            return
        rejected = read_partial_success(response).rejected
        if rejected:
            self._emit(MetricsLost(f"{rejected} points rejected"))

    def _now(self) -> int:
        return int(self._wall_clock() * 1000)


def _timing_of(trace: Trace, item: Observation) -> str | None:
    """How the duration of an operation is known; None where it is not."""
    if item.end_milliseconds <= item.start_milliseconds:
        return None
    if item.type is ObservationType.AGENT and item.parent_id is not None:
        return "estimated"
    timing = item.metadata.get("timing") or trace.metadata.get("start", Start.STORED.value)
    return None if timing in _UNTIMED else timing
