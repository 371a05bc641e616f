"""Turns that wait long: kept in the state database, so that they neither hold a resume token back nor are forgotten.

A question is parked when its answer takes longer than the park time; a response when it is unfinished (tab closed) or
paused (approval). It is forgotten when the answer arrives or the row is finished, and taken up again when its deadline
has passed. Deadlines are cluster time: no other machine's clock is trusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from tailer.core.identity import DocumentKey
from tailer.core.turn.turns import Wait
from tailer.flow.records import ParkedTurn
from tailer.flow.stores import ParkedStore

_IN_MEMORY = 20_000
"""Parked turns known at once; others are found in the state database when these have gone."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long each kind of waiting may take before the turn is sent as it stands."""

    response: timedelta
    finish: timedelta
    approval: timedelta

    def seconds(self, wait: Wait) -> int:
        """The limit of one kind, in whole seconds."""
        limits = {Wait.RESPONSE: self.response, Wait.FINISH: self.finish, Wait.APPROVAL: self.approval}
        return int(limits[wait].total_seconds())


class Parking:
    """The parked turns, in memory and in the state database."""

    def __init__(self, state: ParkedStore, patience: Patience) -> None:
        self._state = state
        self._patience = patience
        self._parked: dict[DocumentKey, ParkedTurn] = {}
        self._questions: dict[str, DocumentKey] = {}
        self._leaving: set[DocumentKey] = set()

    def __len__(self) -> int:
        """How many parked turns are known."""
        return len(self._parked)

    def count(self, wait: Wait) -> int:
        """How many parked turns wait for one thing."""
        return sum(1 for turn in self._parked.values() if turn.wait is wait)

    async def load(self) -> None:
        """Read the parked turns of earlier runs."""
        for turn in await self._state.load_parked(_IN_MEMORY):
            self._remember(turn)

    async def keep(self, waiting: Sequence[tuple[DocumentKey, str | None, Wait, int]]) -> None:
        """Park rows: (`_id`, message id, what it waits for, cluster seconds since when)."""
        turns = [
            ParkedTurn(key, message_id, wait, since, since + self._patience.seconds(wait))
            for key, message_id, wait, since in waiting
            if key not in self._parked
        ]
        # A row that had left and waits again must not be forgotten with the next `flush`.
        self._leaving.difference_update(turn.document_key for turn in turns)
        await self._state.park(turns)
        for turn in turns:
            self._remember(turn)

    def answer(self, question_message_id: str) -> None:
        """A response to this question has arrived."""
        key = self._questions.get(question_message_id)
        if key is not None:
            self.leave(key)

    def leave(self, key: DocumentKey) -> None:
        """The row is done; it is forgotten with the next `flush`."""
        turn = self._parked.pop(key, None)
        if turn is not None:
            self._leaving.add(key)
            if turn.message_id is not None:
                self._questions.pop(turn.message_id, None)

    def overdue(self, source_seconds: int) -> list[ParkedTurn]:
        """The turns whose deadline has passed by the server's clock."""
        return [turn for turn in self._parked.values() if turn.deadline_seconds <= source_seconds]

    async def flush(self) -> None:
        """Forget, in the state database too, what has left."""
        leaving = list(self._leaving)
        if leaving:
            await self._state.unpark(leaving)
            self._leaving.difference_update(leaving)

    def _remember(self, turn: ParkedTurn) -> None:
        if len(self._parked) >= _IN_MEMORY:
            return
        self._parked[turn.document_key] = turn
        if turn.wait is Wait.RESPONSE and turn.message_id is not None:
            self._questions[turn.message_id] = turn.document_key
