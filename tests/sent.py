"""Turns, titles and edits as they stand in a batch, and what is remembered of a turn that was sent."""

import uuid
from dataclasses import replace

from tailer.core.identity import DocumentKey, title_trace_id, turn_trace_id
from tailer.core.policy.policies import ContentChoice
from tailer.core.stream.entries import EntryKey
from tailer.core.stream.hints import Interest
from tailer.core.trace.followup import Edit, EditedText, SentTurn, mark_text
from tailer.core.trace.late import LateMarks
from tailer.flow.records import Batch, BatchItem, OwedShare
from tailer.flow.stores import StateStore
from tests.evidence import make_item, make_trace


def key_of(message_id: str) -> DocumentKey:
    return DocumentKey(make_trace(message_id).document_key)


def make_sent(message_id: str, *, plain: bool = False) -> SentTurn:
    """What is remembered of a turn: everything, or as little as there can be."""
    return SentTurn(
        trace_id=turn_trace_id(message_id),
        message_id=message_id,
        document_key=key_of(message_id),
        user_id=None if plain else "user-1",
        session_id="conversation-1",
        tags=() if plain else ("librechat", "temporary"),
        content=ContentChoice.NONE if plain else ContentChoice.MASKED,
        answer=mark_text("Noon"),
        question=None if plain else mark_text("What is the time?"),
        edits=0,
        feedback=None,
        start_milliseconds=1_760_000_000_000,
        end_milliseconds=1_760_000_004_000,
        expires_milliseconds=None if plain else 1_770_000_000_000,
        content_digest=None if plain else "0123456789abcdef",
    )


def turn_item(message_id: str, *, plain: bool = False) -> BatchItem:
    item = make_item(make_trace(message_id), b"chunk")
    return replace(item, sent=make_sent(message_id, plain=plain))


def title_item(message_id: str) -> BatchItem:
    """The trace of a turn's title: under the same row, with nothing to remember."""
    trace = replace(make_trace(message_id), id=title_trace_id(message_id))
    return make_item(trace, b"title")


def edit_item(message_id: str, text: str, number: int, which: EditedText = EditedText.ANSWER) -> BatchItem:
    trace = replace(make_trace(message_id), piece=f"edit:{number}")
    edit = Edit(which, mark_text("before"), mark_text(text), "", 1_760_000_100_000, number)
    return replace(make_item(trace, b"edit"), edit=edit)


def late_item(message_id: str, late: LateMarks) -> BatchItem:
    trace = replace(make_trace(message_id), piece=f"late:{late.number}")
    return replace(make_item(trace, b"late"), late=late)


def make_batch(*items: BatchItem) -> Batch:
    return Batch(uuid.uuid4().hex, items, b"payload")


async def send(state: StateStore, *items: BatchItem) -> None:
    """What a delivery does with a batch that was taken."""
    batch = make_batch(*items)
    await state.begin_batch(batch)
    await state.finish_batch(batch, items)


async def remembered(state: StateStore, message_id: str) -> SentTurn:
    (sent,) = (await state.load_sent([turn_trace_id(message_id)])).values()
    return sent


def make_owed(number: int, *, since: int = 100, **changed: object) -> OwedShare:
    """What is owed of a turn."""
    share = OwedShare(
        key=EntryKey(Interest.RESPONSE, DocumentKey(f"{number:024x}")),
        message_id=f"m{number}",
        conversation_id=f"c{number}",
        since_seconds=since,
        written_milliseconds=7,
        finished_milliseconds=None,
        deadline_passed=False,
        finished=True,
        stopped=False,
        edited=False,
        changed=frozenset({"text"}),
        times=1,
    )
    return replace(share, **changed)  # type: ignore[arg-type]
