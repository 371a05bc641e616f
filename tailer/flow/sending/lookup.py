"""Settles a batch of unknown outcome: asks the destination for it until the answer can be trusted.

A destination shows what it took some time later, so only a stretch of answers without a break says that a batch is not
there. A limit on reads is no break: the destination is there and works on what it took. It is only asked less often,
and the last word is always an answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from enum import StrEnum

from tailer.events import Emit, LookupRetried
from tailer.flow.ports import Sink
from tailer.flow.records import Probe
from tailer.flow.sending.outcomes import Found, LookupAnswer, Unanswered, explain
from tailer.retrying import Setback, try_until

_FIRST_PAUSE_SECONDS = 0.5
"""Langfuse shows most of what it takes within one to three seconds (4.16)."""
_SHORTEST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 15.0
_LONGEST_LIMITED_PAUSE_SECONDS = 60.0
"""Langfuse Cloud counts its reads by the minute."""


class Verdict(StrEnum):
    """What is done with a batch of unknown outcome."""

    FOUND = "found"
    SENT_AGAIN = "sent_again"
    SENT_AGAIN_UNREAD = "sent_again_unread"


class Lookup:
    """The questions to one sink. `patience` is for how long it must answer that something is not there."""

    def __init__(
        self,
        sink: Sink,
        emit: Emit,
        *,
        patience: timedelta,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sink = sink
        self._emit = emit
        self._patience_seconds = patience.total_seconds()
        self._monotonic = monotonic
        self._sleep = sleep

    async def settle(self, probes: Sequence[Probe]) -> Verdict:
        """Ask until one of the probes is found, or for long enough; however long the destination is away, because
        sending again without an answer could count a turn twice."""
        search = _Search(self._patience_seconds, self._monotonic)
        answer = await try_until(
            lambda: self._sink.find(probes),
            is_final=lambda answer: not search.goes_on(answer),
            wait=search.pause,
            report=self._report,
            sleep=self._sleep,
        )
        if not isinstance(answer, Found):
            return Verdict.SENT_AGAIN_UNREAD
        if answer.observation_ids:
            return Verdict.FOUND
        # One that would be shown tells of the whole batch.
        is_told = any(probe.observation_id not in answer.out_of_sight for probe in probes)
        return Verdict.SENT_AGAIN if is_told else Verdict.SENT_AGAIN_UNREAD

    def _report(self, setback: Setback[LookupAnswer]) -> None:
        if isinstance(setback.answer, Unanswered):
            self._emit(LookupRetried(explain(setback.answer), setback.tries, setback.wait_seconds))


class _Search:
    """One search: since when the destination has answered, and how long to wait for the next answer."""

    def __init__(self, patience_seconds: float, monotonic: Callable[[], float]) -> None:
        self._patience_seconds = patience_seconds
        self._monotonic = monotonic
        self._answering_since: float | None = None
        self._misses = 0
        self._limits = 0
        self._silences = 0

    def goes_on(self, answer: LookupAnswer) -> bool:
        """Whether to ask again; called once for each answer."""
        self._count(answer)
        if isinstance(answer, Unanswered):
            if not answer.is_limited:
                # What it took before it went away is shown only a while after it is back.
                self._answering_since = None
            return True
        if not isinstance(answer, Found) or answer.observation_ids:
            return False
        if self._answering_since is None:
            self._answering_since = self._monotonic()
        return self._left_seconds() > 0

    def pause(self, answer: LookupAnswer, tries: int) -> float:
        """Twice as long after each answer of the same kind, and never less than the destination asks for."""
        del tries
        if not isinstance(answer, Unanswered):
            # The last look comes at the end of the patience, not long after it.
            return max(_SHORTEST_PAUSE_SECONDS, min(_grown(self._misses), self._left_seconds()))
        if answer.is_limited:
            grown = min(_grown(self._limits), _LONGEST_LIMITED_PAUSE_SECONDS)
        else:
            grown = min(_grown(self._silences), _LONGEST_PAUSE_SECONDS)
        return max(answer.after_seconds or 0.0, grown)

    def _left_seconds(self) -> float:
        since = self._answering_since
        return 0.0 if since is None else self._patience_seconds - (self._monotonic() - since)

    def _count(self, answer: LookupAnswer) -> None:
        if not isinstance(answer, Unanswered):
            # A limit in between says nothing of how the search stands: the pauses between answers go on growing.
            self._limits = self._silences = 0
            self._misses += 1
        elif answer.is_limited:
            self._limits += 1
        else:
            self._silences += 1
            self._misses = 0


def _grown(alike: int) -> float:
    """The pause after so many answers of one kind."""
    return float(_FIRST_PAUSE_SECONDS * 2 ** min(alike - 1, 10))
