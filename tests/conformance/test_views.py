"""The state of several destinations: each sees what is kept for itself, and nothing of the others."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tailer.core.identity import title_trace_id, turn_trace_id
from tailer.core.stream.shard import Shard
from tailer.flow.letter_reasons import LetterReason
from tailer.flow.records import DeadLetter, Leftovers
from tailer.flow.stores import DestinationStore, StateStore
from tests.conformance.worlds import StateWorld
from tests.sent import edit_item, key_of, make_batch, make_owed, make_sent, title_item, turn_item


async def send_to(state: DestinationStore, message_id: str) -> None:
    batch = make_batch(turn_item(message_id), title_item(message_id))
    await state.begin_batch(batch)
    await state.finish_batch(batch, batch.items)


async def test_what_was_sent_to_one_destination_was_not_sent_to_another(state: StateStore) -> None:
    """The same turn has a record at each; what changes one changes no other."""
    other, turn = state.of("team-a"), turn_trace_id("m1")
    await send_to(other, "m1")
    assert await state.find_exported([turn]) == frozenset()
    assert await state.load_sent([turn]) == {}
    assert await other.find_exported([turn, turn_trace_id("m2")]) == frozenset([turn])

    await send_to(state, "m1")
    await other.record_feedback(turn, "digest")
    await other.record_deleted([title_trace_id("m1")])

    assert await state.load_sent([turn]) == {turn: make_sent("m1")}
    assert await other.load_sent([turn]) == {turn: replace(make_sent("m1"), feedback="digest")}
    assert await other.find_traces_by_document([key_of("m1")]) == [turn]
    assert sorted(await state.find_traces_by_document([key_of("m1")])) == sorted([turn, title_trace_id("m1")])
    assert await state.load_sent_by_document([key_of("m1")]) == [make_sent("m1")]


async def test_turns_are_found_by_when_they_were_sent_to_a_destination(state: StateStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    await send_to(state.of("team-a"), "m1")
    await send_to(state, "m2")
    after = datetime.now(UTC) + timedelta(seconds=1)

    async def found(view: DestinationStore) -> list[str]:
        turns = await view.load_sent_between(before, after, ended_milliseconds=0)
        return [turn.message_id for turn in turns or ()]

    assert await found(state.of("team-a")) == ["m1"]
    assert await found(state) == ["m2"]
    assert await found(state.of("team-b")) == []


async def test_batches_are_pending_for_their_own_destination(state: StateStore) -> None:
    """Finished there, too; an edit brings the record of that destination up to date."""
    one, other = state.of("team-a"), state.of("team-b")
    for view in (one, other):
        await send_to(view, "m1")
    batch = make_batch(edit_item("m1", "One", 0))
    await one.begin_batch(batch)

    assert list(await one.pending_batches()) == [batch]
    assert await other.pending_batches() == []
    assert await state.pending_batches() == []

    await one.finish_batch(batch, batch.items)
    assert await one.pending_batches() == []
    turn = turn_trace_id("m1")
    assert (await one.load_sent([turn]))[turn].edits == 1
    assert (await other.load_sent([turn]))[turn].edits == 0


async def test_dead_letters_are_those_of_one_destination(state: StateStore) -> None:
    """The same record may be one at several of them."""
    letter = DeadLetter("record", "m1", key_of("m1"), LetterReason.parse("rejected: http_400"), b"chunk")
    one, other = state.of("team-a"), state.of("team-b")
    for view in (one, state):
        await view.add_dead_letters([letter])

    assert await one.find_refused(["record"]) == frozenset(["record"])
    assert await other.find_refused(["record"]) == frozenset()
    await one.drop_dead_letters(["record"])
    assert await one.find_refused(["record"]) == frozenset()
    assert await state.find_refused(["record"]) == frozenset(["record"])


async def test_a_replay_is_asked_for_at_one_destination(database: StateWorld, state: StateStore) -> None:
    letter = DeadLetter("record", "m1", key_of("m1"), LetterReason.parse("rejected: http_400"), b"chunk")
    one = state.of("team-a")
    for view in (one, state):
        await view.add_dead_letters([letter])
    await database.ask_for_replay("record")

    assert list(await state.load_replays(10)) == [letter]
    assert await state.load_replays(10, except_for=["record"]) == []
    assert await one.load_replays(10) == []
    assert not await one.end_replay("record", "nothing_to_send")
    assert await state.end_replay("record", "nothing_to_send")


async def test_what_is_owed_is_found_by_age_and_owed_once(state: StateStore) -> None:
    """Of `default` too; with what only the stream said of it."""
    for view in (state, state.of("team-a")):
        assert await view.load_owed(10) == []
        assert (
            await view.owe([make_owed(1, since=300), make_owed(2, since=200), make_owed(3, since=100)]) == 3
        )
        assert await view.owe([make_owed(2, since=900, changed=frozenset({"feedback"}))]) == 0
        assert await view.owe([]) == 0

        both = make_owed(2, since=200, changed=frozenset({"text", "feedback"}), times=2)
        assert await view.load_owed(10) == [make_owed(3, since=100), both, make_owed(1, since=300)]
        assert await view.load_owed(1) == [make_owed(3, since=100)]
        assert await view.count_owed() == 3


async def test_what_was_owed_once_more_is_not_forgotten(state: StateStore) -> None:
    """It counts as owed since then, so that it does not hold up what is behind it."""
    view, other = state.of("team-a"), state.of("team-b")
    for each in (view, other):
        await each.owe([make_owed(1), make_owed(2, since=200)])
    loaded = await view.load_owed(10)
    await view.owe([make_owed(1)])

    assert await view.settle_owed(loaded, since_seconds=500) == 1
    assert await view.load_owed(10) == [make_owed(1, since=500, times=2)]
    assert await view.settle_owed([], since_seconds=500) == 0
    assert await other.count_owed() == 2


async def test_a_shard_finds_what_is_owed_of_its_own_conversations(state: StateStore) -> None:
    """Conversations that LibreChat numbered, and others; every one belongs to one shard."""
    view, shards = state.of("team-a"), Shard(0, 2).all()
    ids = [f"00000000-0000-4000-8000-0000000000{number:02x}" for number in range(8)]
    ids += [f"c{number}" for number in range(8)]
    await view.owe([make_owed(number, conversation_id=each) for number, each in enumerate(ids)])

    found = [await view.load_owed(100, shard=shard) for shard in shards]
    for shard, own in zip(shards, found, strict=True):
        assert own
        assert all(shard.owns(share.conversation_id) for share in own)
        assert await view.load_owed(2, shard=shard) == own[:2]
    assert sum(map(len, found)) == len(ids)


@pytest.mark.parametrize("is_first", [True, False], ids=["owed first", "owed last"])
async def test_a_shard_that_does_not_know_whose_something_is_does_not_take_it_over(
    state: StateStore, *, is_first: bool
) -> None:
    """A deletion names only the row, so several shards may owe it, and one of them knows the conversation."""
    view = state.of("team-a")
    known = make_owed(1)
    unknown = replace(known, conversation_id=known.key.document_key)
    for share in (unknown, known) if is_first else (known, unknown):
        await view.owe([share])

    assert [share.conversation_id for share in await view.load_owed(10)] == ["c1"]


async def test_what_is_left_of_a_destination_without_a_name_is_let_go(state: StateStore) -> None:
    """Counted, once; what was sent to it, its dead letters, and all of the others stay."""
    gone, stays = state.of("team-a"), state.of("team-b")
    letter = DeadLetter("record", "m9", key_of("m9"), LetterReason.parse("rejected: http_400"), b"chunk")
    for view in (gone, stays, state):
        await send_to(view, "m1")
        await view.begin_batch(make_batch(turn_item("m2"), turn_item("m3")))
        await view.owe([make_owed(1)])
        await view.add_dead_letters([letter])

    assert await state.let_go_all_but(["default", "team-b"]) == {"team-a": Leftovers(2, 1)}
    assert await state.let_go_all_but(["default", "team-b"]) == {}
    assert (await gone.pending_batches(), await gone.count_owed()) == ([], 0)
    assert await gone.find_refused(["record"]) == frozenset(["record"])
    assert await gone.find_exported([turn_trace_id("m1")]) == frozenset([turn_trace_id("m1")])
    for view in (stays, state):
        assert len(await view.pending_batches()) == 1
        assert await view.count_owed() == 1

    assert await state.let_go_all_but(["team-b"]) == {"default": Leftovers(2, 1)}
    assert await state.pending_batches() == []
    assert len(await stays.pending_batches()) == 1
