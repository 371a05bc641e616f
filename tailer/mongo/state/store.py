"""All stores of one epoch in the form that the flow needs."""

from datetime import timedelta

from pymongo import ASCENDING

from tailer.events import StateOperation
from tailer.mongo.state.backfills import Backfills
from tailer.mongo.state.batches import Batches
from tailer.mongo.state.belonging import Belonging
from tailer.mongo.state.checkpoints import Checkpoints
from tailer.mongo.state.database import StateDatabase
from tailer.mongo.state.dead_letters import DeadLetters
from tailer.mongo.state.exports import Exports
from tailer.mongo.state.fencing import Fence
from tailer.mongo.state.gaps import Gaps
from tailer.mongo.state.leftovers import Forgetting
from tailer.mongo.state.mask_key import Keys
from tailer.mongo.state.owed import Owed
from tailer.mongo.state.parked import ParkedTurns
from tailer.mongo.state.slots import Slots
from tailer.settings.destinations import DEFAULT_NAME


class DestinationState(Exports, Batches, DeadLetters, Owed):
    """A `DestinationStore` of one epoch: what is kept for one destination. `destination` is what a carried position
    remembers of the targets of its turns."""

    def __init__(self, database: StateDatabase, fence: Fence, name: str, destination: str) -> None:
        self._database = database
        self._fence = fence
        self._belonging = Belonging(name)
        self._destination = destination
        self._slots = Slots(database, fence, self._belonging)


class MongoState(Checkpoints, ParkedTurns, Gaps, Backfills, Keys, Forgetting, DestinationState):
    """A `StateStore` of one epoch: its writes fail once a later one has begun. Its own view is that of `default`."""

    def __init__(self, database: StateDatabase, fence: Fence, *, destination: str) -> None:
        DestinationState.__init__(self, database, fence, DEFAULT_NAME, destination)
        self._views: dict[str, DestinationState] = {DEFAULT_NAME: self}

    @property
    def epoch(self) -> int:
        """The epoch of this run; a later leader has a higher one."""
        return self._fence.epoch

    def of(self, destination: str) -> DestinationState:
        """The view of a destination; the same one each time, because it knows which of its slots are free."""
        if destination not in self._views:
            self._views[destination] = DestinationState(
                self._database, self._fence, destination, self._destination
            )
        return self._views[destination]

    async def prepare(self, *, lifetime: timedelta) -> None:
        """Create the indexes."""
        await super().prepare(lifetime=lifetime)
        await self._database.attempt(
            StateOperation.PREPARE,
            lambda: self._database["owed"].create_index(
                [("destination", ASCENDING), ("since_seconds", ASCENDING), ("_id", ASCENDING)]
            ),
        )
