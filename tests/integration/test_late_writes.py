"""What LibreChat writes into a turn after its trace went out: it arrives once, beside the spans that were sent."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tailer.core.identity import turn_trace_id
from tailer.core.stream.hints import Stream
from tailer.flow.late_looks import LateLooks
from tailer.settings.destinations import DEFAULT_NAME
from tests.e2e.databases import Databases
from tests.fakes.langfuse import FakeLangfuse, StoredSpan
from tests.integration.running import Run, running
from tests.rows import BOB, answer, question, transaction

TRACE = turn_trace_id("a1")


@pytest.fixture
async def fake() -> AsyncIterator[FakeLangfuse]:
    async with FakeLangfuse() as server:
        yield server
        server.release()
        assert server.violations == []
        assert server.duplicates() == []
        assert server.unresolved_parents() == []


class Clock:
    """Today's clock, moved on by hand."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_seconds


@dataclass(frozen=True, slots=True)
class LateView:
    """A run that has sent a turn, and the looks at what is billed for it. `sent` is how many spans it had."""

    run: Run
    clock: Clock
    looks: LateLooks
    sent: int

    async def look(self, *after_seconds: float) -> None:
        """Look so many seconds after the turn was sent, and do what is found."""
        for seconds in after_seconds:
            self.clock.ahead_seconds = seconds
            await self.looks.sweep()
            await self.run.until_done()


def looks_of(run: Run, clock: Clock) -> LateLooks:
    bench = run.pipeline.lanes[0]._bench
    return LateLooks(DEFAULT_NAME, bench.backlog, bench.reader, run.state, wall_clock=clock)


@asynccontextmanager
async def sent_turn(databases: Databases, fake: FakeLangfuse) -> AsyncIterator[LateView]:
    """A turn was sent; its ledger can be looked at again."""
    async with running(databases, fake) as run:
        clock = Clock()
        looks = looks_of(run, clock)
        await send_turn(run, databases)
        yield LateView(run, clock, looks, len(fake.spans))


def root_of(spans: list[StoredSpan]) -> StoredSpan:
    (root,) = (span for span in spans if span.parent_span_id is None)
    return root


async def send_turn(run: Run, databases: Databases, **fields: Any) -> None:
    await databases.source["transactions"].insert_many(
        [
            transaction(messageId="a1", tokenType="prompt", rawAmount=-100, tokenValue=-200, rate=2),
            transaction(messageId="a1", rawAmount=-10, tokenValue=-80, rate=8),
        ]
    )
    await databases.source["messages"].insert_many([question("q1", None), answer("a1", "q1", **fields)])
    await run.until_done()


async def bill_late(databases: Databases) -> None:
    await databases.source["transactions"].insert_many(
        [
            transaction(
                messageId="a1", tokenType="prompt", rawAmount=-5000, tokenValue=-750, rate=0.15,
                context="subagent", model="gpt-4o-mini",
            ),
            transaction(
                messageId="a1", rawAmount=-500, tokenValue=-300, rate=0.6, context="subagent", model="gpt-4o-mini",
            ),
        ]
    )  # fmt: skip


def assert_billed_once(fake: FakeLangfuse) -> None:
    late = [span for span in fake.trace(TRACE) if span.metadata.get("late")]
    (generation,) = late
    assert generation.type == "generation"
    assert generation.usage_details == {"input": 5000, "output": 500}
    assert generation.cost_details["total"] == pytest.approx(0.00105)
    assert generation.attributes["langfuse.observation.model.name"] == "gpt-4o-mini"
    root = root_of(fake.trace(TRACE))
    assert generation.span.end_nanoseconds == root.span.end_nanoseconds


