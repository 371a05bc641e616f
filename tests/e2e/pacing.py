"""Keeps what follows a turn behind the turn: nobody rates, edits or deletes an answer before the daemon has sent it.

The recorded gaps say so on a machine with time to spare; here what arrived says so, however slow the machine is.
"""

from dataclasses import replace
from datetime import timedelta

from motor.motor_asyncio import AsyncIOMotorDatabase

from tailer.demo.stage.player import play
from tailer.demo.stage.recording import Document, RecordedEvent
from tests.e2e.expectations import Traffic, trace_id_of
from tests.fakes.langfuse import FakeLangfuse

_GENERATED_TITLE = "Fake Generated Title"
_PATIENCE_SECONDS = 30.0


async def play_in_step(
    traffic: Traffic, database: AsyncIOMotorDatabase[Document], fake: FakeLangfuse, *, max_gap: timedelta
) -> None:
    """Play at the recorded pace, and before each event that follows turns wait until those were sent."""
    begin = 0
    events = traffic.recording.events
    for end in [*(index for index, event in enumerate(events) if _follows(event)), len(events)]:
        piece = replace(traffic.recording, events=events[begin:end])
        if piece.events:
            await play(piece, database, speed=1.0, max_gap=max_gap)
        if end < len(events):
            await _wait_until_sent(events[:end], fake)
        begin = end


def _follows(event: RecordedEvent) -> bool:
    """Whether an event is about turns that have ended: feedback, an edit, a deletion, another title."""
    fields = event.update.updated_fields if event.update is not None else {}
    if event.collection == "conversations":
        return event.operation == "delete" or fields.get("title", _GENERATED_TITLE) != _GENERATED_TITLE
    edited = not fields.keys().isdisjoint({"text", "content"}) and "unfinished" not in fields
    return event.collection == "messages" and (event.operation == "delete" or edited or "feedback" in fields)


async def _wait_until_sent(events: tuple[RecordedEvent, ...], fake: FakeLangfuse) -> None:
    """The turns that ended in these events have arrived, and so has the feedback."""
    ended = {
        trace_id_of(event.full_document["messageId"])
        for event in events
        if event.collection == "messages"
        and event.full_document is not None
        and not event.full_document["isCreatedByUser"]
        and not event.full_document["unfinished"]
    }
    rated = sum(event.update is not None and "feedback" in event.update.updated_fields for event in events)
    score_ids = {f"feedback-{trace_id}" for trace_id in ended}

    def is_sent() -> bool:
        known = {*fake.trace_ids(), *fake.state.spans.deleted_trace_ids}
        told = [*(score["id"] for score in fake.scores.posted), *fake.scores.deleted_ids]
        return ended <= known and sum(score_id in score_ids for score_id in told) >= rated

    await fake.wait_until(is_sent, timeout_seconds=_PATIENCE_SECONDS)
