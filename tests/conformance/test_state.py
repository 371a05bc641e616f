"""The stores of a state database: what is kept, what is found again, in which order, and what doing it twice
changes."""

from dataclasses import replace

from tailer.core.backfill import Counts, Job, JobReason
from tailer.core.identity import DocumentKey
from tailer.core.stream.hints import Stream
from tailer.core.stream.positions import StreamPosition
from tailer.core.turn.turns import Wait
from tailer.flow.letter_reasons import LetterReason
from tailer.flow.records import Batch, Checkpoint, DeadLetter, Gap, ParkedTurn
from tailer.flow.stores import StateStore
from tests.conformance.worlds import StateWorld
from tests.evidence import make_item, make_trace, trace_ids
from tests.sent import edit_item

KEYS = [DocumentKey(f"{number:024x}") for number in range(5)]


def checkpoint(second: int) -> Checkpoint:
    return Checkpoint(StreamPosition(f"82{second:08X}", second), ((KEYS[0], (1, 2)),))


def make_batch(batch_id: str, *message_ids: str) -> Batch:
    items = [make_item(make_trace(message_id), bytes(10)) for message_id in message_ids]
    return Batch(batch_id, tuple(items), bytes(range(256)))


def make_letter(message_id: str, *, chunk: bytes | None = None) -> DeadLetter:
    reason = "rejected: http_400" if chunk is not None else "build_failed: ValueError"
    return DeadLetter(f"record-{message_id}", message_id, KEYS[0], LetterReason.parse(reason), chunk)


async def test_a_checkpoint_is_read_back_as_it_was_saved(state: StateStore) -> None:
    """Position and touches, for each stream by itself."""
    assert await state.load_checkpoint(Stream.MESSAGES) is None

    await state.save_checkpoint(Stream.MESSAGES, checkpoint(7))
    await state.save_checkpoint(Stream.MESSAGES, checkpoint(8))

    assert await state.load_checkpoint(Stream.MESSAGES) == checkpoint(8)
    assert await state.load_checkpoint(Stream.CONVERSATIONS) is None


async def test_a_batch_is_pending_from_its_beginning_to_its_end(state: StateStore) -> None:
    """With the very bytes, oldest first; beginning it twice makes one batch."""
    first, second = make_batch("b", "m1", "m2"), make_batch("a", "m3")
    await state.begin_batch(first)
    await state.begin_batch(second)
    await state.begin_batch(second)

    assert list(await state.pending_batches()) == [first, second]

    await state.finish_batch(first, first.items[:1])

    assert list(await state.pending_batches()) == [second]
    assert await state.find_exported(trace_ids("m1", "m2", "m3")) == frozenset(trace_ids("m1"))
    assert await state.find_exported_rows(trace_ids("m1", "m2", "m3")) == {
        first.items[0].record_id: first.items[0].document_key
    }


async def test_a_batch_can_be_finished_again_after_an_answer_was_lost(state: StateStore) -> None:
    """Records that are there already are no error, and the missing ones are added."""
    batch = make_batch("b", "m1", "m2", "m3")
    await state.finish_batch(batch, batch.items[1:2])
    await state.begin_batch(batch)

    await state.finish_batch(batch, batch.items)
    await state.finish_batch(batch, ())

    assert await state.find_exported(trace_ids("m1", "m2", "m3", "m4")) == frozenset(
        trace_ids("m1", "m2", "m3")
    )
    assert await state.pending_batches() == []


async def test_a_batch_takes_what_it_carries_along_when_it_is_finished(
    database: StateWorld, state: StateStore
) -> None:
    """The positions of the streams, and what was refused; what is stored by itself before or after counts too."""
    batch, last = make_batch("a", "m1", "m2"), make_batch("b", "m3")
    await state.save_checkpoint(Stream.MESSAGES, checkpoint(7))
    for each in (batch, last):
        await state.begin_batch(each)
    letter = replace(make_letter("m2", chunk=b"chunk"), record_id=batch.items[1].record_id)

    await state.finish_batch(
        batch,
        batch.items[:1],
        letters=[letter],
        positions={Stream.MESSAGES: checkpoint(8), Stream.CONVERSATIONS: Checkpoint(StreamPosition("82", 5))},
    )

    assert await state.load_checkpoint(Stream.MESSAGES) == checkpoint(8)
    assert await state.load_checkpoint(Stream.CONVERSATIONS) == Checkpoint(StreamPosition("82", 5))
    assert await state.load_checkpoint(Stream.TRANSACTIONS) is None
    assert await state.find_exported(trace_ids("m1", "m2")) == frozenset(trace_ids("m1"))
    assert await state.find_refused([letter.record_id]) == frozenset([letter.record_id])
    assert list(await state.pending_batches()) == [last]

    await state.save_checkpoint(Stream.MESSAGES, checkpoint(9))
    await state.finish_batch(last, (), positions={Stream.CONVERSATIONS: Checkpoint(StreamPosition("82", 6))})
    assert await state.load_checkpoint(Stream.MESSAGES) == checkpoint(9)
    later = await database.lead()
    assert await later.load_checkpoint(Stream.MESSAGES) == checkpoint(9)
    assert await later.load_checkpoint(Stream.CONVERSATIONS) == Checkpoint(StreamPosition("82", 6))
    await later.save_checkpoint(Stream.MESSAGES, checkpoint(3))
    assert await later.load_checkpoint(Stream.MESSAGES) == checkpoint(3)
    assert await later.pending_batches() == []


