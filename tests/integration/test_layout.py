"""The division of the state on a real server: what a change moves, whom it shuts out, and who sees a missing shard."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from tailer.core.backfill import Counts, Job, JobReason, Start, StartMode
from tailer.core.identity import DocumentKey
from tailer.core.layout import Layout
from tailer.core.lease import LeaseRecord, LeaseRhythm
from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.core.stream.shard import WHOLE, Shard
from tailer.core.turn.turns import Wait
from tailer.daemon.shard_watch import PATIENCE_SECONDS, ShardWatch
from tailer.daemon.sharing import adopt_parked, begin_shard
from tailer.errors import LeaseLost, RequestRefused
from tailer.events import LayoutAwaited, LayoutChanged, ShardsMissing
from tailer.flow.layouts import Agreement
from tailer.flow.records import Checkpoint, Gap, ParkedTurn
from tailer.mongo.connection import tolerant_database
from tailer.mongo.document_keys import to_key
from tailer.mongo.documents import MongoDocuments
from tailer.mongo.state import MongoLease, MongoState, StateDatabase
from tailer.mongo.state.layout import MongoLayouts, read_layout
from tailer.mongo.state.names import names_of
from tailer.mongo.state.survey import look_at_job
from tailer.operations.backfill import open_backfills
from tailer.operations.checkpoints import open_desk
from tailer.operations.doctor.findings import Verdict
from tailer.operations.doctor.state import judge_instances
from tests.e2e.databases import Databases
from tests.evidence import Events
from tests.integration.running import settings_for
from tests.sent import make_batch, turn_item

LEASE = timedelta(seconds=1)
_TEXT = to_key("an id that is a text")
KEYS = [DocumentKey(f"{number:024x}") for number in range(12)]


@pytest.fixture
async def state(databases: Databases) -> StateDatabase:
    database = StateDatabase(databases.state.client, databases.state.name, Events())
    await database.prepare()
    return database


def position(seconds: int) -> StreamPosition:
    return StreamPosition(f"82{seconds:08X}00000001", seconds)


async def lead(state: StateDatabase, shard: Shard) -> MongoState:
    """The state as the active instance of a shard has it."""
    lease = MongoLease(state, lease_time=LEASE, names=names_of(shard))
    while await lease.take(await lease.read()) is None:
        pass
    return MongoState(state, lease.fence, destination="fake")


async def release(state: StateDatabase, *shards: Shard) -> None:
    """Let all leases count as given up."""
    for shard in shards:
        query = {"_id": names_of(shard).writer}
        await state["lease"].update_one(query, {"$set": {"released": True}})


async def change(state: StateDatabase, total: int, *, began_seconds: int | None = 1000) -> Events:
    """What an instance with another number of shards does."""
    events = Events()
    agreement = Agreement(
        MongoLayouts(state, lease_time=LEASE),
        Layout(total, began_seconds),
        LeaseRhythm(LEASE.total_seconds()),
        events,
        clock=asyncio.get_running_loop().time,
        on_look=lambda: None,
    )
    await asyncio.wait_for(agreement.reach(), 30)
    return events


async def positions(state: StateDatabase, total: int) -> list[int | None]:
    """Where `messages` stands on each shard."""
    found = [
        await (await lead(state, shard)).load_checkpoint(Stream.MESSAGES) for shard in Shard(0, total).all()
    ]
    await release(state, *Shard(0, total).all())
    return [None if each is None else each.position.cluster_seconds for each in found]


async def test_with_one_shard_nothing_is_stored_of_a_division(state: StateDatabase) -> None:
    """Names and documents are those of a release without shards."""
    await change(state, 1)
    await (await lead(state, WHOLE)).save_checkpoint(Stream.MESSAGES, Checkpoint(position(7)))

    assert await state["lease"].distinct("_id") == ["fence", "writer"]
    (stored,) = await state["checkpoints"].find({}).to_list(None)
    assert stored["_id"] == "messages"
    assert "shard" not in stored


async def test_every_new_shard_begins_at_the_oldest_position_of_the_old_ones(state: StateDatabase) -> None:
    """In both directions, also where positions of an earlier time with the same number were left."""
    touches = ((KEYS[0], (5,)),)
    await (await lead(state, WHOLE)).save_checkpoint(Stream.MESSAGES, Checkpoint(position(100), touches))
    await release(state, WHOLE)
    await change(state, 2)
    assert await positions(state, 2) == [100, 100]

    for shard, seconds in zip(Shard(0, 2).all(), (300, 200), strict=True):
        await (await lead(state, shard)).save_checkpoint(Stream.MESSAGES, Checkpoint(position(seconds)))
    await release(state, *Shard(0, 2).all())
    await change(state, 4)
    assert await positions(state, 4) == [200] * 4

    for shard in Shard(0, 4).all():
        moved = Checkpoint(position(400 + shard.index), ((KEYS[shard.index], (shard.index,)),))
        await (await lead(state, shard)).save_checkpoint(Stream.MESSAGES, moved)
    await release(state, *Shard(0, 4).all())
    await change(state, 1)
    found = await (await lead(state, WHOLE)).load_checkpoint(Stream.MESSAGES)

    assert found == Checkpoint(position(400), tuple((KEYS[number], (number,)) for number in range(4)))
    assert await state["checkpoints"].count_documents({}) == 1


async def test_a_shard_that_never_ran_begins_where_the_division_began(state: StateDatabase) -> None:
    """And so do all, after the number was changed before it ever ran."""
    await change(state, 2, began_seconds=50)
    layout, streams = await read_layout(state), [Stream.MESSAGES, Stream.CONVERSATIONS]
    first = await lead(state, Shard(0, 2))
    await begin_shard(first, streams, layout, Start(StartMode.ALL))
    await first.save_checkpoint(Stream.MESSAGES, Checkpoint(position(90)))
    await begin_shard(first, streams, layout, Start(StartMode.ALL))
    await release(state, Shard(0, 2))

    assert await first.load_checkpoint(Stream.MESSAGES) == Checkpoint(position(90))
    assert await first.next_job(["default"]) == Job("start", JobReason.START)
    await change(state, 3, began_seconds=95)
    assert await positions(state, 3) == [50, 50, 50]


async def test_a_change_waits_for_the_last_active_instance(state: StateDatabase) -> None:
    """As long as one lease of the old division beats."""
    await change(state, 2)
    leases = [MongoLease(state, lease_time=LEASE, names=names_of(shard)) for shard in Shard(0, 2).all()]
    epochs = [await lease.take(await lease.read()) for lease in leases]
    await leases[0].release(epochs[0] or 0)
    changing = asyncio.create_task(change(state, 3))
    for _ in range(20):
        await leases[1].renew(epochs[1] or 0)
        await asyncio.sleep(0.1)
        assert not changing.done()

    events = await changing

    assert [(event.shards_in_force, event.own_shards) for event in events.of(LayoutAwaited)] == [(2, 3)]
    assert [(event.shards_before, event.shards) for event in events.of(LayoutChanged)] == [(2, 3)]


async def test_nothing_of_the_old_division_is_written_after_the_change(state: StateDatabase) -> None:
    """Not even by an instance that was only asleep, and not after its number is in force again."""
    sleeper = await lead(state, WHOLE)
    await change(state, 2)
    with pytest.raises(LeaseLost):
        await sleeper.save_checkpoint(Stream.MESSAGES, Checkpoint(position(1)))
    with pytest.raises(LeaseLost):
        await sleeper.begin_batch(make_batch(turn_item("m1")))

    await change(state, 1)
    with pytest.raises(LeaseLost):
        await sleeper.save_checkpoint(Stream.MESSAGES, Checkpoint(position(1)))


class Overtaken(MongoLease):
    """A lease that another instance takes right after it was taken here."""

    async def take(self, seen: LeaseRecord | None) -> int | None:
        epoch = await super().take(seen)
        other = MongoLease(self._database, lease_time=LEASE, names=self._names)
        await other.take(await other.read())
        return epoch


@pytest.mark.parametrize("overtaken", [0, 1])
async def test_a_change_fails_where_an_old_shard_came_to_life_again(
    state: StateDatabase, overtaken: int
) -> None:
    """Whichever of them it is, the transaction cannot prove its epoch."""
    await change(state, 2)
    for shard in Shard(0, 2).all():
        await (await lead(state, shard)).save_checkpoint(Stream.MESSAGES, Checkpoint(position(100)))
    layouts, old = MongoLayouts(state, lease_time=LEASE), await read_layout(state)
    leases = list(layouts.leases(old))
    leases[overtaken] = Overtaken(state, lease_time=LEASE, names=names_of(Shard(overtaken, 2)))
    seen = [await lease.read() for lease in leases]

    assert not await layouts.change(old, seen, leases, Layout(3, 1000))
    assert await read_layout(state) == old
    assert await positions(state, 2) == [100, 100]


async def test_several_that_change_it_at_once_change_it_once(state: StateDatabase) -> None:
    """All new instances start together: one of them moves the state."""
    await (await lead(state, WHOLE)).save_checkpoint(Stream.MESSAGES, Checkpoint(position(100)))
    found = await asyncio.gather(*(change(state, 4) for _ in range(4)))

    assert sum(len(events.of(LayoutChanged)) for events in found) == 1
    assert await read_layout(state) == Layout(4, 1000)
    assert await positions(state, 4) == [100] * 4


async def test_a_batch_that_was_on_its_way_is_settled_by_one_shard_and_held_by_the_others(
    state: StateDatabase,
) -> None:
    """Those in slots and those beside them; back again they are the one shard's."""
    before = await lead(state, WHOLE)
    batches = [make_batch(turn_item(f"m{number}")) for number in range(5)]
    for batch in batches:
        await before.begin_batch(batch)
    await release(state, WHOLE)
    await change(state, 2)
    shards = [await lead(state, shard) for shard in Shard(0, 2).all()]

    pending = [await shard.pending_batches() for shard in shards]
    assert {batch.batch_id for each in pending for batch in each} == {batch.batch_id for batch in batches}
    assert all(pending)
    for own, other in zip(pending, reversed(shards), strict=True):
        held = await other.pending_elsewhere()
        assert held.keys() == {item.record_id for batch in own for item in batch.items}

    await shards[0].finish_batch(pending[0][0], pending[0][0].items)
    assert len(await shards[1].pending_elsewhere()) == len(pending[0]) - 1
    await release(state, *Shard(0, 2).all())
    await change(state, 1)
    assert len(await (await lead(state, WHOLE)).pending_batches()) == len(batches) - 1


