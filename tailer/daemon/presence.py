"""Whether a tailer is at work on a state database, as a command can see it from outside."""

import asyncio
from datetime import timedelta

from tailer.flow.stores import LeaseStore

_LOOK_SECONDS = 0.5


async def has_active_instance(lease: LeaseStore, lease_time: timedelta) -> bool:
    """Whether the lease beats while this looks, for as long as a standby would be patient with it."""
    before = await lease.read()
    if before is None or before.released:
        return False
    try:
        async with asyncio.timeout(max(lease_time.total_seconds(), before.lease_seconds)):
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                now = await lease.read()
                if now is not None and (now.epoch, now.beat) != (before.epoch, before.beat):
                    return not now.released
    except TimeoutError:
        return False
