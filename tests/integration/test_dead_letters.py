"""Turns that could not be sent: looked at, sent again, or forgotten, beside a running tailer and without one."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId

from tailer.core.identity import title_trace_id, turn_trace_id
from tailer.daemon import pipeline
from tailer.errors import RequestRefused
from tailer.events import DeadLetterReplayed, TraceRejected
from tailer.flow.letter_reasons import LetterKind, LetterReason
from tailer.flow.records import DeadLetter
from tailer.mongo.document_keys import to_key
from tailer.operations.dead_letters import LetterDesk, Replayed, open_letters
from tests.e2e.databases import Databases
from tests.fakes.langfuse import FakeLangfuse, bad_span
from tests.integration.running import Run, running, settings_for
from tests.rows import ALICE, BOB, answer, question, transaction

PATIENCE = timedelta(seconds=20)
TRACE = turn_trace_id("a1")


@pytest.fixture(autouse=True)
def frequent_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_SWEEP_SECONDS", 0.05)


@pytest.fixture
async def fake() -> AsyncIterator[FakeLangfuse]:
    async with FakeLangfuse() as server:
        yield server
        assert server.violations == []


@asynccontextmanager
async def desk_of(databases: Databases) -> AsyncIterator[LetterDesk]:
    async with open_letters(settings_for(databases, None)) as desk:
        yield desk


@contextmanager
def refusing(fake: FakeLangfuse, marker: str) -> Iterator[None]:
    """For the block, Langfuse refuses spans with these words in them."""
    fake.faults.add(bad_span(marker))
    yield
    fake.faults.clear()


async def ask_one_turn(databases: Databases, **fields: Any) -> None:
    await databases.source["messages"].insert_many([question("q1", None), answer("a1", "q1", **fields)])


async def refuse_one_turn(databases: Databases, fake: FakeLangfuse, run: Run) -> None:
    with refusing(fake, "text of q1"):
        await ask_one_turn(databases)
        await run.until_done()
    assert [event.trace_id for event in run.events.of(TraceRejected)] == [TRACE]


async def replay_all(databases: Databases) -> Replayed:
    async with desk_of(databases) as desk:
        letters = await desk.list_letters()
        await desk.ask(letters)
        return await desk.follow(letters, PATIENCE)


async def test_a_refused_turn_is_listed_with_its_reason_and_without_its_text(
    databases: Databases, fake: FakeLangfuse
) -> None:
    async with running(databases, fake) as run, desk_of(databases) as desk:
        await refuse_one_turn(databases, fake, run)
        (letter,) = await desk.list_letters()

    assert (letter.record_id, letter.message_id, str(letter.reason)) == (TRACE, "a1", "rejected: http_400")
    assert (letter.tries, letter.replay) == (1, None)
    assert letter.stored_bytes is not None
    assert letter.stored_bytes > 100
    assert letter.first_failed_at == letter.last_failed_at
    assert "text of" not in repr(letter)


async def test_a_replayed_turn_arrives_once_and_its_letter_is_gone(
    databases: Databases, fake: FakeLangfuse
) -> None:
    async with running(databases, fake) as run:
        await refuse_one_turn(databases, fake, run)
        replayed = await replay_all(databases)
        await run.until_done()
        told = run.events.of(DeadLetterReplayed)

    assert replayed == Replayed(sent=1, waiting=0, kept=[])
    assert fake.trace_ids() == [TRACE]
    assert fake.duplicates() == []
    assert [(event.record_id, event.outcome) for event in told] == [(TRACE, "sent")]


async def test_a_turn_is_built_anew_for_its_replay(databases: Databases, fake: FakeLangfuse) -> None:
    """What was wrong may have been the row, or our own reading of it."""
    async with running(databases, fake) as run:
        await refuse_one_turn(databases, fake, run)
        await databases.source["messages"].update_one({"messageId": "q1"}, {"$set": {"text": "mended"}})
        await run.until_done()
        await replay_all(databases)

    (root,) = [stored for stored in fake.trace(TRACE) if stored.span.parent_span_id is None]
    assert root.input == "mended"


async def test_what_is_refused_again_stays_with_one_more_try(
    databases: Databases, fake: FakeLangfuse
) -> None:
    async with running(databases, fake) as run:
        await refuse_one_turn(databases, fake, run)
        with refusing(fake, "text of q1"):
            replayed = await replay_all(databases)

    assert (replayed.sent, replayed.waiting) == (0, 0)
    (letter,) = replayed.kept
    assert (letter.tries, letter.replay, str(letter.reason)) == (2, None, "rejected: http_400")
    assert letter.last_failed_at > letter.first_failed_at
    assert fake.trace_ids() == []


async def test_a_turn_whose_row_is_gone_has_nothing_to_send(databases: Databases, fake: FakeLangfuse) -> None:
    async with running(databases, fake) as run:
        await refuse_one_turn(databases, fake, run)
        await databases.source["messages"].delete_many({})
        await run.until_done()
        replayed = await replay_all(databases)
        told = run.events.of(DeadLetterReplayed)

    assert [letter.replay for letter in replayed.kept] == ["nothing_to_send"]
    assert [event.outcome for event in told] == ["nothing_to_send"]
    assert fake.trace_ids() == []


async def test_a_title_goes_as_it_was_built(databases: Databases, fake: FakeLangfuse) -> None:
    """Its turn has arrived, so that reading the row again would send nothing."""
    title = title_trace_id("a1")
    async with running(databases, fake) as run:
        conversation = {"_id": ObjectId(), "conversationId": "c1", "user": ALICE, "title": "Clocks"}
        await databases.source["conversations"].insert_one(conversation)
        await databases.source["transactions"].insert_one(transaction(messageId="a1", context="title"))
        # The turn's root shows the title as metadata only: the marker stands in names and inputs.
        with refusing(fake, "title"):
            await ask_one_turn(databases)
            await run.until_done()
        assert fake.trace_ids() == [TRACE]
        replayed = await replay_all(databases)

    assert replayed == Replayed(sent=1, waiting=0, kept=[])
    assert set(fake.trace_ids()) == {TRACE, title}
    assert fake.duplicates() == []


async def test_a_turn_that_was_never_built_is_read_and_sent(databases: Databases, fake: FakeLangfuse) -> None:
    """As after an update that can read what an earlier release could not."""
    row = question("q1", None)
    reply = answer("a1", "q1")
    await databases.source["messages"].insert_many([row, reply])
    async with running(databases, fake) as run:
        letter = DeadLetter(
            TRACE, "a1", to_key(reply["_id"]), LetterReason.parse("build_failed: ValueError"), None
        )
        await run.state.add_dead_letters([letter])
        replayed = await replay_all(databases)

    assert replayed == Replayed(sent=1, waiting=0, kept=[])
    assert fake.trace_ids() == [TRACE]


async def test_a_turn_with_the_id_of_another_users_is_a_letter_until_it_is_dropped(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """A replay finds the same again; the trace stays that of the turn that came first."""
    async with running(databases, fake) as run:
        await ask_one_turn(databases)
        await run.until_done()
        other = answer("a1", "q1", BOB)
        await databases.source["messages"].insert_many([question("q1", None, BOB), other])
        await run.until_done()
        replayed = await replay_all(databases)
        await run.until_done()

    assert (replayed.sent, replayed.waiting) == (0, 0)
    (letter,) = replayed.kept
    assert (letter.document_key, letter.tries) == (to_key(other["_id"]), 2)
    assert str(letter.reason) == "build_failed: message_id_of_another_row"
    assert fake.trace_ids() == [TRACE]
    assert fake.duplicates() == []


async def test_a_letter_of_another_release_is_shown_and_replayed(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """Its reason is a text that this one does not know, and it names no kind of work."""
    reply = answer("a1", "q1")
    await databases.source["messages"].insert_many([question("q1", None), reply])
    moment = datetime.now(UTC)
    await databases.state["dead_letters"].insert_one(
        {
            "_id": TRACE,
            "message_id": "a1",
            "document_key": to_key(reply["_id"]),
            "reason": "lost: in the post",
            "chunk": None,
            "item": None,
            "first_failed_at": moment,
            "last_failed_at": moment,
            "tries": 1,
        }
    )
    async with running(databases, fake), desk_of(databases) as desk:
        (letter,) = await desk.list_letters()
        replayed = await replay_all(databases)

    assert (letter.reason.kind, str(letter.reason)) == (LetterKind.OTHER, "lost: in the post")
    assert replayed == Replayed(sent=1, waiting=0, kept=[])
    assert fake.trace_ids() == [TRACE]


async def test_a_turn_that_arrived_by_another_way_is_not_sent_again(
    databases: Databases, fake: FakeLangfuse
) -> None:
    async with running(databases, fake) as run:
        await ask_one_turn(databases)
        await run.until_done()
        found = await databases.source["messages"].find_one({"messageId": "a1"})
        assert found is not None
        await run.state.add_dead_letters(
            [DeadLetter(TRACE, "a1", to_key(found["_id"]), LetterReason.parse("x"), None)]
        )
        replayed = await replay_all(databases)

    assert replayed.sent == 1
    assert fake.duplicates() == []


async def test_without_a_tailer_a_replay_waits_for_the_next_one(
    databases: Databases, fake: FakeLangfuse
) -> None:
    async with running(databases, fake) as run:
        await refuse_one_turn(databases, fake, run)
    async with desk_of(databases) as desk:
        letters = await desk.list_letters()
        await desk.ask(letters)
        waiting = await desk.follow(letters, timedelta())
        async with running(databases, fake):
            done = await desk.follow(letters, PATIENCE)

    assert (waiting.sent, waiting.waiting) == (0, 1)
    assert done.sent == 1
    assert fake.trace_ids() == [TRACE]


async def test_a_letter_is_named_by_its_id_the_beginning_of_it_or_its_message(
    databases: Databases, fake: FakeLangfuse
) -> None:
    async with running(databases, fake) as run, desk_of(databases) as desk:
        await refuse_one_turn(databases, fake, run)
        for name in (TRACE, TRACE[:6], "a1"):
            assert [letter.record_id for letter in await desk.choose([name])] == [TRACE]
        assert len(await desk.choose([TRACE, "a1"])) == 1
        for name in (TRACE[:5], "another"):
            with pytest.raises(RequestRefused, match=name):
                await desk.choose([name])


async def test_a_dropped_letter_is_forgotten(databases: Databases, fake: FakeLangfuse) -> None:
    async with running(databases, fake) as run, desk_of(databases) as desk:
        await refuse_one_turn(databases, fake, run)
        letters = await desk.list_letters()

        assert await desk.drop(letters) == 1
        assert await desk.list_letters() == []
        assert await desk.drop(letters) == 0


async def test_a_tailer_is_only_told_from_a_lease_that_beats(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """A document of the lease is left behind by every run, also by one that was killed."""
    async with running(databases, fake), desk_of(databases) as desk:
        lease = databases.state["lease"]
        short = replace_lease_time(desk, timedelta(seconds=1))

        assert not await short.has_sender()
        await lease.update_one({"_id": "writer"}, {"$set": {"released": True}})
        assert not await desk.has_sender()


def replace_lease_time(desk: LetterDesk, lease_time: timedelta) -> LetterDesk:
    return LetterDesk(desk._state, lease_time)