async def test_a_batch_of_another_destination_stays_one_of_it(state: StateDatabase) -> None:
    """Each destination finds its own, whatever shard has it then."""
    before = await lead(state, WHOLE)
    batches = {name: make_batch(turn_item("m1")) for name in ("default", "team-a")}
    for name, batch in batches.items():
        await before.of(name).begin_batch(batch)
    await release(state, WHOLE)
    for total in (2, 1):
        await change(state, total)
        shards = [await lead(state, shard) for shard in Shard(0, total).all()]
        for name, batch in batches.items():
            found = [each for shard in shards for each in await shard.of(name).pending_batches()]
            assert [each.batch_id for each in found] == [batch.batch_id]
        await release(state, *Shard(0, total).all())


async def test_parked_turns_are_adopted_by_the_shard_of_their_conversation(
    state: StateDatabase, databases: Databases
) -> None:
    """Of every division before; what is gone is the first shard's."""
    rows: list[dict[str, Any]] = [
        {"_id": ObjectId(key), "messageId": f"m{number}", "conversationId": f"c{number}"}
        for number, key in enumerate(KEYS)
    ]
    await databases.source["messages"].insert_many(rows[:-1])
    parked = [ParkedTurn(key, None, Wait.RESPONSE, 1, 2) for key in KEYS]
    await (await lead(state, WHOLE)).park(parked)
    source = tolerant_database(databases.source.client, databases.source.name)
    reader = MongoDocuments(source, Events(), history_bytes=1000, with_users=False)

    for total in (3, 2, 1):
        await change(state, total)
        found = []
        for shard in Shard(0, total).all():
            own = await lead(state, shard)
            await adopt_parked(own, reader, await read_layout(state), shard)
            adopted = [turn.document_key for turn in await own.load_parked(100)]
            assert all(shard.owns(f"c{KEYS.index(key)}") for key in adopted if key != KEYS[-1])
            found += adopted
        assert sorted(found) == KEYS
        await release(state, *Shard(0, total).all())


