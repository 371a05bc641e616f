"""What is left of destinations that the settings no longer name: batches on their way, and what is owed to them."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from tailer.events import StateOperation
from tailer.flow.records import Leftovers
from tailer.mongo.state.database import StateDatabase, Transaction
from tailer.mongo.state.fencing import Fence
from tailer.settings.destinations import DEFAULT_NAME


class Forgetting:
    """The part of a `SharedStore` that lets go of destinations."""

    _database: StateDatabase
    _fence: Fence

    async def let_go_all_but(self, names: Collection[str]) -> Mapping[str, Leftovers]:
        """Forget what is on its way, or owed, to any other destination; says how much that was, by name.

        Records of what was sent stay until they expire, and dead letters until an operator handles them.
        """
        named = [None if name == DEFAULT_NAME else name for name in names]
        others = {"destination": {"$nin": named}}
        own = {**self._fence.names.query, **others}
        full = {**own, "batch": {"$exists": True}}
        traces, owed = await self._count(own, full, others)
        if not traces and not owed:
            return {}

        def forget(transaction: Transaction) -> None:
            session = transaction.session
            transaction["batches"].delete_many(own, session=session)
            # The document stays: it may hold the newest positions of the streams.
            emptied = {"$unset": {"batch": ""}, "$inc": {"steps": 1}}
            transaction["slots"].update_many(full, emptied, session=session)
            transaction["owed"].delete_many(others, session=session)

        await self._fence.write(StateOperation.LET_GO, forget)
        return {name: Leftovers(traces[name], owed[name]) for name in sorted(traces.keys() | owed.keys())}

    async def _count(
        self, own: Mapping[str, Any], full: Mapping[str, Any], others: Mapping[str, Any]
    ) -> tuple[Counter[str], Counter[str]]:
        async def count() -> tuple[Counter[str], Counter[str]]:
            traces: Counter[str] = Counter()
            async for kept in self._database["batches"].find(own, {"destination": 1, "items.record_id": 1}):
                traces[_name_of(kept)] += len(kept["items"])
            fields = {"destination": 1, "batch.items.record_id": 1}
            async for slot in self._database["slots"].find(full, fields):
                traces[_name_of(slot)] += len(slot["batch"]["items"])
            by_name: list[Mapping[str, Any]] = [
                {"$match": others},
                {"$group": {"_id": "$destination", "shares": {"$sum": 1}}},
            ]
            found = await self._database["owed"].aggregate(by_name).to_list(None)
            return traces, Counter({group["_id"] or DEFAULT_NAME: int(group["shares"]) for group in found})

        return await self._database.attempt(StateOperation.LET_GO, count)


def _name_of(document: Mapping[str, Any]) -> str:
    return document.get("destination") or DEFAULT_NAME
