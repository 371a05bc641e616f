"""Recorded LibreChat traffic as values: real change events, with their times relative to the first.

Owns the file format (one relaxed extended JSON change event a line, as
`db.watch(full_document="updateLookup")` gave it) and the two rewrites that make a recording playable
anywhere: `shift` moves it in time, `rename` gives it fresh identities. It refuses to do I/O on a database,
and to alter any content.
"""

import heapq
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from importlib import resources
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from bson import ObjectId, json_util
from bson.errors import BSONError

from tailer.demo.stage.identities import rename_object_id, rename_text, shift_object_id, whole_seconds
from tailer.errors import TailerError

Document: TypeAlias = dict[str, Any]
Operation: TypeAlias = Literal["insert", "update", "replace", "delete"]

_FORMAT: Final = json_util.JSONOptions(json_mode=json_util.JSONMode.RELAXED, tz_aware=True)
_OBJECT_ID: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{24}(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class UpdateDescription:
    """What an update changed: dotted path → value, dotted paths removed, dotted path → new array length."""

    updated_fields: Document
    removed_fields: tuple[str, ...] = ()
    truncated_arrays: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One change event. `offset` is the time since the recording's start, from the event's `wallTime`.

    `full_document` is the inserted or replacing document; on an update it is what LibreChat's collection held
    when the event was read, which may be later than the update; on a delete it is None.
    """

    offset: timedelta
    database: str
    collection: str
    operation: Operation
    document_key: Document
    full_document: Document | None = None
    update: UpdateDescription | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """Change events in their order, and the time of the first."""

    name: str
    started_at: datetime
    events: tuple[RecordedEvent, ...]

    @property
    def duration(self) -> timedelta:
        """From the first event to the last."""
        return self.events[-1].offset if self.events else timedelta()

    def only(self, collections: Collection[str]) -> "Recording":
        """The events of some collections, at unchanged times."""
        return replace(self, events=tuple(event for event in self.events if event.collection in collections))

    def shift(self, to: datetime) -> "Recording":
        """Move everything so that the recording starts at `to` (aware) or less than a second before.

        Moves every stored date and the timestamp inside every ObjectId (also where its hex stands in a
        string), and keeps an ObjectId's other 8 bytes. ObjectIds count whole seconds, so only a move by whole
        seconds keeps every interval true; hence the fraction of a second.
        """
        by = whole_seconds(to - self.started_at)
        return self._rewrite(
            started_at=self.started_at + by,
            rewrite_date=lambda date: date + by,
            rewrite_object_id=lambda object_id: shift_object_id(object_id, by=by),
            rewrite_text=lambda text: text,
        )

    def rename(self, salt: str) -> "Recording":
        """Give messages, conversations, users, agents and files fresh ids, the same for the same salt.

        Replaces every ObjectId, UUID and agent id wherever it stands, as a value or inside a string.
        NO_PARENT stays. Ids inside binary values (LangGraph checkpoints) are not looked for.
        `rename_object_id` and `rename_text` tell what became of an id.
        """
        return self._rewrite(
            started_at=self.started_at,
            rewrite_date=lambda date: date,
            rewrite_object_id=lambda object_id: rename_object_id(object_id, salt=salt),
            rewrite_text=lambda text: rename_text(text, salt=salt),
        )

    def _rewrite(
        self,
        *,
        started_at: datetime,
        rewrite_date: Callable[[datetime], datetime],
        rewrite_object_id: Callable[[ObjectId], ObjectId],
        rewrite_text: Callable[[str], str],
    ) -> "Recording":
        known = {identifier for event in self.events for identifier in _object_ids(_values(event))}

        def rewrite_hex(match: re.Match[str]) -> str:
            return str(rewrite_object_id(ObjectId(match[0]))) if match[0] in known else match[0]

        def rewrite(value: object) -> object:
            match value:
                case dict():
                    return {rewrite(key): rewrite(each) for key, each in value.items()}
                case list() | tuple():
                    return type(value)(rewrite(each) for each in value)
                case str():
                    return rewrite_text(_OBJECT_ID.sub(rewrite_hex, value))
                case datetime():
                    return rewrite_date(value)
                case ObjectId():
                    return rewrite_object_id(value)
                case _:
                    return value

        def rewrite_event(event: RecordedEvent) -> RecordedEvent:
            update = event.update
            return replace(
                event,
                document_key=cast("Document", rewrite(event.document_key)),
                full_document=cast("Document | None", rewrite(event.full_document)),
                update=update
                and replace(update, updated_fields=cast("Document", rewrite(update.updated_fields))),
            )

        return replace(self, started_at=started_at, events=tuple(map(rewrite_event, self.events)))


def parse_recording(name: str, text: str) -> Recording:
    """Read a recording from its lines.

    Raises TailerError with the number of the first line that is no change event.
    """
    started_at: datetime | None = None
    events: list[RecordedEvent] = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            change = json_util.loads(line, json_options=_FORMAT)
            at: datetime = change["wallTime"]
            started_at = started_at or at
            events.append(_parse_event(change, offset=at - started_at))
        except (ValueError, KeyError, TypeError, BSONError) as malformed:
            raise TailerError(
                operation="read recording",
                subject=f"{name} line {number}",
                hint=f"not a change event in extended JSON ({type(malformed).__name__}: {malformed})",
            ) from malformed
    if started_at is None:
        raise TailerError(operation="read recording", subject=name, hint="it has no events")
    return Recording(name=name, started_at=started_at, events=tuple(events))


def format_event(event: RecordedEvent, *, started_at: datetime) -> str:
    """Write an event as one line that `parse_recording` reads.

    The inverse, except for token and cluster time.
    """
    change: Document = {"operationType": event.operation, "wallTime": started_at + event.offset}
    if event.full_document is not None:
        change["fullDocument"] = event.full_document
    change["ns"] = {"db": event.database, "coll": event.collection}
    change["documentKey"] = event.document_key
    if event.update is not None:
        change["updateDescription"] = {
            "updatedFields": event.update.updated_fields,
            "removedFields": list(event.update.removed_fields),
            "truncatedArrays": [
                {"field": field, "newSize": size} for field, size in event.update.truncated_arrays
            ],
        }
    return json_util.dumps(change, json_options=_FORMAT)


def interleave(recordings: Sequence[Recording]) -> Iterator[tuple[datetime, RecordedEvent]]:
    """Merge recordings by the times of their events; the order inside each recording stays."""
    timed = (
        [(recording.started_at + event.offset, event) for event in recording.events]
        for recording in recordings
    )
    return heapq.merge(*timed, key=lambda pair: pair[0])


def demo_recordings() -> tuple[Recording, ...]:
    """The recordings that `tailer demo` plays, in the order of their names."""
    files = sorted(
        resources.files("tailer.demo").joinpath("recordings").iterdir(), key=lambda file: file.name
    )
    return tuple(
        parse_recording(file.name.removesuffix(".jsonl"), file.read_text(encoding="utf-8"))
        for file in files
        if file.name.endswith(".jsonl")
    )


def _parse_event(change: Document, *, offset: timedelta) -> RecordedEvent:
    operation = change["operationType"]
    if operation not in get_args(Operation):
        raise ValueError(f"operation {operation!r} cannot be played")
    if operation in {"insert", "replace"} and not isinstance(change.get("fullDocument"), dict):
        raise ValueError(f"{operation} without fullDocument")
    description = change["updateDescription"] if operation == "update" else None
    return RecordedEvent(
        offset=offset,
        database=change["ns"]["db"],
        collection=change["ns"]["coll"],
        operation=operation,
        document_key=change["documentKey"],
        full_document=change.get("fullDocument"),
        update=description
        and UpdateDescription(
            updated_fields=description["updatedFields"],
            removed_fields=tuple(description.get("removedFields") or ()),
            truncated_arrays=tuple(
                (array["field"], array["newSize"]) for array in description.get("truncatedArrays") or ()
            ),
        ),
    )


def _values(event: RecordedEvent) -> list[object]:
    return [event.document_key, event.full_document, event.update and event.update.updated_fields]


def _object_ids(value: object) -> Iterator[str]:
    """The hex of every ObjectId, also of those stored as a string (as `messages.user` is)."""
    match value:
        case ObjectId():
            yield str(value)
        case str() if _OBJECT_ID.fullmatch(value):
            yield value
        case dict():
            for each in value.values():
                yield from _object_ids(each)
        case list():
            for each in value:
                yield from _object_ids(each)