async def test_a_job_is_done_when_every_shard_has_done_it(state: StateDatabase) -> None:
    """Each goes its own way through the rows; together they tell how far it is."""
    await change(state, 2)
    shards = [await lead(state, shard) for shard in Shard(0, 2).all()]
    await shards[0].add_job(Job("job", JobReason.ASKED))
    await shards[0].advance_job("job", KEYS[3], Counts(rows=4, sent=2))
    await shards[1].advance_job("job", KEYS[1], Counts(rows=2, sent=1))
    job = await look_at_job(state, "job")
    assert job is not None
    assert job.counts == Counts(rows=2, sent=3)
    assert [(await shard.next_job(["default"])).position for shard in shards] == [KEYS[3], KEYS[1]]  # type: ignore[union-attr]

    await shards[0].finish_job("job", None)
    assert await shards[0].next_job(["default"]) is None
    assert await shards[1].next_job(["default"]) is not None
    await shards[1].finish_job("job", None)
    assert [await shard.next_job(["default"]) for shard in shards] == [None, None]
    done = await look_at_job(state, "job")
    assert done is not None
    assert done.is_done


@pytest.mark.parametrize(
    ("walked", "resumed"),
    [([KEYS[5], KEYS[3]], KEYS[3]), ([KEYS[5], None], None), ([KEYS[5], _TEXT], None)],
)
async def test_an_unfinished_job_goes_on_where_the_slowest_shard_was(
    state: StateDatabase, walked: Sequence[DocumentKey | None], resumed: DocumentKey | None
) -> None:
    """Whatever the new number is."""
    await change(state, 2)
    shards = [await lead(state, shard) for shard in Shard(0, 2).all()]
    await shards[0].add_job(Job("job", JobReason.ASKED))
    for shard, key in zip(shards, walked, strict=True):
        if key is not None:
            await shard.advance_job("job", key, Counts(rows=1))
    await release(state, *Shard(0, 2).all())
    for total in (3, 1):
        await change(state, total)
        for each in Shard(0, total).all():
            job = await (await lead(state, each)).next_job(["default"])
            assert job is not None
            assert job.position == resumed
        await release(state, *Shard(0, total).all())


