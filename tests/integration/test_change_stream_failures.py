"""What a change stream does when the server refuses, forgets or loses something: it heals, or says what is lost."""

import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from bson import Timestamp

from tailer.core.stream.hints import Operation, Stream
from tailer.core.stream.positions import StreamPosition, token_seconds
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.errors import SourceError
from tailer.events import StreamFailed, StreamOpened
from tailer.flow.ports import ChangeSource, HistoryLost
from tailer.mongo.change_stream import MongoChangeStream
from tailer.mongo.connection import SOCKET_MILLISECONDS, Database, connect, tolerant_database
from tests.evidence import Events, Reading

STREAMING = "streaming"
"""The name under which the stream's own connections are known to the server, so that faults meet only them."""


@pytest.fixture(scope="module")
def faulty_set() -> Iterator[ReplicaSet]:
    """A server that can be told to fail, and that writes its note of idleness every second instead of every ten."""
    parameters = ["--setParameter", "enableTestCommands=1", "--setParameter", "periodicNoopIntervalSecs=1"]
    with ReplicaSet(mongod_arguments=parameters) as started:
        yield started


@pytest.fixture
async def database(faulty_set: ReplicaSet) -> AsyncIterator[Database]:
    """For the test itself; no fault meets it."""
    client = connect(faulty_set.uri, application="test", socket_milliseconds=30_000)
    yield tolerant_database(client, f"librechat_{uuid.uuid4().hex}")
    await client.admin.command("configureFailPoint", "failCommand", mode="off")
    client.close()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
async def messages(faulty_set: ReplicaSet, database: Database, events: Events) -> AsyncIterator[ChangeSource]:
    client = connect(faulty_set.uri, application=STREAMING, socket_milliseconds=SOCKET_MILLISECONDS)
    yield MongoChangeStream(tolerant_database(client, database.name), Stream.MESSAGES, events)
    client.close()


async def fail_next(database: Database, command: str, **fault: Any) -> None:
    """Let the next `command` of the stream fail."""
    await database.client.admin.command(
        "configureFailPoint",
        "failCommand",
        mode={"times": 1},
        data={"failCommands": [command], "appName": STREAMING, **fault},
    )


async def write(database: Database, *message_ids: str, collection: str = "messages") -> None:
    for message_id in message_ids:
        await database[collection].insert_one({"messageId": message_id})


def failures(events: Events) -> list[tuple[str, str]]:
    return [(failed.failure, failed.reaction) for failed in events.of(StreamFailed)]


@pytest.mark.parametrize(
    ("fault", "failure", "cause"),
    [
        ({"errorCode": 43}, "code_43", "cursor_lost"),
        ({"errorCode": 136}, "code_136", "cursor_lost"),
        ({"errorCode": 237}, "code_237", "cursor_lost"),
        ({"errorCode": 91}, "NotPrimaryError", "election"),
        ({"errorCode": 11602}, "NotPrimaryError", "election"),
        ({"errorCode": 59, "errorLabels": ["ResumableChangeStreamError"]}, "code_59", "other"),
        ({"closeConnection": True}, "AutoReconnect", "network"),
    ],
)
async def test_a_failed_getmore_reopens_the_stream_after_the_last_position(
    database: Database,
    messages: ChangeSource,
    events: Events,
    fault: dict[str, Any],
    failure: str,
    cause: str,
) -> None:
    """Cursor gone, position fallen off under an open cursor, shutdown, election, connection cut, and the unheard of."""
    async with Reading(messages) as reading:
        await write(database, "m1")
        await reading.until_read(1)
        await fail_next(database, "getMore", **fault)
        await write(database, "m2", "m3")
        await events.until(lambda: bool(failures(events)))
        await write(database, "m4")
        await reading.until_read(4)

    assert reading.ids() == ["m1", "m2", "m3", "m4"]
    assert failures(events) == [(failure, "reopen")]
    assert [failed.cause for failed in events.of(StreamFailed)] == [cause]


