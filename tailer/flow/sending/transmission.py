"""Gets one batch to the destination: repeats what was not accepted, looks up what may have been accepted.

tenacity runs every retry. There is no limit, because the oplog holds what comes after. The caller gets the answers that
further tries of the same bytes cannot change.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeAlias

from tailer.events import (
    BatchSettled,
    DeliveryRetried,
    DeliveryUnknown,
    Emit,
    RequestDone,
    TracesMayRepeat,
)
from tailer.flow.ports import Sink
from tailer.flow.records import Batch
from tailer.flow.sending.destination_health import Channel, DestinationHealth
from tailer.flow.sending.lookup import Lookup, Verdict
from tailer.flow.sending.outcomes import (
    Delivered,
    DeliveryOutcome,
    Refused,
    Rejected,
    RequestResult,
    Retry,
    TooLarge,
    Unknown,
)
from tailer.flow.sending.presence import Presence
from tailer.retrying import Backoff, Setback, try_until

FinalOutcome: TypeAlias = Delivered | TooLarge | Rejected

_BACKOFF = Backoff(first_seconds=0.2, longest_seconds=60.0, jitter_seconds=0.3)
_RESULTS = {
    Delivered: RequestResult.OK,
    TooLarge: RequestResult.TOO_LARGE,
    Rejected: RequestResult.REJECTED,
    Refused: RequestResult.AUTH,
}


class Transmission:
    """The way to one sink. `lookup` is how long a batch of unknown outcome is looked for before it is sent again."""

    def __init__(
        self,
        sink: Sink,
        health: DestinationHealth,
        emit: Emit,
        *,
        lookup: timedelta,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        presence: Presence | None = None,
    ) -> None:
        self._sink = sink
        self._health = health
        self._presence = presence or Presence(patience=None, monotonic=monotonic)
        self._emit = emit
        self._lookup = Lookup(sink, emit, patience=lookup, monotonic=monotonic)
        self._monotonic = monotonic
        self._sleep = sleep

    async def send(self, batch: Batch, *, maybe_sent: bool = False) -> FinalOutcome:
        """Send a batch until the answer is final; `maybe_sent` says that an earlier run may have sent it."""
        outcome = await self._send(batch, maybe_sent=maybe_sent)
        self._presence.note_answer()
        return outcome

    async def _send(self, batch: Batch, *, maybe_sent: bool) -> FinalOutcome:
        if maybe_sent and await self._settle(batch, reason="left by an earlier run") is Verdict.FOUND:
            return Delivered()
        losses = 0
        while True:
            outcome = await self._send_until_answered(batch)
            if isinstance(outcome, Delivered | TooLarge | Rejected):
                return outcome
            if isinstance(outcome, Unknown):
                verdict = await self._settle(batch, reason=outcome.reason)
                if verdict is Verdict.FOUND:
                    return Delivered()
                losses += 1
                if verdict is Verdict.SENT_AGAIN_UNREAD:
                    # No look took any time: without a pause an answer that is always lost would be asked for at once.
                    await self._sleep(max(outcome.after_seconds or 0.0, _BACKOFF.wait_seconds(losses)))

    async def _send_until_answered(self, batch: Batch) -> DeliveryOutcome:
        return await try_until(
            lambda: self._send_once(batch.payload),
            is_final=lambda outcome: not isinstance(outcome, Retry | Refused),
            wait=_wait_seconds,
            report=self._report,
        )

    async def _send_once(self, payload: bytes) -> DeliveryOutcome:
        began = self._monotonic()
        outcome = await self._sink.deliver(payload)
        self._health.note(Channel.SPANS, outcome)
        if isinstance(outcome, Retry | Refused | Unknown):
            self._presence.note_failure()
        result = outcome.result if isinstance(outcome, Retry | Unknown) else _RESULTS[type(outcome)]
        if isinstance(outcome, Delivered) and outcome.rejected_spans:
            result = RequestResult.PARTIAL
        sent_bytes = 0 if result is RequestResult.WITHHELD else len(payload)
        self._emit(RequestDone(result.value, self._monotonic() - began, sent_bytes))
        return outcome

    def _report(self, setback: Setback[DeliveryOutcome]) -> None:
        outcome = setback.answer
        if isinstance(outcome, Retry):
            reason = f"{outcome.reason}: {outcome.remedy}" if outcome.remedy else outcome.reason
            self._emit(DeliveryRetried(reason, setback.tries, setback.wait_seconds))

    async def _settle(self, batch: Batch, *, reason: str) -> Verdict:
        """Ask the destination whether it has the batch: it takes a request as a whole."""
        self._presence.note_failure()
        self._emit(DeliveryUnknown(reason, len(batch.items)))
        probes = list(dict.fromkeys((batch.items[0].probe, batch.items[-1].probe)))
        verdict = await self._lookup.settle(probes)
        self._emit(BatchSettled(verdict.value, len(batch.items)))
        if verdict is Verdict.SENT_AGAIN_UNREAD:
            self._emit(TracesMayRepeat(reason, len(batch.items)))
        return verdict


def _wait_seconds(outcome: DeliveryOutcome, tries: int) -> float:
    """As long as the server asked for, where it did."""
    if isinstance(outcome, Retry) and outcome.after_seconds is not None:
        return outcome.after_seconds
    return _BACKOFF.wait_seconds(tries)
