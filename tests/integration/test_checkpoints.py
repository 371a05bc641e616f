"""Positions that are moved by hand, where the oplog no longer reaches back. The server is told to say so: an oplog that
still begins with the birth of its set counts as complete."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.core.stream.shard import WHOLE
from tailer.demo.stage.replica_set import ReplicaSet
from tailer.errors import RequestRefused
from tailer.flow.records import Checkpoint
from tailer.mongo.change_stream import MongoChangeStream
from tailer.mongo.connection import tolerant_database
from tailer.operations.checkpoints import CheckpointDesk, open_desk
from tailer.operations.doctor.findings import Verdict
from tailer.operations.doctor.librechat import check_streams
from tests.e2e.databases import Databases, open_databases
from tests.evidence import Events, Reading
from tests.integration.leading import lead
from tests.integration.running import settings_for

PAST = datetime(2026, 1, 31, tzinfo=UTC)
APPLICATION = "librechat-tailer-checkpoint"


@pytest.fixture
async def databases() -> AsyncIterator[Databases]:
    with ReplicaSet(mongod_arguments=["--setParameter", "enableTestCommands=1"]) as replica_set:
        async with open_databases(replica_set) as pair:
            yield pair


@pytest.fixture
async def desk(databases: Databases) -> AsyncIterator[CheckpointDesk]:
    async with open_desk(settings_for(databases, None)) as opened:
        yield opened


async def forget_history(databases: Databases) -> None:
    data = {"failCommands": ["aggregate"], "appName": APPLICATION, "errorCode": 286}
    await databases.state.client.admin.command(
        "configureFailPoint", "failCommand", mode="alwaysOn", data=data
    )


async def test_a_time_before_the_oplog_is_refused_and_a_position_there_shows_as_lost(
    databases: Databases, desk: CheckpointDesk
) -> None:
    """The remedy is the backfill; nothing was written."""
    state = await lead(databases.state.client, databases.state.name, Events())
    stored = Checkpoint(StreamPosition(None, int(PAST.timestamp())))
    await state.save_checkpoint(Stream.MESSAGES, stored)
    assert [found.resumable for found in (await desk.survey()).streams] == [True]
    await forget_history(databases)

    with pytest.raises(RequestRefused, match="tailer backfill"):
        await desk.plan(PAST)
    survey = await desk.survey()

    assert [found.resumable for found in survey.streams] == [False]
    lease = survey.leases[WHOLE]
    assert lease is not None
    assert lease.epoch == 1
    assert await state.load_checkpoint(Stream.MESSAGES) == stored


async def test_a_position_of_another_server_whose_time_was_later_shows_as_lost(
    databases: Databases, desk: CheckpointDesk
) -> None:
    """A stream opens there, and brings nothing until the time arrives."""
    state = await lead(databases.state.client, databases.state.name, Events())
    now = (await databases.last_write()).time
    later = Checkpoint(StreamPosition(f"82{now + 10_800:08X}00000001", now + 10_800))
    await state.save_checkpoint(Stream.MESSAGES, later)

    survey = await desk.survey()

    assert [found.resumable for found in survey.streams] == [False]
    source = tolerant_database(databases.source.client, databases.source.name)
    stored = [found.checkpoint for found in survey.streams]
    (finding,) = await check_streams(source, [Stream.MESSAGES], stored)
    assert (finding.verdict, "position_ahead" in finding.seen) == (Verdict.FAIL, True)


async def test_a_time_before_mongodbs_own_is_refused(desk: CheckpointDesk) -> None:
    """A timestamp of MongoDB begins in 1970."""
    with pytest.raises(RequestRefused, match="before 1970"):
        await desk.plan(datetime(1969, 1, 1, tzinfo=UTC))


async def test_a_stream_begins_with_the_first_change_of_the_second_that_was_set(databases: Databases) -> None:
    """Not after it: no change of that second is left out; and the first answer brings a token."""
    await databases.source["messages"].insert_one({"messageId": "m1"})
    moment = (await databases.last_write()).time
    source = tolerant_database(databases.source.client, databases.source.name)
    stream = MongoChangeStream(source, Stream.MESSAGES, Events())
    async with Reading(stream, StreamPosition(None, moment)) as reading:
        await reading.until(lambda: bool(reading.hints))

    assert len(reading.hints) == 1
    assert reading.last is not None
    assert reading.last.token is not None
