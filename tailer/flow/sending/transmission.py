"""Gets one batch to the destination: repeats what was not taken, looks up what may have been taken.

tenacity owns every retry; there is no limit, because the oplog holds what comes after. What is left to the caller are
the answers that more of the same bytes cannot change.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_exponential, wait_random

from tailer.events import (
    BatchSettled,
    DeliveryPaused,
    DeliveryResumed,
    DeliveryRetried,
    DeliveryUnknown,
    Emit,
    RequestDone,
)
from tailer.flow.ports import Sink
from tailer.flow.records import Batch
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

FinalOutcome: TypeAlias = Delivered | TooLarge | Rejected

_LONGEST_WAIT_SECONDS = 60.0
_RESULTS = {
    Delivered: RequestResult.OK,
    TooLarge: RequestResult.TOO_LARGE,
    Rejected: RequestResult.REJECTED,
    Refused: RequestResult.AUTH,
}


class Transmission:
    """The way to one sink. `lookup` is how long a batch of unknown outcome is looked for before it is sent again."""

    def __init__(self, sink: Sink, emit: Emit, *, lookup: timedelta, monotonic: Callable[[], float]) -> None:
        self._sink = sink
        self._emit = emit
        self._lookup = Lookup(sink, emit, patience=lookup, monotonic=monotonic)
        self._monotonic = monotonic
        self._refused = False
        self._backoff = wait_exponential(multiplier=0.2, max=_LONGEST_WAIT_SECONDS) + wait_random(0, 0.3)

    @property
    def is_refused(self) -> bool:
        """Whether the destination does not accept the keys at present."""
        return self._refused

    async def send(self, batch: Batch, *, maybe_sent: bool = False) -> FinalOutcome:
        """Send a batch until the answer is final; `maybe_sent` says that an earlier run may have sent it."""
        if maybe_sent and await self._is_taken(batch, reason="left by an earlier run"):
            return Delivered()
        while True:
            outcome = await self._send_until_answered(batch)
            if isinstance(outcome, Delivered | TooLarge | Rejected):
                return outcome
            if isinstance(outcome, Unknown) and await self._is_taken(batch, reason=outcome.reason):
                return Delivered()

    async def _send_until_answered(self, batch: Batch) -> DeliveryOutcome:
        attempts = AsyncRetrying(
            retry=retry_if_result(lambda outcome: isinstance(outcome, Retry | Refused)),
            wait=self._wait,
            before_sleep=self._report,
        )
        outcome: DeliveryOutcome = await attempts(self._send_once, batch.payload)
        if self._refused:
            self._refused = False
            self._emit(DeliveryResumed())
        return outcome

    async def _send_once(self, payload: bytes) -> DeliveryOutcome:
        began = self._monotonic()
        outcome = await self._sink.deliver(payload)
        result = outcome.result if isinstance(outcome, Retry | Unknown) else _RESULTS[type(outcome)]
        sent_bytes = 0 if result is RequestResult.WITHHELD else len(payload)
        self._emit(RequestDone(result.value, self._monotonic() - began, sent_bytes))
        return outcome

    def _wait(self, state: RetryCallState) -> float:
        outcome = state.outcome.result() if state.outcome is not None else None
        if isinstance(outcome, Retry) and outcome.after_seconds is not None:
            return outcome.after_seconds
        return self._backoff(state)

    def _report(self, state: RetryCallState) -> None:
        outcome = state.outcome.result() if state.outcome is not None else None
        if isinstance(outcome, Refused):
            if not self._refused:
                self._refused = True
                self._emit(DeliveryPaused(outcome.reason, outcome.remedy))
        elif isinstance(outcome, Retry):
            reason = f"{outcome.reason}: {outcome.remedy}" if outcome.remedy else outcome.reason
            self._emit(DeliveryRetried(reason, state.attempt_number, state.upcoming_sleep))

    async def _is_taken(self, batch: Batch, *, reason: str) -> bool:
        """Ask the destination whether it has the batch: it takes a request as a whole."""
        self._emit(DeliveryUnknown(reason, len(batch.items)))
        probes = list(dict.fromkeys((batch.items[0].probe, batch.items[-1].probe)))
        verdict = await self._lookup.settle(probes)
        self._emit(BatchSettled(verdict.value, len(batch.items)))
        return verdict is Verdict.FOUND
