"""Questions to MongoDB for `tailer doctor`: asked once, without changing anything of LibreChat's or of a daemon's.

Every answer is plain data. A failure is an `ExaminationFailed` with a word for what happened and a remedy.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from uuid import uuid4

from bson import Timestamp
from pymongo.errors import OperationFailure, PyMongoError

from tailer.core.librechat.messages import MalformedDocument, read_message
from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import GapReason, StreamPosition
from tailer.core.turn.turns import TurnRecord
from tailer.events import Event
from tailer.mongo.collections import Collections
from tailer.mongo.connection import Client, Database, ask_hello
from tailer.mongo.document_keys import to_key
from tailer.mongo.documents import MongoDocuments
from tailer.mongo.error_codes import Reaction
from tailer.mongo.failures import classify_failure, explain_source_failure, failure_name
from tailer.mongo.hint_pipeline import HINT_PIPELINES
from tailer.mongo.oplog import ask_librechats_clock
from tailer.mongo.resuming import lies_ahead
from tailer.mongo.state.database import begin_transaction
from tailer.mongo.stream_replies import end_token, position_of, start_stage
from tailer.mongo.transactions import read_spending

_PROBE = "doctor"
_LAST_MESSAGES = 400
_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


class ExaminationFailed(Exception):
    """MongoDB did not answer as asked: the server's code or the driver's class as a word, and the remedy."""

    def __init__(self, failure: str, hint: str, code: int | None, *, history_lost: bool) -> None:
        super().__init__(failure)
        self.history_lost = history_lost
        self.failure = failure
        self.hint = hint
        self.code = code


def _explained(
    ask: Callable[_Arguments, Awaitable[_Answer]],
) -> Callable[_Arguments, Awaitable[_Answer]]:
    @wraps(ask)
    async def asking(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Answer:
        try:
            return await ask(*arguments, **named)
        except PyMongoError as error:
            code = error.code if isinstance(error, OperationFailure) else None
            hint = explain_source_failure(error, "MongoDB").hint
            lost = classify_failure(error) is Reaction.HISTORY_LOST
            raise ExaminationFailed(failure_name(error), hint, code, history_lost=lost) from error

    return asking


@dataclass(frozen=True, slots=True)
class Server:
    """What `hello` and `buildInfo` say; `ahead_seconds` is this machine's clock minus the server's."""

    replica_set: str | None
    is_sharded: bool
    version: str
    members: Sequence[str]
    ahead_seconds: float


@dataclass(frozen=True, slots=True)
class Oplog:
    """The oldest and the newest entry in cluster seconds."""

    first_seconds: int
    last_seconds: int


@dataclass(frozen=True, slots=True)
class Rows:
    """The last messages: how many were read, why some are unreadable, and how many LibreChat traced itself."""

    read: int
    broken: Mapping[str, int]
    traced_natively: int


@_explained
async def ask_server(database: Database) -> Server:
    """What the server is."""
    hello, ahead_seconds = await ask_hello(database)
    build = await database.command("buildInfo")
    return Server(
        replica_set=hello.get("setName"),
        is_sharded=hello.get("msg") == "isdbgrid",
        version=str(build.get("version", "unknown")),
        members=[*hello.get("hosts", ()), *hello.get("passives", ())],
        ahead_seconds=ahead_seconds,
    )


@_explained
async def ask_privileges(database: Database) -> tuple[str | None, Sequence[Mapping[str, Any]]]:
    """The user of the connection, and its privileges."""
    status = await database.client.admin.command({"connectionStatus": 1, "showPrivileges": True})
    info = status["authInfo"]
    users = [f"{user['user']}@{user['db']}" for user in info["authenticatedUsers"]]
    return (users[0] if users else None), info.get("authenticatedUserPrivileges", ())


@_explained
async def ask_oplog(database: Database) -> Oplog | None:
    """How far the oplog reaches back; None if the server has none. Raises OperationFailure without the privilege."""
    status = await database.client.admin.command({"serverStatus": 1, "oplog": 1})
    oplog = status.get("oplog") or {}
    first, last = oplog.get("earliestOptime"), oplog.get("latestOptime")
    if not isinstance(first, Timestamp) or not isinstance(last, Timestamp):
        return None
    return Oplog(first.time, last.time)


@_explained
async def try_resuming(database: Database, stream: Stream, position: StreamPosition | None) -> None:
    """Open a change stream, after a position or from now, and close it again; raises what the server answers."""
    if position is not None and await lies_ahead(database, position):
        hint = "the state is of another server, whose time was later"
        raise ExaminationFailed(GapReason.POSITION_AHEAD.value, hint, None, history_lost=True)
    stage: dict[str, object] = start_stage(position, by_time=False) if position is not None else {}
    command = {
        "aggregate": stream.value,
        "pipeline": [{"$changeStream": stage}, *HINT_PIPELINES[stream]],
        "cursor": {"batchSize": 0},
    }
    opened = await database.command(command)
    try:
        # Only reading shows whether the oplog still holds the position.
        await database.command(
            {"getMore": opened["cursor"]["id"], "collection": stream.value, "batchSize": 1, "maxTimeMS": 500}
        )
    finally:
        await database.command({"killCursors": stream.value, "cursors": [opened["cursor"]["id"]]})
    if position is None:
        # The daemon does the same at its first start: a server may open a stream and be unable to resume it.
        token = end_token(opened)
        await try_resuming(database, stream, position_of(token))


@_explained
async def compare_librechats_clock(database: Database) -> float | None:
    """How many seconds LibreChat's clock is ahead of MongoDB's; None if no row says so."""
    return await ask_librechats_clock(database)


@_explained
async def read_last_rows(database: Database, limit: int) -> Rows:
    """Read the last messages as the daemon does, and keep nothing of them."""
    broken: dict[str, int] = {}
    read = native = 0
    async for document in database["messages"].find({}, sort=[("_id", -1)], limit=limit, batch_size=20):
        read += 1
        native += bool(document.get("langfuseDestinationIds"))
        try:
            read_message(to_key(document["_id"]), document)
        except MalformedDocument as error:
            broken[error.field] = broken.get(error.field, 0) + 1
    return Rows(read, broken, native)


@_explained
async def read_last_answers(database: Database, limit: int) -> list[TurnRecord]:
    """Read the last answers with everything that belongs to them, as the daemon does."""
    found = database["messages"].find({}, {"isCreatedByUser": 1}, sort=[("_id", -1)], limit=2 * limit)
    keys = [
        to_key(document["_id"]) async for document in found if document.get("isCreatedByUser") is not True
    ]
    reader = MongoDocuments(database, _ignore, history_bytes=0, with_users=False)
    rows = await reader.locate(keys[:limit])
    return [record async for group in reader.read_turns(rows) for _, record in group if record is not None]


def _ignore(event: Event) -> None:
    """The daemon reports rows that it cannot read; `read_last_rows` does so here."""


@_explained
async def read_last_conversations(database: Database, limit: int) -> Mapping[str, frozenset[str]]:
    """The conversations of the last messages, and the ids of all their messages."""
    last = database["messages"].find({}, {"conversationId": 1}, sort=[("_id", -1)], limit=_LAST_MESSAGES)
    named = [document.get("conversationId") async for document in last]
    chosen = list(dict.fromkeys(name for name in named if isinstance(name, str) and name))[:limit]
    found: dict[str, set[str]] = {name: set() for name in chosen}
    fields = {"conversationId": 1, "messageId": 1}
    async for document in database["messages"].find({"conversationId": {"$in": chosen}}, fields):
        if isinstance(message_id := document.get("messageId"), str):
            found[document["conversationId"]].add(message_id)
    return {name: frozenset(message_ids) for name, message_ids in found.items()}


@_explained
async def count_last_spending(database: Database, limit: int) -> tuple[int, int]:
    """How many of the last transactions belong to no chat, and how many were read."""
    last = database["transactions"].find({}, {"_id": 1}, sort=[("_id", -1)], limit=limit)
    keys = [to_key(document["_id"]) async for document in last]
    spending = await read_spending(Collections(database, _ignore), keys)
    return sum(found is not None for found in spending.values()), len(keys)


@_explained
async def try_writing(client: Client, name: str) -> None:
    """Write a document of our own into the state database, in a transaction, and remove it again."""
    collection = client[name]["lease"]
    probe = {"_id": f"{_PROBE}-{uuid4().hex}"}
    if "lease" not in await client[name].list_collection_names():
        await client[name].create_collection("lease")
    async with await client.start_session() as session, begin_transaction(session):
        await collection.insert_one(probe, session=session)
        await session.abort_transaction()
