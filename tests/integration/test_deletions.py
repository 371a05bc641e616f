"""Rows that are deleted after, or while, their turn was sent: their traces stay or go, as the operator decided."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId

from tailer.core.identity import title_trace_id, turn_trace_id
from tailer.core.policy.policies import DeletionPolicy, TemporaryPolicy
from tailer.core.stream.hints import Stream
from tailer.events import DeliveryRetried, FollowupFailed, HintsRead
from tests.e2e.databases import Databases
from tests.fakes.langfuse import FakeLangfuse, Route, hang
from tests.fakes.langfuse import answer as answer_with
from tests.integration.running import running
from tests.rows import ALICE, NOW, answer, question, transaction

EXPIRY = NOW + timedelta(hours=1)
ANSWER_ID = "0b0e53c4-72a6-4d31-a6b4-1b1f1c1d0e5a"
"""In the form of a chat's message: the ledger takes other ids for calls of the agents API."""
TRACE, TITLE = turn_trace_id("a1"), title_trace_id("a1")
FOLLOWED: dict[str, Any] = {"deletions": DeletionPolicy.DELETE}


@pytest.fixture
async def fake() -> AsyncIterator[FakeLangfuse]:
    async with FakeLangfuse() as server:
        yield server
        server.release()
        assert server.violations == []


async def start_chat(databases: Databases) -> None:
    """A chat with a title, so that it has two traces."""
    conversation = {"_id": ObjectId(), "conversationId": "c1", "user": ALICE, "title": "Clocks"}
    await databases.source["conversations"].insert_one(conversation)
    await databases.source["transactions"].insert_one(transaction(messageId="a1", context="title"))
    await databases.source["messages"].insert_many([question("q1", None), answer("a1", "q1")])


async def delete(databases: Databases, *message_ids: str) -> None:
    await databases.source["messages"].delete_many({"messageId": {"$in": list(message_ids)}})


async def test_traces_stay_where_deletions_are_not_followed(databases: Databases, fake: FakeLangfuse) -> None:
    """The default: what was evaluated stays comparable."""
    async with running(databases, fake) as run:
        await start_chat(databases)
        await run.until_done()
        await delete(databases, "q1", "a1")
        await run.until_done()
        outcomes = run.outcomes()

    assert set(fake.trace_ids()) == {TRACE, TITLE}
    assert outcomes[-2:] == ["deletion_kept", "deletion_kept"]
    assert fake.requests[Route.TRACE_DELETE, "200"] == 0


async def test_a_deleted_answer_takes_its_traces_with_it(databases: Databases, fake: FakeLangfuse) -> None:
    """The turn's and the title's, not those of others; they are never sent again."""
    async with running(databases, fake, **FOLLOWED) as run:
        await start_chat(databases)
        await databases.source["messages"].insert_many([question("q2", "a1"), answer("a2", "q2")])
        await run.until_done()
        row = await databases.source["messages"].find_one({"messageId": "a1"})
        assert row is not None
        await delete(databases, "a1")
        await run.until_done()
        await databases.source["messages"].insert_one(row)
        await run.until_done()
        await databases.source["messages"].update_one({"messageId": "a1"}, {"$set": {"text": "edited"}})
        await run.until_done()
        outcomes = run.outcomes()

    assert fake.trace_ids() == [turn_trace_id("a2")]
    assert sorted(fake.state.spans.deleted_trace_ids) == sorted([TRACE, TITLE])
    assert outcomes[-3:] == ["deletion_followed", "sent_before", "sent_before"]


async def test_a_row_that_was_never_sent_deletes_nothing(databases: Databases, fake: FakeLangfuse) -> None:
    """A question, and a row from before the first start."""
    old = answer("old", "q0")
    await databases.source["messages"].insert_one(old)
    async with running(databases, fake, **FOLLOWED) as run:
        await start_chat(databases)
        await run.until_done()
        await delete(databases, "old", "q1")
        await run.until_done()
        outcomes = run.outcomes()

    assert set(fake.trace_ids()) == {TRACE, TITLE}
    assert outcomes[-2:] == ["deletion_unknown", "deletion_unknown"]
    assert fake.state.spans.deleted_trace_ids == []


