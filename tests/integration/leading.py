"""State databases that a test may write to: the lease is taken at once, whoever held it."""

from datetime import timedelta

from tailer.events import Emit
from tailer.mongo.connection import Client
from tailer.mongo.state import MongoLease, MongoState, StateDatabase


async def seize(database: StateDatabase) -> MongoLease:
    """The lease in its next epoch."""
    await database.prepare()
    lease = MongoLease(database, lease_time=timedelta(seconds=8))
    while await lease.take(await lease.read()) is None:
        pass
    return lease


async def lead(
    client: Client,
    name: str,
    emit: Emit,
    *,
    destination: str = "fake",
    lifetime: timedelta = timedelta(days=1),
) -> MongoState:
    """The state as the active instance has it."""
    database = StateDatabase(client, name, emit)
    lease = await seize(database)
    state = MongoState(database, lease.fence, destination=destination)
    await state.prepare(lifetime=lifetime)
    return state