async def test_a_gap_of_one_shard_is_filled_by_it_alone_until_the_number_changes(
    state: StateDatabase,
) -> None:
    """Then every shard looks for rows of it."""
    await change(state, 2)
    first, second = [await lead(state, shard) for shard in Shard(0, 2).all()]
    await second.add_gap(Gap(Stream.MESSAGES, 10, 20, "oplog_too_short"))
    (gap_id,) = await second.unfilled_gaps()
    await second.add_job(Job(f"gap-{gap_id}", JobReason.GAP, gap_id=gap_id))
    assert await first.unfilled_gaps() == {}
    assert await first.next_job(["default"]) is None
    assert await second.next_job(["default"]) is not None

    await release(state, *Shard(0, 2).all())
    await change(state, 3)
    shards = [await lead(state, shard) for shard in Shard(0, 3).all()]
    for shard in shards:
        assert list(await shard.unfilled_gaps()) == [gap_id]
        job = await shard.next_job(["default"])
        assert job is not None
        await shard.finish_job(job.job_id, job.gap_id)
    assert await shards[0].unfilled_gaps() == {}


async def test_a_missing_shard_is_told_after_a_while_and_when_it_is_back(state: StateDatabase) -> None:
    """One without a lease, one whose lease stands still, and one whose position does."""
    await change(state, 3)
    shards = Shard(0, 3).all()
    leases = [MongoLease(state, lease_time=LEASE, names=names_of(shard)) for shard in shards]
    epochs = [await lease.take(await lease.read()) for lease in leases[:2]]
    now, events = [0.0], Events()
    watch = ShardWatch(state, 3, LEASE, events, monotonic=lambda: now[0])
    for _ in range(4):
        await watch.look()
        await leases[0].renew(epochs[0] or 0)
        now[0] += PATIENCE_SECONDS / 3
    await watch.look()
    assert [event.missing for event in events.of(ShardsMissing)] == [("1of3", "2of3")]

    await leases[2].take(None)
    await leases[1].renew(epochs[1] or 0)
    await watch.look()
    assert [event.missing for event in events.of(ShardsMissing)][1:] == [()]
    for index, seconds in ((0, 1000), (1, 500)):
        own = MongoState(state, leases[index].fence, destination="fake")
        await own.save_checkpoint(Stream.MESSAGES, Checkpoint(position(seconds)))
    await watch.look()
    assert [event.missing for event in events.of(ShardsMissing)][2:] == [("1of3",)]


def test_the_doctor_names_a_missing_shard_and_another_number() -> None:
    """A state that is divided in another way than the command's settings say is not wrong by itself."""
    active = {shard: shard.index != 1 for shard in Shard(0, 3).all()}

    (missing,) = judge_instances(active, 3)
    assert missing.verdict is Verdict.FAIL
    assert "1of3" in missing.seen
    assert [each.verdict for each in judge_instances(dict.fromkeys(active, True), 3)] == [Verdict.PASS]
    _, other = judge_instances(dict.fromkeys(active, True), 1)
    assert other.verdict is Verdict.WARN
    assert [each.verdict for each in judge_instances(dict.fromkeys(active, False), 1)] == [Verdict.PASS]


async def test_the_commands_see_and_move_every_shard(state: StateDatabase, databases: Databases) -> None:
    """Whatever the settings of the command say."""
    await change(state, 2)
    for shard in Shard(0, 2).all():
        own = await lead(state, shard)
        await own.save_checkpoint(Stream.MESSAGES, Checkpoint(StreamPosition(None, 100 + shard.index)))
    settings = settings_for(databases, None)
    async with open_desk(settings) as desk:
        survey = await desk.survey()
        assert [str(found.shard) for found in survey.streams] == ["0of2", "1of2"]
        assert [lease is not None for lease in survey.leases.values()] == [True, True]
        assert [change.stored_seconds for change in await desk.plan(None)][:1] == [100]
        await desk.reset()
        assert (await desk.survey()).streams == []
    assert await read_layout(state) == Layout(2, None)
    async with open_backfills(settings.model_copy(update={"lease_time": LEASE})) as backfills:
        assert not await backfills.has_daemon()
        with pytest.raises(RequestRefused, match="start them"):
            async with backfills.working("any"):
                pass
