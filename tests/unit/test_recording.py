"""Recordings: the file format, moving them in time, giving them fresh identities."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import ObjectId, json_util
from hypothesis import given, settings
from hypothesis import strategies as st

from tailer.demo.stage.identities import NO_PARENT, rename_object_id, rename_text
from tailer.demo.stage.recording import (
    RecordedEvent,
    Recording,
    UpdateDescription,
    format_event,
    interleave,
    parse_recording,
)
from tailer.errors import TailerError
from tests.recordings import NAMES, load, recording_path

UUID_OR_AGENT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|agent_[\w-]{21}(?=[\"|])")
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no container, with its path."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{path}.{key}")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from leaves(each, f"{path}[{index}]")
    else:
        yield path, value


def stored_values(recording: Recording) -> list[tuple[str, Any]]:
    """Every value of every document, update and key, with a path that is unique in the recording."""
    return [
        leaf
        for number, event in enumerate(recording.events)
        for part in (event.document_key, event.full_document, event.update and event.update.updated_fields)
        for leaf in leaves(part, f"{number}")
    ]


def text_of(recording: Recording) -> str:
    return "\n".join(format_event(event, started_at=recording.started_at) for event in recording.events)


@pytest.mark.parametrize("name", NAMES)
def test_every_line_of_a_recording_survives_reading_and_writing(name: str) -> None:
    """Only resume token and cluster time, which belong to the server of the recording, are left out."""
    lines = [json.loads(line) for line in recording_path(name).read_text(encoding="utf-8").splitlines()]
    expected = [
        {key: value for key, value in line.items() if key not in {"_id", "clusterTime"}} for line in lines
    ]

    assert [json.loads(line) for line in text_of(load(name)).splitlines()] == expected


@pytest.mark.parametrize("name", NAMES)
def test_events_are_recorded_in_the_order_of_their_times(name: str) -> None:
    """The offsets start at zero and never fall: interleaving relies on it."""
    offsets = [event.offset for event in load(name).events]

    assert offsets[0] == timedelta()
    assert offsets == sorted(offsets)
    assert load(name).duration == offsets[-1]


@pytest.mark.parametrize("name", NAMES)
def test_shift_moves_every_date_and_every_object_id_by_the_same_interval(name: str) -> None:
    """So every interval between stored times stays true, also between `_id` seconds and createdAt."""
    before = load(name)
    after = before.shift(NOON)
    by = after.started_at - before.started_at

    for (path, old), (_, new) in zip(stored_values(before), stored_values(after), strict=True):
        if isinstance(old, datetime):
            assert new - old == by, path
        elif isinstance(old, ObjectId):
            assert new.generation_time - old.generation_time == by, path
            assert new.binary[4:] == old.binary[4:], path
    assert [event.offset for event in after.events] == [event.offset for event in before.events]


@pytest.mark.parametrize("name", NAMES)
def test_shift_keeps_references_between_documents(name: str) -> None:
    """`messages.user` holds the hex of `users._id`, so the string moves with the ObjectId.

    Other text stays.
    """
    before, after = load(name), load(name).shift(NOON)
    moved = {
        str(old): str(new)
        for (_, old), (_, new) in zip(stored_values(before), stored_values(after), strict=True)
        if isinstance(old, ObjectId)
    }

    for (path, old), (_, new) in zip(stored_values(before), stored_values(after), strict=True):
        if path.endswith(".user") and isinstance(old, str):
            assert new == moved[old], path
        elif isinstance(old, str) and not any(identifier in old for identifier in moved):
            assert new == old, path


def test_shift_moves_a_user_id_even_when_the_user_is_not_in_the_recording() -> None:
    """The messages alone and the whole recording get the same user id."""
    whole = load("01-single-turn").shift(NOON).only({"messages"})

    assert load("01-single-turn").only({"messages"}).shift(NOON) == whole


@given(
    to=st.datetimes(
        min_value=NOON.replace(year=2000, tzinfo=None),
        max_value=NOON.replace(year=2090, tzinfo=None),
        timezones=st.just(UTC),
    )
)
@settings(max_examples=30, deadline=None)
def test_a_shifted_recording_starts_less_than_a_second_before_the_time_asked_for(to: datetime) -> None:
    """ObjectIds count whole seconds, so the recording moves by whole seconds, and never into the future."""
    started_at = load("01-single-turn").shift(to).started_at

    assert timedelta() <= to - started_at < timedelta(seconds=1)


@pytest.mark.parametrize("name", NAMES)
def test_rename_replaces_every_id_everywhere_in_the_same_way(name: str) -> None:
    """The renamed recording is the recording with each old id replaced by its new one, and nothing else."""
    before = load(name)
    text = text_of(before)
    object_ids = {str(value) for _, value in stored_values(before) if isinstance(value, ObjectId)}
    identifiers = object_ids | {match[0] for match in UUID_OR_AGENT_ID.finditer(text)} - {NO_PARENT}

    renamed = text_of(before.rename("again"))

    assert identifiers
    assert [identifier for identifier in identifiers if identifier in renamed] == []
    assert renamed.count(NO_PARENT) == text.count(NO_PARENT)
    for identifier in identifiers:
        fresh = (
            str(rename_object_id(ObjectId(identifier), salt="again"))
            if identifier in object_ids
            else rename_text(identifier, salt="again")
        )
        assert renamed.count(fresh) == text.count(identifier), identifier
        text = text.replace(identifier, fresh)
    assert renamed.splitlines() == text.splitlines()


def test_rename_gives_the_same_ids_for_the_same_salt_only() -> None:
    """Deterministic, so that a second process can find what a first one played."""
    recording = load("09-agent-tools")

    assert recording.rename("a") == recording.rename("a")
    keys = [{event.document_key["_id"] for event in recording.rename(salt).events} for salt in ("a", "b")]
    assert keys[0].isdisjoint(keys[1])


def test_rename_keeps_the_order_of_object_ids() -> None:
    """LibreChat's `_id`s rise with time inside one process; sorting by `_id` must still give that order."""
    ids = [ObjectId("6b04194b58728b6f8fb611ad"), ObjectId("6b04194b58728b6f8fb611b2")]

    assert sorted(rename_object_id(each, salt="s") for each in ids) == [
        rename_object_id(each, salt="s") for each in ids
    ]


