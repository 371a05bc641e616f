"""The ports of the flow in memory: a LibreChat, a state database, a destination, and a clock that never waits.

They behave as the real ones do, which `tests/conformance` holds: the same cases run over both.
"""

from tests.memory.changes import MemoryChanges
from tests.memory.clock import VirtualLoop
from tests.memory.database import MemoryDatabase
from tests.memory.destination import Answer, MemoryDestination
from tests.memory.lease import MemoryLease
from tests.memory.librechat import MemoryLibreChat
from tests.memory.reader import MemoryReader
from tests.memory.sink import MemoryFollowups, MemoryMedia, MemorySink
from tests.memory.state import MemoryState
from tests.memory.walk import MemoryWalk

__all__ = [
    "Answer",
    "MemoryChanges",
    "MemoryDatabase",
    "MemoryDestination",
    "MemoryFollowups",
    "MemoryLease",
    "MemoryLibreChat",
    "MemoryMedia",
    "MemoryReader",
    "MemorySink",
    "MemoryState",
    "MemoryWalk",
    "VirtualLoop",
]
