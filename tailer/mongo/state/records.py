"""The shapes of the stored batches and sent turns."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tailer.core.identity import DocumentKey, ObservationId, TraceId
from tailer.core.policy.policies import ContentChoice
from tailer.core.trace.followup import Edit, EditedText, SentTurn, TextMark
from tailer.core.trace.late import LateMarks, PartMarks
from tailer.flow.records import BatchItem, Probe
from tailer.mongo.state.belonging import Belonging


def write_item(item: BatchItem) -> dict[str, Any]:
    """An item of a batch without its chunk, which is in the payload."""
    return {
        "record_id": item.record_id,
        "trace_id": item.probe.trace_id,
        "observation_id": item.probe.observation_id,
        "message_id": item.message_id,
        "document_key": item.document_key,
        "bytes": item.chunk_bytes,
        "sent": None if item.sent is None else _write_sent(item.sent),
        "edit": None if item.edit is None else _write_edit(item.edit),
        "late": None if item.late is None else _write_late(item.late),
    }


def read_item(document: Mapping[str, Any]) -> BatchItem:
    """The item of a stored document. The text of an edit is not stored, its mark is."""
    key = DocumentKey(document["document_key"])
    trace_id = TraceId(document["trace_id"])
    sent, edit = document["sent"], document["edit"]
    turn = None if sent is None else _read_sent(trace_id, document["message_id"], key, sent)
    return BatchItem(
        record_id=document["record_id"],
        probe=Probe(
            trace_id,
            ObservationId(document["observation_id"]),
            None if turn is None else turn.start_milliseconds,
        ),
        message_id=document["message_id"],
        document_key=key,
        chunk_bytes=int(document["bytes"]),
        sent=turn,
        edit=None if edit is None else _read_edit(edit),
        late=_read_late(document.get("late")),
    )


def write_export(item: BatchItem, sent_at: datetime) -> dict[str, Any]:
    """The record that a trace, or a later piece of one, was sent, without its `_id`."""
    record: dict[str, Any] = {
        "message_id": item.message_id,
        "document_key": item.document_key,
        "sent_at": sent_at,
    }
    if item.record_id != item.probe.trace_id:
        record["piece_of"] = item.probe.trace_id
    return record if item.sent is None else {**record, "sent": _write_sent(item.sent)}


def amend_export(edit: Edit) -> dict[str, Any]:
    """The update that brings the record of a turn up to a sent edit."""
    return {"$set": {f"sent.{edit.which.value}": _write_mark(edit.after), "sent.edits": edit.number + 1}}


def amend_late(late: LateMarks) -> dict[str, Any]:
    """The update of a turn's record with sent late facts."""
    changes: dict[str, Any] = {"sent.edits": late.number + 1}
    if late.parts is not None:
        changes["sent.parts"] = _write_parts(late.parts)
    if late.transactions is not None:
        changes["sent.transactions"] = list(late.transactions)
    return {"$set": changes}


def read_sent(document: Mapping[str, Any], belonging: Belonging) -> SentTurn:
    """What an export record of a destination keeps of its turn."""
    return _read_sent(
        TraceId(belonging.record_of(document["_id"])),
        document["message_id"],
        DocumentKey(document["document_key"]),
        document["sent"],
    )


def _write_sent(sent: SentTurn) -> dict[str, Any]:
    return {
        "user_id": sent.user_id,
        "session_id": sent.session_id,
        "tags": list(sent.tags),
        "content": sent.content.value,
        "answer": _write_mark(sent.answer),
        "question": None if sent.question is None else _write_mark(sent.question),
        "edits": sent.edits,
        "feedback": sent.feedback,
        "start_milliseconds": sent.start_milliseconds,
        "end_milliseconds": sent.end_milliseconds,
        "expires_milliseconds": sent.expires_milliseconds,
        "parts": _write_parts(sent.parts),
        "transactions": None if sent.transactions is None else list(sent.transactions),
        "usage_source": sent.usage_source,
        "content_digest": sent.content_digest,
    }


def _read_sent(trace_id: TraceId, message_id: str, key: DocumentKey, fields: Mapping[str, Any]) -> SentTurn:
    question = fields["question"]
    return SentTurn(
        trace_id=trace_id,
        message_id=message_id,
        document_key=key,
        user_id=fields["user_id"],
        session_id=fields["session_id"],
        tags=tuple(fields["tags"]),
        content=ContentChoice(fields["content"]),
        answer=_read_mark(fields["answer"]),
        question=None if question is None else _read_mark(question),
        edits=int(fields["edits"]),
        feedback=fields["feedback"],
        start_milliseconds=int(fields["start_milliseconds"]),
        # Records of release 0.1 have none.
        end_milliseconds=int(fields.get("end_milliseconds", fields["start_milliseconds"])),
        expires_milliseconds=fields["expires_milliseconds"],
        parts=_read_parts(fields.get("parts")),
        transactions=_read_names(fields.get("transactions")),
        usage_source=fields.get("usage_source"),
        content_digest=fields.get("content_digest"),
    )


def _write_edit(edit: Edit) -> dict[str, Any]:
    return {
        "which": edit.which.value,
        "before": _write_mark(edit.before),
        "after": _write_mark(edit.after),
        "written_milliseconds": edit.written_milliseconds,
        "number": edit.number,
    }


def _read_edit(fields: Mapping[str, Any]) -> Edit:
    return Edit(
        which=EditedText(fields["which"]),
        before=_read_mark(fields["before"]),
        after=_read_mark(fields["after"]),
        text="",
        written_milliseconds=int(fields["written_milliseconds"]),
        number=int(fields["number"]),
    )


def _write_parts(parts: PartMarks | None) -> list[Any] | None:
    """The marks by key, in a list, because a key may hold a dot, which a field of a document should not."""
    return None if parts is None else [[key, *_write_mark(mark)] for key, mark in parts]


def _read_parts(value: list[Any] | None) -> PartMarks | None:
    return None if value is None else tuple((str(key), _read_mark(mark)) for key, *mark in value)


def _read_names(value: list[Any] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(map(str, value))


def _write_late(late: LateMarks) -> dict[str, Any]:
    return {
        "number": late.number,
        "parts": _write_parts(late.parts),
        "transactions": None if late.transactions is None else list(late.transactions),
    }


def _read_late(fields: Mapping[str, Any] | None) -> LateMarks | None:
    if fields is None:
        return None
    return LateMarks(
        number=int(fields["number"]),
        parts=_read_parts(fields["parts"]),
        transactions=_read_names(fields["transactions"]),
    )


def _write_mark(mark: TextMark) -> list[Any]:
    return [mark.characters, mark.digest]


def _read_mark(value: list[Any]) -> TextMark:
    return TextMark(int(value[0]), str(value[1]))
