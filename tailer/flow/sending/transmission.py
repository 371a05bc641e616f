"""Gets one batch to the destination: repeats what was not taken, looks up what may have been taken.

tenacity owns every retry; there is no limit, because the oplog holds what comes after. What is left to the caller are
the answers that more of the same bytes cannot change.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_result,
    wait_exponential,
    wait_fixed,
    wait_random,
)

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
from tailer.flow.records import Batch, Probe
from tailer.flow.sending.outcomes import (
    Delivered,
    DeliveryOutcome,
    Found,
    LookupAnswer,
    Refused,
    Rejected,
    RequestResult,
    Retry,
    TooLarge,
    Unanswered,
    Unknown,
)

FinalOutcome: TypeAlias = Delivered | TooLarge | Rejected

_LONGEST_WAIT_SECONDS = 60.0
_LOOKUP_INTERVAL_SECONDS = 0.5
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
        self._lookup = lookup
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
                self._emit(
                    DeliveryPaused(outcome.reason, "check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY")
                )
        elif isinstance(outcome, Retry):
            self._emit(DeliveryRetried(outcome.reason, state.attempt_number, state.upcoming_sleep))

    async def _is_taken(self, batch: Batch, *, reason: str) -> bool:
        """Ask the destination, for the lookup time, whether it has the batch: it takes a request as a whole."""
        self._emit(DeliveryUnknown(reason, len(batch.items)))
        probes = list(dict.fromkeys((batch.items[0].probe, batch.items[-1].probe)))
        answering = _Answering(self._monotonic)
        attempts = AsyncRetrying(
            retry=retry_if_result(lambda answer: isinstance(answer, Found) and not answer.observation_ids),
            wait=wait_fixed(_LOOKUP_INTERVAL_SECONDS),
            stop=lambda _: answering.seconds >= self._lookup.total_seconds(),
            retry_error_callback=_last_answer,
        )
        answer: LookupAnswer = await attempts(self._ask, probes, answering)
        taken = isinstance(answer, Found) and bool(answer.observation_ids)
        verdict = "found" if taken else "sent_again" if isinstance(answer, Found) else "sent_again_unread"
        self._emit(BatchSettled(verdict, len(batch.items)))
        return taken

    async def _ask(self, probes: list[Probe], answering: "_Answering") -> LookupAnswer:
        """An answer, however long the destination is away: sending again without one could count a turn twice."""
        attempts = AsyncRetrying(
            retry=retry_if_result(lambda answer: isinstance(answer, Unanswered)),
            wait=wait_exponential(multiplier=_LOOKUP_INTERVAL_SECONDS, max=_LONGEST_WAIT_SECONDS / 4)
            + wait_random(0, 1),
            before_sleep=lambda _: answering.end(),
        )
        answer: LookupAnswer = await attempts(self._sink.find, probes)
        answering.go_on()
        return answer


class _Answering:
    """For how long the destination has answered without a break.

    Only that time counts as looking: one that was away shows what it took before only a while after it is back.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """Since the first answer of all that came without a break."""
        return 0.0 if self._since is None else self._monotonic() - self._since

    def go_on(self) -> None:
        """There was an answer."""
        if self._since is None:
            self._since = self._monotonic()

    def end(self) -> None:
        """There was none."""
        self._since = None


def _last_answer(state: RetryCallState) -> LookupAnswer:
    answer: LookupAnswer = state.outcome.result() if state.outcome is not None else Found(frozenset())
    return answer