async def test_usage_that_is_billed_after_the_trace_was_sent_arrives_as_a_generation_of_its_own(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """Without a stream of transactions: the ledger is looked at again, by the records of what was sent."""
    async with sent_turn(databases, fake) as late:
        await bill_late(databases)
        await late.look(30, 300, 2000)

    assert len(fake.spans) == late.sent + 1
    assert_billed_once(fake)


@pytest.mark.parametrize("streamed", [True, False], ids=["ledger streamed", "ledger looked at"])
@pytest.mark.parametrize("deleted", [["q1", "a1"], ["a1"]], ids=["the conversation", "the answer"])
async def test_usage_that_is_billed_after_the_answer_was_deleted_reaches_the_trace_that_was_sent(
    databases: Databases, fake: FakeLangfuse, deleted: list[str], *, streamed: bool
) -> None:
    """No row is left, so the record of the sent turn tells. Nothing is shown but numbers."""
    streams = (Stream.MESSAGES, Stream.TRANSACTIONS) if streamed else (Stream.MESSAGES,)
    async with running(databases, fake, streams=streams, stream_transactions=streamed) as run:
        await send_turn(run, databases)
        sent = len(fake.spans)
        await databases.source["messages"].delete_many({"messageId": {"$in": deleted}})
        await run.until_done()
        await bill_late(databases)
        await run.until_done()
        late = LateView(run, clock := Clock(), looks_of(run, clock), sent)
        await late.look(30, 300, 2000)

    assert len(fake.spans) == sent + 1
    assert_billed_once(fake)


async def test_what_another_user_was_billed_for_a_message_of_the_same_id_is_not_the_turns(
    databases: Databases, fake: FakeLangfuse
) -> None:
    async with sent_turn(databases, fake) as late:
        await databases.source["transactions"].insert_one(transaction(BOB, messageId="a1", rawAmount=-5000))
        await late.look(30)
        assert len(fake.spans) == late.sent

        await bill_late(databases)
        await late.look(300)

    assert len(fake.spans) == late.sent + 1
    assert_billed_once(fake)


async def test_a_streamed_transaction_of_a_sent_turn_reaches_its_trace(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """With TAILER_STREAM_TRANSACTIONS; and the rows that the trace counted already are no news."""
    streams = (Stream.MESSAGES, Stream.TRANSACTIONS)
    async with running(databases, fake, streams=streams, stream_transactions=True) as run:
        await send_turn(run, databases)
        sent = len(fake.spans)
        await bill_late(databases)
        await run.until_done()
        assert run.outcomes().count("late") == 1

    assert len(fake.spans) == sent + 1
    assert_billed_once(fake)


async def test_a_restart_takes_the_looks_that_it_missed(databases: Databases, fake: FakeLangfuse) -> None:
    """Billed while no tailer ran."""
    async with running(databases, fake) as run:
        await send_turn(run, databases)
    await bill_late(databases)
    async with running(databases, fake) as run:
        clock = Clock()
        clock.ahead_seconds = 1800
        await looks_of(run, clock).sweep()
        await run.until_done()

    assert_billed_once(fake)


async def test_the_result_of_a_background_tool_arrives_with_its_file(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """LibreChat patches the tool call of the stored answer minutes later."""
    call = {"id": "call_1", "name": "bg", "args": "{}", "output": "Started in background"}
    parts = [{"type": "tool_call", "tool_call": call}, {"type": "text", "text": "It runs."}]
    change = {
        "$set": {
            "content.0.tool_call.output": "FINAL RESULT 42",
            "attachments": [{"file_id": "f9", "filename": "r.csv", "toolCallId": "call_1"}],
        }
    }
    async with running(databases, fake) as run:
        await send_turn(run, databases, text="", content=parts)
        sent = list(fake.spans)
        for _ in range(2):
            await databases.source["messages"].update_one({"messageId": "a1"}, change)
            await run.until_done()
        await databases.source["messages"].update_one({"messageId": "a1"}, {"$set": {"content.0.seen": True}})
        await run.until_done()

    late = [span for span in fake.spans if span not in sent]
    assert [(span.name, span.output) for span in late] == [
        ("tool-result", "FINAL RESULT 42"),
        ("file", "r.csv"),
    ]
    assert late[0].metadata["tool_call_id"] == "call_1"
    end = root_of(sent).span.end_nanoseconds
    assert {span.span.end_nanoseconds for span in late} == {end}


async def test_edited_reasoning_is_an_edit(databases: Databases, fake: FakeLangfuse) -> None:
    """Any part can be edited, not only the answer; what did not change is not sent again."""
    parts = [{"type": "think", "think": "Let me see"}, {"type": "text", "text": "Noon"}]
    async with running(databases, fake) as run:
        await send_turn(run, databases, text="", content=parts)
        sent = len(fake.spans)
        for text in ("Let me look", "Let me see"):
            await databases.source["messages"].update_one(
                {"messageId": "a1"}, {"$set": {"content.0.think": text}}
            )
            await run.until_done()

    late = fake.spans[sent:]
    assert [(span.name, span.output) for span in late] == [("edit", "Let me look"), ("edit", "Let me see")]
    assert {span.metadata["edited"] for span in late} == {"reasoning"}


async def test_an_edit_and_a_late_result_of_one_write_both_arrive(
    databases: Databases, fake: FakeLangfuse
) -> None:
    """Their records have numbers of their own, and the next change finds both known."""
    parts = [{"type": "think", "think": "Let me see"}, {"type": "text", "text": "Noon"}]
    async with running(databases, fake) as run:
        await send_turn(run, databases, text="", content=parts)
        sent = len(fake.spans)
        changed = [{"type": "think", "think": "Hm"}, {"type": "text", "text": "One"}]
        for _ in range(2):
            await databases.source["messages"].update_one({"messageId": "a1"}, {"$set": {"content": changed}})
            await run.until_done()
            await databases.source["messages"].update_one(
                {"messageId": "a1"}, {"$set": {"content": [*changed, {"type": "odd"}]}}
            )
            await run.until_done()

    assert sorted(str(span.output) for span in fake.spans[sent:]) == ["Hm", "One"]
