"""Looks at the stored position all the time, and says afterwards whether it ever passed a turn that was not sent."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bson import Timestamp
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from tailer.core.stream.hints import Stream
from tailer.mongo.state.positions import find_positions
from tests.e2e.databases import token_time
from tests.oracle.writer import WrittenTurn

_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Sighting:
    """A stored position of `messages`, and when it was certainly there: seconds since 1970."""

    position: Timestamp
    seen_at: float


@dataclass(slots=True)
class Watcher:
    """Collects sightings; what a majority has not agreed on does not count."""

    client: "AsyncIOMotorClient[dict[str, Any]]"
    database: str
    sightings: list[Sighting] = field(default_factory=list)

    async def run(self) -> None:
        """Look for ever."""
        majority = self.client.get_database(self.database, read_concern=ReadConcern("majority"))
        while True:
            try:
                found = (await find_positions(majority)).get(Stream.MESSAGES)
            except PyMongoError:
                found = None
            if found is not None and found.position.token is not None:
                self._see(Sighting(token_time(found.position.token), time.time()))
            await asyncio.sleep(_LOOK_SECONDS)

    def _see(self, sighting: Sighting) -> None:
        if not self.sightings or self.sightings[-1].position != sighting.position:
            self.sightings.append(sighting)


def find_passed(
    sightings: list[Sighting], written: Mapping[str, WrittenTurn], arrivals: Mapping[str, float]
) -> list[str]:
    """The turns that a stored position had passed before they arrived, a line each."""
    return [
        f"{turn.message_id}: written at {turn.written}, position {sighting.position} seen at {sighting.seen_at}, "
        f"arrived at {arrivals.get(trace_id)}"
        for trace_id, turn in written.items()
        for sighting in sightings
        if turn.written < sighting.position and not arrivals.get(trace_id, float("inf")) <= sighting.seen_at
    ]