def test_shift_and_rename_may_come_in_either_order() -> None:
    """One touches an id's first 4 bytes, the other its process part."""
    recording = load("10-files")

    assert recording.rename("x").shift(NOON) == recording.shift(NOON).rename("x")


def test_a_response_id_made_from_a_user_message_id_keeps_its_suffix() -> None:
    """LibreChat calls a cancelled response `<user message id>_`; the new ids keep that relation."""
    identifier = "7857e6c0-e7b8-4c24-bf24-87dabe373773"

    assert rename_text(f"{identifier}_", salt="s") == rename_text(identifier, salt="s") + "_"


def test_interleaved_recordings_are_ordered_by_time_and_keep_their_own_order() -> None:
    """Two recordings shifted to the same second alternate, and none overtakes itself."""
    recordings = [load(name).shift(NOON) for name in ("02-multi-turn", "04-edit-resubmit")]

    merged = list(interleave(recordings))

    assert [at for at, _ in merged] == sorted(at for at, _ in merged)
    for recording in recordings:
        own = {id(event) for event in recording.events}
        assert [event for _, event in merged if id(event) in own] == list(recording.events)


def test_an_update_with_truncated_arrays_and_removed_fields_is_read() -> None:
    """MongoDB reports a shortened array as its field and new size."""
    event = RecordedEvent(
        offset=timedelta(),
        database="LibreChat",
        collection="messages",
        operation="update",
        document_key={"_id": ObjectId()},
        update=UpdateDescription(
            updated_fields={"a.0.b": 1}, removed_fields=("c",), truncated_arrays=(("a", 2),)
        ),
    )

    recording = parse_recording("one", format_event(event, started_at=NOON))

    assert recording.events == (event,)
    assert recording.started_at == NOON


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "{}",
        '{"operationType": "drop", "wallTime": {"$date": "2030-01-01T00:00:00Z"}}',
        '{"operationType": "insert", "wallTime": {"$date": "2030-01-01T00:00:00Z"}, "ns": {}}',
    ],
)
def test_a_line_that_is_no_change_event_is_named_by_its_number(line: str) -> None:
    """A damaged recording stops at once, with the place to look at."""
    good = recording_path("01-single-turn").read_text(encoding="utf-8").splitlines()[0]

    with pytest.raises(TailerError) as raised:
        parse_recording("damaged", f"{good}\n{line}\n")

    assert raised.value.subject == "damaged line 2"


def test_a_recording_without_events_is_refused() -> None:
    """An empty file is a mistake of packaging, not a silence."""
    with pytest.raises(TailerError):
        parse_recording("empty", "")


def test_dates_are_aware() -> None:
    """So that they compare with the times of the clock."""
    recording = load("01-single-turn")

    assert recording.started_at.utcoffset() == timedelta()
    assert json_util.dumps(recording.started_at)