async def test_a_batch_that_is_too_large_to_be_stored_is_refused_and_takes_no_place(
    state: StateStore,
) -> None:
    """Sixteen megabytes are a document's limit. The same again is refused again, and a smaller one is begun."""
    large, small = replace(make_batch("a", "m1"), payload=bytes(16_500_000)), make_batch("a", "m1")
    for _ in range(2):
        assert not await state.begin_batch(large)
        assert await state.pending_batches() == []

    assert await state.begin_batch(small)
    assert await state.pending_batches() == [small]


async def test_any_number_of_batches_is_on_its_way_at_a_time(database: StateWorld, state: StateStore) -> None:
    """More than there are slots; the next epoch finds those that were not finished, oldest first, and begins its
    own."""
    batches = [make_batch(f"b{number:02}", f"m{number}") for number in range(40)]
    for batch in batches:
        await state.begin_batch(batch)
    for batch in batches[::2]:
        await state.finish_batch(batch, batch.items)
    assert list(await state.pending_batches()) == batches[1::2]

    later = await database.lead()
    own = make_batch("own", "m")
    await later.begin_batch(own)
    left = await later.pending_batches()
    assert list(left) == [*batches[1::2], own]
    for batch in left:
        await later.finish_batch(batch, batch.items)
    assert await later.pending_batches() == []
    assert len(await later.find_exported([item.record_id for batch in batches for item in batch.items])) == 40


async def test_a_parked_turn_keeps_its_first_deadline(state: StateStore) -> None:
    """Parked, parked again, forgotten, forgotten again; the earliest deadline comes first. What waits for something
    else gets a deadline for that."""
    turns = [
        ParkedTurn(KEYS[0], "m1", Wait.RESPONSE, 100, 900),
        ParkedTurn(KEYS[1], None, Wait.APPROVAL, 100, 300),
        ParkedTurn(KEYS[2], "m3", Wait.FINISH, 100, 600),
    ]
    await state.park(turns)
    await state.park([replace(turns[0], since_seconds=500, deadline_seconds=1300)])

    assert await state.load_parked(10) == [turns[1], turns[2], turns[0]]
    assert await state.load_parked(1) == [turns[1]]
    other = replace(turns[0], wait=Wait.APPROVAL, since_seconds=500, deadline_seconds=9000)
    assert other.wait is not turns[0].wait
    await state.park([other])
    assert await state.load_parked(10) == [turns[1], turns[2], other]
    await state.park([turns[0]])

    for _ in range(2):
        await state.unpark([KEYS[1], KEYS[2]])
    await state.park([])
    await state.unpark([])
    assert await state.load_parked(10) == [turns[0]]


async def test_what_an_earlier_epoch_kept_the_next_one_finds(database: StateWorld) -> None:
    """A restart: everything but the right to write is handed down."""
    earlier = await database.lead()
    await earlier.save_checkpoint(Stream.MESSAGES, checkpoint(7))
    await earlier.begin_batch(make_batch("b", "m1"))
    await earlier.park([ParkedTurn(KEYS[0], "m1", Wait.RESPONSE, 100, 900)])
    await earlier.add_job(Job("job", JobReason.ASKED))

    later = await database.lead()

    assert await later.load_checkpoint(Stream.MESSAGES) == checkpoint(7)
    assert list(await later.pending_batches()) == [make_batch("b", "m1")]
    assert [turn.document_key for turn in await later.load_parked(10)] == KEYS[:1]
    assert await later.next_job(["default"]) == Job("job", JobReason.ASKED)


