"""Recordings whose documents are written as another release, another policy or another person would have it."""

from collections.abc import Callable
from dataclasses import replace

from tailer.demo.stage.recording import Document, RecordedEvent, Recording
from tests.e2e.expectations import Traffic

Change = Callable[[Document], Document]

_NEWER_FIELDS = {
    "metadata",
    "contextMeta",
    "langfuseSampled",
    "langfuseDestinationIds",
    "isTemporary",
    "expiredAt",
}


def reshape(traffic: Traffic, collection: str, change: Change) -> Traffic:
    """Every document of a collection, and every set of updated fields, as `change` makes it."""

    def rewrite(event: RecordedEvent) -> RecordedEvent:
        if event.collection != collection:
            return event
        update = event.update
        return replace(
            event,
            full_document=None if event.full_document is None else change(event.full_document),
            update=None if update is None else replace(update, updated_fields=change(update.updated_fields)),
        )

    events = tuple(map(rewrite, traffic.recording.events))
    return replace(traffic, recording=replace(traffic.recording, events=events))


def without(traffic: Traffic, *collections: str) -> Traffic:
    """Without what happened in some collections."""
    kept = {event.collection for event in traffic.recording.events} - {*collections}
    return replace(traffic, recording=traffic.recording.only(kept))


def trace_natively(row: Document) -> Document:
    """A response that LibreChat exported itself."""
    return {**row, "langfuseDestinationIds": ["d" * 64]} if row.get("isCreatedByUser") is False else row


def write_text(row: Document) -> Document:
    """A row as releases before 0.7.9 wrote it: the answer in `text`, no parts, nothing of later releases."""
    old = {key: value for key, value in row.items() if key not in {*_NEWER_FIELDS, "content"}}
    if row.get("content"):
        old["text"] = " ".join(part["text"] for part in row["content"] if part["type"] == "text")
    return old


def write_parts(row: Document) -> Document:
    """A row as 0.7.9 to 0.8.2 wrote it: the answer in parts, nothing of later releases."""
    return {key: value for key, value in row.items() if key not in _NEWER_FIELDS}


def unname_transaction(row: Document) -> Document:
    """A transaction as releases before 0.8.3 wrote it: for no message, and with the cached tokens in the input too."""
    older = {key: value for key, value in row.items() if key not in {"messageId", "tenantId"}}
    if "inputTokens" in row:
        older["inputTokens"] = row["inputTokens"] + (row.get("readTokens") or 0)
    return older


def replace_text(recording: Recording, old: str, new: str) -> Recording:
    """The recording with a text replaced wherever it stands."""

    def rewrite(value: object) -> object:
        if isinstance(value, str):
            return value.replace(old, new)
        if isinstance(value, dict):
            return {key: rewrite(each) for key, each in value.items()}
        return [rewrite(each) for each in value] if isinstance(value, list) else value

    def rewrite_event(event: RecordedEvent) -> RecordedEvent:
        document, update = rewrite(event.full_document), event.update
        assert document is None or isinstance(document, dict)
        fields = rewrite(update.updated_fields) if update is not None else {}
        assert isinstance(fields, dict)
        return replace(
            event,
            full_document=document,
            update=None if update is None else replace(update, updated_fields=fields),
        )

    return replace(recording, events=tuple(map(rewrite_event, recording.events)))
