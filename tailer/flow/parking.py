"""Turns that wait long: stored in the state database, so that they neither hold back a resume token nor are forgotten.

A question is parked when its answer takes longer than the park time; a response when it is unfinished (tab closed) or
paused (approval). It is forgotten when the answer arrives or the row is finished, and resumed when its deadline has
passed. Deadlines are cluster time: no other machine's clock is trusted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from tailer.core.identity import DocumentKey
from tailer.core.turn.turns import Wait
from tailer.flow.records import ParkedTurn
from tailer.flow.stores import ParkedStore

_IN_MEMORY = 20_000
"""The parked turns in memory, those with the earliest deadlines; the others are read again when there is room."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long each kind of waiting may take before the turn is sent as it is."""

    response: timedelta
    finish: timedelta
    approval: timedelta

    def seconds(self, wait: Wait) -> int:
        """The limit of one kind, in whole seconds."""
        limits = {Wait.RESPONSE: self.response, Wait.FINISH: self.finish, Wait.APPROVAL: self.approval}
        return int(limits[wait].total_seconds())


class Parking:
    """The parked turns, in memory and in the state database.

    Memory holds at most `known` of them: all whose deadline lies before the horizon. Those behind it are read from the
    state database once the earlier ones have left.
    """

    def __init__(self, state: ParkedStore, patience: Patience, *, known: int = _IN_MEMORY) -> None:
        self._state = state
        self._patience = patience
        self._known = known
        self._parked: dict[DocumentKey, ParkedTurn] = {}
        self._questions: dict[str, DocumentKey] = {}
        self._leaving: set[DocumentKey] = set()
        self._horizon_seconds: float = math.inf

    def __len__(self) -> int:
        """How many parked turns are known."""
        return len(self._parked)

    def count(self, wait: Wait) -> int:
        """How many of the known parked turns wait for one thing."""
        return sum(1 for turn in self._parked.values() if turn.wait is wait)

    async def load(self) -> None:
        """Read the parked turns of earlier runs, and those for which there was no room."""
        turns = await self._state.load_parked(self._known)
        self._horizon_seconds = math.inf if len(turns) < self._known else turns[-1].deadline_seconds
        for turn in turns:
            if turn.document_key not in self._leaving:
                self._remember(turn)

    async def keep(self, waiting: Sequence[tuple[DocumentKey, str | None, Wait, int]]) -> None:
        """Park rows: (`_id`, message id, what it waits for, cluster seconds since when).

        A row that already waits for the same thing keeps its deadline; one that waits for something else gets a new
        one.
        """
        turns = [
            ParkedTurn(key, message_id, wait, since, since + self._patience.seconds(wait))
            for key, message_id, wait, since in waiting
            if key not in self._parked or self._parked[key].wait is not wait
        ]
        # A row that had left and waits again must not be forgotten with the next `flush`.
        self._leaving.difference_update(turn.document_key for turn in turns)
        await self._state.park(turns)
        for turn in turns:
            self._forget(turn.document_key)
            if turn.deadline_seconds <= self._horizon_seconds:
                self._remember(turn)
        self._make_room()

    def answer(self, question_message_id: str) -> None:
        """A response to this question has arrived."""
        key = self._questions.get(question_message_id)
        if key is not None:
            self.leave(key)

    def leave(self, key: DocumentKey) -> None:
        """The row is done; it is forgotten with the next `flush`."""
        if self._forget(key):
            self._leaving.add(key)

    def overdue(self, source_seconds: int) -> list[ParkedTurn]:
        """The turns whose deadline has passed by the server's clock."""
        return [turn for turn in self._parked.values() if turn.deadline_seconds <= source_seconds]

    async def flush(self) -> None:
        """Forget those that have left, in the state database too, and read others while there is room."""
        leaving = list(self._leaving)
        if leaving:
            await self._state.unpark(leaving)
            self._leaving.difference_update(leaving)
        if self._horizon_seconds < math.inf and len(self._parked) <= self._known // 2:
            await self.load()

    def _remember(self, turn: ParkedTurn) -> None:
        self._parked[turn.document_key] = turn
        if turn.wait is Wait.RESPONSE and turn.message_id is not None:
            self._questions[turn.message_id] = turn.document_key

    def _forget(self, key: DocumentKey) -> bool:
        turn = self._parked.pop(key, None)
        if turn is not None and turn.message_id is not None:
            self._questions.pop(turn.message_id, None)
        return turn is not None

    def _make_room(self) -> None:
        """Forget, in memory, those with the latest deadlines. Memory may hold twice as many, so this is seldom."""
        if len(self._parked) <= 2 * self._known:
            return
        by_deadline = sorted(self._parked.values(), key=_deadline_of)
        for turn in by_deadline[self._known :]:
            self._forget(turn.document_key)
        self._horizon_seconds = by_deadline[self._known - 1].deadline_seconds


def _deadline_of(turn: ParkedTurn) -> int:
    return turn.deadline_seconds
