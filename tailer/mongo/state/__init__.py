"""The tailer's own database, a module for each thing it keeps.

`StateDatabase` is the way there, `MongoLease` says who may write, `Fence` makes every write prove it, and `MongoState`
is all stores over the two.
"""

from tailer.mongo.state.database import StateDatabase
from tailer.mongo.state.fencing import Fence
from tailer.mongo.state.lease import MongoLease
from tailer.mongo.state.store import MongoState

__all__ = ["Fence", "MongoLease", "MongoState", "StateDatabase"]
