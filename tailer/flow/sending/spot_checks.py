"""Looks some minutes later for a small share of what the destination acknowledged.

An acknowledgement of Langfuse means that a request is stored and queued. Nothing reports what happens to it then: a
worker that is down, a database that refuses, spans that are dropped. So one turn a minute is remembered and looked for,
all in one read every two minutes. What is not there after ten minutes is reported.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from tailer.events import Emit, SpotChecked, TraceNotKept
from tailer.flow.ports import Sink
from tailer.flow.records import BatchItem
from tailer.flow.sending.outcomes import Unanswered, Unreadable
from tailer.flow.stores import ExportStore

_BETWEEN_PICKS: Final = timedelta(minutes=1)
_BETWEEN_LOOKS: Final = timedelta(minutes=2)
_FIRST_LOOK_AFTER: Final = timedelta(minutes=2)
_MISSING_AFTER: Final = timedelta(minutes=10)
"""Langfuse shows most within seconds; a queue that is minutes long is a fault of its own."""
_GIVEN_UP_AFTER: Final = timedelta(hours=1)
_MOST_WAITING: Final = 100


class SpotCheckResult(StrEnum):
    """What came of looking for one turn."""

    KEPT = "kept"
    MISSING = "missing"
    UNREAD = "unread"


@dataclass(frozen=True, slots=True)
class _Pick:
    item: BatchItem
    acknowledged_seconds: float


class SpotChecks:
    """The turns that are looked for at present."""

    def __init__(
        self,
        sink: Sink,
        exports: ExportStore,
        emit: Emit,
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sink = sink
        self._exports = exports
        self._emit = emit
        self._monotonic = monotonic
        self._sleep = sleep
        self._waiting: list[_Pick] = []
        self._next_pick_seconds = 0.0
        self._next_look_seconds = 0.0

    def note(self, items: Sequence[BatchItem], *, are_doubted: bool = False) -> None:
        """Take in what was acknowledged: one turn a minute, and all turns of a batch that was taken in part."""
        now = self._monotonic()
        turns = [item for item in items if item.sent is not None]
        if not are_doubted:
            if not turns or now < self._next_pick_seconds:
                return
            self._next_pick_seconds = now + _BETWEEN_PICKS.total_seconds()
            turns = turns[:1]
        room = _MOST_WAITING - len(self._waiting)
        self._waiting.extend(_Pick(item, now) for item in turns[:room])

    async def run(self) -> None:
        """Look every two minutes, for ever."""
        while True:
            await self._sleep(_BETWEEN_LOOKS.total_seconds())
            await self.look()

    async def look(self) -> None:
        """Ask once for everything that was acknowledged long enough ago."""
        now = self._monotonic()
        due = [pick for pick in self._waiting if _age(pick, now) >= _FIRST_LOOK_AFTER]
        if not due or now < self._next_look_seconds:
            return
        answer = await self._sink.find([pick.item.probe for pick in due])
        if isinstance(answer, Unanswered):
            self._next_look_seconds = now + (answer.after_seconds or 0.0)
            self._settle([pick for pick in due if _age(pick, now) >= _GIVEN_UP_AFTER], SpotCheckResult.UNREAD)
            return
        if isinstance(answer, Unreadable):
            self._settle(due, SpotCheckResult.UNREAD)
            return
        kept = [pick for pick in due if pick.item.probe.observation_id in answer.observation_ids]
        self._settle(kept, SpotCheckResult.KEPT)
        hidden = [pick for pick in due if pick.item.probe.observation_id in answer.out_of_sight]
        self._settle(hidden, SpotCheckResult.UNREAD)
        due = [pick for pick in due if pick not in hidden]
        late = [pick for pick in due if pick not in kept and _age(pick, now) >= _MISSING_AFTER]
        await self._tell_missing(late)

    async def _tell_missing(self, late: Sequence[_Pick]) -> None:
        if not late:
            return
        # A turn whose trace was deleted since is not missed.
        expected = await self._exports.load_sent([pick.item.probe.trace_id for pick in late])
        missing = [pick for pick in late if pick.item.probe.trace_id in expected]
        self._forget(late)
        self._settle(missing, SpotCheckResult.MISSING)
        for pick in missing:
            self._emit(TraceNotKept(pick.item.probe.trace_id, pick.item.message_id))

    def _settle(self, picks: Sequence[_Pick], result: SpotCheckResult) -> None:
        self._forget(picks)
        for _ in picks:
            self._emit(SpotChecked(result.value))

    def _forget(self, picks: Sequence[_Pick]) -> None:
        self._waiting = [pick for pick in self._waiting if pick not in picks]


def _age(pick: _Pick, now: float) -> timedelta:
    return timedelta(seconds=now - pick.acknowledged_seconds)