async def test_a_stream_that_opens_and_then_fails_is_not_reopened_as_fast_as_it_can(
    database: Database, messages: ChangeSource, events: Events
) -> None:
    """Each opening succeeds and each read after it fails: the pauses grow, and end with the first answer."""
    fault = {"failCommands": ["getMore"], "appName": STREAMING, "errorCode": 237}
    await database.client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=fault)
    began = time.monotonic()
    async with Reading(messages) as reading:
        await events.until(lambda: len(events.of(StreamOpened)) >= 6)
        took = time.monotonic() - began
        await database.client.admin.command("configureFailPoint", "failCommand", mode="off")
        await write(database, "m1")
        await reading.until_read(1)
        await reading.beyond()
        known = len(failures(events))
        await fail_next(database, "getMore", errorCode=237)
        await events.until(lambda: len(failures(events)) > known)
        again = time.monotonic()
        await write(database, "m2")
        await reading.until_read(2)
        healed = time.monotonic() - again

    # Five failures: one without a pause, then 0.1, 0.2, 0.4 and 0.8 seconds.
    assert 1.5 <= took < 10
    assert healed < 1.5
    assert reading.ids() == ["m1", "m2"]


async def test_a_refused_opening_is_repeated_until_it_succeeds(
    database: Database, messages: ChangeSource, events: Events
) -> None:
    """What happens while the stream is closed is not missed."""
    async with Reading(messages) as reading:
        await write(database, "m1")
        await reading.until_read(1)
    fault = {"failCommands": ["aggregate"], "appName": STREAMING, "errorCode": 189}
    await database.client.admin.command("configureFailPoint", "failCommand", mode={"times": 3}, data=fault)
    async with Reading(messages, reading.last) as again:
        await write(database, "m2")
        await again.until_read(1)

    assert again.ids() == ["m2"]
    assert len(failures(events)) == 3


async def cursors_of(database: Database) -> list[int]:
    """The cursors of the stream that the server keeps, whether they wait for events or not."""
    pipeline: list[dict[str, Any]] = [
        {"$currentOp": {"allUsers": True, "idleCursors": True}},
        {"$match": {"ns": f"{database.name}.messages", "cursor.cursorId": {"$exists": True}}},
    ]
    running = await database.client.admin.aggregate(pipeline).to_list(None)
    return [operation["cursor"]["cursorId"] for operation in running]


async def test_a_stream_that_is_given_up_while_it_waits_ends_its_cursor(
    database: Database, messages: ChangeSource
) -> None:
    """Otherwise the driver's thread waits as long as the server holds the cursor, and the process for the thread."""
    async with Reading(messages) as reading:
        await write(database, "m1")
        await reading.until_read(1)
        while not await cursors_of(database):
            pass

    assert await cursors_of(database) == []


async def test_a_cursor_that_somebody_kills_heals(
    database: Database, messages: ChangeSource, events: Events
) -> None:
    """`killCursors`, as an operator or a clean-up script runs it."""
    async with Reading(messages) as reading:
        await write(database, "m1")
        await reading.until_read(1)
        cursors: list[int] = []
        while not cursors:
            cursors = await cursors_of(database)
        killed = await database.command({"killCursors": "messages", "cursors": cursors})
        assert killed["cursorsKilled"] == cursors
        await events.until(lambda: bool(failures(events)))
        await write(database, "m2")
        await reading.until_read(2)

    assert reading.ids() == ["m1", "m2"]
    assert {failure for failure, _ in failures(events)} <= {"code_43", "code_237"}


async def test_an_event_that_is_too_large_is_stepped_over_and_its_row_still_hinted_at(
    database: Database, messages: ChangeSource, events: Events
) -> None:
    """10334, for which the server gives no event at all: the row's key is read alone, the next event is whole again."""
    async with Reading(messages) as reading:
        await fail_next(database, "getMore", errorCode=10334)
        await events.until(lambda: bool(failures(events)))
        key = (await database["messages"].insert_one({"messageId": "m1"})).inserted_id
        await write(database, "m2", "m3")
        stepped, *others = await reading.until_read(3)

    assert failures(events) == [("code_10334", "step_over")]
    assert (stepped.operation, stepped.document_key) == (Operation.UPDATE, str(key))
    assert stepped.changed == {"content"}
    assert [hint.message_id for hint in others] == ["m2", "m3"]


