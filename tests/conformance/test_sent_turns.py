"""What a state database remembers of turns that were sent: enough for feedback, edits and deletions, over restarts."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from tailer.core.identity import TraceId, title_trace_id, turn_trace_id
from tailer.core.stream.shard import Shard
from tailer.core.trace.followup import EditedText, mark_text
from tailer.core.trace.late import LateMarks
from tailer.flow.letter_reasons import LetterReason
from tailer.flow.records import DeadLetter
from tailer.flow.stores import StateStore
from tests.sent import (
    edit_item,
    key_of,
    late_item,
    make_batch,
    make_sent,
    remembered,
    send,
    title_item,
    turn_item,
)


async def test_what_is_remembered_is_read_back_as_it_was(state: StateStore) -> None:
    """By trace and by row; a title's record is no turn."""
    await send(state, turn_item("m1"), title_item("m1"), turn_item("m2", plain=True))
    first, second = make_sent("m1"), make_sent("m2", plain=True)

    asked: Sequence[TraceId] = [first.trace_id, second.trace_id, title_trace_id("m1"), turn_trace_id("m3")]
    assert await state.load_sent(asked) == {first.trace_id: first, second.trace_id: second}
    assert await state.load_sent_by_document([key_of("m2"), key_of("m3")]) == [second]
    assert await state.load_sent([]) == {}


async def test_a_batch_item_survives_a_restart_with_all_that_belongs_to_it(state: StateStore) -> None:
    """Turn, title and edits; the text of an edit is not kept, its mark is."""
    items = (
        turn_item("m1"),
        title_item("m1"),
        turn_item("m2", plain=True),
        edit_item("m3", "One", 0),
        edit_item("m4", "What?", 7, EditedText.QUESTION),
    )
    batch = make_batch(*items)
    await state.begin_batch(batch)

    (read,) = await state.pending_batches()
    assert read == batch
    assert read.items[3].record_id == f"{turn_trace_id('m3')}:edit:0"


async def test_feedback_is_remembered_until_it_is_taken_back(state: StateStore) -> None:
    """For one turn, and nothing else of it changes; a record that is not there is not made."""
    await send(state, turn_item("m1"), turn_item("m2"))
    await state.record_feedback(turn_trace_id("m1"), "digest")
    await state.record_feedback(turn_trace_id("gone"), "digest")

    assert await remembered(state, "m1") == replace(make_sent("m1"), feedback="digest")
    assert await remembered(state, "m2") == make_sent("m2")
    assert await state.find_exported([turn_trace_id("gone")]) == frozenset()

    await state.record_feedback(turn_trace_id("m1"), None)
    assert await remembered(state, "m1") == make_sent("m1")


async def test_an_edit_brings_the_record_of_its_turn_up_to_date(state: StateStore) -> None:
    """The text that was edited and the number of edits; the other text stays."""
    await send(state, turn_item("m1"), turn_item("m2"))
    await send(state, edit_item("m1", "One", 0))
    await send(state, edit_item("m1", "What?", 1, EditedText.QUESTION))

    assert await remembered(state, "m1") == replace(
        make_sent("m1"), answer=mark_text("One"), question=mark_text("What?"), edits=2
    )
    assert await remembered(state, "m2") == make_sent("m2")
    records = [turn_trace_id("m1"), f"{turn_trace_id('m1')}:edit:0", f"{turn_trace_id('m1')}:edit:1"]
    assert await state.find_exported([*records, f"{turn_trace_id('m1')}:edit:2"]) == frozenset(records)


async def test_an_edit_whose_turn_is_forgotten_makes_no_half_record(state: StateStore) -> None:
    """The turn's record had expired: only the edit's own is written."""
    await send(state, edit_item("m1", "One", 0))

    assert await state.load_sent([turn_trace_id("m1")]) == {}
    assert await state.find_exported([turn_trace_id("m1")]) == frozenset()


async def test_the_traces_of_rows_are_found_without_their_pieces(state: StateStore) -> None:
    """A turn's and its title's; an edit is no trace of its own."""
    await send(state, turn_item("m1"), title_item("m1"), turn_item("m2"))
    await send(state, edit_item("m1", "One", 0))

    found = await state.find_traces_by_document([key_of("m1"), key_of("m3")])
    assert sorted(found) == sorted([turn_trace_id("m1"), title_trace_id("m1")])


