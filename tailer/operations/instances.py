"""Which shards have an active instance: every one, none, or some."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta

from tailer.core.stream.shard import Shard
from tailer.flow.leadership import has_active_instance
from tailer.mongo.state import MongoLease, StateDatabase
from tailer.mongo.state.layout import read_layout
from tailer.mongo.state.names import names_of


async def find_active_shards(state: StateDatabase, lease_time: timedelta) -> Mapping[Shard, bool]:
    """Whether the lease of each shard beats while this process watches, for as long as a standby would wait."""
    shards = (await read_layout(state)).shards
    found = await asyncio.gather(
        *(
            has_active_instance(MongoLease(state, lease_time=lease_time, names=names_of(shard)), lease_time)
            for shard in shards
        )
    )
    return dict(zip(shards, found, strict=True))
