"""The tailer's own database, one module for each thing that it keeps.

`StateDatabase` is the way there, `MongoLease` decides who may write, `Fence` makes every write prove it, and
`MongoState` combines all stores.
"""

from tailer.mongo.state.database import StateDatabase
from tailer.mongo.state.fencing import Fence
from tailer.mongo.state.lease import MongoLease
from tailer.mongo.state.store import MongoState

__all__ = ["Fence", "MongoLease", "MongoState", "StateDatabase"]
