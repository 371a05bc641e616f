"""The walk of a backfill: which rows, in which order, chunk by chunk."""

from datetime import UTC, datetime

import pytest
from bson import ObjectId

from tailer.core.backfill import Job, JobReason
from tailer.core.identity import LAST_SECOND, DocumentKey
from tailer.core.stream.hints import Stream
from tailer.mongo.document_keys import to_key
from tests.conformance.worlds import LibreChatWorld
from tests.rows import answer

START = 1_760_000_000


def made_at(seconds: int) -> ObjectId:
    """An `_id` that LibreChat made then."""
    return ObjectId(f"{seconds:08x}" + ObjectId().binary.hex()[8:])


async def walk(librechat: LibreChatWorld, job: Job, *, limit: int) -> list[DocumentKey]:
    """The keys of all rows, read in chunks; counted they are as many, and a chunk holds no more than it may."""
    found: list[DocumentKey] = []
    walked, after = 0, None
    while True:
        chunk = await librechat.walk.read(job, after, limit)
        assert chunk.rows_walked <= limit
        if chunk.last is None:
            break
        found += [row.key for row in chunk.rows]
        walked, after = walked + chunk.rows_walked, chunk.last
    assert await librechat.walk.count(job) == walked
    return found


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_rows_come_in_the_order_in_which_they_were_made_each_once(
    librechat: LibreChatWorld, limit: int
) -> None:
    """However many at a time; nothing at all of an empty collection."""
    assert await walk(librechat, Job("all", JobReason.ASKED), limit=limit) == []
    rows = [answer(f"a{number}", "q", _id=made_at(START - number)) for number in range(8)]
    keys = await librechat.insert("messages", *rows)

    assert await walk(librechat, Job("all", JobReason.ASKED), limit=limit) == keys[::-1]


@pytest.mark.parametrize(
    ("since", "until", "numbers"),
    [
        (START + 2, None, range(2, 6)),
        (None, START + 2, range(3)),
        (START + 1, START + 3, range(1, 4)),
        # A date in 1969, and one that no ObjectId can hold.
        (-1, None, range(6)),
        (START + 4, LAST_SECOND + 1, range(4, 6)),
        (LAST_SECOND + 1, None, range(0)),
    ],
)
async def test_a_stretch_of_time_has_both_its_ends(
    librechat: LibreChatWorld, since: int | None, until: int | None, numbers: range
) -> None:
    """By the second in which the `_id` was made; an `_id` that tells no time is in no stretch."""
    rows = [answer(f"a{number}", "q", _id=made_at(START + number)) for number in range(6)]
    keys = await librechat.insert("messages", *rows)
    await librechat.insert("messages", answer("imported", "q", _id="imported"))
    job = Job("some", JobReason.ASKED, since_seconds=since, until_seconds=until)

    assert await walk(librechat, job, limit=2) == [keys[number] for number in numbers]


async def test_one_conversation_is_walked_alone(librechat: LibreChatWorld) -> None:
    """In chunks too, and with ids of any type."""
    rows = [
        answer(f"a{number}", "q", _id=document_id, conversationId=f"c{number % 2}")
        for number, document_id in enumerate([made_at(START), made_at(START + 1), 7, 8, "x", "y"])
    ]
    keys = await librechat.insert("messages", *rows)

    found = await walk(librechat, Job("one", JobReason.ASKED, conversation_id="c1"), limit=2)

    assert found == [keys[3], keys[5], keys[1]]


async def test_rows_with_ids_of_every_type_are_walked(librechat: LibreChatWorld) -> None:
    """MongoDB sorts by type first; a comparison in the query would stop at the border of two."""
    ids = [
        40, 41, "row 1", "row 2", {"a": 1}, b"\x00\x80", made_at(START), made_at(START + 1), True,
        datetime(2026, 1, 2, tzinfo=UTC),
    ]  # fmt: skip
    keys = await librechat.insert("messages", *(answer(f"a{made}", "q", _id=made) for made in reversed(ids)))

    assert await walk(librechat, Job("all", JobReason.ASKED), limit=3) == keys[::-1]


async def test_a_row_that_is_no_message_is_walked_over(librechat: LibreChatWorld) -> None:
    """It counts as walked, and the walk goes on behind it."""
    await librechat.insert("messages", {"_id": made_at(START), "messageId": 7})
    keys = await librechat.insert("messages", answer("a1", "q", _id=made_at(START + 1)))
    job = Job("all", JobReason.ASKED)

    first = await librechat.walk.read(job, None, 1)

    assert (first.rows, first.rows_walked) == ([], 1)
    assert await walk(librechat, job, limit=1) == keys


async def test_a_walk_goes_on_after_a_row_that_is_gone(librechat: LibreChatWorld) -> None:
    """What came before it is not read again, what came after it is."""
    keys = await librechat.insert(
        "messages", *(answer(f"a{number}", "q", _id=made_at(START + number)) for number in range(4))
    )
    await librechat.delete("messages", keys[1])

    chunk = await librechat.walk.read(Job("all", JobReason.ASKED), keys[1], 10)
    end = await librechat.walk.read(Job("all", JobReason.ASKED), to_key(made_at(START + 9)), 10)

    assert [row.key for row in chunk.rows] == keys[2:]
    assert (end.last, end.rows_walked) == (None, 0)


@pytest.mark.parametrize("stream", [Stream.CONVERSATIONS, Stream.TRANSACTIONS])
async def test_other_collections_are_walked_by_key_alone(librechat: LibreChatWorld, stream: Stream) -> None:
    """A gap of their streams is filled from them, and from nothing else."""
    await librechat.insert("messages", answer("a1", "q1", _id=made_at(START)))
    keys = await librechat.insert(
        stream.value, *({"_id": made_at(START + number), "conversationId": "c"} for number in range(5))
    )
    job = Job("gap", JobReason.GAP, since_seconds=START + 1, until_seconds=START + 3, stream=stream)

    first = await librechat.walk.read(job, None, 2)
    rest = await librechat.walk.read(job, first.last, 2)

    assert [*first.keys, *rest.keys] == keys[1:4]
    assert (first.rows, first.rows_walked, rest.rows_walked) == ((), 2, 1)
    assert await librechat.walk.count(job) == 3
