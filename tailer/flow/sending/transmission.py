"""Gets one batch to the destination: repeats what was not accepted, looks up what may have been accepted.

tenacity runs every retry. There is no limit, because the oplog holds what comes after, but for a batch that is refused
alone (`ordeal.py`). The caller gets the answers that further tries of the same bytes cannot change.
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
from tailer.flow.sending.ordeal import Ordeal
from tailer.flow.sending.outcomes import (
    Delivered,
    DeliveryOutcome,
    Refused,
    Rejected,
    RequestResult,
    Retry,
    TooLarge,
    Unknown,
    explain,
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

    async def send(self, batch: Batch, *, maybe_sent: bool = False, suspected: bool = False) -> FinalOutcome:
        """Send a batch until the answer is final; `maybe_sent` says that an earlier run may have sent it, `suspected`
        that it is part of one that was refused alone."""
        ordeal = Ordeal(self._health, suspected=suspected)
        outcome = await self._send(batch, ordeal, maybe_sent=maybe_sent)
        self._presence.note_answer()
        return outcome

    async def _send(self, batch: Batch, ordeal: Ordeal, *, maybe_sent: bool) -> FinalOutcome:
        outcome: FinalOutcome | Unknown
        if maybe_sent:
            outcome = Unknown("left by an earlier run")
        else:
            outcome = await self._try_until_answered(lambda: self._send_once(batch.payload), ordeal)
        losses = 0
        while isinstance(outcome, Unknown):
            losses += 1
            outcome = await self._resolve(batch, outcome, losses, ordeal)
        return outcome

    async def _resolve(
        self, batch: Batch, lost: Unknown, losses: int, ordeal: Ordeal
    ) -> FinalOutcome | Unknown:
        """What becomes of a batch that the destination may have: it is found, or sent again; or given up, where it is
        not there and every answer is lost."""
        self._presence.note_failure()
        self._emit(DeliveryUnknown(explain(lost), len(batch.items)))
        verdict = await self._look_up(batch)
        if ordeal.is_over(lost) and verdict is Verdict.SENT_AGAIN:
            return _refused_alone(lost.reason)
        if verdict is Verdict.SENT_AGAIN_UNREAD:
            # No look took any time: without a pause an answer that is always lost would be asked for at once.
            await self._sleep(_BACKOFF.wait_seconds(losses, asked_seconds=lost.after_seconds))

        async def try_once() -> DeliveryOutcome:
            nonlocal verdict
            if verdict is Verdict.SENT_AGAIN_UNREAD:
                # What kept the destination from being read may have passed, as it does when keys are put right.
                verdict = await self._look_up(batch)
            return Delivered() if verdict is Verdict.FOUND else await self._send_once(batch.payload)

        outcome = await self._try_until_answered(try_once, ordeal)
        self._emit(BatchSettled(verdict.value, len(batch.items)))
        if verdict is Verdict.SENT_AGAIN_UNREAD:
            self._emit(TracesMayRepeat(lost.reason, len(batch.items)))
        return outcome

    async def _look_up(self, batch: Batch) -> Verdict:
        """Ask the destination whether it has the batch: it takes a request as a whole."""
        probes = list(dict.fromkeys((batch.items[0].probe, batch.items[-1].probe)))
        verdict = await self._lookup.settle(probes)
        if verdict is Verdict.FOUND:
            self._health.note(Channel.SPANS, Delivered())
        return verdict

    async def _try_until_answered(
        self, call: Callable[[], Awaitable[DeliveryOutcome]], ordeal: Ordeal
    ) -> FinalOutcome | Unknown:
        outcome = await try_until(
            call,
            is_final=lambda outcome: not isinstance(outcome, Retry | Refused) or ordeal.is_over(outcome),
            wait=_wait_seconds,
            report=self._report,
        )
        return _refused_alone(outcome.reason) if isinstance(outcome, Retry | Refused) else outcome

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
            self._emit(DeliveryRetried(explain(outcome), setback.tries, setback.wait_seconds))


def _refused_alone(reason: str) -> Rejected:
    return Rejected(f"{reason}, while others are accepted", alone=True)


def _wait_seconds(outcome: DeliveryOutcome, tries: int) -> float:
    asked_seconds = outcome.after_seconds if isinstance(outcome, Retry) else None
    return _BACKOFF.wait_seconds(tries, asked_seconds=asked_seconds)
