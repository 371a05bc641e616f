"""All stores of one epoch in the form that the flow needs."""

from tailer.mongo.state.backfills import Backfills
from tailer.mongo.state.batches import Batches
from tailer.mongo.state.checkpoints import Checkpoints
from tailer.mongo.state.database import StateDatabase
from tailer.mongo.state.dead_letters import DeadLetters
from tailer.mongo.state.exports import Exports
from tailer.mongo.state.fencing import Fence
from tailer.mongo.state.gaps import Gaps
from tailer.mongo.state.mask_key import Keys
from tailer.mongo.state.parked import ParkedTurns


class MongoState(Checkpoints, Exports, Batches, ParkedTurns, Gaps, Backfills, DeadLetters, Keys):
    """A `StateStore` of one epoch: its writes fail once a later one has begun."""

    def __init__(self, database: StateDatabase, fence: Fence, *, destination: str) -> None:
        # The other stores need no more than these two.
        Batches.__init__(self, database, fence, destination)

    @property
    def epoch(self) -> int:
        """The epoch of this run; a later leader has a higher one."""
        return self._fence.epoch