async def test_a_token_that_is_not_found_is_resumed_by_its_time(
    database: Database, messages: ChangeSource, events: Events
) -> None:
    """280: a token of a wider stream, here from the middle of a transaction. Its own moment is read again, and of that
    moment only what comes after the token is told."""
    await write(database, "m1")
    await write(database, "u0", collection="users")
    async with (
        await database.client.start_session() as session,
        database.watch(max_await_time_ms=500) as wide,
        session.start_transaction(),
    ):
        for collection, message_id in (("messages", "m2"), ("users", "u1"), ("messages", "m3")):
            await database[collection].insert_one({"messageId": message_id}, session=session)
        await session.commit_transaction()
        token = ""
        while not token:
            event = await wide.next()
            token = event["_id"]["_data"] if event["ns"]["coll"] == "users" else ""
    await write(database, "m4")
    seconds = token_seconds(token)
    assert seconds is not None

    async with Reading(messages, StreamPosition(token, seconds)) as reading:
        await reading.until_read(2)
        await write(database, "m5")
        await reading.until_read(3)

    assert reading.ids() == ["m3", "m4", "m5"]
    assert failures(events) == [("code_280", "resume_by_time")]


async def test_an_event_that_was_seen_is_not_told_again_when_its_token_is_resumed_by_time(
    database: Database, messages: ChangeSource, events: Events
) -> None:
    """The time of a token is inclusive: the event itself, and those of its transaction, come again."""
    async with await database.client.start_session() as session:
        await write(database, "before")
        async with Reading(messages) as reading, session.start_transaction():
            # One transaction: three events of one and the same cluster time.
            for message_id in ("m1", "m2", "m3"):
                await database["messages"].insert_one({"messageId": message_id}, session=session)
            await session.commit_transaction()
            await reading.until_read(3)
    await write(database, "m4")
    await fail_next(database, "aggregate", errorCode=280)
    async with Reading(messages, reading.positions[1]) as again:
        await again.until_read(2)
        await write(database, "m5")
        await again.until_read(3)

    assert again.ids() == ["m3", "m4", "m5"]
    assert failures(events) == [("code_280", "resume_by_time")]


@pytest.mark.parametrize(
    "token", ["garbage", "", "82", "8", "FF" * 30, "82" + "zz" * 20, "00" * 20, "82" + "A" * 5000]
)
async def test_a_token_that_is_none_means_that_history_is_lost(
    messages: ChangeSource, events: Events, token: str
) -> None:
    """Whatever stands in a damaged checkpoint: it is said, and never an endless attempt or a silent start from now."""
    with pytest.raises(HistoryLost) as lost:
        async with Reading(messages, StreamPosition(token, 17)):
            pass

    assert lost.value.position.cluster_seconds == 17
    assert lost.value.reason == "token_damaged"
    assert lost.value.stream is Stream.MESSAGES
    assert [reaction for _, reaction in failures(events)] == ["history_lost"]


async def test_a_token_older_than_the_oplog_means_that_history_is_lost(
    database: Database, messages: ChangeSource, events: Events
) -> None:
    """286. The server is told to say it: an oplog that still begins with the birth of its set counts as complete."""
    async with Reading(messages) as reading:
        await write(database, "m1")
        await reading.until_read(1)
    assert reading.last is not None
    await fail_next(database, "aggregate", errorCode=286)
    with pytest.raises(HistoryLost) as lost:
        async with Reading(messages, reading.last):
            pass

    assert (lost.value.position, lost.value.reason) == (reading.last, "oplog_too_short")
    assert failures(events) == [("code_286", "history_lost")]
    assert [failed.cause for failed in events.of(StreamFailed)] == ["history_lost"]


async def test_a_cursor_that_falls_off_the_oplog_means_that_history_is_lost(
    database: Database, messages: ChangeSource, events: Events
) -> None:
    """Said to an open stream, not to one that is being opened."""
    async with Reading(messages) as reading:
        await write(database, "m1")
        await reading.until_read(1)
        fault = {"failCommands": ["getMore", "aggregate"], "appName": STREAMING, "errorCode": 286}
        await database.client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=fault)
        with pytest.raises(HistoryLost):
            await reading.until(lambda: False)

    assert failures(events)[-1] == ("code_286", "history_lost")