async def test_a_dead_letter_is_sent_again_only_where_that_was_asked_for(
    database: StateWorld, state: StateStore
) -> None:
    """Asked for, begun, and ended with a word; a letter that failed once more is not asked for any longer."""
    letters = [make_letter(f"m{number}") for number in range(3)]
    for letter in letters:
        await state.add_dead_letters([letter])
    assert await state.load_replays(10) == []
    assert not await state.end_replay(letters[0].record_id, "nothing_to_send")

    for letter in letters:
        await database.ask_for_replay(letter.record_id)
    assert list(await state.load_replays(10)) == letters
    assert list(await state.load_replays(2)) == letters[:2]
    assert list(await state.load_replays(1, except_for={letters[0].record_id})) == letters[1:2]

    assert await state.end_replay(letters[0].record_id, "nothing_to_send")
    assert not await state.end_replay(letters[0].record_id, "nothing_to_send")
    await state.add_dead_letters([letters[1]])
    await state.drop_dead_letters([letters[2].record_id, "unknown"])

    assert await state.load_replays(10) == []
    assert not await state.end_replay(letters[2].record_id, "nothing_to_send")


async def test_a_dead_letter_keeps_its_chunk_and_its_item(database: StateWorld, state: StateStore) -> None:
    """The last failure counts; of an edit the mark is kept, and not the text."""
    item = edit_item("m1", "One", 0)
    assert item.edit is not None
    told = replace(item, edit=replace(item.edit, text="the text itself"))
    built = DeadLetter(
        item.record_id, "m1", KEYS[0], LetterReason.parse("rejected: http_400"), b"chunk", told
    )
    await state.add_dead_letters(
        [replace(built, chunk=None, item=None, reason=LetterReason.parse("build_failed: ValueError"))]
    )
    await state.add_dead_letters([built])
    await state.add_dead_letters([])
    await database.ask_for_replay(built.record_id)

    assert list(await state.load_replays(10)) == [replace(built, item=item)]
    assert await state.find_refused([built.record_id, "unknown"]) == frozenset([built.record_id])


async def test_a_gap_is_open_until_a_backfill_has_filled_it(state: StateStore) -> None:
    """Declared again after a crash it is the same gap; found again after it was filled it is open again."""
    gap, other = Gap(Stream.MESSAGES, 100, 200, "code_286"), Gap(Stream.CONVERSATIONS, 100, 200, "code_286")
    for told in (gap, gap, other):
        await state.add_gap(told)
    gap_ids = {found: gap_id for gap_id, found in (await state.unfilled_gaps()).items()}
    assert set(gap_ids) == {gap, other}

    await state.add_job(Job("fill", JobReason.GAP, gap_id=gap_ids[gap]))
    await state.finish_job("fill", gap_ids[gap])
    assert list((await state.unfilled_gaps()).values()) == [other]

    await state.add_gap(gap)
    assert set((await state.unfilled_gaps()).values()) == {gap, other}


async def test_a_job_for_one_destination_waits_for_an_instance_that_knows_it(state: StateStore) -> None:
    for_team = Job("a", JobReason.ASKED, destination="team-a")
    for_all = Job("b", JobReason.ASKED)
    await state.add_job(for_team)
    assert await state.next_job(["default"]) is None

    await state.add_job(for_all)
    assert await state.next_job(["default"]) == for_all
    assert await state.next_job(["default", "team-a"]) == for_team


async def test_jobs_are_done_one_after_another_and_go_on_where_they_were(state: StateStore) -> None:
    """The oldest first; added again, a job stays as far as it is, and one that is done stays done."""
    first = Job(
        "a", JobReason.ASKED, since_seconds=5, until_seconds=9, conversation_id="c1", destination="team-a"
    )
    second = Job("b", JobReason.START)
    assert await state.next_job(["team-a"]) is None
    await state.add_job(first)
    await state.add_job(second)
    assert await state.next_job(["team-a"]) == first
    assert await state.next_job(["team-a"], except_for={first.job_id}) == second

    await state.size_job("a", 40)
    await state.advance_job("a", KEYS[1], Counts(4, 3, 2, 1))
    await state.add_job(first)
    assert await state.next_job(["team-a"]) == replace(
        first, total_rows=40, position=KEYS[1], counts=Counts(4, 3, 2, 1)
    )

    await state.finish_job("a", None)
    await state.add_job(first)
    assert await state.next_job(["team-a"]) == second
    await state.size_job("b", None)
    await state.finish_job("b", None)
    assert await state.next_job(["team-a"]) is None
