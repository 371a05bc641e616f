"""`owner`: the LibreChat that this state belongs to.

Two LibreChats on one state would wait for each other's lease for ever, and each would take the other's positions for
its own.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tailer.core.identity import DocumentKey
from tailer.core.ownership import Ownership, SourceIdentity, compare_sources, update_owner
from tailer.errors import StateError
from tailer.events import StateOperation
from tailer.mongo.state.database import StateDatabase

_OWNER = "librechat"
_ROWS = 50
_HoldsRows = Callable[[Sequence[DocumentKey]], Awaitable[bool]]


async def claim_state(database: StateDatabase, found: SourceIdentity, holds_rows: _HoldsRows) -> None:
    """Make a source the owner of a state without an owner, or check that it is the owner; raises StateError.

    A state that an earlier release wrote has no owner: the first source becomes it.
    """
    fields = {"$setOnInsert": {**_write(found), "claimed_at": datetime.now(UTC)}}
    await database.attempt(
        StateOperation.CLAIM_STATE, lambda: database["owner"].update_one({"_id": _OWNER}, fields, upsert=True)
    )
    owner = await check_owner(database, found, holds_rows)
    if owner is not None and owner != (seen := update_owner(owner, found)):
        await database.attempt(
            StateOperation.CLAIM_STATE,
            lambda: database["owner"].update_one({"_id": _OWNER}, {"$set": _write(seen)}),
        )


async def check_owner(
    database: StateDatabase, found: SourceIdentity, holds_rows: _HoldsRows
) -> SourceIdentity | None:
    """The owner, None if there is none yet; raises StateError if the source is another LibreChat."""
    stored = await database.attempt(
        StateOperation.READ_OWNER, lambda: database["owner"].find_one({"_id": _OWNER})
    )
    if stored is None:
        return None
    owner = _read(stored)
    verdict = compare_sources(owner, found)
    if verdict is Ownership.UNSURE and await holds_rows(await _sent_rows(database)):
        verdict = Ownership.SAME
    if verdict is not Ownership.SAME:
        raise StateError(
            operation="using the state",
            subject=f"state database {database.name} for {found}",
            hint=f"it belongs to another LibreChat, {owner}; give this one a TAILER_STATE_DATABASE of its own. If it is the "
            f"same LibreChat and has moved, delete the document {_OWNER} of {database.name}.owner once",
        )
    return owner


async def _sent_rows(database: StateDatabase) -> list[DocumentKey]:
    """The rows of what was sent last."""
    found = await database.attempt(
        StateOperation.READ_OWNER,
        lambda: (
            database["exports"].find({}, {"document_key": 1}).sort("sent_at", -1).limit(_ROWS).to_list(None)
        ),
    )
    return [DocumentKey(document["document_key"]) for document in found if "document_key" in document]


def _write(identity: SourceIdentity) -> dict[str, Any]:
    return {"database": identity.database, "set_id": identity.set_id, "hosts": sorted(identity.hosts)}


def _read(document: Mapping[str, Any]) -> SourceIdentity:
    return SourceIdentity(str(document["database"]), document["set_id"], frozenset(document["hosts"]))