async def test_a_token_that_names_no_collection_is_resumed_by_its_time(
    database: Database, messages: ChangeSource, events: Events
) -> None:
    """260: the event of a whole database, as a wider stream tells it. Its time is as good a place to start from."""
    await write(database, "m1")
    async with database.watch(max_await_time_ms=500) as wide:
        await database.client.drop_database(database.name)
        token = ""
        while not token:
            event = await wide.next()
            token = event["_id"]["_data"] if event["operationType"] == "dropDatabase" else ""
    await write(database, "m2")
    seconds = token_seconds(token)
    assert seconds is not None
    async with Reading(messages, StreamPosition(token, seconds)) as reading:
        await reading.until_read(1)

    assert reading.ids() == ["m2"]
    assert failures(events) == [("code_260", "resume_by_time")]


async def test_a_server_that_answers_nothing_is_given_up_and_tried_again(
    faulty_set: ReplicaSet, database: Database, messages: ChangeSource, events: Events
) -> None:
    """A half-open connection: the process is frozen, and nothing closes the socket."""
    (member,) = faulty_set.members
    async with Reading(messages) as reading:
        await write(database, "m1")
        await reading.until_read(1)
        await member.stop()
        try:
            await events.until(lambda: bool(failures(events)))
        finally:
            await member.resume()
        await write(database, "m2")
        await reading.until_read(2, seconds=60)

    assert reading.ids() == ["m1", "m2"]


async def test_the_position_of_an_idle_stream_moves_with_the_server(
    database: Database, messages: ChangeSource
) -> None:
    """The server notes its idleness in the oplog (every ten seconds unless told otherwise), and a stored position
    moves along: it never falls off the oplog because nobody chats."""
    async with Reading(messages) as reading:
        begun = reading.last
        assert begun is not None
        await reading.until(
            lambda: reading.last is not None and reading.last.cluster_seconds >= begun.cluster_seconds + 2
        )
        assert reading.hints == []
    async with Reading(messages, reading.last) as again:
        await write(database, "m1")
        await again.until_read(1)


async def test_no_server_at_the_first_start_is_waited_for(events: Events) -> None:
    """The start has its own check with a limit; a stream by itself never gives up on a server."""
    client = connect("mongodb://127.0.0.1:9/", application=STREAMING, socket_milliseconds=1000)
    with pytest.raises(TimeoutError):
        async with Reading(
            MongoChangeStream(tolerant_database(client, "LibreChat"), Stream.MESSAGES, events), open_seconds=3
        ):
            pass
    client.close()

    assert {reaction for _, reaction in failures(events)} == {"reopen"}


async def test_a_refusal_at_the_first_opening_is_an_error_with_a_remedy(
    database: Database, messages: ChangeSource
) -> None:
    """Also when there is a checkpoint: a privilege that was never there is not waited for."""
    for start in (None, StreamPosition("82" + "00" * 8, 0)):
        await fail_next(database, "aggregate", errorCode=13)
        with pytest.raises(SourceError, match="grant find and changeStream"):
            async with Reading(messages, start):
                pass


async def test_a_start_that_took_longer_than_the_oplog_reaches_back_is_a_gap_and_no_end(
    faulty_set: ReplicaSet, database: Database, events: Events
) -> None:
    """Nothing was stored yet: the gap begins when the process connected."""
    client = connect(faulty_set.uri, application=STREAMING, socket_milliseconds=SOCKET_MILLISECONDS)
    source = tolerant_database(client, database.name)
    messages = MongoChangeStream(source, Stream.MESSAGES, events, Timestamp(1_000_000, 1))
    await fail_next(database, "aggregate", errorCode=286)
    try:
        with pytest.raises(HistoryLost) as lost:
            async with Reading(messages):
                pass
        async with Reading(messages) as reading:
            await write(database, "m1")
            await reading.until_read(1)
    finally:
        client.close()

    assert lost.value.position == StreamPosition(None, 1_000_000)
    assert reading.ids() == ["m1"]