async def test_a_turn_that_is_deleted_before_it_is_read_keeps_its_tokens_and_no_content(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """The ledger has them; what names no message, or is of a question, leaves nothing."""
    async with running(databases, fake):
        pass
    spent = transaction(messageId="a1", tokenType="completion", rawAmount=-7, tokenValue=-70, model="gpt-4o")
    await databases.source["transactions"].insert_many([spent, transaction(rawAmount=-5)])
    await databases.source["messages"].insert_many(
        [question("q1", None), answer("a1", "q1"), answer("a2", "q1")]
    )
    await delete(databases, "q1", "a1", "a2")
    async with running(databases, fake) as run:
        await run.until_done()
        outcomes = run.outcomes()
    async with running(databases, fake) as run:
        await run.until_done()

    assert fake.trace_ids() == [TRACE]
    assert outcomes.count("deleted") == 2
    root, call = fake.trace(TRACE)
    assert root.trace_metadata["outcome"] == "deleted"
    assert call.attributes["langfuse.observation.usage_details"] == '{"output":7}'
    assert not any(".input" in name or ".output" in name for span in (root, call) for name in span.attributes)


@pytest.mark.parametrize(
    "streams",
    [(Stream.MESSAGES,), (Stream.MESSAGES, Stream.TRANSACTIONS)],
    ids=["messages", "ledger too"],
)
@pytest.mark.parametrize("sent_before", [False, True], ids=["never sent", "title sent before"])
async def test_the_title_of_a_turn_that_was_deleted_has_a_trace_of_its_own(
    databases: Databases, fake: FakeLangfuse, streams: tuple[Stream, ...], *, sent_before: bool
) -> None:
    """It is billed on the turn, and is there once."""
    async with running(databases, fake, streams=streams):
        pass
    if sent_before:
        await databases.state["exports"].insert_one(
            {"_id": title_trace_id(ANSWER_ID), "document_key": "c", "sent_at": NOW}
        )
    spent = transaction(messageId=ANSWER_ID, tokenType="completion", rawAmount=-7, tokenValue=-70)
    title = transaction(messageId=ANSWER_ID, context="title", tokenType="completion", rawAmount=-3)
    await databases.source["transactions"].insert_many([title, spent])
    await databases.source["messages"].insert_many([question("q1", None), answer(ANSWER_ID, "q1")])
    await delete(databases, "q1", ANSWER_ID)
    async with running(databases, fake, streams=streams) as run:
        await run.until_done()

    own, named = turn_trace_id(ANSWER_ID), title_trace_id(ANSWER_ID)
    assert set(fake.trace_ids()) == ({own} if sent_before else {own, named})
    usage = [span.attributes.get("langfuse.observation.usage_details") for span in fake.trace(own)]
    assert usage == [None, '{"output":7}']
    if not sent_before:
        (call,) = fake.trace(named)
        assert call.attributes["langfuse.observation.usage_details"] == '{"output":3}'
    assert fake.duplicates() == []


@pytest.mark.parametrize(
    ("fields", "policy", "is_sent"),
    [
        ({"isTemporary": True, "expiredAt": EXPIRY}, TemporaryPolicy.SKIP, False),
        ({"expiredAt": EXPIRY}, TemporaryPolicy.SKIP, False),
        ({"isTemporary": False, "expiredAt": EXPIRY}, TemporaryPolicy.SKIP, True),
        ({"expiredAt": None}, TemporaryPolicy.SKIP, True),
        ({"isTemporary": True, "expiredAt": EXPIRY}, TemporaryPolicy.METADATA, True),
    ],
    ids=["temporary", "until 0.8.5", "kept for a while", "lasting", "asked for"],
)
@pytest.mark.parametrize(
    "streams",
    [(Stream.MESSAGES,), (Stream.MESSAGES, Stream.TRANSACTIONS), (Stream.TRANSACTIONS,)],
    ids=["messages", "ledger too", "ledger alone"],
)
async def test_a_temporary_chat_that_expired_before_it_was_read_leaves_no_trace(
    databases: Databases,
    fake: FakeLangfuse,
    fields: dict[str, Any],
    policy: TemporaryPolicy,
    *,
    is_sent: bool,
    streams: tuple[Stream, ...],
) -> None:
    """MongoDB deletes it like any other row. Only its insertion says what it was, and the ledger says nothing."""
    options = {"temporary": policy, "streams": streams}
    async with running(databases, fake, **options):
        pass
    spent = transaction(messageId=ANSWER_ID, tokenType="completion", rawAmount=-7, tokenValue=-70)
    await databases.source["transactions"].insert_one(spent)
    await databases.source["messages"].insert_many([question("q1", None), answer(ANSWER_ID, "q1", **fields)])
    await delete(databases, "q1", ANSWER_ID)
    async with running(databases, fake, **options) as run:
        await run.until_done()

    # The ledger alone cannot tell a temporary chat from another.
    told = Stream.MESSAGES in streams or policy is not TemporaryPolicy.SKIP
    assert fake.trace_ids() == ([turn_trace_id(ANSWER_ID)] if is_sent and told else [])


@pytest.mark.parametrize(
    ("fields", "chat"),
    [
        ({"unfinished": True, "text": "Par"}, None),
        ({"endpoint": "assistants"}, None),
        ({}, {"isTemporary": True, "expiredAt": EXPIRY}),
        ({}, {"expiredAt": EXPIRY}),
    ],
    ids=["stopped", "an assistant's", "its conversation says it", "its conversation until 0.8.5"],
)
async def test_a_deleted_answer_whose_row_does_not_say_what_its_chat_is_leaves_no_trace(
    databases: Databases, fake: FakeLangfuse, fields: dict[str, Any], chat: dict[str, Any] | None
) -> None:
    """Stop (until 0.8.7) and assistants store rows of temporary chats like those of others."""
    async with running(databases, fake):
        pass
    await databases.source["transactions"].insert_one(transaction(messageId=ANSWER_ID, rawAmount=-7))
    await databases.source["messages"].insert_one(answer(ANSWER_ID, "q1", isTemporary=False, **fields))
    if chat is not None:
        await databases.source["conversations"].insert_one({"conversationId": "c1", "user": ALICE, **chat})
    await delete(databases, ANSWER_ID)
    async with running(databases, fake) as run:
        await run.until_done()

    assert fake.trace_ids() == []


async def test_a_turn_that_is_deleted_on_its_way_is_taken_away_once_it_is_there(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """A deletion before the trace would leave the trace."""
    fake.faults.add(answer_with(500, times=3))
    async with running(databases, fake, **FOLLOWED) as run:
        await start_chat(databases)
        await run.events.until(lambda: bool(run.events.of(DeliveryRetried)))
        await delete(databases, "a1")
        await run.until_done()
        outcomes = run.outcomes()

    assert fake.trace_ids() == []
    assert sorted(fake.state.spans.deleted_trace_ids) == sorted([TRACE, TITLE])
    assert outcomes == ["complete", "deletion_followed"]


async def test_a_turn_that_is_deleted_while_it_waits_to_be_sent_is_taken_away_too(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """Read already, and not yet written down as on its way: it waits behind a batch that is refused for a while."""
    fake.faults.add(answer_with(500, times=None))
    async with running(databases, fake, concurrent_requests=1, **FOLLOWED) as run:
        events = run.events
        await databases.source["messages"].insert_many([question("q1", None), answer("a1", "q1")])
        await events.until(lambda: bool(events.of(DeliveryRetried)))
        await databases.source["messages"].insert_one(answer("a2", "q1"))
        await events.until(lambda: run.pipeline.outlets[0].destination.delivery.queue_length == 1)
        await delete(databases, "a2")
        await events.until(lambda: any(event.deletes for event in events.of(HintsRead)))
        known = len(events.of(DeliveryRetried))
        await events.until(lambda: len(events.of(DeliveryRetried)) > known)
        fake.faults.clear()
        await run.until_done()

    assert fake.trace_ids() == [TRACE]
    assert fake.state.spans.deleted_trace_ids == [turn_trace_id("a2")]


@pytest.mark.parametrize("taken", [True, False])
async def test_a_turn_in_a_batch_of_an_earlier_run_is_taken_away_once_that_is_settled(
    databases: Databases, fake: FakeLangfuse, *, taken: bool
) -> None:
    """Killed while the answer was out, and the row is deleted before the next start."""
    fake.faults.add(hang(stored=taken))
    async with running(databases, fake, **FOLLOWED) as run:
        await start_chat(databases)
        await run.until_held(fake)
        assert bool(fake.trace(TRACE)) is taken
    await delete(databases, "a1")
    fake.release()
    fake.faults.clear()
    fake.state.visible_after_seconds = 1
    async with running(databases, fake, lookup_time=timedelta(seconds=2), **FOLLOWED) as run:
        await run.until_done()
        assert await run.state.pending_batches() == []

    assert fake.trace_ids() == []
    assert sorted(fake.state.spans.deleted_trace_ids) == sorted([TRACE, TITLE])


async def test_a_trace_whose_edit_is_on_its_way_is_taken_away_after_it(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """The edit of the question would otherwise be all that is left of the trace."""
    async with running(databases, fake, **FOLLOWED) as run:
        await start_chat(databases)
        await run.until_done()
        fake.faults.add(answer_with(500, times=3))
        await databases.source["messages"].update_one({"messageId": "q1"}, {"$set": {"text": "edited"}})
        await run.events.until(lambda: bool(run.events.of(DeliveryRetried)))
        await delete(databases, "a1")
        await run.until_done()

    assert fake.trace_ids() == []


async def test_the_end_of_a_temporary_chat_is_told_apart(databases: Databases, fake: FakeLangfuse) -> None:
    """By the expiry that the row had: one that had passed, and one that had not."""
    expiries = {"a1": NOW - timedelta(minutes=1), "a2": NOW + timedelta(days=30)}
    async with running(databases, fake, temporary=TemporaryPolicy.FULL, **FOLLOWED) as run:
        await databases.source["messages"].insert_many(
            [
                question("q1", None, isTemporary=True),
                *(
                    answer(message_id, "q1", isTemporary=True, expiredAt=at)
                    for message_id, at in expiries.items()
                ),
            ]
        )
        await run.until_done()
        await delete(databases, "a1")
        await run.until_done()
        await delete(databases, "a2")
        await run.until_done()
        outcomes = run.outcomes()

    assert fake.trace_ids() == []
    assert outcomes[-2:] == ["expiry_followed", "deletion_followed"]


async def test_a_deletion_is_repeated_until_it_is_taken_and_given_up_where_it_is_refused(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """The server's own trouble passes; 400 is said and does not stop the others."""
    async with running(databases, fake, **FOLLOWED) as run:
        await start_chat(databases)
        await databases.source["messages"].insert_many([question("q2", "a1"), answer("a2", "q2")])
        await run.until_done()
        fake.faults.add(answer_with(503, route=Route.TRACE_DELETE, times=2))
        await delete(databases, "a1")
        await run.until_done()
        assert fake.trace_ids() == [turn_trace_id("a2")]
        fake.faults.add(answer_with(400, route=Route.TRACE_DELETE))
        await delete(databases, "a2")
        await run.until_done()
        failed = [event.operation for event in run.events.of(FollowupFailed)]
        outcomes = run.outcomes()

    assert failed == ["delete_traces"]
    assert outcomes[-2:] == ["deletion_followed", "deletion_refused"]
    record = await databases.state["exports"].find_one({"_id": turn_trace_id("a2")})
    assert record is not None
    assert "deleted_at" not in record