async def test_a_deleted_trace_is_not_followed_and_never_sent_again(state: StateStore) -> None:
    """Nothing is remembered of it but that it was sent; deleting it again changes nothing."""
    await send(state, turn_item("m1"), title_item("m1"), turn_item("m2"))
    for _ in range(2):
        await state.record_deleted([turn_trace_id("m1"), title_trace_id("m1"), turn_trace_id("gone")])

    assert list(await state.load_sent([turn_trace_id("m1"), turn_trace_id("m2")])) == [turn_trace_id("m2")]
    assert await state.load_sent_by_document([key_of("m1")]) == []
    assert await state.find_traces_by_document([key_of("m1")]) == []
    assert await state.find_exported(
        [turn_trace_id("m1"), title_trace_id("m1"), turn_trace_id("gone")]
    ) == frozenset([turn_trace_id("m1"), title_trace_id("m1")])


async def test_only_what_the_destination_refused_counts_as_refused(state: StateStore) -> None:
    """A turn that could not be built may still be sent some day."""
    letters = [
        DeadLetter("refused", "m1", key_of("m1"), LetterReason.parse("rejected: http_400"), b"chunk"),
        DeadLetter("broken", "m2", key_of("m2"), LetterReason.parse("build_failed: ValueError"), None),
    ]
    await state.add_dead_letters(letters)

    assert await state.find_refused(["refused", "broken", "unknown"]) == frozenset(["refused"])


async def test_late_facts_bring_the_record_of_their_turn_up_to_date(state: StateStore) -> None:
    """Parts and ledger rows, each only where it changed; an older amendment is not taken back."""
    await send(state, turn_item("m1"))
    parts = (("tool:c.1", mark_text("42")),)
    await send(state, late_item("m1", LateMarks(0, parts, None)))
    await send(state, late_item("m1", LateMarks(1, None, ("t1", "t2"))))
    await send(state, late_item("m1", LateMarks(0, (), ())))

    assert await remembered(state, "m1") == replace(
        make_sent("m1"), edits=2, parts=parts, transactions=("t1", "t2")
    )


async def test_a_late_piece_survives_a_restart_with_its_marks(state: StateStore) -> None:
    """As an edit does."""
    batch = make_batch(late_item("m1", LateMarks(3, (("reasoning:1", mark_text("hm")),), ("t1",))))
    await state.begin_batch(batch)

    assert list(await state.pending_batches()) == [batch]


async def test_turns_are_found_by_when_they_were_sent(state: StateStore) -> None:
    """The beginning belongs to a stretch of time, its end does not; titles, deleted turns and old ones are left out."""
    before = datetime.now(UTC) - timedelta(seconds=1)
    await send(state, turn_item("m1"), title_item("m1"), turn_item("m2"))
    await state.record_deleted([turn_trace_id("m2")])
    after = datetime.now(UTC) + timedelta(seconds=1)
    ended = make_sent("m1").end_milliseconds

    assert await state.load_sent_between(before, after, ended_milliseconds=ended) == [make_sent("m1")]
    assert await state.load_sent_between(before, after, ended_milliseconds=ended + 1) == []
    assert await state.load_sent_between(after, after + timedelta(hours=1), ended_milliseconds=0) == []


async def test_of_more_turns_than_asked_for_none_is_given(state: StateStore) -> None:
    """However many there are, no more than these are in memory."""
    before, after = datetime.now(UTC) - timedelta(seconds=1), datetime.now(UTC) + timedelta(minutes=1)
    await send(state, *(turn_item(f"m{number}") for number in range(3)))

    found = [
        await state.load_sent_between(before, after, ended_milliseconds=0, limit=limit) for limit in (2, 3)
    ]
    assert found[0] is None
    assert len(found[1] or ()) == 3


async def test_each_shard_finds_its_own_turns_by_when_they_were_sent(state: StateStore) -> None:
    """By the conversation of each, whether its id is one that LibreChat makes or any other."""
    before, after = datetime.now(UTC) - timedelta(seconds=1), datetime.now(UTC) + timedelta(minutes=1)
    conversations = [*(str(UUID(int=number, version=4)) for number in range(6)), "thread_1", "thread_2"]
    turns = [
        replace(make_sent(f"m{number}"), session_id=conversation_id)
        for number, conversation_id in enumerate(conversations)
    ]
    await send(state, *(replace(turn_item(turn.message_id), sent=turn) for turn in turns))

    for shard in Shard(0, 3).all():
        own = [turn for turn in turns if shard.owns(turn.session_id)]
        found = await state.load_sent_between(before, after, ended_milliseconds=0, shard=shard)
        assert found is not None
        assert sorted(found, key=lambda turn: turn.message_id) == own
