"""Reads dead letters and requests their replay. The work of `tailer dead-letters`.

A request is a mark on the letter. The active instance handles it within seconds, or as soon as there is one.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from tailer.errors import RequestRefused
from tailer.mongo.state import StateDatabase
from tailer.mongo.state.requests import ask_for_replays, drop_letters
from tailer.mongo.state.survey import StoredLetter, list_letters
from tailer.operations.instances import find_active_shards
from tailer.operations.opening import open_state
from tailer.settings import Settings

_SHORTEST_PREFIX = 6
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of a replay: how many were sent, still wait, and failed or had nothing to send."""

    sent: int
    waiting: int
    kept: Sequence[StoredLetter]


class LetterDesk:
    """The dead letters of one tailer."""

    def __init__(self, state: StateDatabase, lease_time: timedelta) -> None:
        self._state = state
        self._lease_time = lease_time

    async def list_letters(self, destination: str | None = None) -> Sequence[StoredLetter]:
        """All dead letters, or those of one destination, the latest failure first. A destination that is no longer in
        the settings may have some."""
        letters = await list_letters(self._state)
        return [letter for letter in letters if destination in (None, letter.destination)]

    async def choose(self, names: Sequence[str], destination: str | None = None) -> Sequence[StoredLetter]:
        """The letters with these ids, or beginnings of ids; raises RequestRefused if one is ambiguous."""
        letters = await self.list_letters(destination)
        chosen = {name: [letter for letter in letters if _is_named(letter, name)] for name in names}
        for name, found in chosen.items():
            if len(found) != 1:
                raise RequestRefused(operation="choosing a dead letter", subject=name, hint=_explain(found))
        return list({found[0].letter_id: found[0] for found in chosen.values()}.values())

    async def ask(self, letters: Sequence[StoredLetter]) -> None:
        """Mark letters for a replay."""
        await ask_for_replays(self._state, [letter.letter_id for letter in letters])

    async def drop(self, letters: Sequence[StoredLetter]) -> int:
        """Forget letters; returns how many there were."""
        return await drop_letters(self._state, [letter.letter_id for letter in letters])

    async def has_sender(self) -> bool:
        """Whether every shard has an active instance: a letter is sent by that of its conversation."""
        return all((await find_active_shards(self._state, self._lease_time)).values())

    async def follow(self, letters: Sequence[StoredLetter], patience: timedelta) -> Replayed:
        """Wait until every letter is done, or the time is up."""
        letter_ids = [letter.letter_id for letter in letters]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience.total_seconds()
        while True:
            left = await list_letters(self._state, letter_ids)
            waiting = [letter for letter in left if letter.is_asked]
            if not waiting or loop.time() > deadline:
                kept = [letter for letter in left if not letter.is_asked]
                return Replayed(len(letters) - len(left), len(waiting), kept)
            await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def open_letters(settings: Settings) -> AsyncIterator[LetterDesk]:
    """The desk over a connection of its own."""
    async with open_state(settings, command="dead-letters") as state:
        yield LetterDesk(state, settings.lease_time)


def _is_named(letter: StoredLetter, name: str) -> bool:
    ids = (letter.record_id, letter.letter_id)
    is_prefix = len(name) >= _SHORTEST_PREFIX and any(each.startswith(name) for each in ids)
    return name in (*ids, letter.message_id) or is_prefix


def _explain(found: Sequence[StoredLetter]) -> str:
    several = "there is none" if not found else f"there are {len(found)}"
    hint = (
        f"{several} with this id; `tailer dead-letters list` shows the ids, of which the first {_SHORTEST_PREFIX} "
        "characters or more may be given"
    )
    names = sorted({letter.destination for letter in found})
    return hint if len(names) <= 1 else f"{hint}; --destination chooses one of {', '.join(names)}"
